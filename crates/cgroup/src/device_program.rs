//! Device rules compiled to an eBPF program for `BPF_CGROUP_DEVICE`. Pure.
//!
//! ```text
//! r2 = type (1 block, 2 char)   r3 = access bits not yet allowed (1 m, 2 r, 4 w)
//! r4 = major                    r5 = minor
//! for each rule, last one first:
//!     another device?           → next rule
//!     deny, and a bit of r3?    → return 0
//!     allow                     → r3 &= ~bits; nothing left? return 1
//! return 0
//! ```
//!
//! So each access bit is decided by the last rule that names device and bit,
//! which is what a list of rules applied in order means. A rule for every device
//! and access ends the program, as nothing before it can matter. The context is
//! `struct bpf_cgroup_dev_ctx` of `linux/bpf.h`: `access << 16 | type`, major, minor.

use carrack_spec::runtime::DeviceRule;
use carrack_sys::bpf::Instruction;

const BLOCK: i32 = 1;
const CHAR: i32 = 2;
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;
const ALL: i32 = MKNOD | READ | WRITE;

// Opcodes: class, operation and source of `linux/bpf_common.h` and `linux/bpf.h`.
const LOAD_WORD: u8 = 0x61; // LDX | MEM | W
const MOVE_REGISTER: u8 = 0xbf; // ALU64 | MOV | X
const MOVE: u8 = 0xb7; // ALU64 | MOV | K
const AND: u8 = 0x57; // ALU64 | AND | K
const SHIFT_RIGHT: u8 = 0x77; // ALU64 | RSH | K
const JUMP: u8 = 0x05; // JMP | JA
const JUMP_IF_NOT_EQUAL: u8 = 0x56; // JMP32 | JNE | K
const JUMP_IF_SET: u8 = 0x46; // JMP32 | JSET | K
const EXIT: u8 = 0x95; // JMP | EXIT

const CONTEXT: u8 = 1;
const TYPE: u8 = 2;
const LEFT: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

fn op(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction {
        code,
        registers: to | from << 4,
        offset,
        immediate,
    }
}

/// The access letters as bits; none means all.
fn access_bits(access: &str) -> i32 {
    let bits = access.chars().fold(0, |bits, c| {
        bits | match c {
            'm' => MKNOD,
            'r' => READ,
            'w' => WRITE,
            _ => 0,
        }
    });
    if bits == 0 { ALL } else { bits }
}

