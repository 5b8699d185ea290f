//! Writes EROFS images: a [`Tree`] in, the bytes of a file system out that the kernel mounts.
//!
//! Pure: no file is opened and no clock is read ([`root`] reads an open file). The same tree gives the same bytes, whatever order its
//! inodes were made in below one another, so an image can be compared and verified by its digest.
//!
//! ```text
//!      0  nothing (room for a boot sector)
//!   1024  superblock, its checksum over the rest of this block
//!   1152  long prefixes of attribute names
//!   4096  inodes, in the order of a walk by levels, siblings together. Each, at a multiple of 32:
//!           compact (32 bytes) or extended (64 bytes) form
//!           attributes: filter, references to shared ones, then those of its own
//!           the tail of its content (directory, symbolic link, small file), or hole indexes
//!         shared attributes: each name and value that more than one inode has
//!         full blocks of contents
//! ```
//!
//! What of the kernel's reader decides the form:
//!
//! * The root's number is 16 bits wide: it is the first inode.
//! * A tail must not cross a block, and older kernels want the head of a symbolic link in its tail's block. So an
//!   inode with a tail lies within one block, else its tail gets a block of its own.
//! * Names are found by bisection: directories are sorted by bytes, `.` and `..` among the others, and
//!   each block begins with its smallest name.
//! * A compact inode has 16-bit owners and links, a 32-bit size, and the time of the superblock, which
//!   is therefore the most frequent time of the tree.
//!
//! Linux 5.16 mounts what is written without [`Options::long_prefixes`], Linux 6.4 everything.
//!
//! # Contents elsewhere
//!
//! A [`Content::Pooled`] file has its size and a hole here, and two attributes that tell overlayfs to
//! take its bytes from [`object_path`] in a data-only layer (Linux 6.5). Attributes of overlayfs that a
//! tree brings along are escaped (Linux 6.7 undoes that for who mounts an overlay over this one): a tree cannot
//! reach into the pool by a forged attribute.

mod attributes;
mod format;
mod hash;
mod layout;
mod read;
mod tree;
mod write;

pub use attributes::has_attribute;
pub use read::{Root, root};
pub use tree::{Content, Inode, InodeId, Limit, ObjectId, Tree, TreeError, object_path};
pub use write::{Options, WriteError, write};

#[cfg(test)]
mod tests;
