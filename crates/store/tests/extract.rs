//! Layers as odd and hostile as they come, taken in for real (needs root: owners and devices).

use carrack_store::tar::{Entry, Kind, Writer};
use carrack_store::{
    DriverError, DriverKind, ExtractError, Ingested, LayerError, LayerSource, Store,
};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

fn entry(kind: Kind, path: &str) -> Entry {
    Entry {
        mtime: (1_000_000, 0),
        ..Entry::new(kind, path)
    }
}

fn file(path: &str, data: &str) -> (Entry, Vec<u8>) {
    let mut e = entry(Kind::Regular, path);
    e.size = data.len() as u64;
    (e, data.into())
}

fn link(kind: Kind, path: &str, to: &str) -> (Entry, Vec<u8>) {
    let mut e = entry(kind, path);
    e.link = to.into();
    (e, Vec::new())
}

fn dir(path: &str) -> (Entry, Vec<u8>) {
    (entry(Kind::Directory, path), Vec::new())
}

fn pack(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, data) in entries {
        writer.append(entry, &mut data.as_slice()).unwrap();
    }
    writer.finish().unwrap()
}

/// A layer that went into a store of its own.
struct Unpacked {
    _temp: tempfile::TempDir,
    outcome: Result<Ingested, LayerError>,
    /// Its files.
    at: PathBuf,
}

impl Unpacked {
    fn ok(self) -> Self {
        if let Err(error) = &self.outcome {
            panic!("{error}: {:?}", std::error::Error::source(error));
        }
        self
    }

    fn refused(&self) -> Option<&ExtractError> {
        match &self.outcome {
            Err(LayerError::Unpack(_, DriverError::Extract(error))) => Some(error),
            _ => None,
        }
    }
}

fn unpack(entries: &[(Entry, Vec<u8>)]) -> Unpacked {
    let temp = tempfile::tempdir().unwrap();
    let outside = ["outside", "store/outside", "store/tmp/outside"].map(|p| temp.path().join(p));
    let store = Store::open_with(temp.path().join("store"), Some(DriverKind::Overlay)).unwrap();
    for path in &outside {
        std::fs::write(path, "untouched").unwrap();
    }
    let bytes = pack(entries);
    let lease = store.lease().unwrap();
    let open = || Ok(bytes.as_slice());
    let outcome = store.ingest(&lease, &LayerSource::default(), open, &|_| {});
    drop(lease);
    for path in &outside {
        assert_eq!(std::fs::read_to_string(path).unwrap(), "untouched");
        assert_eq!(path.metadata().unwrap().nlink(), 1);
        std::fs::remove_file(path).unwrap();
    }
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1);
    let left = std::fs::read_dir(store.root().join("tmp")).unwrap().count();
    assert_eq!(left, 0, "something unfinished");
    let mut at = PathBuf::new();
    if let Ok(layer) = &outcome {
        at = store.layer_path(&layer.diff_id).join("fs");
        let mut names: Vec<_> = std::fs::read_dir(at.parent().unwrap())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|n| !n.starts_with("kept") && n != "implied")
            .collect();
        names.sort();
        assert_eq!(names, ["forms.json", "fs", "info.json", "recipe"]);
    }
    Unpacked {
        _temp: temp,
        outcome,
        at,
    }
}

fn is_whiteout_at(path: &Path) -> bool {
    let m = path.symlink_metadata().unwrap();
    m.file_type().is_char_device() && m.rdev() == 0
}

fn is_opaque(path: &Path) -> bool {
    let mut value = [0; 8];
    rustix::fs::getxattr(path, "trusted.overlay.opaque", &mut value)
        .is_ok_and(|n| &value[..n] == b"y")
}

fn root_only() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: unpacking layers needs root");
    }
    !root
}

