//! Images after they were loaded: saved, imported, named, pruned, measured, checked, mended (needs root).

use carrack_spec::image::ContainerConfig;
use carrack_store::tar::{Entry, Kind, Writer};
use carrack_store::{
    Change, CheckOptions, Compression, ImageError, ImageRecord, ImageWriter, ImportOptions,
    LayerSource, LoadOptions, Problem, PruneOptions, SaveForm, SaveOptions, Store,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

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

/// An image on a common first layer, with a label.
fn load(store: &Store, name: &str, label: &str) -> ImageRecord {
    let mut config = ContainerConfig::default();
    config.labels.insert("kind".into(), label.into());
    let mut image = ImageWriter::new(config);
    let base = layer(&[
        ("etc/base", "shared"),
        ("etc/again", "first"),
        ("etc/again", "second"),
    ]);
    image.layer(base, Compression::Gzip).unwrap();
    image
        .layer(layer(&[("own", name)]), Compression::Zstd)
        .unwrap();
    let temp = tempfile::NamedTempFile::new().unwrap();
    let reference = name.parse().unwrap();
    image
        .write_layout(Some(&reference), temp.as_file())
        .unwrap();
    let options = LoadOptions {
        path: Some(temp.path().to_owned()),
        ..LoadOptions::default()
    };
    store.load(&options).unwrap().remove(0).records.remove(0)
}

fn store() -> (tempfile::TempDir, Store) {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(temp.path().join("store")).unwrap();
    (temp, store)
}

fn names(store: &Store) -> Vec<String> {
    let mut names: Vec<String> = store
        .images()
        .unwrap()
        .iter()
        .map(ImageRecord::name)
        .collect();
    names.sort();
    names
}

#[test]
fn saved_images_come_back_in_every_form() {
    if root_only() {
        return;
    }
    let (temp, store) = store();
    let images = [load(&store, "one:1", "a"), load(&store, "two:2", "b")];
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        for form in [SaveForm::Oci, SaveForm::Docker] {
            let options = SaveOptions { form, compression };
            let mut bytes = Vec::new();
            store.save(&images, options, &mut bytes).unwrap();
            let mut again = Vec::new();
            store.save(&images, options, &mut again).unwrap();
            assert!(bytes == again, "the same bytes each time");
            let path = temp.path().join("saved.tar");
            std::fs::write(&path, &bytes).unwrap();
            assert_loads(&path, &images);
        }
        let directory = temp.path().join(format!("layout-{compression:?}"));
        store
            .save_layout(&images[..1], compression, &directory)
            .unwrap();
        store
            .save_layout(&images[1..], compression, &directory)
            .unwrap();
        store
            .save_layout(&images[1..], compression, &directory)
            .unwrap();
        assert_loads(&directory, &images);
    }
    std::fs::write(temp.path().join("something"), "").unwrap();
    assert!(
        store
            .save_layout(&images, Compression::None, temp.path())
            .is_err()
    );
    // A form that was written once is known.
    assert!(store.layer_forms(&images[0].layers[0]).len() >= 2);
}

fn assert_loads(path: &Path, images: &[ImageRecord]) {
    let (_temp, other) = store();
    let options = LoadOptions {
        path: Some(path.to_owned()),
        ..LoadOptions::default()
    };
    other.load(&options).unwrap();
    for image in images {
        let found = other.find_image(&image.name()).unwrap();
        assert_eq!((&found.id, &found.layers), (&image.id, &image.layers));
        assert_eq!(found.size, image.size);
    }
    assert!(
        other
            .check(CheckOptions::default(), &|_| {})
            .unwrap()
            .is_clean()
    );
}

#[test]
fn a_plain_tar_file_becomes_an_image() {
    if root_only() {
        return;
    }
    let (_temp, store) = store();
    let tar = layer(&[("bin/tool", "program")]);
    let packed = zstd::encode_all(tar.as_slice(), 0).unwrap();
    let options = ImportOptions {
        name: Some("tool:1".parse().unwrap()),
        comment: Some("from a test".into()),
        ..ImportOptions::default()
    };
    let record = store.import(packed.as_slice(), options, &|_| {}).unwrap();
    assert_eq!(store.find_image("tool:1").unwrap(), record);
    let history = store.history(&record).unwrap();
    assert_eq!(history[0].history.comment.as_deref(), Some("from a test"));
    assert_eq!(history[0].layer, Some((record.layers[0].clone(), 7)));
    let manifest = store.image_manifest(&record).unwrap();
    assert_eq!(manifest.layers[0].size, tar.len() as u64);
}

