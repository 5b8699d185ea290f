//! Actions, operators and flags: the words of profiles as numbers of the kernel.
//!
//! Contract: pure tables. The lists are what `features` prints, in its order.
//! Numbers are those of `linux/seccomp.h`.

use crate::error::{CompileError, Field};

/// Every `SCMP_ACT_*` that profiles may use, sorted.
pub const ACTIONS: &[&str] = &[
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

/// Every `SCMP_CMP_*` that profiles may use, sorted.
pub const OPERATORS: &[&str] = &[
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

/// Every `SCMP_ARCH_*` that profiles may use, sorted.
pub const ARCHS: &[&str] = &[
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
];

/// Every `SECCOMP_FILTER_FLAG_*` that profiles may use.
pub const FLAGS: &[&str] = &[
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];

/// `SECCOMP_FILTER_FLAG_LOG`: log every action but allow (Linux 4.14).
pub const FLAG_LOG: u32 = 1 << 1;
/// `SECCOMP_FILTER_FLAG_SPEC_ALLOW`: no speculative store bypass mitigation (4.17).
pub const FLAG_SPEC_ALLOW: u32 = 1 << 2;
/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`: only fatal signals interrupt a call
/// that the listener has received (5.19).
pub const FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;
/// Every flag that a [`Program`](crate::Program) can carry.
pub(crate) const FLAGS_KNOWN: u32 = FLAG_LOG | FLAG_SPEC_ALLOW | FLAG_WAIT_KILLABLE_RECV;

/// `SECCOMP_RET_KILL_PROCESS`.
pub const RET_KILL_PROCESS: u32 = 0x8000_0000;
/// `SECCOMP_RET_KILL_THREAD`.
pub const RET_KILL_THREAD: u32 = 0;
/// `SECCOMP_RET_TRAP`.
pub const RET_TRAP: u32 = 0x0003_0000;
/// `SECCOMP_RET_ERRNO`; the errno is in the lower 16 bits.
pub const RET_ERRNO: u32 = 0x0005_0000;
/// `SECCOMP_RET_USER_NOTIF`.
pub const RET_USER_NOTIF: u32 = 0x7fc0_0000;
/// `SECCOMP_RET_TRACE`; the message is in the lower 16 bits.
pub const RET_TRACE: u32 = 0x7ff0_0000;
/// `SECCOMP_RET_LOG`.
pub const RET_LOG: u32 = 0x7ffc_0000;
/// `SECCOMP_RET_ALLOW`.
pub const RET_ALLOW: u32 = 0x7fff_0000;
/// The part of a returned value that says what happens.
pub const RET_ACTION: u32 = 0xffff_0000;

/// What a call gets that is newer than the profile.
pub(crate) const RET_ENOSYS: u32 = RET_ERRNO | 38;
/// What a call of an architecture gets that the profile does not name.
pub(crate) const RET_BAD_ARCH: u32 = RET_KILL_THREAD;
const EPERM: u32 = 1;

/// The value that a filter returns for an action.
pub(crate) fn action(
    name: &str,
    errno: Option<u32>,
    at: Field,
    errno_at: Field,
) -> Result<u32, CompileError> {
    let (base, known, carries) = match name {
        "SCMP_ACT_KILL" => (RET_KILL_THREAD, "SCMP_ACT_KILL", false),
        "SCMP_ACT_KILL_THREAD" => (RET_KILL_THREAD, "SCMP_ACT_KILL_THREAD", false),
        "SCMP_ACT_KILL_PROCESS" => (RET_KILL_PROCESS, "SCMP_ACT_KILL_PROCESS", false),
        "SCMP_ACT_TRAP" => (RET_TRAP, "SCMP_ACT_TRAP", false),
        "SCMP_ACT_ERRNO" => (RET_ERRNO, "SCMP_ACT_ERRNO", true),
        "SCMP_ACT_TRACE" => (RET_TRACE, "SCMP_ACT_TRACE", true),
        "SCMP_ACT_ALLOW" => (RET_ALLOW, "SCMP_ACT_ALLOW", false),
        "SCMP_ACT_LOG" => (RET_LOG, "SCMP_ACT_LOG", false),
        "SCMP_ACT_NOTIFY" => (RET_USER_NOTIF, "SCMP_ACT_NOTIFY", false),
        _ => return Err(unknown(at, name, ACTIONS)),
    };
    match errno {
        None if carries => Ok(base | EPERM),
        None => Ok(base),
        Some(_) if !carries => Err(CompileError::ErrnoNotCarried {
            field: errno_at,
            action: known,
        }),
        Some(value) if value > max(base) => Err(CompileError::ErrnoTooLarge {
            field: errno_at,
            value,
            max: max(base),
        }),
        Some(value) => Ok(base | value),
    }
}

/// The largest value that an action carries; the kernel cuts a larger errno down to `MAX_ERRNO`.
fn max(base: u32) -> u32 {
    if base == RET_ERRNO { 4095 } else { 0xffff }
}

/// Whether calls from the future get the default action rather than `ENOSYS`: the
/// default lets calls through, or leaves them to a tracer that knows better.
pub(crate) fn permissive(action: u32) -> bool {
    matches!(action & RET_ACTION, RET_ALLOW | RET_LOG | RET_TRACE)
}

/// The flag bits of a profile.
///
/// `TSYNC` is known and has no effect, as in runc: the filter is loaded where one
/// thread runs. A profile without the field gets `SPEC_ALLOW`.
pub(crate) fn flags(names: Option<&[String]>) -> Result<u32, CompileError> {
    let Some(names) = names else {
        return Ok(FLAG_SPEC_ALLOW);
    };
    let mut bits = 0;
    for (i, name) in names.iter().enumerate() {
        bits |= match name.as_str() {
            "SECCOMP_FILTER_FLAG_TSYNC" => 0,
            "SECCOMP_FILTER_FLAG_LOG" => FLAG_LOG,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => FLAG_SPEC_ALLOW,
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => FLAG_WAIT_KILLABLE_RECV,
            _ => return Err(unknown(Field::Flag(i), name, FLAGS)),
        };
    }
    Ok(bits)
}

pub(crate) fn unknown(field: Field, value: &str, known: &'static [&'static str]) -> CompileError {
    CompileError::Unknown {
        field,
        value: value.to_owned(),
        known,
    }
}
