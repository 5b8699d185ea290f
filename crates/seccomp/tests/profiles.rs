//! Profiles in, decisions or errors out, without any other library at hand.

use carrack_seccomp::{
    ARCHS, Arch, CompileError, DecodeError, FLAG_LOG, FLAG_SPEC_ALLOW, FLAG_WAIT_KILLABLE_RECV,
    FLAGS, INSTRUCTIONS_MAX, Program, SeccompData, compile, ignored_names, is_empty, simulate,
    syscall_names, syscall_number,
};
use carrack_spec::runtime::Seccomp;
use proptest::prelude::*;
use serde_json::json;

const ALLOW: u32 = 0x7fff_0000;
const ENOSYS: u32 = 0x0005_0026;

fn profile(value: serde_json::Value) -> Seccomp {
    serde_json::from_value(value).unwrap()
}

fn compiled(value: serde_json::Value) -> Program {
    let program = compile(&profile(value), Arch::X86_64).unwrap();
    program.check().unwrap();
    program
}

fn error(value: serde_json::Value) -> String {
    compile(&profile(value), Arch::X86_64)
        .unwrap_err()
        .to_string()
}

fn call(arch: Arch, name: &str, args: [u64; 6]) -> SeccompData {
    SeccompData {
        nr: syscall_number(arch, name).unwrap(),
        arch: arch.audit(),
        args,
        ..SeccompData::default()
    }
}

#[test]
fn each_action_returns_its_value() {
    for (action, errno, value) in [
        ("SCMP_ACT_KILL", None, 0),
        ("SCMP_ACT_KILL_THREAD", None, 0),
        ("SCMP_ACT_KILL_PROCESS", None, 0x8000_0000),
        ("SCMP_ACT_TRAP", None, 0x0003_0000),
        ("SCMP_ACT_ERRNO", None, 0x0005_0001),
        ("SCMP_ACT_ERRNO", Some(0), 0x0005_0000),
        ("SCMP_ACT_ERRNO", Some(38), ENOSYS),
        ("SCMP_ACT_TRACE", None, 0x7ff0_0001),
        ("SCMP_ACT_TRACE", Some(0xffff), 0x7ff0_ffff),
        ("SCMP_ACT_ALLOW", None, ALLOW),
        ("SCMP_ACT_LOG", None, 0x7ffc_0000),
        ("SCMP_ACT_NOTIFY", None, 0x7fc0_0000),
    ] {
        let program = compiled(json!({
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 5,
            "syscalls": [{"names": ["getpid", "statx"], "action": action, "errnoRet": errno}],
        }));
        let getpid = call(Arch::X86_64, "getpid", [0; 6]);
        assert_eq!(simulate(&program, &getpid), value, "{action} {errno:?}");
        assert_eq!(program.listener, action == "SCMP_ACT_NOTIFY");
        let other = call(Arch::X86_64, "getppid", [0; 6]);
        assert_eq!(simulate(&program, &other), 0x0005_0005);
        let newer = call(Arch::X86_64, "openat2", [0; 6]);
        assert_eq!(simulate(&program, &newer), ENOSYS);
    }
}

#[test]
fn a_default_that_lets_calls_through_also_does_so_for_newer_ones() {
    for (action, value) in [
        ("SCMP_ACT_ALLOW", ALLOW),
        ("SCMP_ACT_LOG", 0x7ffc_0000),
        ("SCMP_ACT_TRACE", 0x7ff0_0001),
    ] {
        let program = compiled(json!({
            "defaultAction": action,
            "syscalls": [{"names": ["getpid"], "action": "SCMP_ACT_KILL"}],
        }));
        let newer = call(Arch::X86_64, "openat2", [0; 6]);
        assert_eq!(simulate(&program, &newer), value);
    }
}

