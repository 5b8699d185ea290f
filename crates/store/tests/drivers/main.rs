//! The drivers against each other: the same layers, the same files (needs root).

mod mounts;

use carrack_spec::image::ContainerConfig;
use carrack_spec::{ContainerId, Reference};
use carrack_store::tar::{Entry, Kind, Writer};
use carrack_store::{Compression, DriverKind, ImageRecord, ImageWriter, LoadOptions, Store};
use carrack_testkit::{require, skip};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

type Member = (Entry, Vec<u8>);

fn entry(kind: Kind, path: &str) -> Entry {
    Entry {
        mtime: (1_000_000, 500),
        ..Entry::new(kind, path)
    }
}

fn file(path: &str, data: &str) -> Member {
    let mut e = entry(Kind::Regular, path);
    e.size = data.len() as u64;
    (e, data.into())
}

fn large(path: &str, byte: u8, size: usize) -> Member {
    let mut e = entry(Kind::Regular, path);
    e.size = size as u64;
    (e, vec![byte; size])
}

fn link(kind: Kind, path: &str, to: &str) -> Member {
    let mut e = entry(kind, path);
    e.link = to.into();
    (e, Vec::new())
}

fn dir(path: &str) -> Member {
    (entry(Kind::Directory, path), Vec::new())
}

fn node(kind: Kind, path: &str, device: (u32, u32)) -> Member {
    let mut e = entry(kind, path);
    e.device = device;
    (e, Vec::new())
}

fn pack(entries: &[Member]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, data) in entries {
        writer.append(entry, &mut data.as_slice()).unwrap();
    }
    writer.finish().unwrap()
}

/// A store of one driver with one image.
struct Loaded {
    store: Store,
    image: ImageRecord,
}

fn load(root: &Path, driver: DriverKind, layers: &[Vec<Member>]) -> Result<Loaded, String> {
    let store = Store::open_with(root.join(driver.name()), Some(driver)).unwrap();
    let mut image = ImageWriter::new(ContainerConfig::default());
    for layer in layers {
        image.layer(pack(layer), Compression::None).unwrap();
    }
    let path = root.join("archive");
    let name: Reference = "test:1".parse().unwrap();
    let bytes = image.write_layout(Some(&name), Vec::new()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    let options = LoadOptions {
        path: Some(path),
        ..LoadOptions::default()
    };
    match store.load(&options) {
        Ok(_) => {}
        Err(error) => {
            let mut text = error.to_string();
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                text = format!("{text}: {error}");
                cause = error.source();
            }
            return Err(text);
        }
    }
    let image = store.find_image("test:1").unwrap();
    Ok(Loaded { store, image })
}

fn root_of(mount: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/.", mount.as_raw_fd()))
}

/// Everything about the files below a mount, by path.
fn look(mount: &OwnedFd) -> BTreeMap<String, String> {
    let root = root_of(mount);
    let mut found = BTreeMap::new();
    let mut names_of: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(path) = todo.pop() {
        let full = root.join(&path);
        // overlayfs lists whiteouts of directories that only one layer has, but finds nothing there.
        let stat = match full.symlink_metadata() {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            other => other.unwrap(),
        };
        let name = format!("/{}", path.display());
        let mut text = format!(
            "{:o} {}:{} {}.{}",
            stat.mode(),
            stat.uid(),
            stat.gid(),
            stat.mtime(),
            stat.mtime_nsec()
        );
        if stat.is_dir() {
            let mut names: Vec<_> = std::fs::read_dir(&full)
                .unwrap()
                .map(|e| e.unwrap().file_name())
                .collect();
            names.sort();
            todo.extend(names.iter().rev().map(|n| path.join(n)));
        } else if stat.is_symlink() {
            text += &format!(" -> {:?}", std::fs::read_link(&full).unwrap());
        } else if stat.is_file() {
            let bytes = std::fs::read(&full).unwrap();
            assert_eq!(bytes.len() as u64, stat.size(), "{name}");
            text += &format!(" {} {:?}", bytes.len(), bytes.get(..40.min(bytes.len())));
        } else {
            text += &format!(" device {:x}", stat.rdev());
        }
        if !stat.is_dir() {
            names_of.entry(stat.ino()).or_default().push(name.clone());
        }
        for (key, value) in attributes(&full) {
            text += &format!(" {key}={value:?}");
        }
        found.insert(name, text);
    }
    // Not the number of links: overlayfs counts names that layers above hide.
    for names in names_of.values_mut().filter(|names| names.len() > 1) {
        names.sort();
        for name in names.iter() {
            found
                .entry(name.clone())
                .and_modify(|text| *text += &format!(" = {names:?}"));
        }
    }
    found
}

