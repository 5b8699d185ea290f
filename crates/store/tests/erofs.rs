//! EROFS images against the kernel that mounts them and against erofs-utils.

use carrack_store::erofs::{Content, Inode, InodeId, ObjectId, Options, Tree, object_path, write};
use carrack_testkit::require;
use proptest::prelude::*;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

fn node(content: Content) -> Inode {
    Inode {
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: (1_700_000_000, 0),
        attributes: BTreeMap::new(),
        content,
    }
}

fn directory() -> Inode {
    Inode {
        mode: 0o755,
        ..node(Content::Directory(BTreeMap::new()))
    }
}

fn inline(bytes: impl Into<Vec<u8>>) -> Inode {
    node(Content::Inline(bytes.into().into()))
}

fn attribute(mut inode: Inode, name: &str, value: &[u8]) -> Inode {
    inode
        .attributes
        .insert(name.as_bytes().into(), value.into());
    inode
}

fn link(tree: &mut Tree, at: InodeId, name: &[u8], id: InodeId) {
    let Content::Directory(names) = &mut tree.get_mut(at).content else {
        panic!("not a directory");
    };
    names.insert(name.into(), id);
}

fn add(tree: &mut Tree, at: InodeId, name: &str, inode: Inode) -> InodeId {
    let id = tree.add(inode);
    link(tree, at, name.as_bytes(), id);
    id
}

/// From the file, or where the kernel or the file system cannot do that from a loop device.
fn mount(path: &Path) -> Result<OwnedFd, rustix::io::Errno> {
    let from = |source: &Path| {
        let fs = rustix::mount::fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_flag(fs.as_fd(), "ro")?;
        rustix::mount::fsconfig_set_string(fs.as_fd(), "source", source)?;
        rustix::mount::fsconfig_create(fs.as_fd())?;
        let flags = FsMountFlags::FSMOUNT_CLOEXEC;
        rustix::mount::fsmount(fs.as_fd(), flags, MountAttrFlags::empty())
    };
    match from(path) {
        Err(rustix::io::Errno::NOTBLK) => {
            from(carrack_sys::loopdev::attach_read_only(path)?.path())
        }
        other => other,
    }
}

/// An image in a file that goes away.
struct Image(tempfile::NamedTempFile);

impl Image {
    fn of(tree: &Tree, long_prefixes: bool) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        let out = std::io::BufWriter::new(file.as_file());
        let size = write(tree, Options { long_prefixes }, out).unwrap();
        assert_eq!(size, file.as_file().metadata().unwrap().len());
        Self(file)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn mount(&self) -> Mounted {
        Mounted(mount(self.path()).unwrap())
    }

    /// What `fsck.erofs`, which reads every inode and directory, complains about; its exit status
    /// does not tell of a wrong checksum. Version 1.5 knows no long prefixes.
    fn fsck(&self) -> String {
        let out = Command::new("fsck.erofs").arg(self.path()).output();
        let out = out.unwrap();
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        match out.status.success() {
            true => text,
            false => format!("{text} {out:?}"),
        }
    }
}

struct Mounted(OwnedFd);

impl Mounted {
    fn path(&self, below: &Path) -> PathBuf {
        Path::new(&format!("/proc/self/fd/{}", self.0.as_raw_fd())).join(below)
    }
}

/// Everything that stat and the rest say about the mounted tree equals the tree.
fn compare(tree: &Tree, mounted: &Mounted) {
    let mut numbers = BTreeMap::new();
    let mut links: BTreeMap<InodeId, u64> = BTreeMap::new();
    let mut todo = vec![(InodeId::ROOT, PathBuf::new())];
    let mut found = Vec::new();
    while let Some((id, path)) = todo.pop() {
        *links.entry(id).or_default() += 1;
        compare_one(tree, id, &mounted.path(&path));
        let number = mounted.path(&path).symlink_metadata().unwrap().ino();
        assert_eq!(*numbers.entry(id).or_insert(number), number, "{path:?}");
        if let Content::Directory(names) = &tree.get(id).content {
            let children = names.values();
            let below = children.filter(|c| matches!(tree.get(**c).content, Content::Directory(_)));
            *links.entry(id).or_default() += 1 + below.count() as u64;
            for (name, child) in names {
                todo.push((*child, path.join(OsStr::from_bytes(name))));
            }
        }
        found.push((id, path));
    }
    let distinct: BTreeSet<_> = numbers.values().collect();
    assert_eq!(distinct.len(), numbers.len(), "two files have one number");
    for (id, path) in found {
        let stat = mounted.path(&path).symlink_metadata().unwrap();
        assert_eq!(stat.nlink(), links[&id], "links of {path:?}");
    }
}

