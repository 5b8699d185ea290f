//! From a profile to what each system call of each architecture gets.
//!
//! Contract: [`Rules::parse`] checks every word of the profile, also of rules that
//! then have no effect. [`Rules::calls`] spreads the rules over the numbers of one
//! architecture.
//!
//! What runc and libseccomp do, and this module does too:
//!
//! - A rule whose returned value is the default's is skipped.
//! - When several conditions of one rule are on the same argument, each condition of
//!   that rule is a rule of its own; otherwise all conditions must hold.
//! - A masked comparison with an empty mask always holds and is dropped. On 32-bit
//!   ABIs conditions see the lower half of arguments alone, so there a mask counts as
//!   empty when its lower half is.
//! - The first rule without conditions decides a call; rules with conditions, before
//!   or after, are then dropped.
//! - Names that an architecture lacks are skipped there, names that no architecture
//!   has are skipped everywhere.
//! - Where sockets and System V IPC are also multiplexed (x86, MIPS o32, PowerPC,
//!   s390), a rule for `socket` and its like also applies to `socketcall` (`ipc`)
//!   with that sub-call: its condition on argument 0 is replaced by the sub-call,
//!   conditions on other arguments stay as they are, though they then look at
//!   `socketcall`'s own arguments.

use crate::action::{self, RET_USER_NOTIF};
use crate::arch::Arch;
use crate::error::{CompileError, Field};
use crate::syscalls::{self, Finder, Multiplexer};
use carrack_spec::runtime::{Seccomp, SeccompArg, SeccompRule};
use std::collections::BTreeMap;

/// How a condition compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operator {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

/// A condition on an argument: `arg & mask OPERATOR value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Condition {
    pub arg: u8,
    pub op: Operator,
    pub mask: u64,
    pub value: u64,
}

impl Condition {
    fn parse(arg: &SeccompArg, rule: usize, at: usize) -> Result<Condition, CompileError> {
        let index = match u8::try_from(arg.index) {
            Ok(index @ 0..=5) => index,
            _ => {
                return Err(CompileError::ArgIndex {
                    field: Field::ArgIndex(rule, at),
                    index: arg.index,
                });
            }
        };
        let whole = |op| (op, u64::MAX, arg.value);
        let (op, mask, value) = match arg.op.as_str() {
            "SCMP_CMP_EQ" => whole(Operator::Eq),
            "SCMP_CMP_NE" => whole(Operator::Ne),
            "SCMP_CMP_LT" => whole(Operator::Lt),
            "SCMP_CMP_LE" => whole(Operator::Le),
            "SCMP_CMP_GT" => whole(Operator::Gt),
            "SCMP_CMP_GE" => whole(Operator::Ge),
            "SCMP_CMP_MASKED_EQ" => (Operator::Eq, arg.value, arg.value_two & arg.value),
            other => {
                let field = Field::ArgOp(rule, at);
                return Err(action::unknown(field, other, action::OPERATORS));
            }
        };
        Ok(Condition {
            arg: index,
            op,
            mask,
            value,
        })
    }

    /// The condition as a 32-bit ABI sees it.
    fn narrow(self) -> Condition {
        Condition {
            mask: self.mask & u64::from(u32::MAX),
            value: self.value & u64::from(u32::MAX),
            ..self
        }
    }
}

/// Conditions that must all hold, by argument, each argument once.
pub(crate) type Conditions = Vec<Condition>;

/// A checked rule.
#[derive(Debug)]
struct Rule {
    /// Position in the profile.
    index: usize,
    value: u32,
    /// Whether the rule says what the default says.
    idle: bool,
    /// Indices of names in the table.
    names: Vec<u16>,
    /// Any of these; never empty.
    any_of: Vec<Conditions>,
}

/// A checked profile.
#[derive(Debug)]
pub(crate) struct Rules {
    /// The default's value.
    pub default: u32,
    /// The native architecture and those of the profile, sorted, each once.
    pub archs: Vec<Arch>,
    /// Whether a rule notifies.
    pub listener: bool,
    rules: Vec<Rule>,
}

