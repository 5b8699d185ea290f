//! bpf(2) for one program type: the device filter of a cgroup v2 directory.
//!
//! Contract: load, attach (beside or in place of another), list, name, detach.
//! The argument structures are prefixes of `union bpf_attr` (`linux/bpf.h`) as
//! long as each command needs; the kernel takes the rest as zero. Needs
//! CAP_BPF and CAP_NET_ADMIN (CAP_SYS_ADMIN before Linux 5.8).

use crate::{Errno, Result, check};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const PROG_QUERY: libc::c_int = 16;

const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const F_ALLOW_MULTI: u32 = 2;
const F_REPLACE: u32 = 4;
/// Most programs the kernel attaches to one cgroup (`BPF_CGROUP_MAX_PROGS`).
const PROGRAMS_MAX: usize = 64;
/// Length of a program's name with its final zero byte (`BPF_OBJ_NAME_LEN`).
pub const NAME_BYTES: usize = 16;

/// One eBPF instruction, `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u8,
    /// Destination register in the low four bits, source in the high four.
    pub registers: u8,
    /// Jump or memory offset.
    pub offset: i16,
    /// Constant.
    pub immediate: i32,
}

#[repr(C, align(8))]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; NAME_BYTES],
}

#[repr(C, align(8))]
#[derive(Default)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
    relative_fd: u32,
}

#[repr(C, align(8))]
#[derive(Default)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    reserved: u32,
}

#[repr(C, align(8))]
#[derive(Default)]
struct GetIdAttr {
    prog_id: u32,
    next_id: u32,
    open_flags: u32,
    token_fd: u32,
}

#[repr(C, align(8))]
#[derive(Default)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// `struct bpf_prog_info` up to the name.
#[repr(C, align(8))]
#[derive(Default)]
struct ProgInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_len: u32,
    xlated_len: u32,
    jited: u64,
    xlated: u64,
    load_time: u64,
    created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
    name: [u8; NAME_BYTES],
}

// No structure may end in padding: its bytes would be undefined, and the kernel has fields there.
const _: () = assert!(
    size_of::<LoadAttr>() == 64
        && size_of::<AttachAttr>() == 6 * 4
        && size_of::<QueryAttr>() == 4 * 4 + 8 + 2 * 4
        && size_of::<GetIdAttr>() == 4 * 4
        && size_of::<InfoAttr>() == 2 * 4 + 8
        && size_of::<ProgInfo>() == 80
);

/// Calls bpf(2) with one of the structures above.
fn bpf<T>(command: libc::c_int, attr: &mut T) -> Result<libc::c_long> {
    // SAFETY: every T of this module is a repr(C) prefix of `union bpf_attr` for its command, lives
    // across the call, and its address fields point at live values (see each caller).
    check(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<T>(),
        )
    })
}

fn own(fd: libc::c_long) -> Result<OwnedFd> {
    let fd = i32::try_from(fd).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel returned a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

/// Loads a device filter under a name of at most 15 bytes (letters, digits, `_`, `.`).
///
/// # Errors
/// `EPERM` without the capabilities, `EINVAL` or `EACCES` from the verifier, `E2BIG`.
pub fn load_device_filter(program: &[Instruction], name: &str) -> Result<OwnedFd> {
    let mut attr = LoadAttr {
        prog_type: PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(program.len()).map_err(|_| Errno::TOOBIG)?,
        insns: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..Default::default()
    };
    for (to, from) in attr
        .prog_name
        .iter_mut()
        .take(NAME_BYTES - 1)
        .zip(name.bytes())
    {
        *to = from;
    }
    own(bpf(PROG_LOAD, &mut attr)?)
}

/// Attaches a filter to a cgroup v2 directory: beside those of others, in place of `replace` if given.
///
/// # Errors
/// `EBADF` when the directory is no cgroup v2, `EPERM` when a parent forbids it, `ENOENT` when
/// `replace` is not attached there, `EINVAL` for `replace` before Linux 5.6.
pub fn attach_device_filter(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replace: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let mut attr = AttachAttr {
        target_fd: raw(cgroup),
        attach_bpf_fd: raw(program),
        attach_type: ATTACH_CGROUP_DEVICE,
        attach_flags: F_ALLOW_MULTI | if replace.is_some() { F_REPLACE } else { 0 },
        replace_bpf_fd: replace.map_or(0, raw),
        relative_fd: 0,
    };
    bpf(PROG_ATTACH, &mut attr).map(drop)
}

/// Detaches a filter from a cgroup v2 directory.
///
/// # Errors
/// `ENOENT` when it is not attached there.
pub fn detach_device_filter(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let mut attr = AttachAttr {
        target_fd: raw(cgroup),
        attach_bpf_fd: raw(program),
        attach_type: ATTACH_CGROUP_DEVICE,
        ..Default::default()
    };
    bpf(PROG_DETACH, &mut attr).map(drop)
}

/// The ids of the filters attached to this very directory (not inherited ones).
///
/// # Errors
/// `EPERM` without the capabilities.
pub fn device_filters(cgroup: BorrowedFd<'_>) -> Result<Vec<u32>> {
    let mut ids = vec![0u32; PROGRAMS_MAX];
    let mut attr = QueryAttr {
        target_fd: raw(cgroup),
        attach_type: ATTACH_CGROUP_DEVICE,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: PROGRAMS_MAX as u32,
        ..Default::default()
    };
    bpf(PROG_QUERY, &mut attr)?;
    ids.truncate(attr.prog_cnt as usize);
    Ok(ids)
}

/// Opens a loaded program by id; needs CAP_SYS_ADMIN.
///
/// # Errors
/// `ENOENT` when it was unloaded meanwhile, `EPERM`.
pub fn program_by_id(id: u32) -> Result<OwnedFd> {
    let mut attr = GetIdAttr {
        prog_id: id,
        ..Default::default()
    };
    own(bpf(PROG_GET_FD_BY_ID, &mut attr)?)
}

/// The name a program was loaded under.
///
/// # Errors
/// `EBADF` when the descriptor is no program.
pub fn program_name(program: BorrowedFd<'_>) -> Result<String> {
    let mut info = ProgInfo::default();
    let mut attr = InfoAttr {
        bpf_fd: raw(program),
        info_len: size_of::<ProgInfo>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(OBJ_GET_INFO_BY_FD, &mut attr)?;
    let end = info.name.iter().position(|b| *b == 0).unwrap_or(NAME_BYTES);
    Ok(String::from_utf8_lossy(info.name.get(..end).unwrap_or_default()).into_owned())
}
