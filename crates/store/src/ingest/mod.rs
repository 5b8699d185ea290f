//! Takes a layer in: one pass over its bytes, from wherever they come, to a complete layer in its place.
//!
//! 1. The layer may be there: it is protected by the lease, and nothing is read.
//! 2. One ingest of a layer runs at a time on the machine (`ingests/KEY`, a lock); who comes second
//!    waits and then finds the layer, or takes over when the first failed or was killed.
//! 3. The bytes are decompressed, verified and unpacked below `tmp/` in one pass (see `pipeline`).
//! 4. syncfs(2), then one rename under the meta lock (shared), then fsync of `layers/`.
//!
//! A crash before the rename leaves what the next sweep removes; after it the layer is complete.

mod decompress;
mod pipeline;

use crate::durable::{remove_path, sync_directory};
use crate::layers::{LayerError, LayerInfo};
use crate::lease::{Lease, Turn};
use crate::parallel::several;
use crate::store::{Store, StoreError};
use carrack_spec::Digest;
use carrack_spec::image::Descriptor;
pub(crate) use decompress::Form;
use decompress::Source;
use rustix::fs::{Mode, RenameFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Most layers taken in at the same time: each has two threads of its own.
const LAYERS_AT_ONCE_MAX: usize = 4;

/// What is known of a layer before its bytes are there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LayerSource {
    /// Digest of the uncompressed tar stream, from the image configuration.
    pub diff_id: Option<Digest>,
    /// Digest and size of the bytes as they come, from the manifest.
    pub blob: Option<Descriptor>,
}

/// How an ingest gets on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Another ingest of the same layer runs; this one waits for it.
    Waiting,
    /// So many bytes have come.
    Read(u64),
    /// All bytes are unpacked; the disk is being flushed.
    Flushing,
    /// The layer is in its place.
    Done {
        /// It was there before, and nothing was read.
        existed: bool,
    },
}

/// A layer that is in the store, and protected by the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingested {
    /// Digest of its uncompressed tar stream.
    pub diff_id: Digest,
    /// The bytes as they came; `None` when nothing was read because the layer was there.
    pub blob: Option<Descriptor>,
    /// What the store knows of it.
    pub info: LayerInfo,
}

impl Store {
    /// Takes a layer in, unless it is there. `open` gives the bytes and is called only when they are
    /// needed; they are read to their end. When this returns, the layer is complete, durable, in its
    /// place and protected by `lease`.
    ///
    /// # Errors
    /// [`LayerError`]; nothing of the layer is left then.
    pub fn ingest<R: Read>(
        &self,
        lease: &Lease,
        source: &LayerSource,
        open: impl FnOnce() -> std::io::Result<R>,
        progress: &dyn Fn(Progress),
    ) -> Result<Ingested, LayerError> {
        let ingested = self.ingest_in_turn(lease, source, open, progress)?;
        let existed = ingested.blob.is_none();
        progress(Progress::Done { existed });
        Ok(ingested)
    }

    /// Takes layers in, several at a time, in the order of `sources`. `open` gives the bytes of the layer with
    /// this number, `progress` hears of it.
    ///
    /// # Errors
    /// As [`Store::ingest`]; after the first failure no further layer is begun.
    pub fn ingest_all<R: Read>(
        &self,
        lease: &Lease,
        sources: &[LayerSource],
        open: impl Fn(usize) -> std::io::Result<R> + Sync,
        progress: impl Fn(usize, Progress) + Sync,
    ) -> Result<Vec<Ingested>, LayerError> {
        several(sources, LAYERS_AT_ONCE_MAX, |n, source| {
            self.ingest(lease, source, || open(n), &|p| progress(n, p))
        })
    }

    fn ingest_in_turn<R: Read>(
        &self,
        lease: &Lease,
        source: &LayerSource,
        open: impl FnOnce() -> std::io::Result<R>,
        progress: &dyn Fn(Progress),
    ) -> Result<Ingested, LayerError> {
        let there = |diff_id: Option<&Digest>| -> Result<Option<Ingested>, LayerError> {
            let Some(diff_id) = diff_id else {
                return Ok(None);
            };
            if !lease.protect_layer(diff_id)? {
                return Ok(None);
            }
            Ok(Some(Ingested {
                diff_id: diff_id.clone(),
                blob: None,
                info: self.layer_info(diff_id)?,
            }))
        };
        if let Some(found) = there(source.diff_id.as_ref())? {
            return Ok(found);
        }
        let key = match (&source.diff_id, &source.blob) {
            (Some(diff_id), _) => Some(diff_id.hex().to_owned()),
            (None, Some(blob)) => Some(format!("blob-{}", blob.digest.hex())),
            (None, None) => None,
        };
        let turn = key.map(|key| {
            let path = self.path("ingests").join(key);
            Turn::take(path, || progress(Progress::Waiting))
        });
        let _turn = turn.transpose()?;
        let known = match (&source.diff_id, &source.blob) {
            (Some(diff_id), _) => Some(diff_id.clone()),
            (None, Some(blob)) => self.layer_of_blob(&blob.digest),
            (None, None) => None,
        };
        if let Some(found) = there(known.as_ref())? {
            return Ok(found);
        }
        let at = lease.temporary();
        let outcome = self.unpack(lease, source, open, progress, &at);
        if outcome.is_err()
            && let Err(error) = remove_path(&at)
        {
            log::warn!("cannot remove {}: {error}", at.display());
        }
        outcome
    }

