//! Reads of an image what can be had without a mount: the root's inode, from where [`super::write()`] puts it.

use super::format::{COMPACT_BYTES, EXTENDED, MAGIC, SLOT_BYTES, SUPERBLOCK_AT};
use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::FileExt;

/// Offset of the root's number in the superblock.
const ROOT_AT: usize = 14;

/// Owner, group and mode of an image's root directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Root {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u16,
}

/// The root directory of the image in `file`, of which only what is asked for is looked at.
///
/// # Errors
/// The file cannot be read, or is no image.
pub fn root(file: &File) -> Result<Root> {
    let mut superblock = [0; 64];
    file.read_exact_at(&mut superblock, SUPERBLOCK_AT)?;
    if superblock[..4] != MAGIC.to_le_bytes() {
        return Err(Error::new(ErrorKind::InvalidData, "no EROFS image"));
    }
    let number = u16_at(&superblock, ROOT_AT);
    let mut inode = [0; COMPACT_BYTES as usize];
    file.read_exact_at(&mut inode, u64::from(number) * SLOT_BYTES)?;
    // The owners stand at the same place in both forms, 16 or 32 bits each.
    let (uid, gid) = match u16_at(&inode, 0) & EXTENDED {
        0 => (u16_at(&inode, 24).into(), u16_at(&inode, 26).into()),
        _ => (u32_at(&inode, 24), u32_at(&inode, 28)),
    };
    let mode = u16_at(&inode, 4) & 0o7777;
    Ok(Root { uid, gid, mode })
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}
