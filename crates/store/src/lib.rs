//! Images and the file systems of containers, on disk.
//!
//! # Layout
//!
//! ```text
//! ROOT/                    mode 0700
//!   lock                   flock: see "Locks"
//!   tmp/                   everything unfinished; emptied by the next user who is alone
//!   blobs/sha256/HEX       manifests and image configurations, verified while copied
//!   layers/HEX/            one layer, named by its diff id (sha256): fs/ unpacked, info.json
//!   images/HEX.json        one record a reference, named by the sha256 of the reference
//!   containers/ID/         record.json, upper/, work/: the writable layer of one container
//! ```
//!
//! A layer is kept unpacked only: its compressed form is read once, from where it comes.
//!
//! # Order, and what a crash leaves
//!
//! 1. Blobs: temporary file, fsync, rename, fsync of the directory.
//! 2. Layers: unpacked under `tmp/`; after the last one `syncfs`, then one rename each.
//! 3. The image record: temporary file, fsync, rename, fsync of the directory.
//!
//! A record is therefore never seen before what it names. A kill or power cut leaves unfinished things
//! in `tmp/` (emptied later) and perhaps blobs and layers without a record (used by the next load of
//! the same image, or removed with the next image).
//!
//! # Locks
//!
//! Who uses `tmp/` or relies on layers to stay holds `lock` shared ([`Store::share`]). Who removes
//! images or layers holds it exclusively ([`Store::exclude`]). No other lock is taken under it.

mod archive;
mod blobs;
mod containers;
mod digesting;
pub mod erofs;
mod extract;
mod images;
mod layers;
mod load;
mod overlay;
mod store;
pub mod tar;
mod write;

pub use archive::ArchiveError;
pub use blobs::BlobError;
pub use containers::{ContainerDisk, ContainerDiskError, DiskRecord};
pub use digesting::Digesting;
pub use extract::{ExtractError, Extracted, extract};
pub use images::{ImageError, ImageRecord};
pub use layers::LayerError;
pub use load::{LoadError, LoadOptions, Loaded};
pub use overlay::{OverlayError, mount_overlay};
pub use store::{Exclusive, Shared, Store, StoreError};
pub use write::{Compression, ImageWriter};