fn attributes(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut names = vec![0; 1 << 16];
    let used = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let read = |name: &[u8]| {
        let mut value = vec![0; 1 << 16];
        let used = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        value.truncate(used);
        (String::from_utf8_lossy(name).into_owned(), value)
    };
    let names = names[..used].split(|&b| b == 0).filter(|n| !n.is_empty());
    // A label of the host is on every file where SELinux is on.
    let names = names.filter(|name| *name != b"security.selinux");
    let mut found: Vec<_> = names.map(read).collect();
    found.sort();
    found
}

/// Both drivers accept the layers and show the same, or both refuse them.
fn agree(layers: &[Vec<Member>]) -> Option<BTreeMap<String, String>> {
    // In memory where possible: hundreds of stores wait for no disk.
    let temp = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let temp = temp.unwrap();
    let overlay = load(temp.path(), DriverKind::Overlay, layers);
    let pool = load(temp.path(), DriverKind::Pool, layers);
    let (overlay, pool) = match (overlay, pool) {
        (Ok(overlay), Ok(pool)) => (overlay, pool),
        (Err(_), Err(_)) => return None,
        (a, b) => panic!("overlay {:?}, pool {:?}", a.err(), b.err()),
    };
    let show = |loaded: &Loaded| look(&loaded.store.mount_image(&loaded.image).unwrap());
    let (overlay, pool) = (show(&overlay), show(&pool));
    for (path, text) in &overlay {
        assert_eq!(Some(text), pool.get(path), "{path}");
    }
    assert_eq!(overlay, pool);
    Some(pool)
}

