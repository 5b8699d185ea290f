//! A layer on top of a chain that gives implied directories back what the layers below say of them.
//!
//! overlayfs shows a directory with the attributes that it has in the topmost layer. A layer whose
//! archive has `etc/passwd` but not `etc/` would so hide owner, mode, times and attributes of the `etc/`
//! below. Layers are shared by images, so they cannot be mended themselves: the chain gets one more layer
//! on top, which has directories only, each with what the topmost layer that mentions it says.
//!
//! It is `fs/` of the chain's directory (see `crate::trees`). A chain that has implied directories but needs no
//! mending has the directory without `fs/`.

use super::Privilege;
use super::implied::{self, Paths};
use crate::driver::DriverError;
use crate::lease::Lease;
use crate::store::StoreError;
use crate::trees;
use carrack_spec::Digest;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const XATTR_NAMES_BYTES_MAX: usize = 64 << 10;
const XATTR_VALUE_BYTES_MAX: usize = 64 << 10;

/// The directory to put on top of `layers` (lowest first), if they need it; made when it is not there.
pub(super) fn layer(
    store: &Path,
    lease: &Lease,
    layers: &[Digest],
    privilege: Privilege,
) -> Result<Option<PathBuf>, DriverError> {
    let path = |layer: &Digest| store.join("layers").join(layer.hex());
    // Nothing is below the lowest.
    if !layers.iter().skip(1).any(|l| implied::any(&path(l))) {
        return Ok(None);
    }
    let place = trees::place(store, layers);
    if !place.is_dir() {
        let chain = layers
            .iter()
            .rev()
            .map(|layer| {
                let at = path(layer);
                let implied = implied::read(&at)?;
                let files = at.join("fs");
                Ok(Layer { files, implied })
            })
            .collect::<Result<Vec<Layer>, DriverError>>()?;
        let found = plan(&chain, privilege)?;
        trees::make(store, lease, layers, |at| {
            if !found.is_empty() {
                carry_out(&found, &chain, &at.join("fs"))?;
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(at, flags, Mode::empty())
                .and_then(rustix::fs::syncfs)
                .map_err(|e| StoreError::io("flush", at)(e.into()).into())
        })?;
    }
    let files = place.join("fs");
    Ok(files.is_dir().then_some(files))
}

/// One layer of the chain.
struct Layer {
    files: PathBuf,
    implied: Paths,
}

/// Directories to make, parents before children, and the layer whose attributes each gets.
type Plan = BTreeMap<Vec<u8>, usize>;

/// What a chain (topmost first) needs.
fn plan(chain: &[Layer], privilege: Privilege) -> Result<Plan, DriverError> {
    let mut wanted = BTreeSet::new();
    for path in chain.iter().rev().skip(1).flat_map(|l| &l.implied) {
        let parents = path.iter().enumerate().filter(|(_, b)| **b == b'/');
        wanted.extend(parents.filter_map(|(end, _)| path.get(..end)));
        wanted.extend([&b""[..], path]);
    }
    let mut found = Vec::new();
    // The layers that overlayfs joins at a path.
    let mut joined = BTreeMap::<&[u8], Vec<usize>>::new();
    for path in wanted {
        let above = match path {
            b"" => (0..chain.len()).collect(),
            path => joined.get(parent(path)).cloned().unwrap_or_default(),
        };
        let Some((layers, source)) = look(chain, &above, path, privilege)? else {
            continue;
        };
        let differs = match layers.first() {
            Some(top) if *top != source => {
                let of = |n: usize| Attributes::of(&place(chain, n, path));
                of(*top)? != of(source)?
            }
            _ => false,
        };
        found.push((path, source, differs));
        joined.insert(path, layers);
    }
    // A directory needs those above it.
    let mut plan = Plan::new();
    let mut needed = BTreeSet::new();
    for (path, source, differs) in found.into_iter().rev() {
        if differs || needed.contains(path) {
            plan.insert(path.to_vec(), source);
            needed.insert(parent(path));
        }
    }
    Ok(plan)
}

/// Of the layers at `above` (topmost first), those that overlayfs joins at `path`, and the one that says
/// what it looks like; `None` when it is no directory.
fn look(
    chain: &[Layer],
    above: &[usize],
    path: &[u8],
    privilege: Privilege,
) -> Result<Option<(Vec<usize>, usize)>, DriverError> {
    let mut joined = Vec::new();
    let mut source = None;
    let (mut hidden, mut decided) = (false, false);
    for &n in above {
        let at = place(chain, n, path);
        match at.symlink_metadata() {
            Ok(metadata) if metadata.is_dir() => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Ok(_) => break,
            Err(e) => return Err(StoreError::io("inspect", at)(e).into()),
        }
        if !decided {
            source = Some(n);
            decided = !chain.get(n).is_some_and(|l| l.implied.contains(path));
        }
        if !hidden {
            joined.push(n);
            hidden = rustix::fs::getxattr(&at, privilege.opaque(), &mut [0; 1][..]).is_ok();
        }
        // One that empties a directory without mentioning it leaves it as it was.
        if hidden && decided {
            break;
        }
    }
    Ok(source.map(|source| (joined, source)))
}

fn place(chain: &[Layer], n: usize, path: &[u8]) -> PathBuf {
    let files = chain.get(n).map(|l| l.files.as_path());
    files.unwrap_or(Path::new("")).join(OsStr::from_bytes(path))
}

fn parent(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|b| *b == b'/').unwrap_or(0);
    path.get(..end).unwrap_or_default()
}

