//! Where everything of an image goes: the whole plan, before a byte is written.

use super::attributes::{self, Sharing};
use super::format::{
    ATTRIBUTES_BYTES_MAX, BLOCK_BYTES, CHUNK_BYTES, CHUNK_HOLE, COMPACT_BYTES, DIRENT_BYTES,
    EXTENDED_BYTES, SLOT_BYTES,
};
use super::tree::{
    Content, Inode, InodeId, LINK_BYTES_MAX, Limit, MAJOR_MAX, MINOR_MAX, NAME_BYTES_MAX, Tree,
    TreeError,
};
use std::collections::BTreeMap;

/// A longer tail wastes less in a block of its own than the gap that it would need among the inodes.
const TAIL_BYTES_MAX: u64 = BLOCK_BYTES / 2;

/// An inode and its place.
#[derive(Debug)]
pub(super) struct Placed<'a> {
    pub(super) id: InodeId,
    pub(super) inode: &'a Inode,
    pub(super) parent: InodeId,
    pub(super) links: u32,
    /// Offset in the image.
    pub(super) at: u64,
    pub(super) compact: bool,
    /// Bytes of content, and how many of them stand behind the inode.
    pub(super) size: u64,
    pub(super) tail: u64,
    /// Block number of the part of the content that does not.
    pub(super) block: u32,
}

impl Placed<'_> {
    pub(super) fn blocks(&self) -> u64 {
        match self.inode.content {
            Content::Pooled { .. } => 0,
            _ => (self.size - self.tail).div_ceil(BLOCK_BYTES),
        }
    }

    /// Indexes of chunks that are all holes.
    pub(super) fn holes(&self) -> u64 {
        match self.inode.content {
            Content::Pooled { size, .. } => size.div_ceil(CHUNK_BYTES),
            _ => 0,
        }
    }
}

/// The plan of an image.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    /// What is written, in order.
    pub(super) inodes: Vec<Placed<'a>>,
    /// Number on disk by [`InodeId`]; zero without a name.
    pub(super) numbers: Vec<u64>,
    pub(super) sharing: Sharing<'a>,
    /// The time of compact inodes.
    pub(super) time: (i64, u32),
    /// Block of the shared attributes.
    pub(super) shared_block: u32,
    pub(super) blocks: u32,
}

impl<'a> Plan<'a> {
    pub(super) fn of(tree: &'a Tree, long_prefixes: bool) -> Result<Self, TreeError> {
        let mut inodes = walk(tree)?;
        let image = |limit| TreeError {
            path: "/".to_owned(),
            limit,
        };
        let sharing = Sharing::of(inodes.iter().map(|p| p.inode), long_prefixes).map_err(image)?;
        let time = frequent_time(&inodes);
        let mut numbers = vec![0; tree.len()];
        let mut at = BLOCK_BYTES;
        let mut list = Vec::new();
        for placed in &mut inodes {
            placed.compact = is_compact(placed, time);
            attributes::list(placed.inode, &mut list).map_err(image)?;
            let measured = sharing.bytes(&list);
            let head = measured
                + match placed.compact {
                    true => COMPACT_BYTES,
                    false => EXTENDED_BYTES,
                };
            at = at.next_multiple_of(SLOT_BYTES);
            placed.tail = tail(placed, head);
            let behind = placed.tail + placed.holes() * CHUNK_HOLE.len() as u64;
            if placed.tail > 0 && at / BLOCK_BYTES != (at + head + behind - 1) / BLOCK_BYTES {
                at = at.next_multiple_of(BLOCK_BYTES);
            }
            placed.at = at;
            numbers[placed.id.index()] = at / SLOT_BYTES;
            at += head + behind;
        }
        let block =
            |at: u64| u32::try_from(at.div_ceil(BLOCK_BYTES)).map_err(|_| image(Limit::Image));
        let shared_block = block(at)?;
        let shared_at = u64::from(shared_block) * BLOCK_BYTES;
        let data_block = block(shared_at + sharing.area.len() as u64)?;
        let mut next = u64::from(data_block) * BLOCK_BYTES;
        for placed in &mut inodes {
            if placed.blocks() > 0 {
                placed.block = block(next)?;
                next += placed.blocks() * BLOCK_BYTES;
            }
        }
        Ok(Self {
            numbers,
            sharing,
            time,
            shared_block,
            blocks: block(next)?,
            inodes,
        })
    }
}

/// The inodes that have names, by levels, checked.
fn walk(tree: &Tree) -> Result<Vec<Placed<'_>>, TreeError> {
    let placed = |id, parent| Placed {
        id,
        inode: tree.get(id),
        parent,
        links: 1,
        at: 0,
        compact: false,
        size: size(tree.get(id)),
        tail: 0,
        block: 0,
    };
    let mut order = vec![placed(InodeId::ROOT, InodeId::ROOT)];
    // Where an inode stands in `order`, which the root begins.
    let mut seen = vec![0_u32; tree.len()];
    if !matches!(tree.get(InodeId::ROOT).content, Content::Directory(_)) {
        return Err(error(tree, &order, 0, Limit::Root));
    }
    let mut next = 0;
    while let Some(&Placed { id, inode, .. }) = order.get(next) {
        check(inode).map_err(|limit| error(tree, &order, next, limit))?;
        if let Content::Directory(names) = &inode.content {
            order[next].links += 1;
            for (name, &child) in names {
                check_name(name).map_err(|limit| error(tree, &order, next, limit))?;
                let directory = matches!(tree.get(child).content, Content::Directory(_));
                match seen[child.index()] {
                    0 if child != InodeId::ROOT => {
                        // No more than there are ids.
                        seen[child.index()] = order.len() as u32;
                        order.push(placed(child, id));
                        order[next].links += u32::from(directory);
                    }
                    _ if directory => {
                        return Err(error(tree, &order, next, Limit::DirectoryLink));
                    }
                    at => order[at as usize].links += 1,
                }
            }
        }
        next += 1;
    }
    Ok(order)
}

