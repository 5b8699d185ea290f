//! Compiles OCI seccomp profiles (`linux.seccomp`) to classic BPF.
//!
//! Contract: [`compile`] is pure. It gives a filter that decides every call as runc
//! with libseccomp does, in a shape that is cheap to load and to run, or an error
//! that names the field of the profile. No input makes it panic.
//!
//! ```text
//! profile ──rules──▶ what each number gets ──checks──▶ decision graph ──emit──▶ program
//!                                          └─tree────▶ (one node once)
//! ```
//!
//! # What a filter decides
//!
//! - **Architecture.** The native one is always served, as are those the profile
//!   lists. Calls of any other are answered with `SECCOMP_RET_KILL_THREAD`,
//!   libseccomp's default, which runc does not change. On x86_64 without x32, numbers
//!   from bit 30 on are of another architecture, except −1, which tracers use.
//! - **Precedence.** The first rule without conditions on a call decides it. Else all
//!   rules on it are tried in the order of libseccomp's tree (see `checks`), and the
//!   default comes last. Two rules with the same conditions and different actions are an
//!   error, as in libseccomp.
//! - **Calls from the future.** Unless the default action is `ALLOW`, `LOG` or
//!   `TRACE`, numbers above the largest one that the profile names (for that
//!   architecture, whatever the action) get `ENOSYS`, so that a C library that probes
//!   for new calls falls back. x86_64 and x32 have each their largest number, told
//!   apart by bit 30 alone. On s390 number 0 gets it too. Names of multiplexed calls
//!   (`socket` on x86) do not count, nor does an architecture where the largest
//!   number would be 0. All this is runc's rule.
//! - **Flags.** Absent means `SPEC_ALLOW`; an empty list means none. `TSYNC` is known
//!   and has no effect. Notification implies a listener.
//!
//! Some filters of libseccomp (2.5, 2.6) do not do what the profile says; this crate's
//! do: conditions that nest on 32-bit ABIs may be compared with a stale argument, a
//! filter for x86_64 and x32 may never load the number, and two bounds with the same
//! upper half on one argument may swallow a rule. `tests/decisions.rs` shows each.
//!
//! Where this crate is stricter than runc, on the word of the specification: an errno
//! beside an action that carries none is an error, and so is one above 65535.
//!
//! ```
//! use carrack_seccomp::{Arch, SeccompData, compile, simulate};
//! use carrack_spec::runtime::{Seccomp, SeccompRule};
//!
//! let profile = Seccomp {
//!     default_action: "SCMP_ACT_ERRNO".into(),
//!     syscalls: vec![SeccompRule {
//!         names: vec!["read".into(), "write".into()],
//!         action: "SCMP_ACT_ALLOW".into(),
//!         ..SeccompRule::default()
//!     }],
//!     ..Seccomp::default()
//! };
//! let program = compile(&profile, Arch::X86_64).unwrap();
//! let mut call = SeccompData { arch: Arch::X86_64.audit(), ..SeccompData::default() };
//! assert_eq!(simulate(&program, &call), 0x7fff_0000); // read: ALLOW
//! call.nr = 59;
//! assert_eq!(simulate(&program, &call), 0x0005_0026); // execve, above write: ENOSYS
//! ```

mod action;
mod arch;
mod checks;
mod emit;
mod error;
mod graph;
mod program;
mod rules;
mod syscalls;
mod tree;

pub use action::{
    ACTIONS, ARCHS, FLAG_LOG, FLAG_SPEC_ALLOW, FLAG_WAIT_KILLABLE_RECV, FLAGS, OPERATORS,
    RET_ACTION, RET_ALLOW, RET_ERRNO, RET_KILL_PROCESS, RET_KILL_THREAD, RET_LOG, RET_TRACE,
    RET_TRAP, RET_USER_NOTIF,
};
pub use arch::Arch;
pub use error::{CompileError, DecodeError, Field, InvalidProgram};
pub use program::{FORMAT_VERSION, INSTRUCTIONS_MAX, Instruction, Program, SeccompData, simulate};
pub use syscalls::{name as syscall_name, names as syscall_names, number_of as syscall_number};

