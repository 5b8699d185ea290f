//! One layer as a tree: what its archive's entries come to. Pure.
//!
//! The tree is what overlayfs would find in a directory into which the layer was unpacked: whiteouts
//! are character devices 0:0, and directories may be opaque. Names mean the same as in the overlay
//! driver: a symbolic link in a path is followed within the layer only, `..` never climbs above the
//! root, a later entry replaces an earlier one, a directory keeps its contents. What a directory looks like
//! that the archive does not mention is for the layers below to say.

use crate::erofs::{Content, Inode, InodeId, Limit, Tree, has_attribute};
use crate::tar::{Entry, Kind};
use crate::unpack::{ExtractError, Meaning, components, failed, lossy, meaning, wanted_xattrs};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashSet, VecDeque};

/// Symbolic links in one path, as in the kernel.
const LINKS_MAX: u32 = 40;
/// Directories below one another; no path of the kernel names more.
const DEPTH_MAX: usize = 2048;
const NAME_BYTES_MAX: usize = 255;
/// How overlayfs marks a name that lower layers may not show.
pub(crate) const WHITEOUT: Content = Content::CharDevice(0, 0);

/// The tree of one layer.
#[derive(Debug)]
pub(crate) struct LayerTree {
    pub(crate) tree: Tree,
    /// Directories that hide what lower layers have at their place.
    pub(crate) opaque: HashSet<InodeId>,
    /// Directories that the archive does not mention.
    pub(crate) implied: HashSet<InodeId>,
}

pub(crate) fn directory(mtime: (i64, u32)) -> Inode {
    Inode {
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime,
        attributes: BTreeMap::new(),
        content: Content::Directory(BTreeMap::new()),
    }
}

impl LayerTree {
    pub(crate) fn new() -> Self {
        Self {
            tree: Tree::new(directory((0, 0))),
            opaque: HashSet::new(),
            implied: HashSet::from([InodeId::ROOT]),
        }
    }

    /// Takes the next entry. `file` is what a regular file has in it.
    pub(crate) fn apply(&mut self, entry: &Entry, file: Content) -> Result<(), ExtractError> {
        let parts = components(&entry.path)?;
        let Some((name, parents)) = parts.split_last() else {
            return self.root(entry);
        };
        let parent = self.enter(parents, entry)?;
        match meaning(name, entry)? {
            Meaning::Thing(name) => self.thing(parent, name, entry, file)?,
            Meaning::Opaque => {
                self.opaque.insert(parent);
            }
            Meaning::Whiteout(hidden) => self.whiteout(parent, hidden, entry)?,
            Meaning::Nothing => {}
        }
        Ok(())
    }

    fn root(&mut self, entry: &Entry) -> Result<(), ExtractError> {
        if entry.kind != Kind::Directory {
            return Err(ExtractError::Escapes(lossy(&entry.path)));
        }
        self.redress(InodeId::ROOT, entry)
    }