#[test]
fn flags_become_bits_and_absent_is_not_empty() {
    let flags = |flags: serde_json::Value| {
        compiled(json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": flags})).flags
    };
    assert_eq!(flags(serde_json::Value::Null), FLAG_SPEC_ALLOW);
    assert_eq!(flags(json!([])), 0);
    assert_eq!(flags(json!(["SECCOMP_FILTER_FLAG_TSYNC"])), 0);
    assert_eq!(
        flags(json!(FLAGS)),
        FLAG_LOG | FLAG_SPEC_ALLOW | FLAG_WAIT_KILLABLE_RECV
    );
}

#[test]
fn errors_name_the_field_and_what_is_wrong_with_it() {
    let rule = |rule: serde_json::Value| {
        json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW"}, rule]})
    };
    for (value, begin) in [
        (json!({}), "linux.seccomp.defaultAction: unknown value \"\""),
        (
            json!({"defaultAction": "SCMP_ACT_NOTIFY"}),
            "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be the default",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}),
            "linux.seccomp.defaultErrnoRet: SCMP_ACT_ALLOW carries no errno",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_X"]}),
            "linux.seccomp.flags[0]: unknown value",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86", "VAX"]}),
            "linux.seccomp.architectures[1]: unknown value \"VAX\"",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_S390X"]}),
            "linux.seccomp.architectures[0]: SCMP_ARCH_S390X has not the byte order",
        ),
        (
            rule(json!({"names": ["read"], "action": "ALLOW"})),
            "linux.seccomp.syscalls[1].action: unknown value \"ALLOW\"",
        ),
        (
            rule(json!({"names": ["read"], "action": "SCMP_ACT_KILL", "errnoRet": 1})),
            "linux.seccomp.syscalls[1].errnoRet: SCMP_ACT_KILL carries no errno",
        ),
        (
            rule(json!({"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4096})),
            "linux.seccomp.syscalls[1].errnoRet: 4096 is above 4095",
        ),
        (
            rule(json!({"names": [], "action": "SCMP_ACT_KILL"})),
            "linux.seccomp.syscalls[1]: names is empty",
        ),
        (
            rule(json!({"names": ["read", ""], "action": "SCMP_ACT_ALLOW"})),
            "linux.seccomp.syscalls[1].names[1]: the name is empty",
        ),
        (
            rule(json!({"names": ["read"], "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]})),
            "linux.seccomp.syscalls[1].args[0].index: 6 is above 5",
        ),
        (
            rule(json!({"names": ["read"], "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 0, "value": 0, "op": "EQ"}]})),
            "linux.seccomp.syscalls[1].args[0].op: unknown value \"EQ\"",
        ),
    ] {
        let text = error(value);
        assert!(text.starts_with(begin), "{text}");
    }
}

#[test]
fn rules_that_contradict_each_other_are_an_error() {
    let condition = json!([{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]);
    let text = error(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["close"], "action": "SCMP_ACT_ALLOW", "args": condition},
        {"names": ["read", "close"], "action": "SCMP_ACT_KILL", "args": condition},
    ]}));
    assert_eq!(
        text,
        "linux.seccomp.syscalls[1]: contradicts linux.seccomp.syscalls[0]: \
         same conditions on close (SCMP_ARCH_X86_64), different action"
    );
}

#[test]
fn too_many_conditions_are_an_error() {
    let rules: Vec<_> = (0..5000u64)
        .map(|n| {
            json!({"names": ["ioctl"], "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 1, "value": n * 7, "op": "SCMP_CMP_EQ"}]})
        })
        .collect();
    let all = profile(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}));
    assert_eq!(compile(&all, Arch::X86_64), Err(CompileError::TooLong));
    let some = Seccomp {
        syscalls: all.syscalls[..3900].to_vec(),
        ..all
    };
    let program = compile(&some, Arch::X86_64).unwrap();
    assert!(program.instructions.len() <= INSTRUCTIONS_MAX);
    for (arg, value) in [(0, ALLOW), (7, ALLOW), (8, 0x0005_0001), (3899 * 7, ALLOW)] {
        let data = call(Arch::X86_64, "ioctl", [0, arg, 0, 0, 0, 0]);
        assert_eq!(simulate(&program, &data), value);
    }
}

#[test]
fn socket_rules_reach_socketcall_on_x86() {
    let program = compiled(json!({
        "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"],
        "syscalls": [{"names": ["socket", "statx"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]}],
    }));
    let value = |name, args| simulate(&program, &call(Arch::X86, name, args));
    assert_eq!(value("socket", [40, 0, 0, 0, 0, 0]), 0x0005_0001);
    assert_eq!(value("socket", [2, 0, 0, 0, 0, 0]), ALLOW);
    // The family lies behind a pointer there, so the condition cannot hold.
    assert_eq!(value("socketcall", [1, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(value("socketcall", [2, 0, 0, 0, 0, 0]), 0x0005_0001);
}

#[test]
fn foreign_architectures_are_killed_and_named_ones_are_not() {
    let program = compiled(json!({
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"],
    }));
    for (arch, nr, value) in [
        (Arch::X86_64, 0, ALLOW),
        (Arch::X86_64, u32::MAX, ALLOW),
        (Arch::X86, 0, ALLOW),
        (Arch::X32, 0x4000_0000, 0),
        (Arch::Arm, 0, 0),
    ] {
        let data = SeccompData {
            nr,
            arch: arch.audit(),
            ..SeccompData::default()
        };
        assert_eq!(simulate(&program, &data), value, "{arch:?}");
    }
}

/// Everything a common default profile allows, roughly: all calls but some.
#[test]
fn a_profile_of_many_names_becomes_a_small_tree() {
    let refused = [
        "acct",
        "bpf",
        "delete_module",
        "init_module",
        "kexec_load",
        "mount",
        "pivot_root",
        "ptrace",
        "reboot",
        "setns",
        "swapon",
        "umount2",
        "unshare",
        "userfaultfd",
        "personality",
    ];
    let names: Vec<_> = syscall_names().filter(|n| !refused.contains(n)).collect();
    let personality: Vec<_> = [0, 8, 0x20000, 0x20008, 0xffff_ffffu32]
        .map(|value| {
            json!({"names": ["personality"], "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]})
        })
        .into();
    let mut rules = personality;
    rules.push(json!({"names": names, "action": "SCMP_ACT_ALLOW"}));
    let program = compiled(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    }));
    let length = program.instructions.len();
    assert!(length < 200, "{length} instructions");
}

#[test]
fn who_may_notify_is_known_without_arguments() {
    let program = compiled(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["write"], "action": "SCMP_ACT_NOTIFY",
             "args": [{"index": 0, "value": 9, "op": "SCMP_CMP_EQ"}]},
            {"names": ["read"], "action": "SCMP_ACT_ERRNO"},
        ],
    }));
    let audit = Arch::X86_64.audit();
    assert!(program.may_notify(audit, 1));
    assert!(!program.may_notify(audit, 0));
    assert!(!program.may_notify(audit, 2));
    assert!(!program.may_notify(Arch::X86.audit(), 1));
    assert!(program.may_return(audit, 0, |value| value == 0x0005_0001));
}

#[test]
fn names_that_no_architecture_has_are_told() {
    let profile = profile(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": ["read", "made_up", "socketcall", "a", "made_up"],
            "action": "SCMP_ACT_ALLOW"}],
    }));
    assert_eq!(ignored_names(&profile), ["a", "made_up"]);
    assert!(!is_empty(&profile));
    assert!(is_empty(&Seccomp::default()));
}

