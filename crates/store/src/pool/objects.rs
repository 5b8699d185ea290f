//! The pool: contents of files, each once, by digest.
//!
//! ```text
//! objects/
//!   lock         flock: shared by who begins to rely on an object, exclusive by who removes some
//!   XX/REST      the bytes; what is here is complete and durable, and never changes
//! layers/HEX/
//!   objects      what the layer relies on: 33 bytes each, the digest and 1 for a sparse file
//! tmp/ID.N/      a layer being unpacked
//!   unfinished   its list so far; becomes `objects` when it is published
//!   new/NAME     what the pool does not have yet
//! ```
//!
//! Objects come into the pool when their layer is complete and durable ([`Pool::publish`]): a crash
//! never leaves a file there that is only half written. An object that is there already is written
//! into the list first and looked for then, both under the shared lock; [`Pool::collect`] reads the lists and moves
//! objects away under the exclusive lock. So one that was found stays.

use crate::durable::remove_path;
use crate::erofs::{ObjectId, object_path};
use crate::store::StoreError;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::collections::HashSet;
use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The list of a layer, and of one that is being unpacked.
pub(super) const LIST: &str = "objects";
const UNFINISHED: &str = "unfinished";
/// An object in a list.
pub(super) const ID_BYTES: usize = 33;
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// As it stands in lists and recipes.
pub(super) fn to_bytes(id: &ObjectId) -> [u8; ID_BYTES] {
    let mut bytes = [0; ID_BYTES];
    bytes[..32].copy_from_slice(&id.digest);
    bytes[32] = u8::from(id.sparse);
    bytes
}

/// `None` for other bytes.
pub(super) fn from_bytes(bytes: &[u8]) -> Option<ObjectId> {
    let (digest, sparse) = bytes.split_first_chunk::<32>()?;
    let sparse = match sparse {
        [0] => false,
        [1] => true,
        _ => return None,
    };
    Some(ObjectId {
        digest: *digest,
        sparse,
    })
}

/// A name without a slash, for where all are in one directory.
fn flat_name(id: &ObjectId) -> String {
    object_path(id).replacen('/', "", 1)
}

/// The store's contents.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    root: PathBuf,
    /// Every file has fs-verity.
    verity: bool,
}

impl Pool {
    pub(super) fn new(store: &Path, verity: bool) -> Self {
        Self {
            root: store.join("objects"),
            verity,
        }
    }

