//! The tar format: ustar with GNU and PAX extensions (POSIX.1-2001 `pax`, GNU tar manual, "Basic Tar
//! Format"), as a reader of hostile streams and a small writer.
//!
//! The reader yields one [`Entry`] after another and hands out the entry's bytes; it never touches the
//! file system. Names and numbers are reported as they stand: whether a name may be used is the
//! extractor's decision. Every length that the stream claims is checked against a constant before
//! anything is allocated, so memory stays small whatever the stream says.
//!
//! Sparse files come in four forms (GNU type `S`, PAX `GNU.sparse` 0.0, 0.1 and 1.0); an [`Entry`] has
//! the map of what is there. Not read: multi-volume members and names continued in the old way; each
//! is a named error.

mod header;
mod pax;
mod read;
mod sparse;
mod write;

pub use read::{Observer, Reader};
pub use sparse::Segment;
pub use write::Writer;

/// Size of a header and of the padding unit, in bytes.
pub const BLOCK_BYTES: usize = 512;
/// Longest GNU long name or PAX record block that is read, in bytes. Extended attributes travel in
/// PAX records, and the kernel allows 64 KiB for each.
pub const EXTENSION_BYTES_MAX: u64 = 1 << 20;
/// Longest path of an entry in bytes, the kernel's `PATH_MAX`.
pub const PATH_BYTES_MAX: usize = 4096;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file with bytes.
    Regular,
    /// Another name of an entry before it.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// One member of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name as it stands in the archive, not checked.
    pub path: Vec<u8>,
    /// Target of a hard or symbolic link, not checked.
    pub link: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with set-user-id, set-group-id and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time: seconds since the epoch and nanoseconds.
    pub mtime: (i64, u32),
    /// Size of the file.
    pub size: u64,
    /// Where the bytes of a sparse file are, ascending; the rest of it is holes.
    pub sparse: Option<Vec<Segment>>,
    /// Device numbers.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    /// An empty entry of root's, dated to the epoch, with the usual mode.
    pub fn new(kind: Kind, path: impl Into<Vec<u8>>) -> Self {
        Self {
            path: path.into(),
            link: Vec::new(),
            kind,
            mode: match kind {
                Kind::Directory => 0o755,
                Kind::Symlink => 0o777,
                _ => 0o644,
            },
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            size: 0,
            sparse: None,
            device: (0, 0),
            xattrs: Vec::new(),
        }
    }

    /// Number of bytes that follow in the archive.
    pub fn stored(&self) -> u64 {
        match &self.sparse {
            Some(map) => map.iter().map(|s| s.length).sum(),
            None => self.size,
        }
    }
}

/// A stream that is no tar archive, or one that is not read here.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream could not be read (or decompressed).
    #[error("cannot read the archive")]
    Read(#[source] std::io::Error),
    /// The stream ends in the middle of an entry.
    #[error("the archive is cut off at byte {0}")]
    Truncated(u64),
    /// A header's checksum does not match.
    #[error("no tar header at byte {0}: wrong checksum")]
    Checksum(u64),
    /// A number in a header is not octal or base 256, or does not fit.
    #[error("bad {field} in the tar header at byte {at}")]
    Number {
        /// The field.
        field: &'static str,
        /// Offset of the header.
        at: u64,
    },
    /// The map of a sparse file is malformed, or does not fit its bytes.
    #[error("bad map of a sparse file before byte {0}")]
    Sparse(u64),
    /// A PAX record is malformed.
    #[error("bad PAX record before byte {0}")]
    Pax(u64),
    /// A long name or PAX block above [`EXTENSION_BYTES_MAX`], or a path above [`PATH_BYTES_MAX`].
    #[error("the tar header at byte {at} claims {bytes} bytes of names; at most {max} are read")]
    TooLong {
        /// Offset of the header.
        at: u64,
        /// What it claims.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// An entry type that is not read.
    #[error("entry type {kind:?} of {path:?} is not supported")]
    Unsupported {
        /// The type letter, or the extension's name.
        kind: String,
        /// Name of the entry.
        path: String,
    },
}
