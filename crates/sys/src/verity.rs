//! fs-verity: files whose bytes the kernel verifies when it reads them (`linux/fsverity.h`). Not for
//! use between clone and exec.

use crate::{Result, check};
use std::os::fd::{AsRawFd, BorrowedFd};

const ENABLE: libc::c_ulong = 0x4080_6685;
const MEASURE: libc::c_ulong = 0xC004_6686;
const SHA256: u32 = 1;
const BLOCK_BYTES: u32 = 4096;

/// `struct fsverity_enable_arg`.
#[repr(C)]
#[derive(Default)]
struct EnableArg {
    version: u32,
    algorithm: u32,
    block_size: u32,
    salt_size: u32,
    salt: u64,
    signature_size: u32,
    reserved1: u32,
    signature: u64,
    reserved2: [u64; 11],
}

const _: () = assert!(size_of::<EnableArg>() == 128);

/// `struct fsverity_digest` with room for SHA-256.
#[repr(C)]
struct Measured {
    algorithm: u16,
    size: u16,
    digest: [u8; 32],
}

/// Makes a file read-only for ever, with a SHA-256 tree over blocks of 4096 bytes. `file` is open for
/// reading, and nobody has it open for writing.
///
/// # Errors
/// `EOPNOTSUPP` or `ENOTTY` where the file system or the kernel has no fs-verity, `ETXTBSY` with a
/// writer, `EEXIST` when it is enabled.
pub fn enable(file: BorrowedFd<'_>) -> Result<()> {
    let arg = EnableArg {
        version: 1,
        algorithm: SHA256,
        block_size: BLOCK_BYTES,
        ..EnableArg::default()
    };
    // SAFETY: the ioctl reads one `fsverity_enable_arg`, without salt and signature, during the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), ENABLE, &raw const arg) }.into()).map(drop)
}

/// The digest of a file with fs-verity, as the kernel enforces it.
///
/// # Errors
/// `ENODATA` for a file without, `EOVERFLOW` for another algorithm's longer digest.
pub fn measure(file: BorrowedFd<'_>) -> Result<[u8; 32]> {
    let mut measured = Measured {
        algorithm: 0,
        size: 32,
        digest: [0; 32],
    };
    // SAFETY: the ioctl writes at most the number of digest bytes that `size` states, all of which
    // `measured` has.
    check(unsafe { libc::ioctl(file.as_raw_fd(), MEASURE, &raw mut measured) }.into())?;
    Ok(measured.digest)
}