fn compare_one(tree: &Tree, id: InodeId, path: &Path) {
    let inode = tree.get(id);
    let stat = match path.parent() {
        // The descriptor itself is a link.
        Some(parent) if parent == Path::new("/proc/self/fd") => path.metadata().unwrap(),
        _ => path.symlink_metadata().unwrap(),
    };
    let at = path.display();
    assert_eq!(stat.mode() & 0o7777, u32::from(inode.mode), "mode of {at}");
    assert_eq!((stat.uid(), stat.gid()), (inode.uid, inode.gid), "{at}");
    let mtime = (stat.mtime(), stat.mtime_nsec() as u32);
    assert_eq!(mtime, inode.mtime, "time of {at}");
    let kind = stat.file_type();
    let device = |n: u64| (rustix::fs::major(n), rustix::fs::minor(n));
    match &inode.content {
        Content::Directory(names) => {
            assert!(kind.is_dir(), "{at}");
            let listed: BTreeSet<Vec<u8>> = std::fs::read_dir(path)
                .unwrap()
                .map(|e| e.unwrap().file_name().into_vec())
                .collect();
            let wanted = names.keys().map(|n| n.to_vec()).collect();
            assert_eq!(listed, wanted, "{at}");
            let missing = path.join("no such name");
            assert!(missing.symlink_metadata().is_err());
        }
        Content::Inline(bytes) => {
            assert!(kind.is_file(), "{at}");
            assert!(std::fs::read(path).unwrap() == **bytes, "bytes of {at}");
        }
        Content::Pooled { size, .. } => {
            assert!(kind.is_file(), "{at}");
            assert_eq!(stat.size(), *size, "{at}");
        }
        Content::Symlink(to) => {
            assert!(kind.is_symlink(), "{at}");
            let found = std::fs::read_link(path).unwrap();
            assert_eq!(found.as_os_str().as_bytes(), &**to, "{at}");
        }
        Content::CharDevice(major, minor) => {
            assert!(kind.is_char_device(), "{at}");
            assert_eq!(device(stat.rdev()), (*major, *minor), "{at}");
        }
        Content::BlockDevice(major, minor) => {
            assert!(kind.is_block_device(), "{at}");
            assert_eq!(device(stat.rdev()), (*major, *minor), "{at}");
        }
        Content::Fifo => assert!(kind.is_fifo(), "{at}"),
        Content::Socket => assert!(kind.is_socket(), "{at}"),
    }
    assert_eq!(attributes(path, &stat), expected_attributes(inode), "{at}");
}

/// Through the path, without following a link at its end. The kernel reads `user.` attributes of files
/// and directories only, whatever the image has.
fn attributes(path: &Path, stat: &std::fs::Metadata) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 1 << 20];
    let link = stat.file_type().is_symlink();
    let used = match link {
        true => rustix::fs::llistxattr(path, &mut names[..]).unwrap(),
        false => rustix::fs::listxattr(path, &mut names[..]).unwrap(),
    };
    let read = |name: &[u8]| {
        let mut value = vec![0; 1 << 16];
        let used = match link {
            true => rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap(),
            false => rustix::fs::getxattr(path, name, &mut value[..]).unwrap(),
        };
        value.truncate(used);
        value
    };
    let shown = |name: &[u8]| {
        let users = stat.is_file() || stat.is_dir() || !name.starts_with(b"user.");
        !name.is_empty() && users
    };
    let names = names[..used].split(|&b| b == 0).filter(|n| shown(n));
    names.map(|n| (n.to_vec(), read(n))).collect()
}

fn expected_attributes(inode: &Inode) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut wanted: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let regular = matches!(inode.content, Content::Inline(_) | Content::Pooled { .. });
    let users = regular || matches!(inode.content, Content::Directory(_));
    for (name, value) in &inode.attributes {
        if !users && name.starts_with(b"user.") {
            continue;
        }
        let name = match name.strip_prefix(b"trusted.overlay.") {
            Some(rest) => [b"trusted.overlay.overlay.", rest].concat(),
            None => name.to_vec(),
        };
        wanted.insert(name, value.to_vec());
    }
    if let Content::Pooled { object, verity, .. } = &inode.content {
        let redirect = format!("/{}", object_path(object));
        wanted.insert(b"trusted.overlay.redirect".into(), redirect.into());
        let digest = verity.as_ref().map(|v| [&[0, 36, 0, 1], &v[..]].concat());
        wanted.insert(
            b"trusted.overlay.metacopy".into(),
            digest.unwrap_or_default(),
        );
    }
    wanted
}

