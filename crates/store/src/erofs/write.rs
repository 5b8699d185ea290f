//! Writes the plan, from the first byte to the last.

use super::attributes;
use super::format::*;
use super::hash::crc32c;
use super::layout::{self, Placed, Plan};
use super::tree::{Content, InodeId, Tree, TreeError};
use std::io::Write;

/// How an image is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Frequent names of attributes once for all (Linux 6.4 and later mount it).
    pub long_prefixes: bool,
}

/// An image that was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The format cannot hold the tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The output failed.
    #[error("cannot write the EROFS image")]
    Output(#[source] std::io::Error),
}

/// Writes `tree` as an image and returns its size in bytes, a multiple of 4096.
///
/// # Errors
/// [`WriteError`]; part of the image may have been written.
pub fn write<W: Write>(tree: &Tree, options: Options, out: W) -> Result<u64, WriteError> {
    let plan = Plan::of(tree, options.long_prefixes)?;
    let mut out = Output { out, at: 0 };
    emit(tree, &plan, &mut out).map_err(WriteError::Output)?;
    Ok(out.at)
}

fn emit<W: Write>(tree: &Tree, plan: &Plan<'_>, out: &mut Output<W>) -> std::io::Result<()> {
    out.put(&first_block(plan))?;
    let mut bytes = Vec::new();
    let mut list = Vec::new();
    for placed in &plan.inodes {
        bytes.clear();
        head(plan, placed, &mut list, &mut bytes);
        if placed.tail > 0 {
            let content = content(tree, plan, placed);
            bytes.extend_from_slice(&content[content.len() - placed.tail as usize..]);
        }
        out.pad_to(placed.at)?;
        out.put(&bytes)?;
        for _ in 0..placed.holes() {
            out.put(&CHUNK_HOLE)?;
        }
    }
    out.pad_to(u64::from(plan.shared_block) * BLOCK_BYTES)?;
    out.put(&plan.sharing.area)?;
    for placed in plan.inodes.iter().filter(|p| p.blocks() > 0) {
        let content = content(tree, plan, placed);
        out.pad_to(u64::from(placed.block) * BLOCK_BYTES)?;
        out.put(&content[..content.len() - placed.tail as usize])?;
    }
    out.pad_to(u64::from(plan.blocks) * BLOCK_BYTES)?;
    out.out.flush()
}

/// The superblock and the table of long prefixes.
fn first_block(plan: &Plan<'_>) -> Vec<u8> {
    let (prefixes, table) = plan.sharing.prefix_table();
    let mut incompat = 0;
    if plan.inodes.iter().any(|p| p.holes() > 0) {
        incompat |= INCOMPAT_CHUNKED;
    }
    if prefixes > 0 {
        incompat |= INCOMPAT_LONG_PREFIXES;
    }
    let compat = COMPAT_CHECKSUM | COMPAT_MTIME | COMPAT_ATTRIBUTE_FILTER;
    let table_at = SUPERBLOCK_AT + SUPERBLOCK_BYTES;
    let mut block = vec![0; SUPERBLOCK_AT as usize];
    let mut put = |bytes: &[u8]| block.extend_from_slice(bytes);
    put(&MAGIC.to_le_bytes());
    put(&[0; 4]); // the checksum
    put(&u32::to_le_bytes(compat));
    put(&[BLOCK_BITS, 0]);
    put(&(plan.numbers[InodeId::ROOT.index()] as u16).to_le_bytes());
    put(&(plan.inodes.len() as u64).to_le_bytes());
    put(&plan.time.0.to_le_bytes());
    put(&plan.time.1.to_le_bytes());
    put(&plan.blocks.to_le_bytes());
    put(&[0; 4]); // inodes are numbered from the start of the image
    put(&plan.shared_block.to_le_bytes());
    put(&[0; 32]); // no identifier, no label
    put(&u32::to_le_bytes(incompat));
    put(&[0; 7]); // no compression, no devices, directory blocks as large as others
    put(&[prefixes]);
    put(&((table_at / 4) as u32).to_le_bytes());
    put(&[0; 32]);
    put(&table);
    block.resize(BLOCK_BYTES as usize, 0);
    let (_, summed) = block.split_at_mut(SUPERBLOCK_AT as usize);
    let checksum = crc32c(summed);
    summed[4..8].copy_from_slice(&checksum.to_le_bytes());
    block
}

