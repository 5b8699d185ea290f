//! The same image, unpacked by umoci and mounted from the store: the same files with the same attributes (needs
//! root, umoci, and setfattr and setcap for the attributes).

use carrack_spec::image::ContainerConfig;
use carrack_store::tar::{Entry, Kind, Writer};
use carrack_store::{Compression, DriverKind, ImageWriter, LoadOptions, Store};
use carrack_testkit::{require, skip};
use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {text}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Kind, mode, owner, time, size, target, links, contents and attributes of everything below `root`.
fn facts(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![PathBuf::new()];
    while let Some(path) = left.pop() {
        let full = root.join(&path);
        let m = full.symlink_metadata().unwrap();
        let mut facts = format!("{:o} {}:{} ", m.mode(), m.uid(), m.gid());
        facts += &format!("{}.{} {:x}", m.mtime(), m.mtime_nsec(), m.rdev());
        if m.is_dir() {
            let names = std::fs::read_dir(&full).unwrap();
            left.extend(names.map(|e| path.join(e.unwrap().file_name())));
        } else if m.is_symlink() {
            facts += &format!(" -> {:?}", std::fs::read_link(&full).unwrap());
        } else if m.is_file() {
            facts += &format!(" x{} {:?}", m.nlink(), std::fs::read(&full).unwrap());
        }
        let mut names = vec![0; 4096];
        let used = rustix::fs::llistxattr(&full, &mut names[..]).unwrap();
        for name in names[..used].split(|b| *b == 0).filter(|n| !n.is_empty()) {
            let name = String::from_utf8_lossy(name);
            // umoci's own record of whose files they are.
            if name == "user.rootlesscontainers" {
                continue;
            }
            let mut value = [0; 4096];
            let used = rustix::fs::lgetxattr(&full, &*name, &mut value[..]).unwrap();
            facts += &format!(" {name}={:?}", &value[..used]);
        }
        found.insert(path, facts);
    }
    found
}

/// The layers by umoci, and by the store with each driver.
fn assert_same(layers: &[Vec<u8>]) -> BTreeMap<PathBuf, String> {
    let temp = tempfile::tempdir().unwrap();
    let mut image = ImageWriter::new(ContainerConfig::default());
    for layer in layers {
        image.layer(layer.clone(), Compression::Gzip).unwrap();
    }
    let archive = temp.path().join("image.tar");
    let file = std::fs::File::create(&archive).unwrap();
    image
        .write_layout(Some(&"test:1".parse().unwrap()), file)
        .unwrap();
    let layout = temp.path().join("layout");
    std::fs::create_dir(&layout).unwrap();
    run("tar", &["-xf", text(&archive), "-C", text(&layout)]);
    let index: String = std::fs::read_to_string(layout.join("index.json")).unwrap();
    let (_, rest) = index
        .split_once("org.opencontainers.image.ref.name\":\"")
        .unwrap();
    let tag = rest.split('"').next().unwrap();
    let bundle = temp.path().join("bundle");
    let from = format!("{}:{tag}", text(&layout));
    run("umoci", &["unpack", "--image", &from, text(&bundle)]);
    let theirs = facts(&bundle.join("rootfs"));
    for driver in [DriverKind::Overlay, DriverKind::Pool] {
        let store = Store::open_with(temp.path().join(driver.name()), Some(driver)).unwrap();
        let path = Some(archive.clone());
        store.load(&LoadOptions { path, name: None }).unwrap();
        let record = store.find_image("test:1").unwrap();
        let mount = store.mount_image(&record).unwrap();
        let at = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
        let ours = facts(&at);
        for (path, facts) in &theirs {
            assert_eq!(ours.get(path), Some(facts), "{}: {path:?}", driver.name());
        }
        assert_eq!(ours.len(), theirs.len(), "{}", driver.name());
    }
    theirs
}

fn entry(kind: Kind, path: &str, mode: u32, time: i64) -> Entry {
    Entry {
        mode,
        uid: 12,
        gid: 34,
        mtime: (time, 0),
        link: if kind == Kind::Symlink {
            b"/etc".to_vec()
        } else {
            Vec::new()
        },
        ..Entry::new(kind, path)
    }
}

fn pack(entries: &[Entry]) -> Vec<u8> {
    let mut tar = Writer::new(Vec::new());
    for entry in entries {
        tar.append(entry, &mut std::io::empty()).unwrap();
    }
    tar.finish().unwrap()
}

#[test]
fn directories_that_a_layer_does_not_mention() {
    require!(skip::root());
    require!(skip::program("umoci"));
    let lowest = pack(&[
        entry(Kind::Directory, "./", 0o711, 1),
        entry(Kind::Directory, "etc", 0o750, 2),
        entry(Kind::Directory, "etc/deep", 0o3711, 3),
        entry(Kind::Regular, "etc/deep/gone", 0o644, 4),
        entry(Kind::Directory, "emptied", 0o700, 5),
        entry(Kind::Regular, "emptied/gone", 0o600, 6),
        entry(Kind::Directory, "sticky", 0o1777, 7),
    ]);
    let middle = pack(&[
        entry(Kind::Regular, "etc/deep/.wh.gone", 0o644, 10),
        entry(Kind::Regular, "etc/deep/new", 0o600, 11),
        entry(Kind::Regular, "emptied/.wh..wh..opq", 0o644, 12),
        entry(Kind::Regular, "emptied/new", 0o600, 13),
        entry(Kind::Directory, "sticky", 0o1770, 14),
    ]);
    let highest = pack(&[
        entry(Kind::Regular, "etc/file", 0o640, 20),
        entry(Kind::Symlink, "sticky/link", 0o777, 21),
    ]);
    let found = assert_same(&[lowest, middle, highest]);
    let of = |path: &str| found[Path::new(path)].as_str();
    assert!(of("etc/deep").starts_with("43711 12:34 3.0 "), "{found:?}");
    assert!(of("sticky").starts_with("41770 12:34 14.0 "), "{found:?}");
}
