//! The same image, unpacked by umoci and mounted from the store: the same files with the same attributes (needs
//! root, umoci, and setfattr and setcap for the attributes).

use carrack_spec::image::ContainerConfig;
use carrack_store::tar::{Entry, Kind, Writer};
use carrack_store::{
    Compression, DriverKind, ImageWriter, LoadOptions, SaveForm, SaveOptions, Store,
};
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
        let names = names[..used].split(|b| *b == 0);
        let mut names: Vec<&[u8]> = names.filter(|n| !n.is_empty()).collect();
        names.sort();
        for name in names {
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

/// The image of an archive by umoci; `at` is a directory to make.
fn by_umoci(archive: &Path, at: &Path) -> BTreeMap<PathBuf, String> {
    std::fs::create_dir(at).unwrap();
    let layout = at.join("layout");
    std::fs::create_dir(&layout).unwrap();
    run("tar", &["-xf", text(archive), "-C", text(&layout)]);
    let index: String = std::fs::read_to_string(layout.join("index.json")).unwrap();
    let (_, rest) = index
        .split_once("org.opencontainers.image.ref.name\":\"")
        .unwrap();
    let tag = rest.split('"').next().unwrap();
    let from = format!("{}:{tag}", text(&layout));
    let bundle = at.join("bundle");
    run("umoci", &["unpack", "--image", &from, text(&bundle)]);
    facts(&bundle.join("rootfs"))
}

/// The layers by umoci, by the store with each driver, and by umoci from what the store saves.
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
    let theirs = by_umoci(&archive, &temp.path().join("theirs"));
    let same = |found: &BTreeMap<PathBuf, String>, who: &str| {
        for (path, facts) in &theirs {
            assert_eq!(found.get(path), Some(facts), "{who}: {path:?}");
        }
        assert_eq!(found.len(), theirs.len(), "{who}");
    };
    for driver in [DriverKind::Overlay, DriverKind::Pool] {
        let name = driver.name();
        let store = Store::open_with(temp.path().join(name), Some(driver)).unwrap();
        let path = Some(archive.clone());
        store
            .load(&LoadOptions {
                path,
                ..LoadOptions::default()
            })
            .unwrap();
        let record = store.find_image("test:1").unwrap();
        let mount = store.mount_image(&record).unwrap();
        let at = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
        same(&facts(&at), name);
        let saved = temp.path().join(format!("{name}.tar"));
        let options = SaveOptions {
            form: SaveForm::Oci,
            compression: Compression::Gzip,
        };
        let file = std::fs::File::create(&saved).unwrap();
        store.save(&[record], options, file).unwrap();
        let again = by_umoci(&saved, &temp.path().join(format!("{name}.saved")));
        same(&again, &format!("{name}, saved"));
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

/// Attributes and capabilities that were set on real files with the distribution's programs, in GNU tar's archive.
#[test]
fn attributes_and_capabilities_of_real_files() {
    require!(skip::root());
    for program in ["umoci", "setfattr", "setcap"] {
        require!(skip::program(program));
    }
    let temp = tempfile::tempdir().unwrap();
    let tree = temp.path().join("tree");
    let script = "mkdir -p bin etc/d && printf program > bin/ping && cp bin/ping bin/other && ln bin/ping bin/again \
        && chown 12:34 bin/ping bin/other && chmod 4755 bin/other \
        && setcap cap_net_raw,cap_net_admin=eip bin/ping && setcap cap_setuid=p bin/other \
        && printf text > etc/text && setfattr -n user.word -v value etc/text \
        && setfattr -n user.bytes -v 0x00ff3d0a00 etc/text \
        && setfattr -n user.on.directory -v yes etc/d && setfattr -n trusted.kept -v 1 etc/text \
        && touch -d @1000000000 bin/* etc/text etc/d etc bin .";
    std::fs::create_dir(&tree).unwrap();
    let change = "cp -a bin/ping bin/copied && setcap -r bin/copied && setfattr -x user.word etc/text \
        && setfattr -n user.new -v 2 etc/text && touch -d @1000000001 bin/copied etc/text bin";
    let pack = |script: &str, members: &[&str]| {
        let at = Command::new("sh")
            .args(["-ec", script])
            .current_dir(&tree)
            .output();
        let at = at.unwrap();
        assert!(
            at.status.success(),
            "{}",
            String::from_utf8_lossy(&at.stderr)
        );
        let archive = temp.path().join("layer.tar");
        let flags = ["--xattrs", "--xattrs-include=*", "--format=pax"];
        let rest = ["--numeric-owner", "-C", text(&tree), "-cf", text(&archive)];
        run("tar", &[&flags[..], &rest, members].concat());
        std::fs::read(&archive).unwrap()
    };
    let lower = pack(script, &["."]);
    let upper = pack(change, &["bin/copied", "etc/text"]);
    let found = assert_same(&[lower, upper]);
    let of = |path: &str| found[Path::new(path)].as_str();
    assert!(
        of("bin/ping").contains(" security.capability="),
        "{}",
        of("bin/ping")
    );
    assert_eq!(of("bin/ping"), of("bin/again"));
    assert!(
        of("bin/other").starts_with("104755 12:34 "),
        "{}",
        of("bin/other")
    );
    assert!(of("bin/other").contains(" security.capability="));
    assert!(!of("bin/copied").contains("security.capability"));
    let text = of("etc/text");
    for there in [
        "user.bytes=[0, 255, 61, 10, 0]",
        "user.new=[50]",
        "trusted.kept=[49]",
    ] {
        assert!(text.contains(there), "{there}: {text}");
    }
    assert!(!text.contains("user.word"), "{text}");
    assert!(of("etc/d").contains("user.on.directory="));
}