fn check(tree: &Tree) {
    for long_prefixes in [false, true] {
        let image = Image::of(tree, long_prefixes);
        compare(tree, &image.mount());
        if !long_prefixes && carrack_testkit::skip::program("fsck.erofs").is_ok() {
            assert_eq!(image.fsck(), "");
        }
    }
}

fn digest(n: u64) -> [u8; 32] {
    let mut digest = [7; 32];
    digest[..8].copy_from_slice(&n.to_be_bytes());
    digest
}

fn object(digest: [u8; 32]) -> ObjectId {
    let sparse = digest[31] & 1 == 0;
    ObjectId { digest, sparse }
}

/// Images are mounted by root, and by kernels that the driver `pool` works on.
fn mounts() -> Result<(), carrack_testkit::Skip> {
    carrack_testkit::skip::root()?;
    carrack_testkit::skip::kernel((6, 5))
}

#[test]
fn every_kind_of_file() {
    require!(mounts());
    let mut tree = Tree::new(directory());
    let root = InodeId::ROOT;
    let etc = add(&mut tree, root, "etc", directory());
    add(&mut tree, etc, "empty", inline(""));
    let set_id = Inode {
        mode: 0o6711,
        uid: 70_000,
        gid: 4_000_000_000,
        mtime: (-5, 999_999_999),
        ..inline("set")
    };
    let set_id = add(&mut tree, etc, "set-id", set_id);
    link(&mut tree, root, b"also set-id", set_id);
    link(&mut tree, etc, b"again", set_id);
    let far = Inode {
        mtime: (1 << 34, 1),
        mode: 0o1777,
        ..directory()
    };
    add(&mut tree, root, "tmp", far);
    let link_to = |to: &[u8]| Inode {
        mode: 0o777,
        ..node(Content::Symlink(to.into()))
    };
    add(&mut tree, root, "short", link_to(b"etc/empty"));
    add(&mut tree, root, "long", link_to(&[b'l'; 4095]));
    let marked = attribute(link_to(b"nowhere"), "trusted.note", b"on a link");
    add(&mut tree, root, "marked", marked);
    add(&mut tree, root, "null", node(Content::CharDevice(1, 3)));
    add(
        &mut tree,
        root,
        "high",
        node(Content::CharDevice(4095, 1_048_575)),
    );
    add(&mut tree, root, "disk", node(Content::BlockDevice(8, 300)));
    add(&mut tree, root, "pipe", node(Content::Fifo));
    add(&mut tree, root, "socket", node(Content::Socket));
    check(&tree);
}

#[test]
fn contents_of_every_size_around_the_limits() {
    require!(mounts());
    let mut tree = Tree::new(directory());
    let sizes = [
        1, 31, 32, 33, 2047, 2048, 2049, 3999, 4000, 4031, 4032, 4033, 4064,
    ];
    let more = [4095, 4096, 4097, 6000, 8191, 8192, 8193, 100_000];
    for size in sizes.into_iter().chain(more) {
        let bytes: Vec<u8> = (0..size).map(|i| (i * 7 % 251) as u8).collect();
        add(&mut tree, InodeId::ROOT, &format!("f{size}"), inline(bytes));
    }
    check(&tree);
}

#[test]
fn directories_of_many_names() {
    require!(mounts());
    let mut tree = Tree::new(directory());
    let shared = tree.add(inline("x"));
    for count in [1, 100, 290, 340, 5000] {
        let at = add(&mut tree, InodeId::ROOT, &format!("d{count}"), directory());
        for i in 0..count {
            // Some sort before `.`, some between `.` and `..`, and some end where others go on.
            let lead = ["", "!", "..", ".-", "é", "\u{10ffff}", "x"][i % 7];
            link(&mut tree, at, format!("{lead}{i}").as_bytes(), shared);
        }
    }
    let at = add(&mut tree, InodeId::ROOT, "long", directory());
    for i in 0..100u8 {
        let mut name = [b'n'; 255];
        name[254] = i + 128;
        link(&mut tree, at, &name, shared);
        link(&mut tree, at, &name[..200 + usize::from(i % 50)], shared);
    }
    check(&tree);
}

