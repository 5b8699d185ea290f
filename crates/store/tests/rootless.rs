//! The store as root of a user namespace uses it: no devices, attributes that such a root may set.

use carrack_spec::image::ContainerConfig;
use carrack_store::tar::{Entry, Kind, Writer};
use carrack_store::{CheckOptions, Compression, ImageWriter, LoadOptions, Store};
use carrack_testkit::{require, skip};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn layer(entries: &[(Kind, &str, &str)]) -> Vec<u8> {
    let mut tar = Writer::new(Vec::new());
    for (kind, path, text) in entries {
        let size = if *kind == Kind::Regular {
            text.len() as u64
        } else {
            0
        };
        let entry = Entry {
            size,
            device: (1, 3),
            uid: 1000,
            ..Entry::new(*kind, *path)
        };
        tar.append(&entry, &mut text.as_bytes()).unwrap();
    }
    tar.finish().unwrap()
}

/// Run by the test below as root of a user namespace.
#[test]
fn child_in_a_user_namespace() {
    let Some(root) = std::env::var_os("CARRACK_TEST_ROOTLESS") else {
        return;
    };
    let root = PathBuf::from(root);
    let store = Store::open(root.join("store")).unwrap();
    let options = LoadOptions {
        path: Some(root.join("image.tar")),
        ..LoadOptions::default()
    };
    let record = store.load(&options).unwrap().remove(0).records.remove(0);
    let checked = store.check(CheckOptions::default(), &|_| {}).unwrap();
    assert!(checked.is_clean(), "{:?}", checked.problems);
    let mount = match store.mount_image(&record) {
        Ok(mount) => mount,
        Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
    };
    let at = PathBuf::from(format!(
        "/proc/self/fd/{}",
        std::os::fd::AsRawFd::as_raw_fd(&mount)
    ));
    let names = |path: &Path| {
        let mut names: Vec<String> = std::fs::read_dir(at.join(path))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(names(Path::new("")), "dev hidden kept opaque");
    assert_eq!(names(Path::new("dev")), "pipe");
    assert_eq!(names(Path::new("opaque")), "new");
    assert_eq!(names(Path::new("hidden")), "b");
    store.remove_image(&record.name(), false).unwrap();
    println!("all is well");
}

#[test]
fn root_of_a_user_namespace_can_use_a_store() {
    require!(skip::root());
    require!(skip::program("unshare"));
    let temp = tempfile::tempdir().unwrap();
    let mut image = ImageWriter::new(ContainerConfig::default());
    use Kind::{CharDevice, Directory, Fifo, Regular};
    let lower = [
        (CharDevice, "dev/null", ""),
        (Fifo, "dev/pipe", ""),
        (Regular, "kept", "x"),
        (Directory, "opaque", ""),
        (Regular, "opaque/old", "x"),
        (Regular, "hidden/a", "x"),
        (Regular, "hidden/b", "x"),
    ];
    let upper = [
        (Regular, "opaque/.wh..wh..opq", ""),
        (Regular, "opaque/new", "x"),
        (Regular, "hidden/.wh.a", ""),
    ];
    image.layer(layer(&lower), Compression::Gzip).unwrap();
    image.layer(layer(&upper), Compression::None).unwrap();
    let file = std::fs::File::create(temp.path().join("image.tar")).unwrap();
    image
        .write_layout(Some(&"app:1".parse().unwrap()), file)
        .unwrap();
    let text = in_a_user_namespace("child_in_a_user_namespace", temp.path(), "true;");
    assert!(text.contains("all is well"), "{text}");
}

/// What the test `name` of this program prints as root of a user namespace, after a script.
fn in_a_user_namespace(name: &str, root: &Path, script: &str) -> String {
    let script =
        format!("echo ready; read line; cd \"$1\" && {{ {script} }} && shift && exec \"$@\"");
    let mut child = Command::new("unshare")
        .args(["--user", "--mount", "sh", "-c", &script, "sh"])
        .arg(root)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env("CARRACK_TEST_ROOTLESS", root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    for map in ["uid_map", "gid_map"] {
        let path = format!("/proc/{}/{map}", child.id());
        std::fs::write(path, "0 0 65536").unwrap();
    }
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"\n").unwrap();
    let text = std::io::read_to_string(out).unwrap();
    assert!(child.wait().unwrap().success(), "{text}");
    text
}

/// Run by the test below as root of a user namespace, with the store on an overlay.
#[test]
fn child_below_an_overlay() {
    let Some(root) = std::env::var_os("CARRACK_TEST_ROOTLESS") else {
        return;
    };
    let root = PathBuf::from(root);
    let store = Store::open(root.join("over/store")).unwrap();
    let options = LoadOptions {
        path: Some(root.join("image.tar")),
        ..LoadOptions::default()
    };
    let image = store.load(&options).unwrap().remove(0).records.remove(0);
    let id = "box".parse().unwrap();
    let snapshot = store.create_snapshot(&id, &image, Path::new("/owner"));
    let mount = match snapshot.unwrap().mount(true, None) {
        Ok(mount) => mount,
        Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
    };
    let at = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&mount));
    let at = PathBuf::from(at);
    let read = |name: &str| std::fs::read_to_string(at.join(name));
    assert_eq!(read("changed").unwrap(), "upper");
    assert_eq!(read("removed").unwrap(), "lower");
    std::fs::remove_file(at.join("removed")).unwrap();
    std::fs::write(at.join("changed"), "container").unwrap();
    std::os::unix::fs::chown(at.join("changed"), Some(7), Some(8)).unwrap();
    assert!(read("removed").is_err());
    assert_eq!(read("changed").unwrap(), "container");
    use std::os::unix::fs::MetadataExt;
    assert_eq!(at.join("changed").metadata().unwrap().uid(), 7);
    let upper = root.join("over/store/snapshots/box/upper");
    assert_eq!(
        std::fs::read_to_string(upper.join("changed")).unwrap(),
        "container"
    );
    let left = std::fs::read_dir(root.join("over/store/tmp"))
        .unwrap()
        .count();
    assert_eq!(left, 0, "left below tmp");
    // The program ends with its mount.
    let serves = || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        processes.into_iter().any(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            line.starts_with("fuse-overlayfs") && line.contains(root.to_str().unwrap())
        })
    };
    assert!(serves());
    drop(mount);
    carrack_testkit::wait_for("the end of fuse-overlayfs", || (!serves()).then_some(()));
    println!("all is well");
}

#[test]
fn a_store_on_an_overlay_is_served_by_fuse_overlayfs() {
    require!(skip::root());
    require!(skip::program("unshare"));
    require!(skip::program("fuse-overlayfs"));
    require!(skip::exists("/dev/fuse"));
    let temp = tempfile::tempdir().unwrap();
    let mut image = ImageWriter::new(ContainerConfig::default());
    use Kind::Regular;
    let lower = [(Regular, "changed", "lower"), (Regular, "removed", "lower")];
    let upper = [(Regular, "changed", "upper")];
    image.layer(layer(&lower), Compression::Gzip).unwrap();
    image.layer(layer(&upper), Compression::None).unwrap();
    let file = std::fs::File::create(temp.path().join("image.tar")).unwrap();
    image
        .write_layout(Some(&"app:1".parse().unwrap()), file)
        .unwrap();
    let script = "mkdir t && mount -t tmpfs none t && mkdir t/l t/u t/w over && \
                  mount -t overlay -o lowerdir=t/l,upperdir=t/u,workdir=t/w none over;";
    let text = in_a_user_namespace("child_below_an_overlay", temp.path(), script);
    assert!(text.contains("all is well"), "{text}");
}