fn check_name(name: &[u8]) -> Result<(), Limit> {
    let bad = name.is_empty()
        || name.len() > NAME_BYTES_MAX
        || matches!(name, b"." | b"..")
        || name.iter().any(|b| matches!(b, 0 | b'/'));
    match bad {
        true => Err(Limit::Name),
        false => Ok(()),
    }
}

pub(super) fn check(inode: &Inode) -> Result<(), Limit> {
    match &inode.content {
        Content::Symlink(to) if to.is_empty() || to.len() > LINK_BYTES_MAX || to.contains(&0) => {
            Err(Limit::Link)
        }
        Content::CharDevice(major, minor) | Content::BlockDevice(major, minor)
            if *major > MAJOR_MAX || *minor > MINOR_MAX =>
        {
            Err(Limit::Device)
        }
        _ => {
            let mut list = Vec::new();
            attributes::list(inode, &mut list)?;
            match attributes::bytes_max(&list) <= ATTRIBUTES_BYTES_MAX {
                true => Ok(()),
                false => Err(Limit::Attributes),
            }
        }
    }
}

/// With the path of the inode at `index`.
fn error(tree: &Tree, order: &[Placed<'_>], index: usize, limit: Limit) -> TreeError {
    let mut names = Vec::new();
    let (mut id, mut parent) = (order[index].id, order[index].parent);
    while id != InodeId::ROOT {
        let Content::Directory(entries) = &tree.get(parent).content else {
            break;
        };
        let name = entries.iter().find(|(_, child)| **child == id);
        names.extend(name.map(|(name, _)| String::from_utf8_lossy(name).into_owned()));
        id = parent;
        let above = order.iter().find(|p| p.id == id);
        parent = above.map_or(InodeId::ROOT, |p| p.parent);
    }
    names.reverse();
    TreeError {
        path: format!("/{}", names.join("/")),
        limit,
    }
}

fn size(inode: &Inode) -> u64 {
    match &inode.content {
        Content::Directory(names) => directory_bytes(names),
        Content::Inline(bytes) | Content::Symlink(bytes) => bytes.len() as u64,
        Content::Pooled { size, .. } => *size,
        _ => 0,
    }
}

/// The most frequent time, the earliest of several.
fn frequent_time(inodes: &[Placed<'_>]) -> (i64, u32) {
    let mut times: BTreeMap<(i64, u32), usize> = BTreeMap::new();
    for placed in inodes {
        *times.entry(placed.inode.mtime).or_default() += 1;
    }
    times
        .into_iter()
        .rev()
        .max_by_key(|&(_, count)| count)
        .map_or((0, 0), |(time, _)| time)
}

fn is_compact(placed: &Placed<'_>, time: (i64, u32)) -> bool {
    let small = |n: u32| n <= u32::from(u16::MAX);
    placed.inode.mtime == time
        && small(placed.inode.uid)
        && small(placed.inode.gid)
        && small(placed.links)
        && placed.size <= u64::from(u32::MAX)
}

/// How many bytes of the content stand behind the inode, whose own bytes are `head`.
fn tail(placed: &Placed<'_>, head: u64) -> u64 {
    let rest = match placed.inode.content {
        Content::Pooled { .. } => 0,
        _ => placed.size % BLOCK_BYTES,
    };
    match rest <= TAIL_BYTES_MAX && head + rest <= BLOCK_BYTES {
        true => rest,
        false => 0,
    }
}

/// A directory's names with `.` and `..`, in the order of bytes.
pub(super) fn sorted(
    names: &BTreeMap<Box<[u8]>, InodeId>,
    own: InodeId,
    parent: InodeId,
) -> Vec<(&[u8], InodeId)> {
    let dots: [(&[u8], InodeId); 2] = [(b".", own), (b"..", parent)];
    let names = names.iter().map(|(name, id)| (&**name, *id));
    let mut all: Vec<_> = dots.into_iter().chain(names).collect();
    all.sort_unstable_by_key(|(name, _)| *name);
    all
}

/// Cuts sorted names into blocks: as many as fit into each.
pub(super) fn blocks<'s, 't>(
    mut names: &'s [(&'t [u8], InodeId)],
) -> impl Iterator<Item = &'s [(&'t [u8], InodeId)]> {
    std::iter::from_fn(move || {
        let mut used = 0;
        let fits = |(name, _): &&(&[u8], InodeId)| {
            used += DIRENT_BYTES + name.len();
            used as u64 <= BLOCK_BYTES
        };
        let count = names.iter().take_while(fits).count();
        let (block, rest) = names.split_at_checked(count)?;
        names = rest;
        (!block.is_empty()).then_some(block)
    })
}

fn directory_bytes(names: &BTreeMap<Box<[u8]>, InodeId>) -> u64 {
    let names = sorted(names, InodeId::ROOT, InodeId::ROOT);
    let used = |block: &[(&[u8], InodeId)]| -> u64 {
        block
            .iter()
            .map(|(name, _)| (DIRENT_BYTES + name.len()) as u64)
            .sum()
    };
    blocks(&names).fold(0, |size: u64, block| {
        size.next_multiple_of(BLOCK_BYTES) + used(block)
    })
}
