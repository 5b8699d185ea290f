//! The driver over EROFS: contents in a pool, each once; an image of names and attributes for each chain
//! of layers.
//!
//! ```text
//! layers/HEX/   recipe (the store's): the archive without what the pool has. Small files are in it
//!               objects: what the layer needs of the pool
//! objects/      the pool (see `objects`)
//! trees/        images of chains (see `trees`)
//! ```
//!
//! A layer has no tree of files on disk. Its recipe is replayed: the entries become a tree (`layer`), the
//! trees of a chain one (`merge`), and that an EROFS image, in which large files are references. A
//! mount is that image, from its file, below overlayfs with the pool as data-only layer: two mounts however
//! many layers there are. None is attached anywhere.
//!
//! Needs root of the machine: no user namespace can mount EROFS. Linux 6.5 is the oldest kernel with
//! data-only layers that are named one by one, 6.12 the oldest that mounts a file without a loop device.

mod check;
mod layer;
mod merge;
mod mount;
mod objects;
mod replay;
mod trees;
mod unpack;

use crate::driver::{Contents, Driver, DriverError, MountRequest, RootAttributes, Unpack};
use crate::lease::Lease;
use crate::overlay::mount_image;
use crate::store::StoreError;
use carrack_spec::Digest;
pub use mount::ErofsError;
use objects::Pool;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// The driver.
#[derive(Debug)]
pub(crate) struct PoolDriver {
    root: PathBuf,
    pool: Pool,
}

impl PoolDriver {
    /// With `verity` the kernel compares everything that is read of the pool with its digest.
    pub(crate) fn new(root: &Path, verity: bool) -> Self {
        Self {
            root: root.to_owned(),
            pool: Pool::new(root, verity),
        }
    }
}

impl Driver for PoolDriver {
    fn name(&self) -> &'static str {
        match self.pool.verity() {
            false => "pool",
            true => "pool-verity",
        }
    }

    fn unpacker(&self, at: &Path) -> Result<Box<dyn Unpack>, DriverError> {
        Ok(Box::new(unpack::Unpacker::new(&self.pool, at)?))
    }

    fn publish(&self, at: &Path) -> Result<(), DriverError> {
        Ok(self.pool.publish(at)?)
    }

    fn contents(&self, at: &Path) -> Result<Box<dyn Contents>, DriverError> {
        Ok(Box::new(Objects {
            pool: self.pool.clone(),
            layer: at.to_owned(),
        }))
    }

    fn mount(&self, request: &MountRequest<'_>) -> Result<OwnedFd, DriverError> {
        let image = trees::image(&self.root, &self.pool, request.lease, request.layers)?;
        let layer = mount::mount(&image, request.idmap)?;
        let data = self.pool.root();
        Ok(mount_image(
            layer,
            data,
            self.pool.verity(),
            request.upper,
            &request.lease.temporary(),
        )?)
    }

    fn prepare(&self, lease: &Lease, layers: &[Digest]) -> Result<RootAttributes, DriverError> {
        let image = trees::image(&self.root, &self.pool, lease, layers)?;
        // Not from a mount: making and ending one costs more than all else here.
        let root = File::open(&image).and_then(|file| crate::erofs::root(&file));
        let root = root.map_err(StoreError::io("read", image))?;
        Ok(RootAttributes {
            uid: root.uid,
            gid: root.gid,
            mode: root.mode.into(),
        })
    }

    fn check(
        &self,
        layers: &[PathBuf],
        bad: &mut dyn FnMut(&Path, String),
    ) -> Result<(), DriverError> {
        check::check(&self.pool, layers, bad)
    }

    fn shares(&self) -> bool {
        true
    }

    fn usage(&self, layers: &[PathBuf]) -> Result<u64, DriverError> {
        check::usage(&self.root, &self.pool, layers)
    }

    fn collect(&self, kept: &[PathBuf], trash: &dyn Fn() -> PathBuf) -> Result<(), DriverError> {
        crate::trees::collect(&self.root, kept, trash)?;
        Ok(self.pool.collect(kept, &self.root.join("tmp"), trash)?)
    }
}

struct Objects {
    pool: Pool,
    layer: PathBuf,
}

impl Contents for Objects {
    fn open(&mut self, key: &[u8], _n: u64) -> Result<File, DriverError> {
        let Some(id) = objects::from_bytes(key) else {
            return Err(DriverError::Damaged {
                path: self.layer.clone(),
                what: "a key of its recipe names no object".into(),
            });
        };
        let path = self.pool.path(&id);
        File::open(&path).map_err(|source| StoreError::io("open", path)(source).into())
    }
}

#[cfg(test)]
mod tests;