#[test]
fn names_move_and_an_image_without_one_stays() {
    if root_only() {
        return;
    }
    let (_temp, store) = store();
    let one = load(&store, "one:1", "a");
    let two = load(&store, "two:2", "b");
    let tag = |image: &str, name: &str| store.tag_image(image, &name.parse().unwrap());
    tag("one:1", "also:1").unwrap();
    assert_eq!(names(&store), ["also:1", "one:1", "two:2"]);
    let refused = store.remove_image(one.id.short(), false).unwrap_err();
    assert!(
        matches!(refused, ImageError::SeveralNames { names: 2, .. }),
        "{refused}"
    );
    store.untag_image("also:1").unwrap();
    tag(two.id.short(), "one:1").unwrap();
    assert_eq!(names(&store), ["one:1", &one.id.to_string(), "two:2"]);
    assert_eq!(store.find_image("one:1").unwrap().id, two.id);
    // By what its manifest is called.
    let by_digest = format!("two@{}", two.manifest);
    assert_eq!(store.find_image(&by_digest).unwrap().id, two.id);
    tag(&one.id.to_string(), "back:1").unwrap();
    assert_eq!(names(&store), ["back:1", "one:1", "two:2"]);
    let removed = store.remove_image(two.id.short(), true).unwrap();
    assert_eq!((removed.records.len(), removed.last), (2, true));
    assert_eq!(removed.reclaimed.layers, [two.layers[1].clone()]);
    let tree = store.tree().unwrap();
    assert_eq!(tree.len(), 1);
    assert_eq!(tree[0].children[0].images, ["back:1"]);
}