use action::{RET_BAD_ARCH, RET_ENOSYS};
use arch::X32_BIT;
use carrack_spec::runtime::Seccomp;
use checks::Checks;
use graph::{ARCH, Graph, NodeId, Op, Test};
use rules::{Call, Calls, Rules};
use std::collections::BTreeMap;
use tree::Spans;

/// Compiles a profile for a machine of the `native` architecture.
///
/// # Errors
///
/// A profile that breaks the specification, contradicts itself or needs more
/// instructions than the kernel takes.
pub fn compile(profile: &Seccomp, native: Arch) -> Result<Program, CompileError> {
    let flags = action::flags(profile.flags.as_deref())?;
    let rules = Rules::parse(profile, native)?;
    let mut graph = Graph::default();
    let mut root = graph.ret(RET_BAD_ARCH);
    // The native architecture is asked for first, so it is added last.
    let mut archs = rules.archs.clone();
    archs.sort_by_key(|arch| arch.audit() == native.audit());
    for arch in archs {
        if arch == Arch::X32 && rules.archs.contains(&Arch::X86_64) {
            continue;
        }
        let spans = if arch.audit() == Arch::X86_64.audit() {
            spans_x86_64(&rules, &mut graph)?
        } else {
            spans(&rules, arch, &mut graph)?
        };
        let test = Test {
            word: ARCH,
            op: Op::Eq,
            k: arch.audit(),
        };
        let tree = spans.tree(&mut graph);
        root = graph.test(test, tree, root);
    }
    Ok(Program {
        instructions: emit::emit(&graph, root)?,
        flags,
        listener: rules.listener,
    })
}

/// Names of the profile that no architecture has, which [`compile`] skips.
pub fn ignored_names(profile: &Seccomp) -> Vec<&str> {
    let names = profile.syscalls.iter().flat_map(|rule| &rule.names);
    let mut ignored: Vec<&str> = names
        .map(String::as_str)
        .filter(|name| syscalls::lookup(name).is_none())
        .collect();
    ignored.sort_unstable();
    ignored.dedup();
    ignored
}

/// Whether a profile asks for nothing: neither a default action nor rules. runc then
/// loads no filter; [`compile`] would refuse the missing action.
pub fn is_empty(profile: &Seccomp) -> bool {
    profile.default_action.is_empty() && profile.syscalls.is_empty()
}

/// An architecture's calls as decisions of the graph.
struct Table<'a> {
    arch: Arch,
    rules: &'a Rules,
    calls: Calls,
    checks: Checks,
    /// Nodes of lists of cases that were built.
    built: BTreeMap<Vec<u32>, NodeId>,
    /// The value asked for last and its node.
    recent: Option<(u32, NodeId)>,
}