#[test]
fn attributes_alone_shared_and_large() {
    require!(mounts());
    let mut tree = Tree::new(directory());
    for i in 0..300u32 {
        let mut file = attribute(inline("f"), "user.same", b"everywhere");
        file = attribute(file, "user.own", format!("{i}").as_bytes());
        file = attribute(file, "user.empty", b"");
        file = attribute(file, "trusted.overlay.opaque", b"y");
        let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        file = attribute(file, "security.capability", &capability);
        add(&mut tree, InodeId::ROOT, &format!("f{i}"), file);
    }
    let large = attribute(inline("tail"), "user.large", &vec![b'v'; 65535]);
    let large = attribute(large, "user.larger", &vec![b'w'; 60000]);
    add(&mut tree, InodeId::ROOT, "large", large);
    let mut many = inline("tail");
    for i in 0..400 {
        many = attribute(many, &format!("user.{}{i}", "n".repeat(100)), b"value");
    }
    // Twice, so that more are shared than one inode can refer to.
    add(&mut tree, InodeId::ROOT, "many", many.clone());
    add(&mut tree, InodeId::ROOT, "more", many);
    // user: read and write, group 5: read, mask, others.
    let acl = [
        2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 4, 0, 4, 0, 255, 255, 255, 255, 8, 0, 4, 0, 5,
        0, 0, 0, 16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255,
    ];
    let listed = attribute(inline("a"), "system.posix_acl_access", &acl);
    add(&mut tree, InodeId::ROOT, "access list", listed);
    let listed = attribute(directory(), "system.posix_acl_default", &acl);
    add(&mut tree, InodeId::ROOT, "default list", listed);
    check(&tree);
}

#[test]
fn files_of_the_pool_are_holes_with_a_redirect() {
    require!(mounts());
    let mut tree = Tree::new(directory());
    let sizes = [
        1,
        4096,
        5_000_000_000,
        1 << 43,
        (1 << 43) + 1,
        (1 << 46) - 1,
    ];
    for (i, size) in sizes.into_iter().enumerate() {
        let pooled = |verity| {
            node(Content::Pooled {
                size,
                object: object(digest(i as u64)),
                verity,
            })
        };
        add(&mut tree, InodeId::ROOT, &format!("p{size}"), pooled(None));
        let verified = pooled(Some(digest(99).into()));
        let verified = attribute(verified, "trusted.overlay.redirect", b"/forged");
        add(&mut tree, InodeId::ROOT, &format!("v{size}"), verified);
    }
    check(&tree);
}

#[test]
fn thousands_of_directories() {
    require!(mounts());
    let mut tree = Tree::new(directory());
    let mut at = InodeId::ROOT;
    for depth in 0..60 {
        at = add(&mut tree, at, &format!("deep{depth}"), directory());
        for i in 0..50 {
            let below = add(&mut tree, at, &format!("d{i}"), directory());
            add(&mut tree, below, "file", inline(format!("{depth} {i}")));
        }
    }
    check(&tree);
}

