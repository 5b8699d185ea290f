//! Every decision of our filters against libseccomp's, as runc makes them.
//!
//! Both filters are interpreted over every system call number, the x32 range, numbers
//! at the edges, foreign architectures, and for calls with conditions over arguments
//! at and around every value of the conditions. Skips, and says so, where libseccomp
//! cannot be built against. `SECCOMP_CASES=N` sets how many random profiles are tried.

mod oracle;

use carrack_seccomp::{Arch, Program, SeccompData, compile, simulate, syscall_names};
use carrack_spec::runtime::{Seccomp, SeccompArg, SeccompRule};
use oracle::{Oracle, Prefix, Refusal, compares_stale_word, decide, model::Model};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];
const OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];
const X86: [Arch; 3] = [Arch::X86_64, Arch::X86, Arch::X32];

fn oracle(test: &str) -> Option<Oracle> {
    Oracle::start(test)
        .inspect_err(|why| println!("SKIP {test}: {why}"))
        .ok()
}

/// Numbers worth asking about.
fn numbers() -> impl Iterator<Item = u32> {
    let edges = [
        0x3fff_ffff,
        0x7fff_ffff,
        0x8000_0000,
        0xbfff_ffff,
        0xc000_0000,
        0xc000_0014,
        0xffff_fffe,
        0xffff_ffff,
        0x000f_0001,
        0x000f_0005,
        0x000f_0007,
    ];
    (0..620).chain(0x4000_0000..0x4000_0000 + 620).chain(edges)
}

/// Argument values around those of a profile's conditions.
fn values(profile: &Seccomp) -> Vec<u64> {
    let mut values = vec![0, 1, u64::MAX, 1 << 32, 0xffff_ffff];
    for arg in profile.syscalls.iter().flat_map(|rule| &rule.args) {
        for v in [arg.value, arg.value_two, arg.value & arg.value_two] {
            values.extend([v, v.wrapping_add(1), v.wrapping_sub(1), v ^ (1 << 32)]);
            values.extend([v & 0xffff_ffff, v | 0xffff_ffff_0000_0000, !v]);
            values.push(v.wrapping_add(1 << 32));
        }
    }
    values.sort_unstable();
    values.dedup();
    values
}

/// Compares two filters with each other and with the profile itself. `Ok(false)` says
/// that libseccomp's alone is wrong, the error shows a call on which ours may be.
fn compare(
    profile: &Seccomp,
    native: Arch,
    archs: &[Arch],
    ours: &Program,
    theirs: &Program,
    rng: &mut TestRng,
) -> Result<bool, String> {
    let prefix = Prefix::new(profile, native);
    let model = Model::new(profile, native);
    let excused = shares_a_bound(profile);
    let mut right = true;
    let mut one = |data: &SeccompData| {
        let (a, b) = (simulate(ours, data), decide(&prefix, theirs, data));
        let meant = model.decide(data);
        right &= a == b;
        if a == meant.unwrap_or(b) || (meant.is_none() && excused) {
            return Ok(());
        }
        Err(format!(
            "{data:x?}: ours {a:#010x}, theirs {b:#010x}, meant {meant:x?}"
        ))
    };
    for arch in archs
        .iter()
        .map(|arch| arch.audit())
        .chain([0x4000_0028, 0])
    {
        for nr in numbers() {
            one(&SeccompData {
                nr,
                arch,
                ..SeccompData::default()
            })?;
        }
    }
    let values = values(profile);
    let any = |rng: &mut TestRng| values[rng.random_range(0..values.len())];
    for &arch in archs {
        let rules = profile.syscalls.iter().filter(|rule| !rule.args.is_empty());
        let mut asked: Vec<u32> = rules
            .flat_map(|rule| &rule.names)
            .filter_map(|name| carrack_seccomp::syscall_number(arch, name))
            .collect();
        if arch == Arch::X86 {
            asked.extend([102, 117]);
        }
        asked.sort_unstable();
        asked.dedup();
        asked.truncate(40);
        for nr in asked {
            let mut data = SeccompData {
                nr,
                arch: arch.audit(),
                ..SeccompData::default()
            };
            for at in 0..6 {
                for &value in &values {
                    data.args = std::array::from_fn(|_| any(rng));
                    data.args[at] = value;
                    if matches!(nr, 102 | 117) && at != 0 {
                        data.args[0] = u64::from(rng.random_range(0..25u32));
                    }
                    one(&data)?;
                }
            }
        }
    }
    Ok(right)
}