/// Makes the directories, then what they look like, the lowest first: making one changes those above.
fn carry_out(plan: &Plan, chain: &[Layer], at: &Path) -> Result<(), DriverError> {
    for path in plan.keys() {
        let new = at.join(OsStr::from_bytes(path));
        rustix::fs::mkdir(&new, Mode::from_raw_mode(0o700))
            .map_err(|e| StoreError::io("make the directory", &new)(e.into()))?;
    }
    for (path, source) in plan.iter().rev() {
        let attributes = Attributes::of(&place(chain, *source, path))?;
        attributes.apply(&at.join(OsStr::from_bytes(path)))?;
    }
    Ok(())
}

/// What a directory looks like.
#[derive(Debug, PartialEq, Eq)]
struct Attributes {
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Attributes {
    fn of(path: &Path) -> Result<Self, StoreError> {
        let failed = |e: Errno| StoreError::io("read the attributes of", path)(e.into());
        let metadata = path
            .symlink_metadata()
            .map_err(StoreError::io("inspect", path))?;
        let mut names = vec![0; XATTR_NAMES_BYTES_MAX];
        let used = match rustix::fs::llistxattr(path, &mut names[..]) {
            Err(Errno::OPNOTSUPP) => 0,
            other => other.map_err(failed)?,
        };
        names.truncate(used);
        let mut xattrs = BTreeMap::new();
        for name in names.split(|b| *b == 0) {
            if name.is_empty() || crate::unpack::is_of_host(name) {
                continue;
            }
            let mut value = vec![0; XATTR_VALUE_BYTES_MAX];
            let used = rustix::fs::lgetxattr(path, name, &mut value[..]).map_err(failed)?;
            value.truncate(used);
            xattrs.insert(name.to_vec(), value);
        }
        Ok(Self {
            mode: metadata.mode() & 0o7777,
            owner: (metadata.uid(), metadata.gid()),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            xattrs,
        })
    }

    fn apply(&self, path: &Path) -> Result<(), StoreError> {
        let failed = |e: Errno| StoreError::io("set the attributes of", path)(e.into());
        let (uid, gid) = self.owner;
        rustix::fs::chown(path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .map_err(failed)?;
        for (key, value) in &self.xattrs {
            rustix::fs::setxattr(path, key.as_slice(), value, XattrFlags::empty())
                .map_err(failed)?;
        }
        rustix::fs::chmod(path, Mode::from_raw_mode(self.mode)).map_err(failed)?;
        let (tv_sec, tv_nsec) = self.mtime;
        let time = Timespec { tv_sec, tv_nsec };
        let stamps = Timestamps {
            last_access: time,
            last_modification: time,
        };
        rustix::fs::utimensat(rustix::fs::CWD, path, &stamps, AtFlags::empty()).map_err(failed)
    }
}