#[test]
fn modes_owners_times_links_and_devices_arrive() {
    if root_only() {
        return;
    }
    let mut setuid = file("bin/su", "program");
    (setuid.0.mode, setuid.0.uid, setuid.0.gid, setuid.0.mtime) = (0o4755, 7, 8, (12_345, 678));
    setuid.0.xattrs = vec![
        (b"user.note".to_vec(), b"x\0y".to_vec()),
        (b"trusted.overlay.redirect".to_vec(), b"/etc".to_vec()),
    ];
    let mut null = entry(Kind::CharDevice, "null");
    null.device = (1, 3);
    let mut top = entry(Kind::Directory, "./");
    top.mode = 0o711;
    let layer = unpack(&[
        (top, Vec::new()),
        dir("bin/"),
        setuid,
        link(Kind::HardLink, "bin/again", "bin/su"),
        link(Kind::Symlink, "sh", "/bin/su"),
        (null, Vec::new()),
        (entry(Kind::Fifo, "pipe"), Vec::new()),
        file("deep/er/than/dirs", ""),
    ]);
    let layer = layer.ok();
    let info = layer.outcome.as_ref().unwrap().info.clone();
    assert_eq!((info.entries, info.bytes), (8, 7));
    let at = layer.at.clone();
    let su = at.join("bin/su").symlink_metadata().unwrap();
    assert_eq!(
        (
            su.mode() & 0o7777,
            su.uid(),
            su.gid(),
            su.mtime(),
            su.mtime_nsec()
        ),
        (0o4755, 7, 8, 12_345, 678)
    );
    assert_eq!(su.nlink(), 2);
    let mut note = [0; 8];
    assert_eq!(
        rustix::fs::getxattr(at.join("bin/su"), "user.note", &mut note).unwrap(),
        3
    );
    assert!(
        rustix::fs::getxattr(at.join("bin/su"), "trusted.overlay.redirect", &mut note).is_err()
    );
    assert_eq!(
        std::fs::read_link(at.join("sh")).unwrap(),
        Path::new("/bin/su")
    );
    assert_eq!(
        at.join("null").metadata().unwrap().rdev(),
        rustix::fs::makedev(1, 3)
    );
    assert!(at.join("pipe").metadata().unwrap().file_type().is_fifo());
    assert_eq!(
        at.join("bin").metadata().unwrap().mtime(),
        1_000_000,
        "set after it was filled"
    );
    assert_eq!(at.metadata().unwrap().mode() & 0o7777, 0o711);
    assert_eq!(
        at.join("deep/er").metadata().unwrap().mode() & 0o7777,
        0o755
    );
}

#[test]
fn names_that_climb_out_are_refused() {
    if root_only() {
        return;
    }
    let refused = [
        file("../outside", "bad"),
        file("a/../../outside", "bad"),
        dir(".."),
        link(Kind::HardLink, "x", "../outside"),
        link(Kind::HardLink, "x", "/"),
    ];
    for bad in refused {
        let name = bad.0.path.clone();
        let layer = unpack(&[bad]);
        assert!(
            matches!(layer.refused(), Some(ExtractError::Escapes(_))),
            "{name:?}: {:?}",
            layer.outcome
        );
    }
}

#[test]
fn absolute_names_and_links_lead_inside_the_layer() {
    if root_only() {
        return;
    }
    let layer = unpack(&[
        file("/etc/abs", "1"),
        link(Kind::Symlink, "up", "../../../.."),
        file("up/via-up", "2"),
        link(Kind::Symlink, "root", "/"),
        file("root/via-root", "3"),
        link(Kind::Symlink, "etc2", "/etc"),
        file("etc2/passwd", "4"),
        link(Kind::HardLink, "hard", "up/up/etc/passwd"),
    ]);
    let layer = layer.ok();
    let at = layer.at.clone();
    for (path, text) in [
        ("etc/abs", "1"),
        ("via-up", "2"),
        ("via-root", "3"),
        ("etc/passwd", "4"),
        ("hard", "4"),
    ] {
        assert_eq!(
            std::fs::read_to_string(at.join(path)).unwrap(),
            text,
            "{path}"
        );
    }
}

