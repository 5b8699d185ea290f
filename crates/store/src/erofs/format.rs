//! Numbers of the format, as the kernel's documentation and headers state them.

pub(super) const BLOCK_BYTES: u64 = 1 << BLOCK_BITS;
pub(super) const BLOCK_BITS: u8 = 12;
pub(super) const SUPERBLOCK_AT: u64 = 1024;
pub(super) const SUPERBLOCK_BYTES: u64 = 128;
pub(super) const MAGIC: u32 = 0xE0F5_E1E2;

/// Optional features: a kernel that does not know them ignores them.
pub(super) const COMPAT_CHECKSUM: u32 = 1;
pub(super) const COMPAT_MTIME: u32 = 2;
pub(super) const COMPAT_ATTRIBUTE_FILTER: u32 = 4;
/// Features that a kernel must know.
pub(super) const INCOMPAT_CHUNKED: u32 = 4;
pub(super) const INCOMPAT_LONG_PREFIXES: u32 = 0x40;

/// Unit of inode numbers.
pub(super) const SLOT_BYTES: u64 = 32;
pub(super) const COMPACT_BYTES: u64 = 32;
pub(super) const EXTENDED_BYTES: u64 = 64;
pub(super) const EXTENDED: u16 = 1;
/// Where an inode's content is, shifted into place.
pub(super) const LAYOUT_PLAIN: u16 = 0 << 1;
pub(super) const LAYOUT_TAIL: u16 = 2 << 1;
pub(super) const LAYOUT_CHUNKS: u16 = 4 << 1;

/// Chunks as large as the format can say: 2^31 blocks. Nearly every file is one hole.
pub(super) const CHUNK_BLOCK_BITS: u32 = 31;
pub(super) const CHUNK_BYTES: u64 = BLOCK_BYTES << CHUNK_BLOCK_BITS;
pub(super) const CHUNK_HOLE: [u8; 4] = [0xff; 4];

pub(super) const DIRENT_BYTES: usize = 12;

pub(super) const ATTRIBUTE_HEADER_BYTES: u64 = 12;
pub(super) const ATTRIBUTE_ENTRY_BYTES: u64 = 4;
pub(super) const ATTRIBUTE_ALIGN: u64 = 4;
pub(super) const ATTRIBUTES_BYTES_MAX: u64 = ATTRIBUTE_HEADER_BYTES + 4 * (u16::MAX as u64 - 1);
pub(super) const SHARED_MAX: usize = 255;
pub(super) const FILTER_SEED: u32 = 0x25BB_E08F;
pub(super) const LONG_PREFIX: u8 = 0x80;
pub(super) const LONG_PREFIXES_MAX: usize = 127;
/// The table stands behind the superblock in its block.
pub(super) const LONG_PREFIX_TABLE_BYTES_MAX: usize =
    (BLOCK_BYTES - SUPERBLOCK_AT - SUPERBLOCK_BYTES) as usize;

/// Kinds of file: in the mode, and in a directory entry.
pub(super) const KIND_REGULAR: (u16, u8) = (0o100_000, 1);
pub(super) const KIND_DIRECTORY: (u16, u8) = (0o040_000, 2);
pub(super) const KIND_CHAR: (u16, u8) = (0o020_000, 3);
pub(super) const KIND_BLOCK: (u16, u8) = (0o060_000, 4);
pub(super) const KIND_FIFO: (u16, u8) = (0o010_000, 5);
pub(super) const KIND_SOCKET: (u16, u8) = (0o140_000, 6);
pub(super) const KIND_SYMLINK: (u16, u8) = (0o120_000, 7);