/// Conditions and the value that the filter then returns.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Case {
    pub all_of: Conditions,
    pub value: u32,
    /// Position of the rule in the profile.
    pub rule: usize,
}

/// What a call gets.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Call {
    /// The default.
    #[default]
    Default,
    /// Always this value.
    Always(u32),
    /// Depends on the arguments: indices of [`Calls::cases`] in the profile's order.
    Cases(Vec<u32>),
}

/// What each call of one architecture gets.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    /// Calls by number less the base of the ABI.
    dense: Vec<Call>,
    /// Calls with numbers far from the rest.
    sparse: BTreeMap<u32, Call>,
    /// Cases that calls refer to.
    pub cases: Vec<Case>,
    /// The largest number that the profile names, 0 when it names none.
    pub last: u32,
}

/// Numbers above the base that the dense table covers.
const DENSE: u32 = 1024;

impl Rules {
    /// Checks a profile.
    pub fn parse(profile: &Seccomp, native: Arch) -> Result<Rules, CompileError> {
        let default = action::action(
            &profile.default_action,
            profile.default_errno_ret,
            Field::DefaultAction,
            Field::DefaultErrnoRet,
        )?;
        if default == RET_USER_NOTIF {
            return Err(CompileError::NotifyByDefault);
        }
        let mut finder = Finder::default();
        let rules = profile
            .syscalls
            .iter()
            .enumerate()
            .map(|(index, rule)| Rule::parse(index, rule, default, &mut finder))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Rules {
            default,
            archs: archs(&profile.architectures, native)?,
            listener: rules
                .iter()
                .any(|rule| rule.value == RET_USER_NOTIF && !rule.idle),
            rules,
        })
    }

    /// Spreads the rules over the numbers of one architecture.
    pub fn calls(&self, arch: Arch) -> Calls {
        let mut calls = Calls::default();
        for rule in &self.rules {
            let first = calls.add_cases(rule, arch);
            for &name in &rule.names {
                let name = usize::from(name);
                let number = syscalls::number(name, arch);
                let sub_call = syscalls::sub_call(name).filter(|_| arch.multiplexes());
                // runc's search for the largest number does not see multiplexed calls.
                if let (Some(number), None) = (number, sub_call) {
                    calls.last = calls.last.max(number);
                }
                if rule.idle {
                    continue;
                }
                if let Some((multiplexer, sub_call)) = sub_call {
                    calls.add_sub_call(rule, arch, multiplexer, sub_call);
                }
                if let Some(number) = number {
                    calls.add(arch, number, first..first + rule.any_of.len());
                }
            }
        }
        calls
    }
}

impl Rule {
    fn parse(
        index: usize,
        rule: &SeccompRule,
        default: u32,
        finder: &mut Finder,
    ) -> Result<Rule, CompileError> {
        let value = action::action(
            &rule.action,
            rule.errno_ret,
            Field::Action(index),
            Field::ErrnoRet(index),
        )?;
        let mut conditions = Vec::with_capacity(rule.args.len());
        for (i, arg) in rule.args.iter().enumerate() {
            conditions.push(Condition::parse(arg, index, i)?);
        }
        if rule.names.is_empty() {
            let field = Field::Rule(index);
            return Err(CompileError::NoNames { field });
        }
        let mut names = Vec::with_capacity(rule.names.len());
        for (i, name) in rule.names.iter().enumerate() {
            if name.is_empty() {
                let field = Field::Name(index, i);
                return Err(CompileError::EmptyName { field });
            }
            names.extend(finder.lookup(name).map(|at| at as u16));
        }
        Ok(Rule {
            index,
            value,
            idle: value == default,
            names,
            any_of: any_of(conditions),
        })
    }
}

