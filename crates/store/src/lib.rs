//! Images and the file systems of containers, on disk.
//!
//! # Layout, version 2
//!
//! ```text
//! ROOT/                    mode 0700
//!   format                 "carrack-store 2", and the driver that keeps the layers
//!   lock                   flock, the meta lock: see the head of `store`
//!   leases/ID              one for each running user of the store: see the head of `lease`
//!   tmp/ID.N               what is unfinished, or being removed, of that lease
//!   ingests/KEY            flock: whose turn it is to take that layer in
//!   blobs/sha256/HEX       indexes, manifests, configurations; verified when written and when read
//!   layers/HEX/            one unpacked layer, by diff id: see the heads of `layers` and the drivers
//!   images/HEX.json        one record a reference, named by the sha256 of the reference
//!   lists/HEX.json         manifest lists in the making: see the head of `lists`
//!   snapshots/ID/          record.json, upper/, work/: the writable layer of one container
//!   empty/                 an empty directory
//!   objects/ trees/        for drivers that share things between layers
//! ```
//!
//! Nothing is kept twice: a layer is kept unpacked only, and its tar stream is made again from its
//! files when somebody wants it (see `recipe`).
//!
//! # Order, and what a crash leaves
//!
//! 1. Documents: temporary file, fsync, rename, fsync of the directory.
//! 2. Layers: unpacked under `tmp/`, syncfs, rename, fsync of the directory.
//! 3. The image record, in the same way, last.
//!
//! A record is therefore never seen before what it names. What fails leaves complete layers, which the next
//! try of the same image uses, or the next garbage collection removes. A kill or power cut leaves unfinished
//! things under `tmp/` and perhaps documents without a record too: the dead owner's lease tells them, and
//! they are removed with it when the store is next opened.
//!
//! # Protection and removal
//!
//! Who relies on something writes it into its lease, under the meta lock (shared); who removes looks
//! at records and living leases under the meta lock (exclusive) and only renames while holding it. The
//! lock is never held over anything that takes longer. The turn of an ingest is taken before the meta
//! lock, never under it.

mod archive;
mod blobs;
mod check;
mod compress;
mod copy;
mod digesting;
mod driver;
mod durable;
pub mod erofs;
mod export;
mod gc;
mod images;
mod import;
mod ingest;
mod inspect;
mod layers;
mod lease;
mod lists;
mod load;
mod newfile;
mod overlay;
mod parallel;
mod pool;
mod recipe;
mod remove;
mod save;
mod snapshots;
mod store;
pub mod tar;
mod trees;
mod unpack;
mod usage;
mod write;

pub use archive::{Archive, ArchiveError};
pub use blobs::BlobError;
pub use check::{CheckOptions, Checked, Problem};
pub use compress::{LEVEL_GZIP, LEVEL_ZSTD, compress, compress_at};
pub use digesting::Digesting;
pub use driver::{
    Contents, Driver, DriverError, MountRequest, RootAttributes, Unpack, Upper, Verify,
};
pub use export::LayerReader;
pub use gc::{PruneOptions, Pruned, Reclaimed};
pub use images::{ImageError, ImageRecord, Removed};
pub use import::ImportOptions;
pub use ingest::{Ingested, LayerSource, Progress};
pub use inspect::{Change, HistoryStep, LayerChanges, TreeNode};
pub use layers::{LayerError, LayerInfo};
pub use lease::Lease;
pub use lists::{ImageList, LIST_MEMBERS_MAX, ListMember, MemberSource, Named};
pub use load::{LoadError, LoadEvent, LoadOptions, Loaded};
pub use newfile::NewFile;
pub use overlay::OverlayError;
pub use parallel::several;
pub use pool::ErofsError;
pub use recipe::{Recipe, Step};
pub use save::{Form as SaveForm, SaveError, SaveOptions};
pub use snapshots::{Snapshot, SnapshotError, SnapshotRecord};
pub use store::{DriverKind, Store, StoreError, UnknownDriver};
pub use unpack::ExtractError;
pub use usage::{ImageUsage, Usage};
pub use write::{Compression, ImageWriter};
