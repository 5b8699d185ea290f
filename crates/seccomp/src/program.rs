//! The compiled filter: its shape, its stored form and what it answers.
//!
//! Contract: a [`Program`] made by the compiler or by [`Program::from_bytes`] is one
//! that the kernel takes, within the part of classic BPF that the compiler uses:
//! aligned loads of `struct seccomp_data`, `and`, forward jumps and `ret` of a known
//! action. [`simulate`] answers as the kernel would, for any instructions.
//!
//! Stored form, all numbers little-endian:
//!
//! ```text
//! 0  "CSBP"            4  format version u16     6  listener u8   7  zero u8
//! 8  flags u32        12  instruction count u32 16  FNV-1a 64 of everything else
//! 24 instructions, 8 bytes each: code u16, jt u8, jf u8, k u32
//! ```
//!
//! The checksum finds damage, not malice: who may write the cache may write the
//! filter. Readers treat every error as "not cached" and compile again.

use crate::action::{
    FLAGS_KNOWN, RET_ACTION, RET_ALLOW, RET_ERRNO, RET_KILL_PROCESS, RET_KILL_THREAD, RET_LOG,
    RET_TRACE, RET_TRAP, RET_USER_NOTIF,
};
use crate::error::{DecodeError, InvalidProgram};

/// The most instructions that the kernel takes (`BPF_MAXINSNS`).
pub const INSTRUCTIONS_MAX: usize = 4096;
/// Version of the stored form. Raise it when the form, the compiler's decisions or
/// the table of system calls change, so that no older filter is taken for current.
pub const FORMAT_VERSION: u16 = 1;

const MAGIC: &[u8; 4] = b"CSBP";
const HEADER_BYTES: usize = 24;
const INSTRUCTION_BYTES: usize = 8;
/// Size of `struct seccomp_data`.
const DATA_BYTES: u32 = 64;

/// Opcodes of classic BPF that filters have.
pub(crate) mod code {
    /// Load a word of the data.
    pub const LD: u16 = 0x20;
    /// Mask the accumulator.
    pub const AND: u16 = 0x54;
    /// Jump.
    pub const JA: u16 = 0x05;
    /// Jump if equal.
    pub const JEQ: u16 = 0x15;
    /// Jump if above.
    pub const JGT: u16 = 0x25;
    /// Jump if at least.
    pub const JGE: u16 = 0x35;
    /// Jump if a bit is common.
    pub const JSET: u16 = 0x45;
    /// Return.
    pub const RET: u16 = 0x06;
}

/// One instruction, in the layout of the kernel's `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Opcode.
    pub code: u16,
    /// Instructions to skip when the condition holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

impl Instruction {
    pub(crate) const fn new(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
        Instruction { code, jt, jf, k }
    }

    pub(crate) const fn ret(value: u32) -> Instruction {
        Instruction::new(code::RET, 0, 0, value)
    }
}

/// A compiled filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// What the kernel runs on each call.
    pub instructions: Vec<Instruction>,
    /// `SECCOMP_FILTER_FLAG_*` bits for seccomp(2), without `NEW_LISTENER`.
    pub flags: u32,
    /// Whether a rule notifies, so that the filter must be loaded with
    /// `SECCOMP_FILTER_FLAG_NEW_LISTENER` and its descriptor be passed on.
    pub listener: bool,
}

/// What the kernel shows to a filter: `struct seccomp_data`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SeccompData {
    /// Number of the system call.
    pub nr: u32,
    /// `AUDIT_ARCH_*`, see [`Arch::audit`](crate::Arch::audit).
    pub arch: u32,
    /// Address of the instruction.
    pub instruction_pointer: u64,
    /// Arguments.
    pub args: [u64; 6],
}

impl SeccompData {
    /// The 32-bit word at an offset, as it lies in memory of this byte order.
    fn word(&self, offset: u32, big_endian: bool) -> Option<u32> {
        let half = |value: u64, first: bool| {
            if first == big_endian {
                (value >> 32) as u32
            } else {
                value as u32
            }
        };
        match offset {
            0 => Some(self.nr),
            4 => Some(self.arch),
            8 | 12 => Some(half(self.instruction_pointer, offset == 8)),
            16..64 if offset.is_multiple_of(4) => {
                let value = *self.args.get((offset as usize - 16) / 8)?;
                Some(half(value, offset.is_multiple_of(8)))
            }
            _ => None,
        }
    }
}