#[test]
fn pruning_keeps_what_is_used_and_frees_what_it_says() {
    if root_only() {
        return;
    }
    let (temp, store) = store();
    load(&store, "a:1", "x");
    let used = load(&store, "b:1", "y");
    load(&store, "c:1", "x");
    store.untag_image("c:1").unwrap();
    let disk = store
        .create_snapshot(&"c".parse().unwrap(), &used, temp.path())
        .unwrap();
    let du = |path: &Path| {
        let output = Command::new("du")
            .args(["-s", "--block-size=1"])
            .arg(path)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_whitespace()
            .next()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let usage = store.usage().unwrap();
    assert_eq!(usage.total, du(store.root()), "as the file system counts");
    assert_eq!(usage.images.len(), 3);
    assert!(
        usage
            .images
            .iter()
            .all(|i| i.shared == usage.layers[&used.layers[0]])
    );
    assert_eq!(usage.unreachable, 0);
    let before = usage.total;
    let dangling = store.prune(&PruneOptions::default()).unwrap();
    assert_eq!(dangling.images.len(), 1);
    assert_eq!(dangling.reclaimed.layers.len(), 1);
    let lost = before - du(store.root());
    let records = dangling.images.len() as u64 * 4096;
    assert_eq!(lost, dangling.reclaimed.bytes + records, "space is free");
    let options = PruneOptions {
        all: true,
        without_labels: vec![("kind".into(), Some("x".into()))],
        ..PruneOptions::default()
    };
    assert_eq!(store.prune(&options).unwrap().images.len(), 0);
    let options = PruneOptions {
        all: true,
        labels: vec![("kind".into(), None)],
        before: Some(1),
        ..PruneOptions::default()
    };
    assert_eq!(
        store.prune(&options).unwrap().images.len(),
        0,
        "none is so old"
    );
    let options = PruneOptions {
        before: None,
        ..options
    };
    assert_eq!(store.prune(&options).unwrap().images.len(), 1);
    assert_eq!(names(&store), ["b:1"]);
    std::fs::remove_dir_all(disk.path()).unwrap();
    store
        .prune(&PruneOptions {
            all: true,
            ..PruneOptions::default()
        })
        .unwrap();
    assert_eq!(
        std::fs::read_dir(store.root().join("layers"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn a_layer_that_is_relied_on_is_not_collected() {
    if root_only() {
        return;
    }
    let (_temp, store) = store();
    let bytes = layer(&[("f", "x")]);
    let lease = store.lease().unwrap();
    let open = || Ok(bytes.as_slice());
    let made = store
        .ingest(&lease, &LayerSource::default(), open, &|_| {})
        .unwrap();
    store.collect_garbage().unwrap();
    assert!(store.has_layer(&made.diff_id));
    drop(lease);
    let gone = store.collect_garbage().unwrap();
    assert_eq!(gone.layers, [made.diff_id]);
}

#[test]
fn of_layers_that_are_not_all_there_none_is_kept() {
    if root_only() {
        return;
    }
    let (_temp, store) = store();
    let image = load(&store, "a", "1");
    let absent = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
    let lease = store.lease().unwrap();
    let wanted = image.layers.iter().chain([&absent]);
    assert_eq!(lease.protect_layers(wanted).unwrap(), Some(&absent));
    store.remove_image("a", false).unwrap();
    assert!(!store.has_layer(&image.layers[0]));
    let image = load(&store, "a", "1");
    assert_eq!(lease.protect_layers(&image.layers).unwrap(), None);
    store.remove_image("a", false).unwrap();
    assert!(store.has_layer(&image.layers[0]));
}

/// What is done to a store to damage it: where, and to which layer's directory or store.
type Damage = (&'static str, fn(&Store, &ImageRecord));

#[test]
fn damage_is_named_and_mended() {
    if root_only() {
        return;
    }
    fn files(store: &Store, image: &ImageRecord) -> std::path::PathBuf {
        store.layer_path(&image.layers[0]).join("fs")
    }
    let damages: [Damage; 12] = [
        ("digest is now", |s, i| {
            std::fs::write(files(s, i).join("etc/base"), "SHARED").unwrap()
        }),
        ("shorter", |s, i| {
            std::fs::write(files(s, i).join("etc/base"), "s").unwrap()
        }),
        ("is missing", |s, i| {
            std::fs::remove_file(files(s, i).join("etc/base")).unwrap()
        }),
        ("made by no entry", |s, i| {
            std::fs::write(files(s, i).join("etc/more"), "").unwrap()
        }),
        ("another owner", |s, i| {
            std::os::unix::fs::chown(files(s, i).join("etc/base"), Some(5), None).unwrap();
        }),
        ("incomplete", |s, i| {
            let path = s.layer_path(&i.layers[0]).join("recipe");
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("kept.log", |s, i| {
            std::fs::write(s.layer_path(&i.layers[0]).join("kept.log"), "x").unwrap();
        }),
        ("wrongly recorded", |s, i| {
            std::fs::remove_file(s.layer_path(&i.layers[0]).join("implied")).unwrap();
        }),
        ("wrongly recorded", |s, i| {
            std::fs::create_dir(files(s, i).join("more")).unwrap();
        }),
        ("lacks layer", |s, i| {
            std::fs::remove_dir_all(s.layer_path(&i.layers[0])).unwrap()
        }),
        ("has the digest", |s, i| {
            let path = s.root().join("blobs/sha256").join(i.id.hex());
            std::fs::write(path, "{}").unwrap();
        }),
        ("info.json", |s, i| {
            std::fs::remove_file(s.layer_path(&i.layers[0]).join("info.json")).unwrap();
        }),
    ];
    for (words, damage) in damages {
        let (_temp, store) = store();
        let image = load(&store, "one:1", "a");
        let check = |repair| {
            let options = CheckOptions {
                quick: false,
                repair,
            };
            store.check(options, &|_| {}).unwrap()
        };
        assert!(check(false).is_clean());
        damage(&store, &image);
        let text = |problems: &[Problem]| -> String {
            problems.iter().map(|p| format!("{p}\n")).collect()
        };
        let found = text(&check(false).problems);
        assert!(found.contains(words), "{words}: {found}");
        let mended = check(true);
        assert_eq!(mended.refetch, std::slice::from_ref(&image), "{words}");
        let left = text(&check(false).problems);
        assert!(left.is_empty(), "{words}: {left}");
        assert_eq!(load(&store, "one:1", "a").layers, image.layers);
        assert!(check(false).is_clean());
    }
}

#[test]
fn damage_to_what_hides_and_to_attributes_is_named() {
    if root_only() {
        return;
    }
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut tar = Writer::new(Vec::new());
    let mut add = |kind, path: &str, key: &str, value: &[u8]| {
        let entry = Entry {
            xattrs: vec![(key.into(), value.to_vec())],
            ..Entry::new(kind, path)
        };
        tar.append(&entry, &mut std::io::empty()).unwrap();
    };
    add(Kind::Directory, "d", "user.note", b"kept");
    add(Kind::Regular, "d/.wh..wh..opq", "user.x", b"");
    add(
        Kind::Regular,
        "d/program",
        "security.capability",
        &capability,
    );
    add(Kind::Regular, ".wh.hidden", "user.x", b"");
    add(Kind::Directory, "hidden", "user.x", b"");
    // Replaced: only the last counts.
    add(Kind::Directory, "e", "user.x", b"");
    add(Kind::Regular, "e/gone", "user.x", b"");
    add(Kind::Regular, "e", "user.x", b"last");
    add(Kind::Regular, "e", "user.x", b"last");
    let bytes = tar.finish().unwrap();
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 6] = [
        ("does not hide", |f| {
            rustix::fs::removexattr(f.join("d"), "trusted.overlay.opaque").unwrap();
        }),
        ("does not hide", |f| {
            rustix::fs::removexattr(f.join("hidden"), "trusted.overlay.opaque").unwrap();
        }),
        ("other attributes", |f| {
            rustix::fs::removexattr(f.join("d/program"), "security.capability").unwrap();
        }),
        ("other attributes", |f| {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(f.join("d"), "user.note", b"lost", flags).unwrap();
        }),
        ("made by no entry", |f| {
            std::fs::write(f.join("f"), "").unwrap()
        }),
        ("another mode", |f| {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(f.join("e"), mode).unwrap();
        }),
    ];
    for (words, harm) in harms {
        let (_temp, store) = store();
        let lease = store.lease().unwrap();
        let open = || Ok(bytes.as_slice());
        let made = store
            .ingest(&lease, &LayerSource::default(), open, &|_| {})
            .unwrap();
        let check = || store.check(CheckOptions::default(), &|_| {}).unwrap();
        assert!(check().is_clean(), "{:?}", check().problems);
        harm(&store.layer_path(&made.diff_id).join("fs"));
        let problems = format!("{:?}", check().problems);
        assert!(problems.contains(words), "{words}: {problems}");
    }
}

#[test]
fn the_changes_of_a_layer_are_told_by_its_archive() {
    if root_only() {
        return;
    }
    let (_temp, store) = store();
    let lease = store.lease().unwrap();
    let bytes = layer(&[("d/.wh..wh..opq", ""), ("d/new", "n"), ("d/.wh.gone", "")]);
    let open = || Ok(bytes.as_slice());
    let made = store
        .ingest(&lease, &LayerSource::default(), open, &|_| {})
        .unwrap();
    let changes = store.layer_changes(&lease, &made.diff_id).unwrap();
    assert_eq!(changes.emptied, BTreeSet::from(["d".into()]));
    let expected = [
        ("d", Change::Changed),
        ("d/gone", Change::Deleted),
        ("d/new", Change::Added),
    ];
    let expected = expected.map(|(path, change)| (path.into(), change));
    assert_eq!(changes.paths, BTreeMap::from(expected));
}

#[test]
fn a_damaged_record_does_not_hide_the_others_and_stops_collection() {
    if root_only() {
        return;
    }
    let (_temp, store) = store();
    load(&store, "one:1", "a");
    let bad = store
        .root()
        .join("images")
        .join("0".repeat(64))
        .with_extension("json");
    std::fs::write(&bad, "{\"version\":2,").unwrap();
    assert_eq!(names(&store), ["one:1"]);
    assert!(matches!(
        store.collect_garbage(),
        Err(ImageError::Record { .. })
    ));
    let options = CheckOptions {
        quick: true,
        repair: true,
    };
    assert_eq!(store.check(options, &|_| {}).unwrap().problems.len(), 1);
    store.collect_garbage().unwrap();
    std::fs::write(&bad, "{\"version\":3,\"new\":true}").unwrap();
    assert!(matches!(
        store.collect_garbage(),
        Err(ImageError::Version { version: 3, .. })
    ));
    store.check(options, &|_| {}).unwrap();
    assert!(bad.exists(), "another build can read it");
}