    pub(super) fn verity(&self) -> bool {
        self.verity
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn path(&self, id: &ObjectId) -> PathBuf {
        self.root.join(object_path(id))
    }

    fn lock(&self, operation: FlockOperation) -> Result<File, StoreError> {
        let path = self.root.join("lock");
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&file, operation))
            .map_err(|e| StoreError::io("lock", &path)(e.into()))?;
        Ok(file)
    }

    /// Puts what an unpacked layer made into the pool; durable when this returns.
    pub(super) fn publish(&self, layer: &Path) -> Result<(), StoreError> {
        let new = layer.join("new");
        let open = |path: &Path| {
            rustix::fs::open(path, DIRECTORY, Mode::empty())
                .map_err(|e| StoreError::io("open", path)(e.into()))
        };
        let (from, to) = (open(&new)?, open(&self.root)?);
        let unfinished = layer.join(UNFINISHED);
        for id in read_list(&unfinished)? {
            self.publish_one(from.as_fd(), to.as_fd(), &id)?;
        }
        rustix::fs::syncfs(&to).map_err(|e| StoreError::io("flush", &self.root)(e.into()))?;
        // What is left there came into the pool by another layer meanwhile.
        std::fs::remove_dir_all(&new).map_err(StoreError::io("remove", new))?;
        let list = layer.join(LIST);
        std::fs::rename(&unfinished, &list).map_err(StoreError::io("put in place", list))
    }

    fn publish_one(
        &self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        id: &ObjectId,
    ) -> Result<(), StoreError> {
        let (name, path) = (flat_name(id), object_path(id));
        let rename = || rustix::fs::renameat_with(from, &name, to, &path, RenameFlags::NOREPLACE);
        let mut moved = rename();
        if moved == Err(Errno::NOENT) {
            match rustix::fs::mkdirat(to, &path[..2], Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => moved = rename(),
                Err(error) => moved = Err(error),
            }
        }
        match moved {
            // Without a file of its own, the layer found it in the pool.
            Ok(()) | Err(Errno::EXIST | Errno::NOENT) => Ok(()),
            Err(error) => Err(StoreError::io("put in place", self.path(id))(error.into())),
        }
    }

    /// Moves away what neither the layers at `kept` nor those being unpacked below `unfinished` rely on:
    /// a directory as a whole if nothing in it is wanted.
    pub(super) fn collect(
        &self,
        kept: &[PathBuf],
        unfinished: &Path,
        trash: &dyn Fn() -> PathBuf,
    ) -> Result<(), StoreError> {
        let _alone = self.lock(FlockOperation::LockExclusive)?;
        let mut wanted = HashSet::new();
        for layer in kept {
            wanted.extend(read_list(&layer.join(LIST))?);
        }
        for layer in list(unfinished)? {
            wanted.extend(read_list(&layer.join(UNFINISHED))?);
        }
        let wanted: HashSet<String> = wanted.iter().map(flat_name).collect();
        let mut away = None;
        for directory in list(&self.root)? {
            let failed = |action, path: &Path| {
                let path = path.to_owned();
                move |e: Errno| StoreError::io(action, path)(e.into())
            };
            let from = match rustix::fs::open(&directory, DIRECTORY, Mode::empty()) {
                Err(Errno::NOTDIR | Errno::LOOP) => continue,
                other => other.map_err(failed("open", &directory))?,
            };
            let (needed, left) = divide(&from, &directory, &wanted)?;
            if !needed {
                match std::fs::rename(&directory, trash()) {
                    // A full disk has no room for another name; what is removed makes some.
                    Err(e) if e.kind() == std::io::ErrorKind::StorageFull => {
                        remove_path(&directory)
                    }
                    moved => moved,
                }
                .map_err(StoreError::io("move away", &directory))?;
            } else if !left.is_empty() {
                if away.is_none() {
                    away = make(&trash())?;
                }
                let above = directory.file_name().unwrap_or_default();
                for name in left {
                    let new = [above.as_bytes(), name.as_bytes()].concat();
                    let moved = match &away {
                        Some(to) => rustix::fs::renameat(&from, &name, to, new),
                        None => Err(Errno::NOSPC),
                    };
                    match moved {
                        Err(Errno::NOSPC) => {
                            rustix::fs::unlinkat(&from, &name, rustix::fs::AtFlags::empty())
                        }
                        moved => moved,
                    }
                    .map_err(failed("move away from", &directory))?;
                }
            }
        }
        Ok(())
    }
}

/// Whether anything in a directory of the pool is wanted, and the names of what is not.
fn divide(
    directory: &OwnedFd,
    path: &Path,
    wanted: &HashSet<String>,
) -> Result<(bool, Vec<CString>), StoreError> {
    let failed = |e: Errno| StoreError::io("list", path)(e.into());
    let mut whole = path.file_name().unwrap_or_default().to_owned().into_vec();
    let above = whole.len();
    let (mut needed, mut left) = (false, Vec::new());
    for entry in rustix::fs::Dir::read_from(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        whole.truncate(above);
        whole.extend_from_slice(name.to_bytes());
        match std::str::from_utf8(&whole) {
            Ok(whole) if wanted.contains(whole) => needed = true,
            _ => left.push(name.to_owned()),
        }
    }
    Ok((needed, left))
}

/// A directory for what is moved away; none on a disk that is full.
fn make(path: &Path) -> Result<Option<OwnedFd>, StoreError> {
    let made = rustix::fs::mkdir(path, Mode::from_raw_mode(0o700))
        .and_then(|()| rustix::fs::open(path, DIRECTORY, Mode::empty()));
    match made {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::NOSPC) => Ok(None),
        Err(error) => Err(StoreError::io("make the directory", path)(error.into())),
    }
}

/// Entries of a directory; none of what is no directory, or gone.
fn list(directory: &Path) -> Result<Vec<PathBuf>, StoreError> {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    match std::fs::read_dir(directory) {
        Ok(entries) => entries
            .map(|e| Ok(e.map_err(StoreError::io("list", directory))?.path()))
            .collect(),
        Err(e) if matches!(e.kind(), NotFound | NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(StoreError::io("list", directory)(error)),
    }
}

/// The objects of a layer; none when it has no list.
pub(super) fn read_list(path: &Path) -> Result<Vec<ObjectId>, StoreError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e)
            if matches!(
                e.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(StoreError::io("read", path)(error)),
    };
    // An id that is being appended is cut off: nobody relies on it yet.
    Ok(bytes
        .chunks_exact(ID_BYTES)
        .filter_map(from_bytes)
        .collect())
}

