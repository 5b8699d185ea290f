//! What a profile means, said as plainly as possible.
//!
//! Contract: a [`Model`] answers calls from the profile itself, without any filter. It
//! gives `None` where several rules with different actions hold, as precedence is
//! libseccomp's to say.

use super::{MULTIPLEXED, Prefix, value};
use carrack_seccomp::{Arch, SeccompData, syscall_number};
use carrack_spec::runtime::{Seccomp, SeccompArg};
use std::collections::BTreeMap;

/// Sub-calls of `socketcall` are 1 to 20 in order, then those of `ipc`.
const IPC: [u64; 12] = [1, 2, 3, 4, 11, 12, 13, 14, 21, 22, 23, 24];

fn holds(arg: &SeccompArg, wide: bool, data: &SeccompData) -> bool {
    let seen = |v: u64| if wide { v } else { v & 0xffff_ffff };
    let a = seen(data.args[arg.index as usize]);
    let v = seen(arg.value);
    match arg.op.as_str() {
        "SCMP_CMP_EQ" => a == v,
        "SCMP_CMP_NE" => a != v,
        "SCMP_CMP_LT" => a < v,
        "SCMP_CMP_LE" => a <= v,
        "SCMP_CMP_GT" => a > v,
        "SCMP_CMP_GE" => a >= v,
        "SCMP_CMP_MASKED_EQ" => a & v == seen(arg.value_two) & v,
        other => panic!("{other}"),
    }
}

fn always(arg: &SeccompArg, wide: bool) -> bool {
    let mask = if wide {
        arg.value
    } else {
        arg.value & 0xffff_ffff
    };
    arg.op == "SCMP_CMP_MASKED_EQ" && mask == 0
}

/// A rule on one call of one architecture.
struct OnCall<'a> {
    action: u32,
    all_of: &'a [SeccompArg],
    /// The sub-call, when the call is a multiplexer and the rule is for another name.
    sub_call: Option<u64>,
}

/// A profile, sorted by calls.
pub struct Model<'a> {
    prefix: Prefix,
    default: u32,
    served: Vec<Arch>,
    calls: BTreeMap<(Arch, u32), Vec<OnCall<'a>>>,
}

impl<'a> Model<'a> {
    pub fn new(profile: &'a Seccomp, native: Arch) -> Model<'a> {
        let named = profile.architectures.iter();
        let mut model = Model {
            prefix: Prefix::new(profile, native),
            default: value(&profile.default_action, profile.default_errno_ret),
            served: named
                .filter_map(|name| Arch::from_name(name))
                .chain([native])
                .collect(),
            calls: BTreeMap::new(),
        };
        for rule in &profile.syscalls {
            let action = value(&rule.action, rule.errno_ret);
            if action != model.default {
                for name in &rule.names {
                    model.add(action, name, &rule.args);
                }
            }
        }
        model
    }

    fn add(&mut self, action: u32, name: &str, args: &'a [SeccompArg]) {
        let split = (0..6).any(|i| args.iter().filter(|a| a.index == i).count() > 1);
        let any_of: Vec<&[SeccompArg]> = if split {
            args.chunks(1).collect()
        } else {
            vec![args]
        };
        for &arch in &self.served {
            let mut places = Vec::new();
            places.extend(syscall_number(arch, name).map(|number| (number, None)));
            let at = MULTIPLEXED.iter().position(|m| *m == name);
            match at.filter(|_| arch == Arch::X86) {
                Some(i @ 0..20) => places.push((102, Some(i as u64 + 1))),
                Some(i) => places.push((117, Some(IPC[i - 20]))),
                None => {}
            }
            for (number, sub_call) in places {
                let rules = any_of.iter().map(|all_of| OnCall {
                    action,
                    all_of,
                    sub_call,
                });
                self.calls.entry((arch, number)).or_default().extend(rules);
            }
        }
    }

    /// The architecture of a call, if the profile serves it.
    fn arch(&self, data: &SeccompData) -> Option<Arch> {
        let served = |arch| self.served.contains(&arch).then_some(arch);
        if data.arch != Arch::X86_64.audit() {
            let mut known = self.served.iter().copied();
            return known.find(|arch| arch.audit() == data.arch);
        }
        match (served(Arch::X32), data.nr) {
            // No number at all, what tracers use to skip a call.
            (None, u32::MAX) => served(Arch::X86_64),
            (None, 0x4000_0000..) => None,
            (x32, nr) if nr & 0x4000_0000 != 0 => x32,
            _ => served(Arch::X86_64),
        }
    }

    /// What a call gets.
    pub fn decide(&self, data: &SeccompData) -> Option<u32> {
        if self.prefix.applies(data) {
            return Some(0x0005_0026);
        }
        let Some(arch) = self.arch(data) else {
            return Some(0);
        };
        let Some(rules) = self.calls.get(&(arch, data.nr)) else {
            return Some(self.default);
        };
        // x32 and n32 are 32-bit ABIs on 64-bit machines.
        let narrow = [Arch::X32, Arch::Mips64N32, Arch::Mipsel64N32].contains(&arch);
        let wide = !narrow && arch.audit() & 0x8000_0000 != 0;
        let mut holding = Vec::new();
        for rule in rules {
            let here = match rule.sub_call {
                None if rule.all_of.iter().all(|a| always(a, wide)) => return Some(rule.action),
                None => rule.all_of.iter().all(|a| holds(a, wide, data)),
                Some(sub_call) => {
                    let mut others = rule.all_of.iter().filter(|a| a.index != 0);
                    data.args[0] & 0xffff_ffff == sub_call && others.all(|a| holds(a, wide, data))
                }
            };
            if here {
                holding.push(rule.action);
            }
        }
        holding.dedup();
        match holding[..] {
            [] => Some(self.default),
            [action] => Some(action),
            _ => None,
        }
    }
}