impl Program {
    /// The stored form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let count = self.instructions.len();
        let mut bytes = Vec::with_capacity(HEADER_BYTES + count * INSTRUCTION_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&[u8::from(self.listener), 0]);
        bytes.extend_from_slice(&self.flags.to_le_bytes());
        bytes.extend_from_slice(&(count as u32).to_le_bytes());
        bytes.extend_from_slice(&[0; 8]);
        for i in &self.instructions {
            bytes.extend_from_slice(&i.code.to_le_bytes());
            bytes.extend_from_slice(&[i.jt, i.jf]);
            bytes.extend_from_slice(&i.k.to_le_bytes());
        }
        let sum = checksum(&bytes);
        if let Some(place) = bytes.get_mut(16..HEADER_BYTES) {
            place.copy_from_slice(&sum.to_le_bytes());
        }
        bytes
    }

    /// Reads the stored form. Every instruction is checked.
    ///
    /// # Errors
    ///
    /// Bytes of another version, damaged ones, and a program that the compiler
    /// would not have made.
    pub fn from_bytes(bytes: &[u8]) -> Result<Program, DecodeError> {
        let length = DecodeError::Length { bytes: bytes.len() };
        let (header, body) = bytes.split_at_checked(HEADER_BYTES).ok_or(length)?;
        let u32_at = |at: usize| -> u32 {
            let word = header.get(at..at + 4).and_then(|b| b.try_into().ok());
            u32::from_le_bytes(word.unwrap_or_default())
        };
        let version = FORMAT_VERSION.to_le_bytes();
        if !header.starts_with(MAGIC) || header.get(4..6) != Some(&version[..]) {
            return Err(DecodeError::Format);
        }
        let count = u32_at(12) as usize;
        if count.checked_mul(INSTRUCTION_BYTES) != Some(body.len()) {
            return Err(length);
        }
        let sum = u64::from(u32_at(16)) | u64::from(u32_at(20)) << 32;
        if checksum(bytes) != sum {
            return Err(DecodeError::Checksum);
        }
        let listener = match header.get(6..8) {
            Some([0, 0]) => false,
            Some([1, 0]) => true,
            _ => return Err(DecodeError::Format),
        };
        let (instructions, _) = body.as_chunks::<INSTRUCTION_BYTES>();
        let program = Program {
            instructions: instructions.iter().map(decode).collect(),
            flags: u32_at(8),
            listener,
        };
        program.check()?;
        Ok(program)
    }

    /// Whether this is a filter as the compiler makes them.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), InvalidProgram> {
        self.check_shape()?;
        let mut notifies = false;
        for (at, i) in self.instructions.iter().enumerate() {
            if i.code == code::RET {
                let known = match i.k & RET_ACTION {
                    RET_ERRNO | RET_TRACE => true,
                    RET_KILL_PROCESS | RET_KILL_THREAD | RET_TRAP | RET_USER_NOTIF | RET_LOG
                    | RET_ALLOW => i.k & !RET_ACTION == 0,
                    _ => false,
                };
                if !known {
                    return Err(InvalidProgram::Instruction(at));
                }
                notifies |= i.k == RET_USER_NOTIF;
            }
        }
        // A rule that notifies and is hidden by another leaves a listener without a
        // return, never the other way round.
        if self.flags & !FLAGS_KNOWN != 0 || (notifies && !self.listener) {
            return Err(InvalidProgram::Flags(self.flags));
        }
        Ok(())
    }

    /// Whether the kernel would take the instructions.
    pub(crate) fn check_shape(&self) -> Result<(), InvalidProgram> {
        let count = self.instructions.len();
        if count == 0 || count > INSTRUCTIONS_MAX {
            return Err(InvalidProgram::Count(count));
        }
        for (at, i) in self.instructions.iter().enumerate() {
            let room = count - at - 1;
            let plain = i.jt == 0 && i.jf == 0;
            let fits = match i.code {
                code::LD => plain && i.k < DATA_BYTES && i.k.is_multiple_of(4),
                code::AND | code::RET => plain,
                code::JA if (i.k as usize) >= room => return Err(InvalidProgram::Jump(at)),
                code::JA => plain,
                code::JEQ | code::JGT | code::JGE | code::JSET => {
                    if usize::from(i.jt.max(i.jf)) >= room {
                        return Err(InvalidProgram::Jump(at));
                    }
                    true
                }
                _ => false,
            };
            if !fits {
                return Err(InvalidProgram::Instruction(at));
            }
        }
        match self.instructions.last() {
            Some(i) if i.code == code::RET => Ok(()),
            _ => Err(InvalidProgram::Open),
        }
    }

    /// Whether some arguments make the filter notify about this call.
    ///
    /// A runtime asks this about the calls it needs between loading the filter and
    /// handing over the listener (runc refuses profiles that notify about `write`).
    pub fn may_notify(&self, audit_arch: u32, nr: u32) -> bool {
        self.may_return(audit_arch, nr, |value| value & RET_ACTION == RET_USER_NOTIF)
    }

    /// Whether some arguments make the filter return a value of which `wanted` holds.
    pub fn may_return(&self, audit_arch: u32, nr: u32, wanted: impl Fn(u32) -> bool) -> bool {
        // Jumps lead forward, so one pass visits each instruction after all ways to it.
        // A way carries what the accumulator holds, or nothing when arguments decide.
        let count = self.instructions.len();
        let mut ways: Vec<Way> = vec![Way::None; count];
        let flow = |ways: &mut Vec<Way>, to: usize, held: Option<u32>| {
            if let Some(way) = ways.get_mut(to) {
                *way = way.join(held);
            }
        };
        flow(&mut ways, 0, Some(0));
        for (at, i) in self.instructions.iter().enumerate() {
            let held = match ways.get(at) {
                Some(Way::Held(value)) => Some(*value),
                Some(Way::Any) => None,
                _ => continue,
            };
            let next = at + 1;
            match i.code {
                code::LD => {
                    let value = [nr, audit_arch].get(i.k as usize / 4).copied();
                    flow(&mut ways, next, value);
                }
                code::AND => flow(&mut ways, next, held.map(|value| value & i.k)),
                code::JA => flow(&mut ways, next.saturating_add(i.k as usize), held),
                code::RET if wanted(i.k) => return true,
                code::RET => {}
                _ => {
                    let answer = held.map(|value| compare(i.code, value, i.k));
                    if answer != Some(false) {
                        flow(&mut ways, next + usize::from(i.jt), held);
                    }
                    if answer != Some(true) {
                        flow(&mut ways, next + usize::from(i.jf), held);
                    }
                }
            }
        }
        false
    }
}

