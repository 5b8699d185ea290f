//! Keeps the runtime's own program out of a container's reach (CVE-2019-5736).
//!
//! A process on its way into a container still has the runtime as
//! `/proc/PID/exe`, and a program such as `#!/proc/self/exe` brings it back. Who
//! opens that link as root gets the host's file, and can write to it once it
//! does not run any more. So the runtime runs itself again from where its file
//! cannot be written by any path: a detached read-only mount of the file, or,
//! without the right to mount, a sealed copy in memory. There is nothing to do
//! when the file is on a read-only mount already, or when it belongs to somebody
//! else and this user cannot write it: its owner could change its mode.
//!
//! A second run finds itself on the read-only mount, or sealed, by looking at
//! its own file; no variable or flag says so that somebody could set.

use crate::error::Error;
use carrack_sys::Errno;
use carrack_sys::exec::{CVec, execveat};
use carrack_sys::mount::{MountAttr, attr, clone_tree, mount_setattr};
use rustix::fs::{Access, AtFlags, CWD, MemfdFlags, Mode, OFlags, SealFlags};
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

/// `ST_RDONLY` of statfs(2).
const ST_RDONLY: u64 = 1;

/// Returns when the program's file is out of reach; otherwise runs the program
/// again from where it is, with the same arguments and environment.
///
/// To be called first thing, while the process has one thread.
///
/// # Errors
/// When neither a mount nor a copy could be made.
pub fn shield() -> Result<(), Error> {
    #[cfg(target_arch = "x86_64")]
    if carrack_sys::prestart::is_out_of_reach() {
        return Ok(());
    }
    let failed = |e: Errno| Error::system("cannot protect the runtime's own program file", e);
    let file = rustix::fs::open(
        c"/proc/self/exe",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    // An installed program may be executable only; then nobody but root can write it, and root can read it.
    let file = file.map_err(failed)?;
    if is_out_of_reach(&file).map_err(failed)? {
        return Ok(());
    }
    let safe = match read_only_mount(&file) {
        Ok(tree) => tree,
        Err(Errno::PERM | Errno::INVAL | Errno::NOSYS | Errno::NOSPC) => sealed_copy(file)
            .map_err(|e| Error::system("cannot copy the runtime's own program into memory", e))?,
        Err(error) => return Err(failed(error)),
    };
    let strings = |list: Vec<Vec<u8>>| {
        CVec::new(
            list.into_iter()
                .filter_map(|bytes| CString::new(bytes).ok())
                .collect(),
        )
    };
    let args = strings(std::env::args_os().map(OsStringExt::into_vec).collect());
    let env = std::env::vars_os().map(|(name, value)| {
        let mut variable = name.into_vec();
        variable.push(b'=');
        variable.extend(value.into_vec());
        variable
    });
    let env = strings(env.collect());
    Err(failed(execveat(safe.as_fd(), &args, &env)))
}

fn is_out_of_reach(file: &OwnedFd) -> carrack_sys::Result<bool> {
    if rustix::fs::fstatvfs(file)?.f_flag.bits() & ST_RDONLY != 0 {
        return Ok(true);
    }
    match rustix::fs::accessat(CWD, c"/proc/self/exe", Access::WRITE_OK, AtFlags::EACCESS) {
        Ok(()) | Err(Errno::TXTBSY) => {}
        Err(_) if rustix::fs::fstat(file)?.st_uid != rustix::process::geteuid().as_raw() => {
            return Ok(true);
        }
        Err(_) => {}
    }
    // Only a file in memory has seals at all.
    Ok(rustix::fs::fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SealFlags::WRITE)))
}

fn read_only_mount(file: &OwnedFd) -> carrack_sys::Result<OwnedFd> {
    let tree = clone_tree(file.as_fd(), c"", false)?;
    let readonly = MountAttr {
        set: attr::RDONLY | attr::NODEV,
        ..MountAttr::default()
    };
    mount_setattr(tree.as_fd(), false, &readonly)?;
    Ok(tree)
}

fn sealed_copy(file: OwnedFd) -> std::io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut copy = File::from(rustix::fs::memfd_create(c"carrack-runtime", flags)?);
    std::io::copy(&mut File::from(file), &mut copy)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&copy, seals)?;
    Ok(copy.into())
}