/// Splits conditions that are on the same argument.
fn any_of(mut conditions: Conditions) -> Vec<Conditions> {
    let unsplit = (0..6).all(|arg| conditions.iter().filter(|c| c.arg == arg).count() < 2);
    if unsplit {
        conditions.sort_unstable_by_key(|c| c.arg);
        vec![conditions]
    } else {
        conditions.into_iter().map(|c| vec![c]).collect()
    }
}

fn archs(names: &[String], native: Arch) -> Result<Vec<Arch>, CompileError> {
    let mut archs = vec![native];
    for (i, name) in names.iter().enumerate() {
        let field = Field::Architecture(i);
        let arch =
            Arch::from_name(name).ok_or_else(|| action::unknown(field, name, action::ARCHS))?;
        if arch.big_endian() != native.big_endian() {
            return Err(CompileError::ByteOrder {
                field,
                arch: arch.name(),
                native: native.name(),
            });
        }
        archs.push(arch);
    }
    archs.sort_unstable();
    archs.dedup();
    Ok(archs)
}

impl Calls {
    /// What the call with a number gets.
    pub fn get(&self, arch: Arch, number: u32) -> &Call {
        let index = number.wrapping_sub(arch.base());
        self.dense
            .get(index as usize)
            .or_else(|| self.sparse.get(&number))
            .unwrap_or(&Call::Default)
    }

    /// The numbers that may get something else than the default, in order.
    pub fn numbers(&self, arch: Arch) -> impl Iterator<Item = u32> {
        let dense = 0..self.dense.len() as u32;
        dense
            .map(move |index| index + arch.base())
            .chain(self.sparse.keys().copied())
    }

    fn slot(&mut self, arch: Arch, number: u32) -> &mut Call {
        let index = number.wrapping_sub(arch.base());
        if index >= DENSE {
            return self.sparse.entry(number).or_default();
        }
        let index = index as usize;
        if self.dense.len() <= index {
            self.dense.resize(index + 1, Call::Default);
        }
        &mut self.dense[index]
    }

    /// Adds a rule's cases as the architecture sees them; returns the first's index.
    fn add_cases(&mut self, rule: &Rule, arch: Arch) -> usize {
        let first = self.cases.len();
        for conditions in &rule.any_of {
            self.add_case(rule, arch, conditions.iter().copied());
        }
        first
    }

    fn add_case(&mut self, rule: &Rule, arch: Arch, all_of: impl Iterator<Item = Condition>) {
        let seen = |c: Condition| if arch.wide() { c } else { c.narrow() };
        self.cases.push(Case {
            all_of: all_of.map(seen).filter(|c| c.mask != 0).collect(),
            value: rule.value,
            rule: rule.index,
        });
    }

    fn add_sub_call(&mut self, rule: &Rule, arch: Arch, multiplexer: Multiplexer, sub_call: u8) {
        let Some(number) = syscalls::multiplexer(multiplexer, arch) else {
            return;
        };
        let is_sub_call = Condition {
            arg: 0,
            op: Operator::Eq,
            mask: u64::MAX,
            value: u64::from(sub_call),
        };
        let first = self.cases.len();
        for conditions in &rule.any_of {
            let others = conditions.iter().copied().filter(|c| c.arg != 0);
            self.add_case(rule, arch, std::iter::once(is_sub_call).chain(others));
        }
        self.add(arch, number, first..self.cases.len());
    }

    /// Adds cases to a call.
    fn add(&mut self, arch: Arch, number: u32, cases: std::ops::Range<usize>) {
        for case in cases {
            let unconditional = self
                .cases
                .get(case)
                .is_some_and(|case| case.all_of.is_empty());
            let value = self.cases.get(case).map_or(0, |case| case.value);
            let slot = self.slot(arch, number);
            match slot {
                Call::Always(_) => return,
                slot if unconditional => *slot = Call::Always(value),
                Call::Cases(list) => list.push(case as u32),
                Call::Default => *slot = Call::Cases(vec![case as u32]),
            }
        }
    }
}