/// What one layer puts into the pool, or finds there.
#[derive(Debug)]
pub(super) struct Adder {
    pool: Pool,
    directory: OwnedFd,
    new: PathBuf,
    objects: OwnedFd,
    list_path: PathBuf,
    /// Appended to.
    list: File,
    /// Ids that only this layer has so far, not yet in the list.
    unlisted: Vec<u8>,
    known: HashSet<ObjectId>,
}

impl Adder {
    pub(super) fn new(pool: &Pool, layer: &Path) -> Result<Self, StoreError> {
        let new = layer.join("new");
        rustix::fs::mkdir(&new, Mode::from_raw_mode(0o700))
            .map_err(|e| StoreError::io("make the directory", &new)(e.into()))?;
        let open = |path: &Path| {
            rustix::fs::open(path, DIRECTORY, Mode::empty())
                .map_err(|e| StoreError::io("open", path)(e.into()))
        };
        let list_path = layer.join(UNFINISHED);
        let list = File::options()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&list_path)
            .map_err(StoreError::io("make", &list_path))?;
        Ok(Self {
            pool: pool.clone(),
            directory: open(&new)?,
            objects: open(&pool.root)?,
            new,
            list_path,
            list,
            unlisted: Vec::new(),
            known: HashSet::new(),
        })
    }

    /// Adds bytes that are in memory.
    pub(super) fn bytes(&mut self, id: ObjectId, bytes: &[u8]) -> Result<(), StoreError> {
        if self.has(&id)? {
            return Ok(());
        }
        let name = flat_name(&id);
        let mut file = self.create(&name)?;
        let written = file.write_all(bytes);
        written.map_err(StoreError::io("write", self.new.join(&name)))?;
        drop(file);
        self.seal(&name)?;
        self.take(id);
        Ok(())
    }

    /// A file to write, for [`Adder::file`] when its digest is known.
    pub(super) fn begin(&self) -> Result<File, StoreError> {
        self.create("unfinished")
    }

    /// Adds what was written into `file`, which [`Adder::begin`] gave.
    pub(super) fn file(&mut self, file: File, id: ObjectId) -> Result<(), StoreError> {
        drop(file);
        let outcome = if self.has(&id)? {
            rustix::fs::unlinkat(&self.directory, "unfinished", AtFlags::empty())
        } else {
            self.seal("unfinished")?;
            self.take(id);
            let (at, name) = (&self.directory, flat_name(&id));
            rustix::fs::renameat(at, "unfinished", at, name)
        };
        outcome.map_err(|e| StoreError::io("write", self.new.join("unfinished"))(e.into()))
    }

    /// A file that is written and closed gets its fs-verity.
    fn seal(&self, name: &str) -> Result<(), StoreError> {
        if !self.pool.verity {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.directory, name, flags, Mode::empty())
            .and_then(|file| carrack_sys::verity::enable(file.as_fd()))
            .map_err(|e| StoreError::io("enable fs-verity for", self.new.join(name))(e.into()))
    }

    /// Writes the list to its end.
    pub(super) fn finish(mut self) -> Result<(), StoreError> {
        let unlisted = std::mem::take(&mut self.unlisted);
        self.append(&unlisted)
    }

    /// True when the object is there, in this layer or in the pool; then it stays.
    fn has(&mut self, id: &ObjectId) -> Result<bool, StoreError> {
        if self.known.contains(id) {
            return Ok(true);
        }
        let path = object_path(id);
        let there = |at: &OwnedFd| match rustix::fs::statat(at, &path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(StoreError::io("inspect", self.pool.path(id))(error.into())),
        };
        if !there(&self.objects)? {
            return Ok(false);
        }
        let _held = self.pool.lock(FlockOperation::LockShared)?;
        self.append(&to_bytes(id))?;
        let found = there(&self.objects)?;
        if found {
            self.known.insert(*id);
        }
        Ok(found)
    }

    fn take(&mut self, id: ObjectId) {
        self.unlisted.extend_from_slice(&to_bytes(&id));
        self.known.insert(id);
    }

    fn append(&self, bytes: &[u8]) -> Result<(), StoreError> {
        (&self.list)
            .write_all(bytes)
            .map_err(StoreError::io("write", &self.list_path))
    }

    fn create(&self, name: &str) -> Result<File, StoreError> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.directory, name, flags, Mode::from_raw_mode(0o600))
            .map(File::from)
            .map_err(|e| StoreError::io("make", self.new.join(name))(e.into()))
    }
}
