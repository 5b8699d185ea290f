//! Layers: decompressed, verified and unpacked in one pass, each in a directory of its own:
//! `layers/HEX/fs/` holds the files, `layers/HEX/info.json` what is worth knowing without a walk.

use crate::digesting::Digesting;
use crate::extract::{ExtractError, Extracted, extract};
use crate::store::{Shared, Store, StoreError, Temporary};
use carrack_spec::{Digest, image};
use rustix::fs::{Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

const INPUT_BUFFER_BYTES: usize = 128 << 10;
/// Window that zstd may ask for: 2^27 bytes, what its own command line accepts by default.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// A layer that cannot be stored.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The stream cannot be read or decompressed.
    #[error("cannot read the layer {0}")]
    Read(Digest, #[source] std::io::Error),
    /// The stream is not a layer that can be unpacked.
    #[error("cannot unpack the layer {0}")]
    Extract(Digest, #[source] ExtractError),
    /// The bytes are not those that the manifest names.
    #[error(
        "the layer blob {wanted} has the digest {found}; the source is damaged, fetch it again"
    )]
    Blob {
        /// From the manifest.
        wanted: Digest,
        /// Of the bytes.
        found: Digest,
    },
    /// The uncompressed bytes are not those that the image configuration names.
    #[error("the layer {wanted} has the diff id {found} when unpacked; the image is damaged")]
    DiffId {
        /// From the image configuration.
        wanted: Digest,
        /// Of the bytes.
        found: Digest,
    },
    /// The store's directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A layer that is unpacked and verified but not yet in its place.
pub(crate) struct Prepared {
    diff_id: Digest,
    temporary: Temporary,
}

/// `info.json`.
#[derive(Serialize, Deserialize)]
struct LayerInfo {
    version: u32,
    entries: u64,
    bytes: u64,
}

const INFO_VERSION: u32 = 1;

impl Store {
    /// The files of an unpacked layer, whether it is there or not.
    pub fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.path("layers").join(diff_id.hex()).join("fs")
    }

    /// True when the layer is complete.
    pub fn has_layer(&self, diff_id: &Digest) -> bool {
        self.layer_path(diff_id).is_dir()
    }

    /// Bytes of file contents in a layer; zero when the layer's `info.json` cannot be read.
    pub(crate) fn layer_bytes(&self, diff_id: &Digest) -> u64 {
        let path = self.path("layers").join(diff_id.hex()).join("info.json");
        let info = std::fs::read(path)
            .ok()
            .and_then(|b| image::parse::<LayerInfo>(&b).ok());
        info.map_or(0, |info| info.bytes)
    }

    /// Unpacks a layer under `tmp/` and verifies it: `blob` is the digest of the stream as it comes,
    /// when the source names one, `diff_id` that of the uncompressed tar stream.
    pub(crate) fn prepare_layer(
        &self,
        held: &Shared,
        diff_id: &Digest,
        blob: Option<&Digest>,
        input: impl Read,
    ) -> Result<Prepared, LayerError> {
        let temporary = self.temporary(held);
        let at = temporary.path();
        let io = |action| move |e: Errno| StoreError::io(action, at)(e.into());
        let files = at.join("fs");
        rustix::fs::mkdir(at, Mode::from_raw_mode(0o700)).map_err(io("make"))?;
        rustix::fs::mkdir(&files, Mode::from_raw_mode(0o755)).map_err(io("make"))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::open(&files, flags, Mode::empty()).map_err(io("open"))?;
        // The umask must not decide the mode of a root without an entry of its own.
        rustix::fs::fchmod(&root, Mode::from_raw_mode(0o755)).map_err(io("set the mode of"))?;

        let read = |e| LayerError::Read(diff_id.clone(), e);
        let mut input = BufReader::with_capacity(INPUT_BUFFER_BYTES, Digesting::new(input));
        let head = input.fill_buf().map_err(read)?;
        let unpack = |stream: &mut dyn Read| -> Result<(Digest, Extracted), LayerError> {
            let stream = Digesting::new(stream);
            let (mut stream, extracted) =
                extract(BufReader::with_capacity(INPUT_BUFFER_BYTES, stream), root)
                    .map(|(r, x)| (r.into_inner(), x))
                    .map_err(|e| LayerError::Extract(diff_id.clone(), e))?;
            stream.drain().map_err(read)?;
            Ok((stream.finish().0, extracted))
        };
        let (found, extracted) = match head {
            [0x1f, 0x8b, ..] => unpack(&mut flate2::bufread::MultiGzDecoder::new(&mut input))?,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(&mut input).map_err(read)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(read)?;
                unpack(&mut decoder)?
            }
            _ => unpack(&mut input)?,
        };
        if found != *diff_id {
            return Err(LayerError::DiffId {
                wanted: diff_id.clone(),
                found,
            });
        }
        let mut input = input.into_inner();
        input.drain().map_err(read)?;
        let (found, _) = input.finish();
        if let Some(wanted) = blob.filter(|wanted| **wanted != found) {
            return Err(LayerError::Blob {
                wanted: wanted.clone(),
                found,
            });
        }
        let info = LayerInfo {
            version: INFO_VERSION,
            entries: extracted.entries,
            bytes: extracted.bytes,
        };
        let path = at.join("info.json");
        serde_json::to_vec(&info)
            .map_err(std::io::Error::from)
            .and_then(|text| std::fs::write(&path, text))
            .map_err(StoreError::io("write", &path))?;
        Ok(Prepared {
            diff_id: diff_id.clone(),
            temporary,
        })
    }

    /// Makes prepared layers durable and puts them in their places.
    pub(crate) fn commit_layers(&self, layers: Vec<Prepared>) -> Result<(), StoreError> {
        let directory = self.path("layers");
        if layers.is_empty() {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(&directory, flags, Mode::empty())
            .and_then(rustix::fs::syncfs)
            .map_err(|e| StoreError::io("flush", &directory)(e.into()))?;
        for layer in layers {
            let to = directory.join(layer.diff_id.hex());
            let cwd = rustix::fs::CWD;
            match rustix::fs::renameat_with(
                cwd,
                layer.temporary.path(),
                cwd,
                &to,
                RenameFlags::NOREPLACE,
            ) {
                Ok(()) => layer.temporary.moved(),
                // Another process was faster; the layer's name says that it is the same.
                Err(Errno::EXIST | Errno::NOTEMPTY) => {}
                Err(error) => return Err(StoreError::io("put in place", to)(error.into())),
            }
        }
        crate::store::sync_directory(&directory)
    }
}