#[test]
fn every_architecture_can_be_native() {
    for name in ARCHS {
        let arch = Arch::from_name(name).unwrap();
        let profile = profile(json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{"names": ["read", "write", "statx"], "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 1, "value": 1u64 << 40, "op": "SCMP_CMP_LT"}]}],
        }));
        let program = compile(&profile, arch).unwrap();
        program.check().unwrap();
        let other = SeccompData::default();
        assert_eq!(simulate(&program, &other), 0, "{name}");
    }
}

#[test]
fn stored_programs_come_back_and_damaged_ones_do_not() {
    let program = compiled(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": ["read", "statx"], "action": "SCMP_ACT_NOTIFY",
            "args": [{"index": 0, "value": 6, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"}]}],
    }));
    let bytes = program.to_bytes();
    assert_eq!(Program::from_bytes(&bytes).as_ref(), Ok(&program));
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            assert!(
                Program::from_bytes(&damaged).is_err(),
                "byte {at} bit {bit}"
            );
        }
        let cut = Program::from_bytes(&bytes[..at]);
        assert!(matches!(cut, Err(DecodeError::Length { .. })), "{at}");
    }
}

#[test]
fn programs_that_are_no_filter_are_refused_whatever_the_checksum() {
    let good = compiled(json!({"defaultAction": "SCMP_ACT_ALLOW"}));
    let spoil = |change: fn(&mut Program)| {
        let mut program = good.clone();
        change(&mut program);
        Program::from_bytes(&program.to_bytes()).unwrap_err()
    };
    for (name, change) in [
        ("empty", (|p| p.instructions.clear()) as fn(&mut Program)),
        ("open end", |p| p.instructions.truncate(1)),
        ("far jump", |p| p.instructions[1].jt = 200),
        ("odd load", |p| p.instructions[0].k = 2),
        ("load beyond the data", |p| p.instructions[0].k = 64),
        ("store", |p| p.instructions[0].code = 2),
        ("unknown action", |p| {
            p.instructions.last_mut().unwrap().k = 0x1234_0000;
        }),
        ("allow with data", |p| {
            p.instructions.last_mut().unwrap().k = 0x7fff_0001;
        }),
        ("unannounced listener", |p| {
            p.instructions.last_mut().unwrap().k = 0x7fc0_0000;
        }),
        ("unknown flag", |p| p.flags = 1 << 3),
    ] {
        assert!(matches!(spoil(change), DecodeError::Invalid(_)), "{name}");
    }
}