/// Compiles rules that passed the checks of `devices`.
pub(crate) fn compile(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut program = vec![
        op(LOAD_WORD, TYPE, CONTEXT, 0, 0),
        op(MOVE_REGISTER, LEFT, TYPE, 0, 0),
        op(AND, TYPE, 0, 0, 0xffff),
        op(SHIFT_RIGHT, LEFT, 0, 0, 16),
        op(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        op(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules.iter().rev() {
        program.extend(compile_rule(rule));
        if rule.is_wildcard() {
            return program; // it returned for every device
        }
    }
    program.extend(answer(false));
    program
}

fn answer(allow: bool) -> [Instruction; 2] {
    [op(MOVE, 0, 0, 0, allow.into()), op(EXIT, 0, 0, 0, 0)]
}

fn compile_rule(rule: &DeviceRule) -> Vec<Instruction> {
    let bits = access_bits(&rule.access);
    let mut action = Vec::with_capacity(4);
    if bits != ALL {
        if rule.allow {
            action.push(op(AND, LEFT, 0, 0, !bits & ALL));
            action.push(op(JUMP_IF_NOT_EQUAL, LEFT, 0, 2, 0));
        } else {
            action.push(op(JUMP_IF_SET, LEFT, 0, 1, bits));
            action.push(op(JUMP, 0, 0, 2, 0));
        }
    }
    action.extend(answer(rule.allow));

    let mut tests = Vec::with_capacity(3);
    match rule.kind.as_str() {
        "b" => tests.push((TYPE, BLOCK)),
        "c" => tests.push((TYPE, CHAR)),
        _ => {}
    }
    for (register, number) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
        // The comparison is one of 32 bits, so the bit pattern is what counts.
        if let Some(number) = number.and_then(|n| u32::try_from(n).ok()) {
            tests.push((register, number.cast_signed()));
        }
    }
    let count = tests.len();
    let mut program = Vec::with_capacity(count + action.len());
    for (i, (register, value)) in tests.into_iter().enumerate() {
        let skip = i16::try_from(count - i - 1 + action.len()).unwrap_or(0);
        program.push(op(JUMP_IF_NOT_EQUAL, register, 0, skip, value));
    }
    program.extend(action);
    program
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs a program the way the kernel would, for the operations used here.
    fn interpret(program: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let mut r = [0u64; 11];
        let mut at = 0i64;
        for _ in 0..100_000 {
            let i = program[usize::try_from(at).unwrap()];
            let (to, from) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
            let (low, imm) = (r[to] as u32, i.immediate as u32);
            let jump = match i.code {
                LOAD_WORD => {
                    assert_eq!(from, 1, "only the context may be read");
                    r[to] = context[usize::try_from(i.offset).unwrap() / 4].into();
                    false
                }
                MOVE_REGISTER => {
                    r[to] = r[from];
                    false
                }
                MOVE => {
                    r[to] = i.immediate as u64;
                    false
                }
                AND => {
                    r[to] &= i.immediate as u64;
                    false
                }
                SHIFT_RIGHT => {
                    r[to] >>= i.immediate;
                    false
                }
                JUMP => true,
                JUMP_IF_NOT_EQUAL => low != imm,
                JUMP_IF_SET => low & imm != 0,
                EXIT => return r[0] != 0,
                code => panic!("unknown operation {code:#x}"),
            };
            at += 1 + if jump { i64::from(i.offset) } else { 0 };
        }
        panic!("the program does not end");
    }

    /// The meaning of a rule list, bit by bit.
    fn expected(rules: &[DeviceRule], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        (0..3)
            .map(|b| 1 << b)
            .filter(|bit| access & bit != 0)
            .all(|bit: u32| {
                rules
                    .iter()
                    .rfind(|rule| {
                        let kind_fits = match rule.kind.as_str() {
                            "b" => kind == 1,
                            "c" => kind == 2,
                            _ => true,
                        };
                        let fits =
                            |n: Option<i64>, x: u32| n.is_none_or(|n| n < 0 || n == i64::from(x));
                        kind_fits
                            && fits(rule.major, major)
                            && fits(rule.minor, minor)
                            && access_bits(&rule.access) as u32 & bit != 0
                    })
                    .is_some_and(|rule| rule.allow)
            })
    }

    fn rule(
        allow: bool,
        kind: &str,
        major: Option<i64>,
        minor: Option<i64>,
        access: &str,
    ) -> DeviceRule {
        DeviceRule {
            allow,
            kind: kind.into(),
            major,
            minor,
            access: access.into(),
        }
    }

    fn check_all(rules: &[DeviceRule]) {
        let program = compile(rules);
        for kind in [1, 2] {
            for access in 1..8 {
                for major in [0, 1, 2, 5, 8, u32::MAX] {
                    for minor in [0, 1, 3, 5, u32::MAX] {
                        assert_eq!(
                            interpret(&program, kind, access, major, minor),
                            expected(rules, kind, access, major, minor),
                            "{rules:?}: type {kind} access {access} {major}:{minor}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn nothing_is_allowed_without_rules() {
        check_all(&[]);
    }

    #[test]
    fn the_rules_of_a_common_container_decide_as_written() {
        let mut rules = vec![rule(false, "a", None, None, "rwm")];
        rules.extend(carrack_spec::defaults::device_rules());
        check_all(&rules);
    }

    #[test]
    fn bits_may_come_from_different_rules() {
        check_all(&[
            rule(true, "c", Some(1), Some(3), "r"),
            rule(true, "c", Some(1), None, "w"),
            rule(false, "a", Some(5), None, "m"),
        ]);
    }

    #[test]
    fn what_stands_before_a_rule_for_everything_costs_nothing() {
        let short = compile(&[rule(true, "a", None, None, "")]);
        let long = compile(&[
            rule(false, "c", Some(1), Some(3), "rwm"),
            rule(true, "a", None, None, ""),
        ]);
        assert_eq!(short, long);
    }

    proptest! {
        #[test]
        fn any_list_decides_as_written(rules in prop::collection::vec(
            (any::<bool>(), 0usize..3, -1i64..6, -1i64..6, "r?w?m?"), 0..12,
        )) {
            let rules: Vec<DeviceRule> = rules
                .into_iter()
                .map(|(allow, kind, major, minor, access)| {
                    let number = |n: i64| (n >= 0).then_some(n);
                    rule(allow, ["a", "b", "c"][kind], number(major), number(minor), &access)
                })
                .collect();
            check_all(&rules);
        }
    }
}