impl<'a> Table<'a> {
    fn new(rules: &'a Rules, arch: Arch) -> Table<'a> {
        Table {
            arch,
            rules,
            calls: rules.calls(arch),
            checks: Checks {
                wide: arch.wide(),
                big_endian: arch.big_endian(),
                default: rules.default,
            },
            built: BTreeMap::new(),
            recent: None,
        }
    }

    /// The largest number that the profile names, where larger ones get `ENOSYS`.
    fn last(&self) -> Option<u32> {
        let last = self.calls.last;
        (last != 0 && !action::permissive(self.rules.default)).then_some(last)
    }

    /// The node that decides the call with a number.
    fn decision(&mut self, graph: &mut Graph, number: u32) -> Result<NodeId, CompileError> {
        let value = match self.calls.get(self.arch, number) {
            Call::Default => self.rules.default,
            Call::Always(value) => *value,
            Call::Cases(_) => return self.by_arguments(graph, number),
        };
        // Neighbours mostly get the same.
        match self.recent {
            Some((known, node)) if known == value => Ok(node),
            _ => {
                let node = graph.ret(value);
                self.recent = Some((value, node));
                Ok(node)
            }
        }
    }

    fn by_arguments(&mut self, graph: &mut Graph, number: u32) -> Result<NodeId, CompileError> {
        let Call::Cases(list) = self.calls.get(self.arch, number) else {
            return Ok(graph.ret(self.rules.default));
        };
        if let Some(&node) = self.built.get(list) {
            return Ok(node);
        }
        let cases: Vec<_> = list
            .iter()
            .filter_map(|&case| self.calls.cases.get(case as usize))
            .collect();
        let name = || match syscalls::name(self.arch, number) {
            Some(name) => format!("{name} ({})", self.arch.name()),
            None => format!("system call {number} ({})", self.arch.name()),
        };
        let node = self.checks.build(graph, &cases, name)?;
        self.built.insert(list.clone(), node);
        Ok(node)
    }

    /// Adds the calls from `first` on; what lies beyond the known ones gets the
    /// default or `ENOSYS`.
    fn fill(
        &mut self,
        graph: &mut Graph,
        spans: &mut Spans,
        first: u32,
    ) -> Result<(), CompileError> {
        let default = graph.ret(self.rules.default);
        spans.push(first, default);
        let last = self.last();
        if last.is_some() && self.arch.zero_is_overflow() {
            let enosys = graph.ret(RET_ENOSYS);
            spans.push(0, enosys);
            spans.push(1, default);
        }
        let numbers: Vec<u32> = self.calls.numbers(self.arch).collect();
        for number in numbers {
            match last {
                Some(last) if number > last => break,
                Some(_) if number == 0 && self.arch.zero_is_overflow() => continue,
                _ => {}
            }
            let node = self.decision(graph, number)?;
            spans.push(number, node);
            if let Some(next) = number.checked_add(1) {
                spans.push(next, default);
            }
        }
        if let Some(next) = last.and_then(|last| last.checked_add(1)) {
            let enosys = graph.ret(RET_ENOSYS);
            spans.push(next, enosys);
        }
        Ok(())
    }
}

fn spans(rules: &Rules, arch: Arch, graph: &mut Graph) -> Result<Spans, CompileError> {
    let mut table = Table::new(rules, arch);
    let mut spans = Spans::default();
    table.fill(graph, &mut spans, 0)?;
    Ok(spans)
}

/// The numbers of x86_64 and x32 share one range, told apart by bit 30.
fn spans_x86_64(rules: &Rules, graph: &mut Graph) -> Result<Spans, CompileError> {
    let has = |arch| rules.archs.contains(&arch);
    let default = graph.ret(rules.default);
    let enosys = graph.ret(RET_ENOSYS);
    let bad = graph.ret(RET_BAD_ARCH);
    let mut spans = Spans::default();
    let mut after_64 = bad;
    if has(Arch::X86_64) {
        let mut table = Table::new(rules, Arch::X86_64);
        table.fill(graph, &mut spans, 0)?;
        after_64 = match table.last() {
            Some(_) => enosys,
            None if has(Arch::X32) => default,
            None => bad,
        };
    } else {
        spans.push(0, bad);
    }
    let mut after_32 = bad;
    if has(Arch::X32) {
        let mut table = Table::new(rules, Arch::X32);
        table.fill(graph, &mut spans, X32_BIT)?;
        after_32 = match table.last() {
            Some(_) => enosys,
            None => default,
        };
    } else {
        spans.push(X32_BIT, bad);
    }
    spans.push(X32_BIT << 1, after_64);
    spans.push(X32_BIT * 3, after_32);
    if !has(Arch::X32) {
        spans.push(u32::MAX, default);
    }
    Ok(spans)
}