/// What is known where ways meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// No way leads here.
    None,
    /// The accumulator holds this.
    Held(u32),
    /// It may hold anything.
    Any,
}

impl Way {
    fn join(self, held: Option<u32>) -> Way {
        match (self, held) {
            (Way::None, Some(value)) => Way::Held(value),
            (Way::Held(a), Some(b)) if a == b => self,
            _ => Way::Any,
        }
    }
}

fn compare(code: u16, a: u32, k: u32) -> bool {
    match code {
        code::JEQ => a == k,
        code::JGT => a > k,
        code::JGE => a >= k,
        code::JSET => a & k != 0,
        _ => false,
    }
}

/// What a filter returns for a call, on a machine of this program's byte order.
///
/// A program that the kernel would refuse answers `SECCOMP_RET_KILL_PROCESS` where
/// it goes wrong.
pub fn simulate(program: &Program, data: &SeccompData) -> u32 {
    let big_endian = cfg!(target_endian = "big");
    let (mut at, mut a) = (0usize, 0u32);
    // Jumps lead forward: the loop ends.
    while let Some(i) = program.instructions.get(at) {
        at += 1;
        match i.code {
            code::LD => match data.word(i.k, big_endian) {
                Some(word) => a = word,
                None => break,
            },
            code::AND => a &= i.k,
            code::JA => at = at.saturating_add(i.k as usize),
            code::RET => return i.k,
            code::JEQ | code::JGT | code::JGE | code::JSET => {
                let skip = if compare(i.code, a, i.k) { i.jt } else { i.jf };
                at += usize::from(skip);
            }
            _ => break,
        }
    }
    RET_KILL_PROCESS
}

fn decode(bytes: &[u8; INSTRUCTION_BYTES]) -> Instruction {
    let [c0, c1, jt, jf, k0, k1, k2, k3] = *bytes;
    Instruction {
        code: u16::from_le_bytes([c0, c1]),
        jt,
        jf,
        k: u32::from_le_bytes([k0, k1, k2, k3]),
    }
}

/// FNV-1a over everything but the checksum's own place.
fn checksum(bytes: &[u8]) -> u64 {
    let (head, rest) = bytes.split_at_checked(16).unwrap_or((bytes, &[]));
    let body = rest.get(8..).unwrap_or_default();
    head.iter()
        .chain(body)
        .fold(0xcbf2_9ce4_8422_2325, |sum, &b| {
            (sum ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3)
        })
}