/// Whether two rules compare one argument of one call, other than for equality, with
/// values of the same upper half. libseccomp makes one node of that half and lets it
/// decide for both rules: the action of the first is taken for both, and a rule with
/// more conditions is dropped though the other does not cover it.
fn shares_a_bound(profile: &Seccomp) -> bool {
    let bounds: Vec<_> = (profile.syscalls.iter().enumerate())
        .flat_map(|(i, rule)| rule.args.iter().map(move |arg| (i, rule, arg)))
        .filter(|(.., arg)| !arg.op.ends_with("EQ"))
        .collect();
    bounds.iter().any(|(i, rule, arg)| {
        bounds.iter().any(|(j, other, bound)| {
            i < j
                && rule.names.iter().any(|name| other.names.contains(name))
                && arg.index == bound.index
                && arg.value >> 32 == bound.value >> 32
        })
    })
}

/// What a round of random profiles shall hold.
#[derive(Clone, Copy)]
struct Shape {
    /// Each call has conditions in rules of one action alone.
    one_action: bool,
    /// Conditions overlap much.
    crowded: bool,
    native: Arch,
    archs: &'static [Arch],
}

/// Conditions on few arguments with few values, so that rules overlap.
fn crowded_arg() -> impl Strategy<Value = SeccompArg> {
    let value = prop_oneof![
        0u64..4,
        (0u64..4).prop_map(|v| (1 << 32) + v),
        Just(u64::from(u32::MAX)),
    ];
    (0u32..3, 0..OPERATORS.len(), value.clone(), value).prop_map(|(index, op, value, value_two)| {
        SeccompArg {
            index,
            op: OPERATORS[op].into(),
            value,
            value_two,
        }
    })
}

fn arg() -> impl Strategy<Value = SeccompArg> {
    let value = prop_oneof![
        0u64..6,
        Just(u64::from(u32::MAX)),
        Just(1 << 32),
        Just((1 << 32) + 1),
        Just((3 << 32) + 2),
        Just(u64::MAX),
        any::<u64>(),
        (0u32..64).prop_map(|bit| 1 << bit),
    ];
    (0u32..6, 0..OPERATORS.len(), value.clone(), value).prop_map(|(index, op, value, value_two)| {
        SeccompArg {
            index,
            op: OPERATORS[op].into(),
            value,
            value_two,
        }
    })
}

fn action() -> impl Strategy<Value = (String, Option<u32>)> {
    (0..ACTIONS.len(), proptest::option::of(0u32..40)).prop_map(|(i, errno)| {
        let carries = matches!(ACTIONS[i], "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE");
        (ACTIONS[i].to_owned(), errno.filter(|_| carries))
    })
}

fn rule(
    names: Vec<String>,
    args: BoxedStrategy<Vec<SeccompArg>>,
) -> impl Strategy<Value = SeccompRule> {
    let names = proptest::sample::subsequence(names.clone(), 1..=names.len().min(30));
    (names, action(), args).prop_map(|(names, (action, errno_ret), args)| SeccompRule {
        names,
        action,
        errno_ret,
        args,
    })
}

fn profile(names: Vec<String>, shape: Shape) -> impl Strategy<Value = Seccomp> {
    let few = proptest::sample::subsequence(names.clone(), 1..6);
    let args = match shape.crowded {
        true => proptest::collection::vec(crowded_arg(), 1..4).boxed(),
        false => proptest::collection::vec(arg(), 0..4).boxed(),
    };
    let rules = few.prop_flat_map(move |few| {
        (
            proptest::collection::vec(rule(names.clone(), Just(Vec::new()).boxed()), 0..4),
            proptest::collection::vec(rule(few, args.clone()), 0..8),
        )
    });
    let archs = proptest::sample::subsequence(shape.archs.to_vec(), 0..=shape.archs.len());
    let default = action().prop_filter("notify", |(action, _)| action != "SCMP_ACT_NOTIFY");
    (default, rules, archs).prop_map(move |((action, errno), (plain, mut cases), archs)| {
        if shape.one_action
            && let Some(first) = cases.first().cloned()
        {
            for rule in &mut cases {
                (rule.action, rule.errno_ret) = (first.action.clone(), first.errno_ret);
            }
        }
        let mut syscalls = cases;
        syscalls.extend(plain);
        Seccomp {
            default_action: action,
            default_errno_ret: errno,
            architectures: archs.iter().map(|arch| arch.name().to_owned()).collect(),
            syscalls,
            ..Seccomp::default()
        }
    })
}

