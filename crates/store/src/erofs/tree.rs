//! The tree that becomes an image, and what cannot become one.

use std::collections::BTreeMap;

/// Longest name in a directory.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest target of a symbolic link (`PATH_MAX` without the end mark).
pub const LINK_BYTES_MAX: usize = 4095;
/// Longest attribute value; the format has 16 bits, one less than the kernel's limit.
pub const ATTRIBUTE_BYTES_MAX: usize = 65535;
/// Device numbers of the kernel: 12 and 20 bits.
pub const MAJOR_MAX: u32 = 0xfff;
/// See [`MAJOR_MAX`].
pub const MINOR_MAX: u32 = 0xf_ffff;

/// Names an inode of one [`Tree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeId(pub(super) u32);

impl InodeId {
    /// The root directory.
    pub const ROOT: Self = Self(0);

    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A file of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// Permission bits with set-user-id, set-group-id and sticky.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time: seconds since the epoch and nanoseconds.
    pub mtime: (i64, u32),
    /// Extended attributes by full name.
    pub attributes: BTreeMap<Box<[u8]>, Box<[u8]>>,
    /// What kind, and what is in it.
    pub content: Content,
}

impl Inode {
    /// Whether the format can hold it.
    ///
    /// # Errors
    /// The first limit that it breaks.
    pub fn fits(&self) -> Result<(), Limit> {
        super::layout::check(self)
    }
}

/// What an [`Inode`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A directory, without `.` and `..`.
    Directory(BTreeMap<Box<[u8]>, InodeId>),
    /// A regular file with its bytes in the image.
    Inline(Box<[u8]>),
    /// A regular file with its bytes in a data-only layer of overlayfs, at [`object_path`].
    Pooled {
        /// Number of bytes.
        size: u64,
        /// Which bytes.
        object: ObjectId,
        /// SHA-256 digest of fs-verity, which overlayfs then compares.
        verity: Option<Box<[u8; 32]>>,
    },
    /// A symbolic link to this target.
    Symlink(Box<[u8]>),
    /// A character device, major and minor number.
    CharDevice(u32, u32),
    /// A block device, major and minor number.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// Names bytes in the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// SHA-256 digest: of the file, or of a sparse file's map and the bytes in it.
    pub digest: [u8; 32],
    /// A file with holes. It has a name of its own kind, as no file without holes can be mistaken for it.
    pub sparse: bool,
}

/// Where an object stands in the pool: `XX/` and the rest of the digest in hexadecimal digits, for a
/// sparse file with an `s` behind them.
pub fn object_path(object: &ObjectId) -> String {
    // Asked for every file of a layer: formatting would cost more than looking the path up.
    let digit = |nibble: u8| char::from(if nibble < 10 { b'0' } else { b'a' - 10 } + nibble);
    let mut path = String::with_capacity(66);
    for (i, byte) in object.digest.iter().enumerate() {
        if i == 1 {
            path.push('/');
        }
        path.push(digit(byte >> 4));
        path.push(digit(byte & 15));
    }
    if object.sparse {
        path.push('s');
    }
    path
}

/// Inodes and, in directories, their names.
///
/// An inode may have several names (hard links), a directory one. What has no name is not written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    inodes: Vec<Inode>,
}

impl Tree {
    /// A tree of an empty directory.
    pub fn new(root: Inode) -> Self {
        Self { inodes: vec![root] }
    }

    /// Adds an inode without a name.
    ///
    /// # Panics
    /// At 2^32 inodes, which do not fit into memory.
    pub fn add(&mut self, inode: Inode) -> InodeId {
        let id = u32::try_from(self.inodes.len()).expect("fewer than 2^32 inodes");
        self.inodes.push(inode);
        InodeId(id)
    }

    /// The inode.
    ///
    /// # Panics
    /// When `id` is of a larger tree.
    pub fn get(&self, id: InodeId) -> &Inode {
        &self.inodes[id.index()]
    }

    /// The inode, to change it.
    ///
    /// # Panics
    /// When `id` is of a larger tree.
    pub fn get_mut(&mut self, id: InodeId) -> &mut Inode {
        &mut self.inodes[id.index()]
    }

    /// All inodes, with and without a name.
    pub fn ids(&self) -> impl Iterator<Item = InodeId> + use<> {
        (0..self.inodes.len() as u32).map(InodeId)
    }

    /// Number of inodes, with and without a name.
    pub fn len(&self) -> usize {
        self.inodes.len()
    }

    /// Never: there is a root.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The names of a directory, to change them; `None` when it is none.
    ///
    /// # Panics
    /// When `id` is of a larger tree.
    pub fn names_mut(&mut self, id: InodeId) -> Option<&mut BTreeMap<Box<[u8]>, InodeId>> {
        match &mut self.get_mut(id).content {
            Content::Directory(names) => Some(names),
            _ => None,
        }
    }

    /// What `name` means in the directory; `None` when nothing has it or `directory` is none.
    pub fn child(&self, directory: InodeId, name: &[u8]) -> Option<InodeId> {
        match &self.get(directory).content {
            Content::Directory(names) => names.get(name).copied(),
            _ => None,
        }
    }
}

/// What a name, a link or an attribute may not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Limit {
    /// Bytes of a name.
    #[error(
        "a name is empty, longer than 255 bytes, `.`, `..`, or contains a slash or a zero byte"
    )]
    Name,
    /// A symbolic link's target.
    #[error("a link's target is empty, longer than 4095 bytes or contains a zero byte")]
    Link,
    /// Major above 4095 or minor above 1048575.
    #[error("the kernel has no device with such numbers")]
    Device,
    /// An attribute outside `user.`, `trusted.`, `security.` and the access lists, or with a bad name.
    #[error("EROFS has no attributes of this name")]
    AttributeName,
    /// A value above 65535 bytes.
    #[error("an attribute's value is longer than 65535 bytes")]
    AttributeValue,
    /// All attributes of one inode.
    #[error("the attributes of one file are longer than 256 KiB")]
    Attributes,
    /// A directory that is reached by two names, or contains itself.
    #[error("a directory has two names")]
    DirectoryLink,
    /// The root is no directory.
    #[error("the root is not a directory")]
    Root,
    /// The image's 32-bit block numbers.
    #[error("the image would be larger than 16 TiB")]
    Image,
}

/// A tree that the format cannot hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path:?} does not fit into an EROFS image: {limit}")]
pub struct TreeError {
    /// Where in the tree.
    pub path: String,
    /// What is wrong.
    pub limit: Limit,
}