    /// The directory with this path; what is missing of it is implied.
    fn enter(&mut self, parts: &[&[u8]], entry: &Entry) -> Result<InodeId, ExtractError> {
        let refuse = failed("open the parent of", entry);
        let mut path = vec![InodeId::ROOT];
        let mut todo: VecDeque<Box<[u8]>> = parts.iter().map(|&p| p.into()).collect();
        let mut links = 0;
        // Below a link nothing is implied until what it means was found.
        let mut found = 0;
        while let Some(name) = todo.pop_front() {
            let at = *path.last().unwrap_or(&InodeId::ROOT);
            let followed = found > 0;
            found = usize::saturating_sub(found, 1);
            match &*name {
                b"" | b"." => continue,
                b".." => {
                    if path.len() > 1 {
                        path.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let child = self.tree.child(at, &name);
            let hidden = child.is_some_and(|c| self.tree.get(c).content == WHITEOUT);
            let next = match child {
                Some(child) if !hidden => match &self.tree.get(child).content {
                    Content::Directory(_) => child,
                    Content::Symlink(to) => {
                        links += 1;
                        if links > LINKS_MAX {
                            return Err(refuse(Errno::LOOP));
                        }
                        if to.starts_with(b"/") {
                            path.truncate(1);
                        }
                        let parts: Vec<Box<[u8]>> =
                            to.split(|&b| b == b'/').map(Into::into).collect();
                        found += parts.len();
                        for part in parts.into_iter().rev() {
                            todo.push_front(part);
                        }
                        continue;
                    }
                    _ => return Err(refuse(Errno::NOTDIR)),
                },
                _ if followed && hidden => return Err(refuse(Errno::NOTDIR)),
                _ if followed => return Err(refuse(Errno::NOENT)),
                _ => self.imply(at, &name, hidden, entry)?,
            };
            path.push(next);
            if path.len() > DEPTH_MAX {
                return Err(refuse(Errno::NAMETOOLONG));
            }
        }
        Ok(*path.last().unwrap_or(&InodeId::ROOT))
    }

    fn imply(
        &mut self,
        at: InodeId,
        name: &[u8],
        hides: bool,
        entry: &Entry,
    ) -> Result<InodeId, ExtractError> {
        let id = self.tree.add(directory(entry.mtime));
        self.link(at, name, id, entry)?;
        // One that replaces what is below takes nothing of it.
        let set = if hides {
            &mut self.opaque
        } else {
            &mut self.implied
        };
        set.insert(id);
        Ok(id)
    }

    fn thing(
        &mut self,
        parent: InodeId,
        name: &[u8],
        entry: &Entry,
        file: Content,
    ) -> Result<(), ExtractError> {
        let content = match entry.kind {
            Kind::Regular => file,
            Kind::Directory => return self.directory(parent, name, entry),
            Kind::HardLink => return self.hard_link(parent, name, entry),
            Kind::Symlink => Content::Symlink(entry.link.as_slice().into()),
            Kind::CharDevice => Content::CharDevice(entry.device.0, entry.device.1),
            Kind::BlockDevice => Content::BlockDevice(entry.device.0, entry.device.1),
            Kind::Fifo => Content::Fifo,
        };
        let inode = inode(entry, content)?;
        let id = self.tree.add(inode);
        self.link(parent, name, id, entry)
    }

    /// Makes or keeps a directory.
    fn directory(
        &mut self,
        parent: InodeId,
        name: &[u8],
        entry: &Entry,
    ) -> Result<(), ExtractError> {
        let there = self.tree.child(parent, name);
        let before = there.map(|id| (id, &self.tree.get(id).content));
        if let Some((id, Content::Directory(_))) = before {
            return self.redress(id, entry);
        }
        let hides = before.is_some_and(|(_, content)| *content == WHITEOUT);
        let inode = inode(entry, Content::Directory(BTreeMap::new()))?;
        let id = self.tree.add(inode);
        if hides {
            self.opaque.insert(id);
        }
        self.link(parent, name, id, entry)
    }

    fn hard_link(
        &mut self,
        parent: InodeId,
        name: &[u8],
        entry: &Entry,
    ) -> Result<(), ExtractError> {
        let missing = || failed("find the link target of", entry);
        let parts = components(&entry.link)?;
        let Some((target, parents)) = parts.split_last() else {
            return Err(ExtractError::Escapes(lossy(&entry.link)));
        };
        let implied = self.tree.len();
        let at = self.enter(parents, entry)?;
        let target = self.tree.child(at, target);
        let Some(id) = target.filter(|_| self.tree.len() == implied) else {
            return Err(missing()(Errno::NOENT));
        };
        if self.tree.child(parent, name) == Some(id) {
            return Ok(());
        }
        if matches!(self.tree.get(id).content, Content::Directory(_)) {
            return Err(missing()(Errno::PERM));
        }
        self.link(parent, name, id, entry)
    }

    fn whiteout(
        &mut self,
        parent: InodeId,
        hidden: &[u8],
        entry: &Entry,
    ) -> Result<(), ExtractError> {
        match self.tree.child(parent, hidden) {
            Some(id) => {
                if matches!(self.tree.get(id).content, Content::Directory(_)) {
                    self.opaque.insert(id);
                    self.implied.remove(&id);
                }
                // A file hides what is below by itself.
                Ok(())
            }
            None => {
                let id = self.tree.add(Inode {
                    content: WHITEOUT,
                    ..directory((0, 0))
                });
                self.link(parent, hidden, id, entry)
            }
        }
    }

    fn link(
        &mut self,
        parent: InodeId,
        name: &[u8],
        id: InodeId,
        entry: &Entry,
    ) -> Result<(), ExtractError> {
        let refuse = failed("make", entry);
        if name.len() > NAME_BYTES_MAX {
            return Err(refuse(Errno::NAMETOOLONG));
        }
        if name.contains(&0) {
            return Err(refuse(Errno::INVAL));
        }
        let Some(names) = self.tree.names_mut(parent) else {
            return Err(refuse(Errno::NOTDIR));
        };
        names.insert(name.into(), id);
        Ok(())
    }

    /// All attributes of a directory that was there before.
    fn redress(&mut self, id: InodeId, entry: &Entry) -> Result<(), ExtractError> {
        let inode = inode(entry, Content::Fifo)?;
        let there = self.tree.get_mut(id);
        there.mode = inode.mode;
        there.uid = inode.uid;
        there.gid = inode.gid;
        there.mtime = inode.mtime;
        there.attributes.extend(inode.attributes);
        there.fits().map_err(|limit| refused(entry, limit))?;
        self.implied.remove(&id);
        Ok(())
    }
}

fn inode(entry: &Entry, content: Content) -> Result<Inode, ExtractError> {
    let mut attributes = BTreeMap::new();
    for (key, value) in wanted_xattrs(entry) {
        if has_attribute(key) {
            attributes.insert(key.into(), value.into());
        } else {
            log::warn!(
                "left out the attribute {:?} of {:?}: not possible here",
                lossy(key),
                lossy(&entry.path)
            );
        }
    }
    let inode = Inode {
        mode: (entry.mode & 0o7777) as u16,
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime,
        attributes,
        content,
    };
    inode.fits().map_err(|limit| refused(entry, limit))?;
    Ok(inode)
}

fn refused(entry: &Entry, limit: Limit) -> ExtractError {
    ExtractError::Entry {
        action: "keep",
        path: lossy(&entry.path),
        source: std::io::Error::new(std::io::ErrorKind::InvalidInput, limit),
    }
}