    fn unpack<R: Read>(
        &self,
        lease: &Lease,
        source: &LayerSource,
        open: impl FnOnce() -> std::io::Result<R>,
        progress: &dyn Fn(Progress),
        at: &Path,
    ) -> Result<Ingested, LayerError> {
        let name = source.name();
        rustix::fs::mkdir(at, Mode::from_raw_mode(0o700))
            .map_err(|e| StoreError::io("make the directory", at)(e.into()))?;
        let recipe = at.join("recipe");
        let recipe = File::create_new(&recipe).map_err(StoreError::io("make", &recipe))?;
        let unpack = self
            .driver()
            .unpacker(at)
            .map_err(|e| LayerError::Unpack(name.clone(), e))?;
        let unreadable = decompress::unreadable(&name);
        let input = open().map_err(&unreadable)?;
        let limit = source.blob.as_ref().map(|b| b.size);
        let passed = pipeline::run(Source::new(input, limit), unpack, recipe, &|n| {
            progress(Progress::Read(n));
        })
        .map_err(|failure| match failure {
            pipeline::Failure::Read(e) => unreadable(e),
            pipeline::Failure::Unpack(e) => LayerError::Unpack(name.clone(), e),
            pipeline::Failure::Recipe(e) => StoreError::io("write", at.join("recipe"))(e).into(),
        })?;
        let (digest, size) = passed.blob;
        let blob = Descriptor::new(passed.form.media_type(), digest, size);
        source.check(&blob, &passed.diff.0)?;
        let diff_id = passed.diff.0;
        let info = LayerInfo::new(
            self.driver().name(),
            passed.unpacked.entries,
            passed.unpacked.bytes,
            passed.diff.1,
        );
        info.write(at)?;
        crate::layers::write_forms(at, std::slice::from_ref(&blob))?;
        progress(Progress::Flushing);
        self.put_layer(lease, &diff_id, at)?;
        Ok(Ingested {
            diff_id,
            blob: Some(blob),
            info,
        })
    }

    /// Makes a complete layer durable and puts it in its place.
    fn put_layer(&self, lease: &Lease, diff_id: &Digest, at: &Path) -> Result<(), LayerError> {
        self.syncer().sync(at)?;
        let layers = self.path("layers");
        let to = layers.join(diff_id.hex());
        let held = self.committing()?;
        lease.announce("layer", diff_id)?;
        self.driver()
            .publish(at)
            .map_err(|e| LayerError::Unpack(diff_id.to_string(), e))?;
        let cwd = rustix::fs::CWD;
        let moved = rustix::fs::renameat_with(cwd, at, cwd, &to, RenameFlags::NOREPLACE);
        drop(held);
        match moved {
            Ok(()) => {}
            // Another process had the same bytes under another name; the diff id says that it is the same.
            Err(Errno::EXIST | Errno::NOTEMPTY) => {
                remove_path(at).map_err(StoreError::io("remove", at))?;
            }
            Err(error) => return Err(StoreError::io("put in place", to)(error.into()).into()),
        }
        Ok(sync_directory(&layers)?)
    }
}

impl LayerSource {
    /// For messages.
    fn name(&self) -> String {
        let digest = self.blob.as_ref().map(|b| &b.digest);
        let name = digest.or(self.diff_id.as_ref()).map(Digest::to_string);
        name.unwrap_or_else(|| "of the archive".to_owned())
    }

    /// The bytes must be those that manifest and configuration name.
    fn check(&self, blob: &Descriptor, diff_id: &Digest) -> Result<(), LayerError> {
        if let Some(wanted) = &self.blob {
            if wanted.digest != blob.digest {
                return Err(LayerError::Blob {
                    wanted: wanted.digest.clone(),
                    found: blob.digest.clone(),
                });
            }
            if wanted.size != blob.size {
                return Err(LayerError::Size {
                    digest: wanted.digest.clone(),
                    wanted: wanted.size,
                    found: blob.size,
                });
            }
        }
        match &self.diff_id {
            Some(wanted) if wanted != diff_id => Err(LayerError::DiffId {
                wanted: wanted.clone(),
                found: diff_id.clone(),
            }),
            _ => Ok(()),
        }
    }
}
