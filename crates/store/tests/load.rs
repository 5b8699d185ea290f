//! Loading whole images in each form, and what a bad archive must not leave (needs root).

use carrack_spec::image::{ANNOTATION_IMAGE_NAME, ContainerConfig, Index, Platform};
use carrack_spec::{ContainerId, Reference};
use carrack_store::tar::{Entry, Kind, Writer};
use carrack_store::{
    Compression, ImageError, ImageWriter, LoadError, LoadOptions, Loaded, Reclaimed, Store,
    StoreError,
};
use std::path::Path;

fn root_only() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: unpacking layers needs root");
    }
    !root
}

fn layer(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = Writer::new(Vec::new());
    for (path, text) in files {
        let entry = Entry {
            size: text.len() as u64,
            ..Entry::new(Kind::Regular, *path)
        };
        tar.append(&entry, &mut text.as_bytes()).unwrap();
    }
    tar.finish().unwrap()
}

fn image() -> ImageWriter {
    let config = ContainerConfig {
        cmd: vec!["/bin/sh".into()],
        ..ContainerConfig::default()
    };
    let mut image = ImageWriter::new(config);
    image
        .layer(
            layer(&[("etc/a", "lower"), ("etc/b", "lower")]),
            Compression::Gzip,
        )
        .unwrap();
    image
        .layer(
            layer(&[("etc/.wh.a", ""), ("etc/c", "middle")]),
            Compression::Zstd,
        )
        .unwrap();
    image
        .layer(layer(&[("etc/b", "upper")]), Compression::None)
        .unwrap();
    image
}

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

fn load(store: &Store, path: &Path) -> Result<Vec<Loaded>, LoadError> {
    store.load(&LoadOptions {
        path: Some(path.to_owned()),
        ..LoadOptions::default()
    })
}

/// True when the store holds nothing, finished or not.
fn is_empty(store: &Store) -> bool {
    [
        "tmp",
        "leases",
        "ingests",
        "layers",
        "images",
        "blobs/sha256",
    ]
    .iter()
    .all(|d| {
        std::fs::read_dir(store.root().join(d))
            .unwrap()
            .next()
            .is_none()
    })
}

#[test]
fn every_form_of_archive_gives_the_same_image() {
    if root_only() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let image = image();
    let app = name("app:1");
    let layout = image.write_layout(Some(&app), Vec::new()).unwrap();
    let docker = image.write_docker(Some(&app), Vec::new()).unwrap();
    let gzipped = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, &docker).unwrap();
        encoder.finish().unwrap()
    };
    let directory = temp.path().join("directory");
    std::fs::create_dir_all(directory.join("blobs/sha256")).unwrap();
    let mut reader = carrack_store::tar::Reader::new(layout.as_slice());
    while let Some(entry) = reader.next_entry().unwrap() {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut bytes).unwrap();
        std::fs::write(
            directory.join(std::str::from_utf8(&entry.path).unwrap()),
            bytes,
        )
        .unwrap();
    }
    let mut ids = Vec::new();
    for (form, bytes) in [
        ("layout", layout),
        ("docker", docker),
        ("gzipped", gzipped),
        ("directory", Vec::new()),
    ] {
        let path = temp.path().join(form);
        if form != "directory" {
            std::fs::write(&path, bytes).unwrap();
        }
        let store = Store::open(temp.path().join("store-").join(form)).unwrap();
        let loaded = load(&store, &path).unwrap();
        assert_eq!((loaded[0].unpacked, loaded[0].shared), (3, 0), "{form}");
        let record = store.find_image("app:1").unwrap();
        assert_eq!(store.find_image(record.id.short()).unwrap(), record);
        assert_eq!(store.image_config(&record).unwrap().config.cmd, ["/bin/sh"]);
        let top = store.layer_path(&record.layers[2]).join("fs/etc/b");
        assert_eq!(std::fs::read_to_string(top).unwrap(), "upper");
        assert!(
            std::fs::read_dir(store.root().join("tmp"))
                .unwrap()
                .next()
                .is_none()
        );
        ids.push(record.id);
    }
    assert!(ids.iter().all(|id| *id == ids[0]));
}

