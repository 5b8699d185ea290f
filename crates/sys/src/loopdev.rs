//! Loop devices: a file as a block device (`linux/loop.h`). Not for use between clone and exec.

use crate::{Errno, Result, check};
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

const CTL_GET_FREE: libc::c_ulong = 0x4C82;
const CONFIGURE: libc::c_ulong = 0x4C0A;
const READ_ONLY: u32 = 1;
const AUTOCLEAR: u32 = 4;
/// Others take free devices too; tries before giving up.
const TRIES_MAX: u32 = 64;

/// `struct loop_config` with its `struct loop_info64`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt: [u32; 2],
    flags: u32,
    name: [u8; 64],
    crypt_name: [u8; 64],
    key: [u8; 32],
    init: [u64; 2],
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<Config>() == 304);

/// A device that shows a file; the kernel takes it back when this and the last mount of it are gone.
#[derive(Debug)]
pub struct LoopDevice {
    _device: OwnedFd,
    path: PathBuf,
}

impl LoopDevice {
    /// Where the device is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Shows the file at `path`, read-only (Linux 5.8).
///
/// # Errors
/// Those of the files and of `LOOP_CONFIGURE`; `EBUSY` when others took every free device.
pub fn attach_read_only(path: &Path) -> Result<LoopDevice> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    let control = rustix::fs::open(
        "/dev/loop-control",
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    for _ in 0..TRIES_MAX {
        // SAFETY: this ioctl of the loop control device takes no argument.
        let number = check(unsafe { libc::ioctl(control.as_raw_fd(), CTL_GET_FREE) }.into())?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = rustix::fs::open(&path, flags, Mode::empty())?;
        match configure(&device, &file) {
            Ok(()) => {
                return Ok(LoopDevice {
                    _device: device,
                    path,
                });
            }
            Err(Errno::BUSY) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Errno::BUSY)
}

fn configure(device: &OwnedFd, file: &OwnedFd) -> Result<()> {
    // SAFETY: all-zero bytes are a valid value of this structure of integers.
    let mut config: Config = unsafe { std::mem::zeroed() };
    config.fd = file.as_raw_fd() as u32;
    config.flags = READ_ONLY | AUTOCLEAR;
    // SAFETY: LOOP_CONFIGURE reads one `loop_config`, whose layout `Config` has, during the call.
    check(unsafe { libc::ioctl(device.as_raw_fd(), CONFIGURE, &raw const config) }.into()).map(drop)
}
