//! What can be wrong with a profile or with a stored program.
//!
//! Contract: every error says where in the profile it lies, as the path a person
//! finds in `config.json`, what stands there, and what would be accepted.

use std::fmt;

/// A place in `linux.seccomp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Field {
    /// `defaultAction`.
    DefaultAction,
    /// `defaultErrnoRet`.
    DefaultErrnoRet,
    /// `architectures[i]`.
    Architecture(usize),
    /// `flags[i]`.
    Flag(usize),
    /// `syscalls[i]`.
    Rule(usize),
    /// `syscalls[i].action`.
    Action(usize),
    /// `syscalls[i].errnoRet`.
    ErrnoRet(usize),
    /// `syscalls[i].names[j]`.
    Name(usize, usize),
    /// `syscalls[i].args[j].index`.
    ArgIndex(usize, usize),
    /// `syscalls[i].args[j].op`.
    ArgOp(usize, usize),
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("linux.seccomp.")?;
        match self {
            Field::DefaultAction => f.write_str("defaultAction"),
            Field::DefaultErrnoRet => f.write_str("defaultErrnoRet"),
            Field::Architecture(i) => write!(f, "architectures[{i}]"),
            Field::Flag(i) => write!(f, "flags[{i}]"),
            Field::Rule(i) => write!(f, "syscalls[{i}]"),
            Field::Action(i) => write!(f, "syscalls[{i}].action"),
            Field::ErrnoRet(i) => write!(f, "syscalls[{i}].errnoRet"),
            Field::Name(i, j) => write!(f, "syscalls[{i}].names[{j}]"),
            Field::ArgIndex(i, j) => write!(f, "syscalls[{i}].args[{j}].index"),
            Field::ArgOp(i, j) => write!(f, "syscalls[{i}].args[{j}].op"),
        }
    }
}

/// Why a profile cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// A word that stands for nothing: an action, operator, architecture or flag.
    #[error("{field}: unknown value {value:?}; known are {}", known.join(", "))]
    Unknown {
        /// Where.
        field: Field,
        /// What stands there.
        value: String,
        /// What could stand there.
        known: &'static [&'static str],
    },
    /// An errno beside an action that returns none.
    #[error(
        "{field}: {action} carries no errno; remove the field or use SCMP_ACT_ERRNO or SCMP_ACT_TRACE"
    )]
    ErrnoNotCarried {
        /// Where.
        field: Field,
        /// The action beside it.
        action: &'static str,
    },
    /// A rule for no call at all.
    #[error("{field}: names is empty; a rule needs at least one system call")]
    NoNames {
        /// Where.
        field: Field,
    },
    /// An errno, or a number for a tracer, that is larger than the kernel hands on.
    #[error("{field}: {value} is above {max}, the most that the action can return")]
    ErrnoTooLarge {
        /// Where.
        field: Field,
        /// What stands there.
        value: u32,
        /// The largest value.
        max: u32,
    },
    /// Notification of everything, which would stop the runtime itself.
    #[error(
        "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be the default, as no one could answer for the calls that start the container"
    )]
    NotifyByDefault,
    /// An empty name of a system call.
    #[error("{field}: the name is empty")]
    EmptyName {
        /// Where.
        field: Field,
    },
    /// An argument beyond the sixth.
    #[error("{field}: {index} is above 5; a system call has six arguments")]
    ArgIndex {
        /// Where.
        field: Field,
        /// What stands there.
        index: u32,
    },
    /// An architecture of the other byte order.
    #[error("{field}: {arch} has not the byte order of {native}; one filter cannot serve both")]
    ByteOrder {
        /// Where.
        field: Field,
        /// The architecture.
        arch: &'static str,
        /// The architecture of the program.
        native: &'static str,
    },
    /// Two rules that contradict each other.
    #[error(
        "{field}: contradicts linux.seccomp.syscalls[{earlier}]: same conditions on {name}, different action"
    )]
    Conflict {
        /// The later rule.
        field: Field,
        /// Index of the earlier rule.
        earlier: usize,
        /// The system call.
        name: String,
    },
    /// More instructions than the kernel takes.
    #[error(
        "the profile needs more than {} instructions, the most that the kernel takes; use fewer argument conditions",
        crate::INSTRUCTIONS_MAX
    )]
    TooLong,
}

/// Why bytes are not a stored program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Another length than the header promises, or no header at all.
    #[error("stored seccomp program is cut short or has a tail ({bytes} bytes)")]
    Length {
        /// How many bytes there are.
        bytes: usize,
    },
    /// Not ours, or of another version of the compiler.
    #[error("stored seccomp program has another format or version")]
    Format,
    /// The bytes were changed.
    #[error("stored seccomp program is damaged (checksum)")]
    Checksum,
    /// The checksum is right and the program still is no filter.
    #[error("stored seccomp program is no valid filter")]
    Invalid(#[from] InvalidProgram),
}

/// Why instructions are no filter that the kernel would take and we would make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidProgram {
    /// None, or more than the kernel takes.
    #[error("{0} instructions")]
    Count(usize),
    /// An instruction that filters of ours do not have.
    #[error("instruction {0}: opcode or operand not allowed")]
    Instruction(usize),
    /// A jump beyond the end.
    #[error("instruction {0}: jump beyond the end")]
    Jump(usize),
    /// The last instruction does not return.
    #[error("the last instruction does not return")]
    Open,
    /// Flags of the header that do not exist or do not fit the instructions.
    #[error("flags {0:#x} do not fit")]
    Flags(u32),
}