#[test]
fn every_kind_of_entry() {
    require!(skip::root());
    require!(pool_works());
    let mut odd = file("odd", "bytes");
    odd.0.mode = 0o6755;
    odd.0.uid = 1234;
    odd.0.gid = 70_000;
    odd.0.mtime = (1_234_567_890, 123_456_789);
    odd.0.xattrs = vec![
        (b"user.note".to_vec(), b"seen".to_vec()),
        (b"trusted.overlay.redirect".to_vec(), b"/etc".to_vec()),
        (
            b"security.capability".to_vec(),
            vec![1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
    ];
    let mut sticky = dir("tmp");
    sticky.0.mode = 0o1777;
    let base = vec![
        dir("./"),
        dir("etc"),
        file("etc/small", "small"),
        file("etc/empty", ""),
        large("etc/large", b'l', 100_000),
        large("etc/same", b'l', 100_000),
        large("etc/huge", b'h', 3_000_000),
        odd,
        sticky,
        link(Kind::Symlink, "link", "etc/small"),
        link(Kind::Symlink, "absolute", "/etc"),
        file("absolute/through", "the link"),
        link(Kind::HardLink, "etc/hard", "etc/large"),
        link(Kind::HardLink, "hard", "odd"),
        node(Kind::CharDevice, "null", (1, 3)),
        node(Kind::BlockDevice, "disk", (8, 1)),
        node(Kind::Fifo, "pipe", (0, 0)),
    ];
    let found = agree(&[base]).unwrap();
    assert!(found["/etc/through"].contains(" 8 "), "{found:?}");
    assert!(found["/odd"].starts_with("106755 1234:70000 1234567890.123456789"));
}

#[test]
fn layers_hide_and_replace_what_is_below() {
    require!(skip::root());
    require!(pool_works());
    let base = vec![
        dir("./"),
        dir("a"),
        file("a/one", "1"),
        file("a/two", "2"),
        dir("a/sub"),
        file("a/sub/x", "x"),
        dir("b"),
        large("b/one", b'b', 5000),
        link(Kind::HardLink, "b/linked", "b/one"),
        file("c", "c"),
        dir("d"),
        file("d/kept", "k"),
        dir("e"),
        file("e/gone", "g"),
        file("whole", "w"),
    ];
    let middle = vec![
        dir("./"),
        dir("a"),
        file("a/.wh.one", ""),
        file("a/two", "two again"),
        dir("b"),
        file("b/.wh..wh..opq", ""),
        file("b/new", "n"),
        file(".wh.c", ""),
        dir("c"),
        file("c/inside", "i"),
        file("d", "now a file"),
        dir("e"),
        file("e/fresh", "f"),
        file(".wh.e", ""),
        link(Kind::Symlink, "whole", "a/two"),
    ];
    let top = vec![
        dir("./"),
        dir("b"),
        file("b/.wh.new", ""),
        dir("d"),
        file("d/again", "a"),
        node(Kind::CharDevice, "whole", (0, 0)),
    ];
    let found = agree(&[base, middle, top]).unwrap();
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    let want = [
        "/",
        "/a",
        "/a/sub",
        "/a/sub/x",
        "/a/two",
        "/b",
        "/c",
        "/c/inside",
        "/d",
        "/d/again",
        "/e",
        "/e/fresh",
    ];
    assert_eq!(names, want);
}

/// Attributes of directories come from the topmost layer that mentions them.
#[test]
fn directories_that_a_layer_does_not_mention_stay_as_they_were() {
    require!(skip::root());
    require!(pool_works());
    let odd = |path: &str, mode| {
        let mut directory = dir(path);
        directory.0.mode = mode;
        (directory.0.uid, directory.0.gid) = (7, 8);
        directory.0.mtime = (1_000, 5);
        directory.0.xattrs = vec![(b"user.note".to_vec(), path.into())];
        directory
    };
    let lowest = vec![
        odd("./", 0o700),
        odd("etc", 0o750),
        odd("etc/deep", 0o3711),
        odd("etc/deep/er", 0o1777),
        file("etc/deep/er/below", "b"),
        odd("gone", 0o700),
        odd("emptied", 0o700),
        file("emptied/x", "x"),
        odd("emptied/sub", 0o700),
        link(Kind::Symlink, "lib", "usr/lib"),
        file("file", "f"),
    ];
    let middle = vec![
        file("etc/deep/er/.wh.below", ""),
        file("gone/x", "x"),
        file(".wh.gone", ""),
        file("emptied/.wh..wh..opq", ""),
        file("emptied/sub/new", "n"),
        odd("etc/deep", 0o2700),
        file("lib/inside", "no link any more"),
        file("file/inside", "no file any more"),
    ];
    let highest = vec![
        file("etc/deep/er/again", "a"),
        file("new/er/file", "f"),
        file("emptied/new", "n"),
    ];
    let found = agree(&[lowest, middle, highest]).unwrap();
    let is = |path: &str, mode: u32, note: &str| {
        let start = format!("{:o} 7:8 1000.5 ", 0o40000 | mode);
        let text = &found[path];
        assert!(text.starts_with(&start), "{path}: {text}");
        assert!(
            text.contains(&format!("user.note={:?}", note.as_bytes())),
            "{path}: {text}"
        );
    };
    is("/", 0o700, "./");
    is("/etc", 0o750, "etc");
    is("/etc/deep", 0o2700, "etc/deep");
    is("/etc/deep/er", 0o1777, "etc/deep/er");
    is("/emptied", 0o700, "emptied");
    for fresh in ["/gone", "/emptied/sub", "/lib", "/file", "/new", "/new/er"] {
        assert_eq!(found[fresh], "40755 0:0 1000000.500", "{fresh}");
    }
    assert!(!found.contains_key("/emptied/x"));
}

/// The writable layer of a container has its root from there too.
#[test]
fn the_root_of_a_container_is_as_the_layers_say() {
    require!(skip::root());
    let mut root = dir("./");
    (root.0.mode, root.0.uid) = (0o711, 9);
    let layers = [vec![root, dir("d")], vec![file("d/x", "x")]];
    for driver in drivers() {
        let temp = tempfile::tempdir().unwrap();
        let Loaded { store, image } = load(temp.path(), driver, &layers).unwrap();
        let id: ContainerId = "box".parse().unwrap();
        let snapshot = store.create_snapshot(&id, &image, Path::new("/owner"));
        let mount = snapshot.unwrap().mount(false, None).unwrap();
        assert!(look(&mount)["/"].starts_with("40711 9:0"));
        drop(mount);
        let trees = || {
            std::fs::read_dir(store.root().join("trees"))
                .unwrap()
                .count()
        };
        assert_eq!(trees(), 1);
        std::fs::remove_dir_all(store.snapshot_path(&id)).unwrap();
        // What is made for the chain goes with it, and counts.
        let usage = store.usage().unwrap();
        assert!(usage.reclaimable > usage.layers.values().sum());
        store.remove_image("test:1", true).unwrap();
        assert_eq!(trees(), 0);
    }
}

#[test]
fn an_image_without_layers_has_a_root() {
    require!(skip::root());
    require!(pool_works());
    let found = agree(&[]).unwrap();
    assert_eq!(
        found,
        BTreeMap::from([("/".into(), "40755 0:0 0.0".into())])
    );
}

#[test]
fn hostile_names_are_refused_by_both() {
    require!(skip::root());
    require!(pool_works());
    let cases: Vec<Vec<Member>> = vec![
        vec![file("../up", "x")],
        vec![file("a/../../up", "x")],
        vec![file("f", "x"), file("f/below", "y")],
        vec![link(Kind::Symlink, "l", "../../.."), file("l/up", "x")],
        vec![link(Kind::Symlink, "l", "/nowhere"), file("l/up", "x")],
        vec![link(Kind::Symlink, "l", "l"), file("l/up", "x")],
        vec![link(Kind::HardLink, "h", "missing")],
        vec![link(Kind::HardLink, "h", "../missing")],
        vec![dir("d"), link(Kind::HardLink, "h", "d")],
        vec![file(&"n".repeat(256), "x")],
        vec![file(&"n".repeat(255), "x")],
        vec![link(Kind::Symlink, "l", "")],
        vec![file(".wh.", "")],
        vec![file("d/.wh..", "")],
        vec![file(".", "x")],
        vec![file(".wh.d", ""), file("d/x", "y")],
        vec![link(Kind::Symlink, "l", "d"), dir("d"), file("l/x", "y")],
        vec![
            file("f", "1"),
            link(Kind::HardLink, "f", "f"),
            file("g", "2"),
        ],
        vec![large("f", b'1', 9000), dir("f"), large("f", b'2', 9000)],
    ];
    for case in cases {
        agree(std::slice::from_ref(&case));
    }
}

fn member() -> impl Strategy<Value = Member> {
    let name = || prop::sample::select(vec!["a", "b", "c"]);
    let path = prop::collection::vec(name(), 1..4).prop_map(|p| p.join("/"));
    let other = prop::collection::vec(name(), 1..3).prop_map(|p| p.join("/"));
    (path, other, 0..12, any::<u8>()).prop_map(|(path, other, kind, byte)| {
        let (parent, last) = path.rsplit_once('/').unwrap_or((".", &path));
        let mut member = match kind {
            0 if byte < 32 => dir("./"),
            0..=2 => dir(&path),
            3 => file(&path, &format!("small {byte}")),
            4 => large(&path, byte % 4, 2000 + usize::from(byte)),
            5 => link(Kind::Symlink, &path, &format!("/{other}")),
            6 => link(Kind::Symlink, &path, &other),
            7 => link(Kind::HardLink, &path, &other),
            8 | 9 => file(&format!("{parent}/.wh.{last}"), ""),
            10 => file(&format!("{parent}/.wh..wh..opq"), ""),
            _ => node(Kind::Fifo, &path, (0, 0)),
        };
        member.0.mtime.0 += i64::from(byte);
        if member.0.kind == Kind::Directory {
            member.0.mode = 0o700 | u32::from(byte & 0o77) | (u32::from(byte & 0o300) << 4);
            member.0.gid = u32::from(byte % 3);
        }
        member
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_layers_look_the_same(
        layers in prop::collection::vec(prop::collection::vec(member(), 1..12), 1..4)
    ) {
        if rustix::process::geteuid().is_root() && pool_works().is_ok() {
            // A layer that is refused says nothing about the others.
            let good: Vec<_> = layers
                .into_iter()
                .filter(|layer| agree(std::slice::from_ref(layer)).is_some())
                .collect();
            if !good.is_empty() {
                agree(&good);
            }
        }
    }
}

/// What a container does with its files, under either driver.
#[test]
fn a_writable_layer_takes_every_change() {
    require!(skip::root());
    let base = vec![
        dir("./"),
        dir("d"),
        file("d/small", "small"),
        large("d/large", b'l', 10_000),
        link(Kind::HardLink, "d/again", "d/large"),
    ];
    let mut seen = Vec::new();
    let enforcing = std::fs::read("/sys/fs/selinux/enforce").is_ok_and(|text| text == b"1");
    for driver in drivers() {
        if enforcing && driver == DriverKind::Pool {
            carrack_testkit::skip!(
                "SELinux forbids to copy up files of EROFS, which have no label"
            );
        }
        let temp = tempfile::tempdir().unwrap();
        let Loaded { store, image } =
            load(temp.path(), driver, std::slice::from_ref(&base)).unwrap();
        let id: ContainerId = "box".parse().unwrap();
        let snapshot = store
            .create_snapshot(&id, &image, Path::new("/owner"))
            .unwrap();
        let mount = snapshot.mount(false, None).unwrap();
        let root = root_of(&mount);
        std::fs::write(root.join("d/new"), "new").unwrap();
        let append = std::fs::File::options()
            .append(true)
            .open(root.join("d/large"));
        std::io::Write::write_all(&mut append.unwrap(), b"more").unwrap();
        std::os::unix::fs::chown(root.join("d/again"), Some(5), Some(6)).unwrap();
        std::fs::remove_file(root.join("d/small")).unwrap();
        let found = look(&mount);
        let lines: Vec<_> = found
            .iter()
            .filter(|(path, _)| path.starts_with("/d/"))
            .map(|(path, text)| {
                let words: Vec<&str> = text.split(' ').collect();
                format!("{path} {} {} {:?}", words[0], words[1], words.get(3))
            })
            .collect();
        // Nothing of the image changed.
        let below = look(&store.mount_image(&image).unwrap());
        assert!(below["/d/small"].contains(" 5 "));
        assert!(below["/d/large"].contains(" 10000 "));
        assert!(below["/d/again"].starts_with("100644 0:0"));
        seen.push(lines);
    }
    assert!(seen.iter().all(|lines| *lines == seen[0]), "{seen:?}");
}

/// The writable layer alone tells what changed: nothing in it refers to the layers below.
#[test]
fn what_is_copied_up_is_whole() {
    require!(skip::root());
    require!(skip::kernel((6, 16)));
    let temp = tempfile::tempdir().unwrap();
    let base = vec![dir("./"), dir("d"), large("d/large", b'l', 10_000)];
    let Loaded { store, image } = load(temp.path(), DriverKind::Pool, &[base]).unwrap();
    let id: ContainerId = "box".parse().unwrap();
    let snapshot = store
        .create_snapshot(&id, &image, Path::new("/owner"))
        .unwrap();
    let mount = snapshot.mount(false, None).unwrap();
    std::os::unix::fs::chown(root_of(&mount).join("d/large"), Some(5), None).unwrap();
    let up = store.snapshot_path(&id).join("upper/d/large");
    assert_eq!(std::fs::read(&up).unwrap(), vec![b'l'; 10_000]);
    let names: Vec<_> = attributes(&up).into_iter().map(|(name, _)| name).collect();
    assert!(
        !names
            .iter()
            .any(|n| n.contains("redirect") || n.contains("metacopy")),
        "{names:?}"
    );
}

/// An ext4 file system with fs-verity in a file, mounted until this is dropped.
struct VerityDisk {
    at: tempfile::TempDir,
}

impl VerityDisk {
    fn new() -> Result<Self, carrack_testkit::Skip> {
        carrack_testkit::skip::exists("/sys/fs/ext4/features/verity")?;
        carrack_testkit::skip::program("mkfs.ext4")?;
        let at = tempfile::tempdir().unwrap();
        let image = at.path().join("image");
        std::fs::File::create(&image)
            .unwrap()
            .set_len(64 << 20)
            .unwrap();
        std::fs::create_dir(at.path().join("disk")).unwrap();
        let disk = Self { at };
        let quiet = |program: &str, args: &[&std::ffi::OsStr]| {
            let out = std::process::Command::new(program)
                .args(args)
                .output()
                .unwrap();
            assert!(out.status.success(), "{program}: {out:?}");
        };
        let options = ["-q", "-b", "4096", "-O", "verity"].map(std::ffi::OsStr::new);
        quiet("mkfs.ext4", &[&options[..], &[image.as_os_str()]].concat());
        let path = disk.path();
        let loops = ["-o", "loop"].map(std::ffi::OsStr::new);
        quiet(
            "mount",
            &[&loops[..], &[image.as_os_str(), path.as_os_str()]].concat(),
        );
        Ok(disk)
    }

    fn path(&self) -> PathBuf {
        self.at.path().join("disk")
    }
}

impl Drop for VerityDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg(self.path())
            .status();
    }
}

#[test]
fn the_kernel_opens_only_files_with_their_digest() {
    require!(skip::root());
    require!(pool_works());
    let disk = require!(VerityDisk::new());
    let base = vec![
        dir("./"),
        large("one", b'1', 10_000),
        large("two", b'2', 10_000),
    ];
    let Loaded { store, image } = load(
        &disk.path(),
        DriverKind::PoolVerity,
        std::slice::from_ref(&base),
    )
    .unwrap();
    let names = objects(&store);
    let path = |name: &str| {
        store
            .root()
            .join("objects")
            .join(&name[..2])
            .join(&name[2..])
    };
    // Nobody writes into an object, root included.
    assert!(
        std::fs::File::options()
            .write(true)
            .open(path(&names[0]))
            .is_err()
    );
    let mount = store.mount_image(&image).unwrap();
    assert_eq!(look(&mount).len(), 3);
    drop(mount);
    // One object in the place of the other: it has the wrong digest.
    std::fs::rename(path(&names[0]), path(&names[1])).unwrap();
    let mount = store.mount_image(&image).unwrap();
    let read = |name: &str| std::fs::read(root_of(&mount).join(name));
    let outcomes = [read("one"), read("two")];
    assert!(outcomes.iter().all(Result::is_err), "{outcomes:?}");
}

#[test]
fn without_fs_verity_nothing_is_kept_by_that_driver() {
    require!(skip::root());
    require!(pool_works());
    let temp = require!(
        tempfile::tempdir_in("/dev/shm").map_err(|e| carrack_testkit::Skip::new(e.to_string()))
    );
    let base = vec![dir("./"), large("one", b'1', 10_000)];
    let refused = load(temp.path(), DriverKind::PoolVerity, &[base])
        .err()
        .unwrap();
    assert!(refused.contains("cannot enable fs-verity for"), "{refused}");
}

/// The driver `pool` needs data-only layers.
fn pool_works() -> Result<(), carrack_testkit::Skip> {
    skip::kernel((6, 5))
}

/// Those that this kernel knows.
fn drivers() -> Vec<DriverKind> {
    match pool_works() {
        Ok(()) => vec![DriverKind::Overlay, DriverKind::Pool],
        Err(_) => vec![DriverKind::Overlay],
    }
}

fn objects(store: &Store) -> Vec<String> {
    let mut found = Vec::new();
    for directory in std::fs::read_dir(store.root().join("objects")).unwrap() {
        let directory = directory.unwrap().path();
        for entry in std::fs::read_dir(&directory).into_iter().flatten() {
            let name = entry.unwrap().file_name();
            let above = directory.file_name().unwrap().as_bytes();
            found.push(String::from_utf8_lossy(&[above, name.as_bytes()].concat()).into_owned());
        }
    }
    found
}

#[test]
fn contents_are_kept_once_and_go_with_their_last_layer() {
    require!(skip::root());
    require!(pool_works());
    let temp = tempfile::tempdir().unwrap();
    let shared = large("shared", b's', 10_000);
    let one = vec![
        shared.clone(),
        large("one", b'1', 10_000),
        large("again", b'1', 10_000),
    ];
    let two = vec![
        shared,
        large("two", b'2', 10_000),
        file("small", "in the image"),
    ];
    let Loaded { store, image } =
        load(temp.path(), DriverKind::Pool, std::slice::from_ref(&one)).unwrap();
    assert_eq!(objects(&store).len(), 2);
    // The name moves to the second image; the first stays without one.
    load(temp.path(), DriverKind::Pool, &[two]).unwrap();
    assert_eq!(objects(&store).len(), 3);
    store.remove_image(&image.id.to_string(), true).unwrap();
    assert_eq!(objects(&store).len(), 2);
    let second = store.find_image("test:1").unwrap();
    let found = look(&store.mount_image(&second).unwrap());
    assert!(found["/shared"].contains(" 10000 "), "{found:?}");
    store.remove_image("test:1", true).unwrap();
    assert_eq!(objects(&store), Vec::<String>::new());
    for empty in ["trees", "layers", "tmp", "leases"] {
        let left = std::fs::read_dir(store.root().join(empty)).unwrap().count();
        assert_eq!(left, 0, "{empty}");
    }
}