#[test]
fn a_second_load_unpacks_nothing_and_removal_leaves_nothing() {
    if root_only() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("image.tar");
    std::fs::write(&path, image().write_layout(None, Vec::new()).unwrap()).unwrap();
    let store = Store::open(temp.path().join("store")).unwrap();
    for (n, (unpacked, shared)) in [(1, (3, 0)), (2, (0, 3))] {
        let options = LoadOptions {
            path: Some(path.clone()),
            name: Some(name(&format!("app:{n}"))),
            ..LoadOptions::default()
        };
        let loaded = store.load(&options).unwrap();
        assert_eq!(loaded[0].records[0].size, 21);
        assert_eq!((loaded[0].unpacked, loaded[0].shared), (unpacked, shared));
    }
    let image = store.find_image("app:2").unwrap();
    let id: ContainerId = "one".parse().unwrap();
    let disk = store.create_snapshot(&id, &image, temp.path()).unwrap();
    assert!(
        store.create_snapshot(&id, &image, temp.path()).is_err(),
        "the name is taken"
    );
    let removed = store.remove_image("app:1", false).unwrap();
    assert!(!removed.last && removed.reclaimed == Reclaimed::default());
    let refused = store.remove_image("app:2", false).unwrap_err();
    assert!(matches!(refused, ImageError::InUse { .. }), "{refused}");
    std::fs::remove_dir_all(disk.path()).unwrap();
    let removed = store.remove_image("app:2", false).unwrap();
    assert!(removed.last && removed.reclaimed.layers.len() == 3);
    assert!(is_empty(&store));
}

#[test]
fn the_overlay_shows_the_image_and_takes_writes() {
    if root_only() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("image.tar");
    let mut image = image();
    for n in 0..60 {
        image
            .layer(layer(&[(&format!("many/{n}"), "x")]), Compression::None)
            .unwrap();
    }
    std::fs::write(
        &path,
        image.write_docker(Some(&name("app")), Vec::new()).unwrap(),
    )
    .unwrap();
    let store = Store::open(temp.path().join("a long, odd: name\\ for a store")).unwrap();
    load(&store, &path).unwrap();
    let record = store.find_image("app").unwrap();
    let disk = store
        .create_snapshot(&"c".parse().unwrap(), &record, temp.path())
        .unwrap();
    let mount = match disk.mount(true, None) {
        Ok(mount) => mount,
        Err(error) => {
            println!("skipped: no overlay here: {error}");
            return;
        }
    };
    let open = |path: &str, write: bool| {
        let flags = if write {
            rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CREATE
        } else {
            rustix::fs::OFlags::RDONLY
        };
        rustix::fs::openat(&mount, path, flags, 0o644.into()).map(std::fs::File::from)
    };
    let read = |path: &str| {
        open(path, false)
            .and_then(|f| std::io::read_to_string(f).map_err(|_| rustix::io::Errno::IO))
    };
    assert_eq!(read("etc/a"), Err(rustix::io::Errno::NOENT), "whited out");
    assert_eq!(read("etc/b").unwrap(), "upper");
    assert_eq!(read("etc/c").unwrap(), "middle");
    assert_eq!(read("many/59").unwrap(), "x");
    std::io::Write::write_all(&mut open("etc/new", true).unwrap(), b"mine").unwrap();
    assert_eq!(
        std::fs::read_to_string(disk.path().join("upper/etc/new")).unwrap(),
        "mine"
    );
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("long,"), "attached nowhere");
}

#[test]
fn a_damaged_archive_leaves_an_empty_store() {
    if root_only() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let good = image()
        .write_layout(Some(&name("app")), Vec::new())
        .unwrap();
    let path = temp.path().join("bad.tar");
    let store = Store::open(temp.path().join("store")).unwrap();
    for cut in (0..good.len() - 1024).step_by(300) {
        std::fs::write(&path, &good[..cut]).unwrap();
        assert!(load(&store, &path).is_err(), "cut at {cut}");
    }
    // One changed byte of content anywhere in a blob is noticed by its digest.
    let mut reader = carrack_store::tar::Reader::new(good.as_slice());
    while let Some(entry) = reader.next_entry().unwrap() {
        if !entry.path.starts_with(b"blobs") {
            continue;
        }
        let mut bad = good.clone();
        let at = reader.offset() as usize + entry.size as usize / 2;
        bad[at] ^= 1;
        std::fs::write(&path, bad).unwrap();
        // Layers that arrived whole before stay, and are not read again.
        store.collect_garbage().unwrap();
        assert!(load(&store, &path).is_err());
        let documents = std::fs::read_dir(store.root().join("blobs/sha256"));
        assert_eq!(
            documents.unwrap().count(),
            0,
            "documents go with the failure"
        );
    }
    store.collect_garbage().unwrap();
    assert!(is_empty(&store));
    std::fs::write(&path, good).unwrap();
    load(&store, &path).unwrap();
}