/// The inode and its attributes.
fn head<'a>(
    plan: &Plan<'a>,
    placed: &Placed<'a>,
    list: &mut Vec<attributes::Attribute<'a>>,
    bytes: &mut Vec<u8>,
) {
    let inode = placed.inode;
    // `Plan::of` refused every inode that has no list.
    let listed = attributes::list(inode, list);
    debug_assert!(listed.is_ok());
    let attribute_bytes = plan.sharing.bytes(list);
    let units = match attribute_bytes {
        0 => 0,
        n => 1 + (n - ATTRIBUTE_HEADER_BYTES) / 4,
    };
    let (layout, place) = match &inode.content {
        Content::Pooled { .. } if placed.holes() > 0 => (LAYOUT_CHUNKS, CHUNK_BLOCK_BITS),
        Content::CharDevice(major, minor) | Content::BlockDevice(major, minor) => {
            (LAYOUT_PLAIN, device(*major, *minor))
        }
        _ if placed.tail > 0 => (LAYOUT_TAIL, placed.block),
        _ => (LAYOUT_PLAIN, placed.block),
    };
    let mut put = |field: &[u8]| bytes.extend_from_slice(field);
    let format = layout | if placed.compact { 0 } else { EXTENDED };
    put(&format.to_le_bytes());
    put(&(units as u16).to_le_bytes());
    put(&(kind(&inode.content).0 | (inode.mode & 0o7777)).to_le_bytes());
    // The number that 32-bit programs see.
    let number = ((placed.at / SLOT_BYTES) as u32).to_le_bytes();
    if placed.compact {
        put(&(placed.links as u16).to_le_bytes());
        put(&(placed.size as u32).to_le_bytes());
        put(&[0; 4]);
        put(&place.to_le_bytes());
        put(&number);
        put(&(inode.uid as u16).to_le_bytes());
        put(&(inode.gid as u16).to_le_bytes());
        put(&[0; 4]);
    } else {
        put(&[0; 2]);
        put(&placed.size.to_le_bytes());
        put(&place.to_le_bytes());
        put(&number);
        put(&inode.uid.to_le_bytes());
        put(&inode.gid.to_le_bytes());
        put(&inode.mtime.0.to_le_bytes());
        put(&inode.mtime.1.to_le_bytes());
        put(&placed.links.to_le_bytes());
        put(&[0; 16]);
    }
    plan.sharing.append(list, bytes);
}

/// Device numbers as the kernel encodes them in 32 bits.
fn device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

fn kind(content: &Content) -> (u16, u8) {
    match content {
        Content::Directory(_) => KIND_DIRECTORY,
        Content::Inline(_) | Content::Pooled { .. } => KIND_REGULAR,
        Content::Symlink(_) => KIND_SYMLINK,
        Content::CharDevice(..) => KIND_CHAR,
        Content::BlockDevice(..) => KIND_BLOCK,
        Content::Fifo => KIND_FIFO,
        Content::Socket => KIND_SOCKET,
    }
}

/// The bytes of a directory, a symbolic link or an inline file.
fn content<'a>(tree: &Tree, plan: &Plan<'_>, placed: &Placed<'a>) -> std::borrow::Cow<'a, [u8]> {
    match &placed.inode.content {
        Content::Directory(names) => {
            let names = layout::sorted(names, placed.id, placed.parent);
            let mut bytes = Vec::with_capacity(placed.size as usize);
            for block in layout::blocks(&names) {
                bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES as usize), 0);
                directory_block(tree, plan, block, &mut bytes);
            }
            bytes.into()
        }
        Content::Inline(bytes) | Content::Symlink(bytes) => (&**bytes).into(),
        _ => (&[]).into(),
    }
}

/// Fixed-size entries, then their names.
fn directory_block(tree: &Tree, plan: &Plan<'_>, names: &[(&[u8], InodeId)], bytes: &mut Vec<u8>) {
    let mut name_at = names.len() * DIRENT_BYTES;
    for (name, id) in names {
        bytes.extend_from_slice(&plan.numbers[id.index()].to_le_bytes());
        bytes.extend_from_slice(&(name_at as u16).to_le_bytes());
        bytes.extend_from_slice(&[kind(&tree.get(*id).content).1, 0]);
        name_at += name.len();
    }
    for (name, _) in names {
        bytes.extend_from_slice(name);
    }
}

struct Output<W> {
    out: W,
    at: u64,
}

impl<W: Write> Output<W> {
    fn put(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.at += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    /// Zeros up to the offset, less than two blocks away.
    fn pad_to(&mut self, at: u64) -> std::io::Result<()> {
        let zeros = [0; 2 * BLOCK_BYTES as usize];
        let gap = (at - self.at) as usize;
        self.put(&zeros[..gap])
    }
}
