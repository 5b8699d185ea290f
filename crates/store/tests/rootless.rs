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
        name: None,
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
    let mut child = Command::new("unshare")
        .args([
            "--user",
            "--mount",
            "sh",
            "-c",
            "echo ready; read line; exec \"$@\"",
            "sh",
        ])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child_in_a_user_namespace", "--nocapture"])
        .env("CARRACK_TEST_ROOTLESS", temp.path())
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
    assert!(text.contains("all is well"), "{text}");
}