#[test]
fn leftovers_of_a_killed_process_are_removed_at_the_next_start_and_others_stay() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(temp.path()).unwrap();
    let busy = store.lease().unwrap();
    let place = busy.temporary();
    std::fs::create_dir_all(place.join("half/a/layer")).unwrap();
    // A lease that nobody has locked.
    let left = store.root().join("tmp/1-0-dead.0");
    std::fs::create_dir_all(left.join("half/a/layer")).unwrap();
    // What it had put there goes with it.
    let hex = "a".repeat(64);
    let document = store.root().join("blobs/sha256").join(&hex);
    std::fs::write(&document, "{}").unwrap();
    let lease = store.root().join("leases/1-0-dead");
    std::fs::write(lease, format!("blob {hex}\n")).unwrap();
    Store::open(temp.path()).unwrap();
    assert!(place.exists() && !left.exists());
    assert!(!store.root().join("leases/1-0-dead").exists());
    assert!(!document.exists());
    drop(busy);
    assert!(!place.exists());
    assert!(is_empty(&store));
}

#[test]
fn another_format_or_driver_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    Store::open(temp.path()).unwrap();
    std::fs::write(temp.path().join("format"), "carrack-store 3\n").unwrap();
    let error = Store::open(temp.path()).unwrap_err();
    assert!(matches!(error, StoreError::Format { .. }), "{error}");
    std::fs::write(temp.path().join("format"), "carrack-store 2\ndriver new\n").unwrap();
    let error = Store::open(temp.path()).unwrap_err();
    assert!(matches!(error, StoreError::Driver { .. }), "{error}");
}

/// A layout whose `index.json` has an image for each platform, all under one name or none.
fn several_machines(at: &Path, name: Option<&str>, platforms: &[&str]) {
    std::fs::create_dir_all(at.join("blobs/sha256")).unwrap();
    let mut manifests = Vec::new();
    for text in platforms {
        let platform: Platform = text.parse().unwrap();
        let mut image = ImageWriter::new(ContainerConfig::default());
        image.platform(platform.clone());
        image
            .layer(layer(&[("machine", text)]), Compression::None)
            .unwrap();
        let one = image.write_layout(None, Vec::new()).unwrap();
        let mut reader = carrack_store::tar::Reader::new(one.as_slice());
        while let Some(entry) = reader.next_entry().unwrap() {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut reader, &mut bytes).unwrap();
            let path = std::str::from_utf8(&entry.path).unwrap();
            if path == "index.json" {
                let index: Index = serde_json::from_slice(&bytes).unwrap();
                let mut descriptor = index.manifests[0].clone();
                descriptor.platform = Some(platform.clone());
                let name = name.map(|n| (ANNOTATION_IMAGE_NAME.to_owned(), n.to_owned()));
                descriptor.annotations.extend(name);
                manifests.push(descriptor);
            } else {
                std::fs::write(at.join(path), bytes).unwrap();
            }
        }
    }
    let index = serde_json::to_vec(&Index::new(manifests)).unwrap();
    std::fs::write(at.join("index.json"), index).unwrap();
}

#[test]
fn of_an_image_for_several_machines_the_nearest_variant_is_loaded() {
    if root_only() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let platforms = ["linux/amd64", "linux/arm/v6", "linux/arm/v7", "linux/arm64"];
    for name in [None, Some("app:v1")] {
        let at = temp.path().join(name.map_or("unnamed", |_| "named"));
        several_machines(&at, name, &platforms);
        for (wanted, taken) in [
            ("linux/arm/v7", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("linux/arm/v8", "linux/arm/v7"),
            ("linux/amd64/v3", "linux/amd64"),
        ] {
            let store = Store::open(temp.path().join("store")).unwrap();
            let options = LoadOptions {
                path: Some(at.clone()),
                platform: Some(wanted.parse().unwrap()),
                ..LoadOptions::default()
            };
            let loaded = store.load(&options).unwrap();
            let records: Vec<_> = loaded.iter().flat_map(|l| &l.records).collect();
            assert_eq!(records.len(), 1, "{wanted}");
            assert_eq!(records[0].platform.to_string(), taken);
            let id = records[0].id.to_string();
            store.remove_image(&id, true).unwrap();
        }
        let options = LoadOptions {
            path: Some(at),
            platform: Some("linux/s390x".parse().unwrap()),
            ..LoadOptions::default()
        };
        let store = Store::open(temp.path().join("store")).unwrap();
        let error = store.load(&options).unwrap_err().to_string();
        assert!(error.contains(&platforms.join(", ")), "{error}");
    }
}