#[test]
fn writing_through_a_link_at_the_end_of_a_name_replaces_the_link() {
    if root_only() {
        return;
    }
    let layer = unpack(&[
        link(Kind::Symlink, "f", "../outside"),
        file("f", "mine"),
        link(Kind::Symlink, "h", "../outside"),
        link(Kind::HardLink, "h2", "h"),
        file("h2", "also mine"),
        link(Kind::Symlink, "d", ".."),
        dir("d"),
        file("d/inside", "3"),
    ]);
    let layer = layer.ok();
    let at = layer.at.clone();
    assert_eq!(std::fs::read_to_string(at.join("f")).unwrap(), "mine");
    assert_eq!(std::fs::read_to_string(at.join("h2")).unwrap(), "also mine");
    assert_eq!(std::fs::read_to_string(at.join("d/inside")).unwrap(), "3");
}

#[test]
fn a_link_that_leads_nowhere_is_no_parent() {
    if root_only() {
        return;
    }
    let layer = unpack(&[link(Kind::Symlink, "gone", "nowhere"), file("gone/x", "1")]);
    assert!(
        matches!(layer.refused(), Some(ExtractError::Entry { .. })),
        "{:?}",
        layer.outcome
    );
    let layer = unpack(&[
        link(Kind::Symlink, "a", "b"),
        link(Kind::Symlink, "b", "a"),
        file("a/x", "1"),
    ]);
    assert!(
        matches!(layer.refused(), Some(ExtractError::Entry { .. })),
        "{:?}",
        layer.outcome
    );
}

#[test]
fn whiteouts_become_overlay_marks() {
    if root_only() {
        return;
    }
    let layer = unpack(&[
        file("a/.wh.gone", ""),
        file("b/.wh..wh..opq", ""),
        file("b/kept", "new"),
        dir("c"),
        file("c/new", "new"),
        file(".wh.c", ""),
        file(".wh.e", ""),
        dir("e"),
        file(".wh.f", ""),
        file("f/implied", ""),
        file("g", "new"),
        file(".wh.g", ""),
        file(".wh..wh.plnk", ""),
    ]);
    let layer = layer.ok();
    let at = layer.at.clone();
    assert!(is_whiteout_at(&at.join("a/gone")));
    assert!(is_opaque(&at.join("b")) && at.join("b/kept").is_file());
    assert!(
        is_opaque(&at.join("c")) && at.join("c/new").is_file(),
        "hides what is below, keeps the new"
    );
    assert!(is_opaque(&at.join("e")), "a directory over a whiteout");
    assert!(
        is_opaque(&at.join("f")),
        "an implied directory over a whiteout"
    );
    assert_eq!(std::fs::read_to_string(at.join("g")).unwrap(), "new");
    assert_eq!(std::fs::read_dir(&at).unwrap().count(), 6);
    for bad in [".wh.", ".wh..", ".wh..."] {
        let layer = unpack(&[file(bad, "")]);
        let refused = layer.refused();
        assert!(matches!(refused, Some(ExtractError::Whiteout(_))), "{bad}");
    }
}

#[test]
fn later_entries_replace_earlier_ones() {
    if root_only() {
        return;
    }
    let layer = unpack(&[
        dir("x"),
        file("x/inner", "1"),
        file("x", "now a file"),
        file("y", "1"),
        dir("y"),
        file("y/z", "2"),
        dir("y"),
        link(Kind::HardLink, "y/z", "y/z"),
    ]);
    let layer = layer.ok();
    let at = layer.at.clone();
    assert_eq!(std::fs::read_to_string(at.join("x")).unwrap(), "now a file");
    assert_eq!(std::fs::read_to_string(at.join("y/z")).unwrap(), "2");
}