fn random_profiles(test: &str, shape: Shape, cases: u32) {
    let Some(mut oracle) = oracle(test) else {
        return;
    };
    let mut all = shape.archs.to_vec();
    all.push(shape.native);
    // The helper translates names through the machine's own architecture.
    let names: Vec<String> = syscall_names()
        .filter(|name| oracle.agrees(&all, name) && oracle.number(Arch::X86_64, name) != -1)
        .map(str::to_owned)
        .collect();
    assert!(names.len() > 250, "only {} names in common", names.len());
    let mut rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::deterministic();
    let more = std::env::var("SECCOMP_CASES").ok();
    let cases = more.and_then(|n| n.parse().ok()).unwrap_or(cases);
    let (mut compared, mut refused, mut stale, mut died) = (0, 0, 0, 0);
    let strategy = profile(names, shape);
    for _ in 0..cases {
        let profile = strategy.new_tree(&mut runner).expect("a profile").current();
        let theirs = oracle.filter(&profile, shape.native);
        let ours = compile(&profile, shape.native);
        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) if compares_stale_word(&theirs) => {
                ours.check().expect("a valid program");
                stale += 1;
            }
            (Ok(ours), Ok(theirs)) => {
                ours.check().expect("a valid program");
                let text = || serde_json::to_string(&profile).expect("json");
                match compare(&profile, shape.native, &all, &ours, &theirs, &mut rng) {
                    Ok(true) => compared += 1,
                    Ok(false) if shares_a_bound(&profile) => stale += 1,
                    Ok(false) => panic!("libseccomp differs, and not as known\n{}", text()),
                    Err(difference) => panic!("{difference}\n{}", text()),
                }
            }
            (Err(_), Ok(_)) if shares_a_bound(&profile) => stale += 1,
            (Err(ours), Ok(_)) => {
                let text = serde_json::to_string(&profile).expect("json");
                panic!("only we refuse: {ours}\n{text}");
            }
            (_, Err(Refusal::Errno(_))) => refused += 1,
            (_, Err(Refusal::Dies)) => died += 1,
        }
    }
    println!(
        "{test}: {compared} filters compared, {refused} refused by libseccomp, \
         {stale} of its filters skipped for its defect, it died {died} times"
    );
    assert!(compared > cases / 4, "too few comparisons");
}

#[test]
fn random_profiles_decide_as_libseccomp_on_x86() {
    let shape = Shape {
        one_action: true,
        crowded: false,
        native: Arch::X86_64,
        archs: &X86,
    };
    random_profiles("x86", shape, 250);
}

#[test]
fn conflicting_actions_take_precedence_as_in_libseccomp() {
    let shape = Shape {
        one_action: false,
        crowded: true,
        native: Arch::X86_64,
        archs: &[],
    };
    random_profiles("precedence", shape, 250);
}

#[test]
fn random_profiles_decide_as_libseccomp_on_other_machines() {
    for (test, native, archs) in [
        ("arm", Arch::Aarch64, &[Arch::Arm][..]),
        ("riscv", Arch::Riscv64, &[]),
        ("mips", Arch::Mipsel64, &[Arch::Mipsel64N32]),
    ] {
        let shape = Shape {
            one_action: true,
            crowded: false,
            native,
            archs,
        };
        random_profiles(test, shape, 60);
    }
}

#[test]
fn crowded_profiles_decide_as_libseccomp_on_x86() {
    let shape = Shape {
        one_action: true,
        crowded: true,
        native: Arch::X86_64,
        archs: &X86,
    };
    random_profiles("crowded", shape, 120);
}