/// Words that profiles are made of, and some that they are not.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(vec![
            "SCMP_ACT_ALLOW",
            "SCMP_ACT_ERRNO",
            "SCMP_ACT_NOTIFY",
            "SCMP_ARCH_X86",
            "SCMP_ARCH_X32",
            "SCMP_ARCH_S390X",
            "SCMP_CMP_EQ",
            "SCMP_CMP_LT",
            "SCMP_CMP_MASKED_EQ",
            "SECCOMP_FILTER_FLAG_LOG",
            "read",
            "socket",
            "ipc",
            "",
        ])
        .prop_map(str::to_owned),
        ".{0,8}",
    ]
}

fn any_profile() -> impl Strategy<Value = Seccomp> {
    let number = || prop_oneof![0u64..8, any::<u64>()];
    let arg = (0u32..8, number(), number(), word()).prop_map(|(index, value, value_two, op)| {
        json!({"index": index, "value": value, "valueTwo": value_two, "op": op})
    });
    let rule = (
        proptest::collection::vec(word(), 0..4),
        word(),
        proptest::option::of(any::<u32>()),
        proptest::collection::vec(arg, 0..4),
    );
    let rule = rule.prop_map(|(names, action, errno, args)| {
        json!({"names": names, "action": action, "errnoRet": errno, "args": args})
    });
    let words = || proptest::collection::vec(word(), 0..3);
    (
        word(),
        words(),
        words(),
        proptest::collection::vec(rule, 0..5),
    )
        .prop_map(|(action, archs, flags, rules)| {
            profile(json!({
                "defaultAction": action, "architectures": archs, "flags": flags,
                "syscalls": rules,
            }))
        })
}

proptest! {
    #[test]
    fn no_profile_makes_the_compiler_panic(
        profile in any_profile(), native in proptest::sample::select(&Arch::ALL[..]),
    ) {
        if let Ok(program) = compile(&profile, native) {
            prop_assert_eq!(program.check(), Ok(()));
            prop_assert_eq!(Program::from_bytes(&program.to_bytes()), Ok(program));
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Program::from_bytes(&bytes);
    }
}