#[test]
fn erofs_utils_reads_the_superblock_and_a_file() {
    require!(carrack_testkit::skip::program("fsck.erofs"));
    let mut tree = Tree::new(directory());
    add(&mut tree, InodeId::ROOT, "file", inline(vec![b'x'; 5000]));
    let image = Image::of(&tree, false);
    assert_eq!(image.fsck(), "");
    let out = Command::new("dump.erofs")
        .args(["-s", "--path=/file"])
        .arg(image.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    for want in ["0xE0F5E1E2", "sb_csum mtime", "Size: 5000", "0644"] {
        assert!(text.contains(want), "{want} in {text}");
    }
    // A byte of the first block changed: the checksum tells.
    let mut bytes = std::fs::read(image.path()).unwrap();
    bytes[3000] ^= 1;
    std::fs::write(image.path(), bytes).unwrap();
    let complaint = image.fsck();
    assert!(complaint.contains("checksum"), "{complaint}");
}

/// One step in the making of a random tree.
#[derive(Debug, Clone)]
struct Step {
    parent: usize,
    name: Vec<u8>,
    inode: Inode,
    /// Instead of the inode, another name of an earlier one.
    link: Option<usize>,
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_filter("allowed", |b| !matches!(b, 0 | b'/'));
    let close = prop_oneof![Just(b'.'), Just(b'-'), Just(b'a'), Just(b'\xff')];
    prop_oneof![
        prop::collection::vec(close, 1..6),
        prop::collection::vec(byte.clone(), 1..30),
        prop::collection::vec(byte, 200..256),
    ]
    .prop_filter("not a dot", |n| !matches!(&n[..], b"." | b".."))
}

fn contents() -> impl Strategy<Value = Content> {
    let digest = || any::<[u8; 32]>();
    let size = prop_oneof![0..10_000_u64, any::<u64>().prop_map(|n| n >> 20)];
    let target = prop::collection::vec(1..=255u8, 1..300);
    prop_oneof![
        3 => Just(Content::Directory(BTreeMap::new())),
        2 => prop::collection::vec(any::<u8>(), 0..5000).prop_map(|b| Content::Inline(b.into())),
        2 => (size, digest(), prop::option::of(digest().prop_map(Box::new)))
            .prop_map(|(size, bytes, verity)| Content::Pooled { size, object: object(bytes), verity }),
        1 => target.prop_map(|t| Content::Symlink(t.into())),
        1 => (0..4096u32, 0..1_048_576u32).prop_map(|(a, b)| Content::CharDevice(a, b)),
        1 => (0..4096u32, 0..1_048_576u32).prop_map(|(a, b)| Content::BlockDevice(a, b)),
        1 => Just(Content::Fifo),
    ]
}

fn attribute_list() -> impl Strategy<Value = BTreeMap<Box<[u8]>, Box<[u8]>>> {
    let space = prop_oneof![Just("user."), Just("trusted."), Just("security.x")];
    let name = (space, "[a-z.]{1,30}").prop_map(|(s, n)| format!("{s}{n}").into_bytes().into());
    let value = prop_oneof![
        Just(b"y".to_vec()),
        prop::collection::vec(any::<u8>(), 0..200)
    ];
    prop::collection::btree_map(name, value.prop_map(Into::into), 0..4)
}

fn inodes() -> impl Strategy<Value = Inode> {
    let seconds = prop_oneof![3 => Just(1_600_000_000_i64), 1 => any::<i32>().prop_map(i64::from)];
    let nanoseconds = prop_oneof![Just(0), 0..1_000_000_000_u32];
    let id = || prop_oneof![3 => 0..70_000_u32, 1 => 0..u32::MAX];
    let attributes = prop_oneof![2 => Just(BTreeMap::new()), 1 => attribute_list()];
    let time = (seconds, nanoseconds);
    (contents(), 0..0o10000_u16, id(), id(), time, attributes).prop_map(
        |(content, mode, uid, gid, mtime, attributes)| Inode {
            mode,
            uid,
            gid,
            mtime,
            attributes,
            content,
        },
    )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (
        any::<usize>(),
        name(),
        inodes(),
        prop::option::weighted(0.1, any::<usize>()),
    );
    let step = step.prop_map(|(parent, name, inode, link)| Step {
        parent,
        name,
        inode,
        link,
    });
    prop::collection::vec(step, 0..120)
}

fn grow(steps: &[Step]) -> Tree {
    let mut tree = Tree::new(directory());
    let mut directories = vec![InodeId::ROOT];
    let mut files = Vec::new();
    for step in steps {
        let at = directories[step.parent % directories.len()];
        if tree.child(at, &step.name).is_some() {
            continue;
        }
        let id = match step.link {
            Some(n) if !files.is_empty() => files[n % files.len()],
            _ => tree.add(step.inode.clone()),
        };
        match tree.get(id).content {
            Content::Directory(_) => directories.push(id),
            _ => files.push(id),
        }
        link(&mut tree, at, &step.name, id);
    }
    tree
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_comes_back_from_the_kernel(steps in steps()) {
        if mounts().is_ok() {
            check(&grow(&steps));
        }
    }
}

/// Bytes that are no image, or a broken one, are refused or read as errors; nothing hangs.
#[test]
fn the_kernel_survives_broken_images() {
    require!(mounts());
    let mut tree = Tree::new(directory());
    for i in 0..50 {
        add(
            &mut tree,
            InodeId::ROOT,
            &format!("f{i}"),
            inline(vec![b'x'; i * 10]),
        );
    }
    let image = Image::of(&tree, true);
    let good = std::fs::read(image.path()).unwrap();
    for at in (1024..good.len()).step_by(97) {
        let mut bad = good.clone();
        bad[at] ^= 0xff;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bad).unwrap();
        let Ok(mount) = mount(file.path()) else {
            continue;
        };
        let mounted = Mounted(mount);
        for entry in std::fs::read_dir(mounted.path(Path::new("")))
            .into_iter()
            .flatten()
        {
            let Ok(entry) = entry else { break };
            if let Ok(mut file) = File::open(entry.path()) {
                let _ = std::io::copy(&mut file, &mut std::io::sink());
            }
        }
    }
}
