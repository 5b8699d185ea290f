//! Layers and chains without a disk, and a store's pool on one (as root).

use super::layer::LayerTree;
use super::merge::{alone, merge, nothing};
use super::objects::{from_bytes, to_bytes};
use super::unpack::INLINE_BYTES_MAX;
use crate::erofs::{Content, InodeId, ObjectId, Tree};
use crate::tar::{Entry, Kind, Segment, Writer};
use crate::{DriverKind, LayerSource, Recipe, Step, Store};
use carrack_testkit::require;
use std::io::Read;
use std::os::unix::fs::FileExt;

fn layer(entries: &[Entry]) -> LayerTree {
    let mut layer = LayerTree::new();
    for entry in entries {
        let content = Content::Inline(entry.path.as_slice().into());
        layer.apply(entry, content).unwrap();
    }
    layer
}

fn file(path: &str) -> Entry {
    Entry::new(Kind::Regular, path)
}

fn dir(path: &str, mode: u32) -> Entry {
    Entry {
        mode,
        ..Entry::new(Kind::Directory, path)
    }
}

fn find(tree: &Tree, path: &str) -> Option<InodeId> {
    let mut parts = path.split('/').filter(|p| !p.is_empty());
    parts.try_fold(InodeId::ROOT, |at, part| tree.child(at, part.as_bytes()))
}

#[test]
fn ids_come_back_from_lists() {
    for sparse in [false, true] {
        let id = ObjectId {
            digest: [7; 32],
            sparse,
        };
        assert_eq!(from_bytes(&to_bytes(&id)), Some(id));
    }
    assert_eq!(from_bytes(&[0; 32]), None);
    assert_eq!(from_bytes(&[2; 33]), None);
    assert_eq!(from_bytes(&[0; 34]), None);
}

#[test]
fn a_directory_that_a_layer_does_not_mention_stays_as_it_was() {
    let mut tree = nothing();
    merge(
        &mut tree,
        layer(&[dir("./", 0o711), dir("a", 0o700), file("a/x")]),
    );
    merge(&mut tree, layer(&[file("a/y"), file("b/z")]));
    let mode = |path| tree.get(find(&tree, path).unwrap()).mode;
    assert_eq!((mode("/"), mode("a"), mode("b")), (0o711, 0o700, 0o755));
    assert!(find(&tree, "a/x").is_some() && find(&tree, "a/y").is_some());
}

#[test]
fn links_are_followed_in_their_layer_only() {
    let link = |path: &str, to: &str| Entry {
        link: to.into(),
        ..Entry::new(Kind::Symlink, path)
    };
    let mut tree = nothing();
    merge(
        &mut tree,
        layer(&[dir("usr/lib", 0o755), link("lib", "usr/lib")]),
    );
    // The layer above does not know that `lib` is a link.
    merge(&mut tree, layer(&[file("lib/x")]));
    assert!(find(&tree, "lib/x").is_some());
    assert_eq!(find(&tree, "usr/lib/x"), None);
    let own = [dir("d", 0o755), link("l", "/d/../d"), file("l/x")];
    let mut tree = nothing();
    merge(&mut tree, layer(&own));
    assert!(find(&tree, "d/x").is_some());
}

#[test]
fn names_of_one_file_stay_names_of_one_file() {
    let hard = Entry {
        link: b"a/one".to_vec(),
        ..Entry::new(Kind::HardLink, "two")
    };
    let mut tree = nothing();
    merge(&mut tree, layer(&[file("a/one"), hard]));
    assert_eq!(find(&tree, "a/one"), find(&tree, "two"));
    // One of them goes.
    merge(&mut tree, layer(&[file("a/.wh.one")]));
    assert_eq!(find(&tree, "a/one"), None);
    assert!(find(&tree, "two").is_some());
}

#[test]
fn a_layer_is_no_deeper_than_a_path() {
    let mut layer = LayerTree::new();
    let path = "d/".repeat(2000);
    let apply =
        |layer: &mut LayerTree, entry: Entry| layer.apply(&entry, Content::Inline([].into()));
    apply(&mut layer, dir(&path, 0o755)).unwrap();
    let deep = Entry {
        link: path.into_bytes(),
        ..Entry::new(Kind::Symlink, "deep")
    };
    apply(&mut layer, deep).unwrap();
    let deeper = format!("deep/{}", "e/".repeat(100));
    assert!(apply(&mut layer, dir(&deeper, 0o755)).is_err());
}

/// A store with a layer of small, large, equal and empty files, and the layer's archive.
fn store(root: &std::path::Path) -> (Store, carrack_spec::Digest, Vec<u8>) {
    let mut tar = Writer::new(Vec::new());
    let small = vec![b's'; INLINE_BYTES_MAX as usize];
    let large = vec![b'l'; 300_000];
    let contents = [
        &b""[..],
        &small,
        &large,
        &large[..INLINE_BYTES_MAX as usize + 1],
        &large,
    ];
    for (i, content) in contents.into_iter().enumerate() {
        let entry = Entry {
            size: content.len() as u64,
            ..file(&format!("file{i}"))
        };
        tar.append(&entry, &mut &content[..]).unwrap();
    }
    let archive = tar.finish().unwrap();
    let store = Store::open_with(root, Some(DriverKind::Pool)).unwrap();
    let lease = store.lease().unwrap();
    let open = || Ok(archive.as_slice());
    let layer = store.ingest(&lease, &LayerSource::default(), open, &|_| {});
    (store, layer.unwrap().diff_id, archive)
}

fn complaints(store: &Store, layer: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut bad = |_: &std::path::Path, what| found.push(what);
    store.driver().check(&[layer.to_owned()], &mut bad).unwrap();
    found
}

#[test]
fn the_archive_is_made_again() {
    require!(carrack_testkit::skip::root());
    let temp = tempfile::tempdir().unwrap();
    let (store, diff_id, archive) = store(temp.path());
    let layer = store.layer_path(&diff_id);
    let mut contents = store.driver().contents(&layer).unwrap();
    let mut recipe = Recipe::new(std::fs::File::open(layer.join("recipe")).unwrap()).unwrap();
    let (mut made, mut keys) = (Vec::new(), 0);
    while let Some(step) = recipe.step().unwrap() {
        match step {
            Step::Literal(bytes) => made.extend(bytes),
            Step::Content { key, segments } => {
                let file = contents.open(&key, keys).unwrap();
                keys += 1;
                for Segment { offset, length } in segments {
                    let mut part = vec![0; length as usize];
                    file.read_exact_at(&mut part, offset).unwrap();
                    made.extend(part);
                }
            }
        }
    }
    assert_eq!(keys, 3);
    assert!(made == archive);
}

#[test]
fn damage_of_the_pool_is_found() {
    require!(carrack_testkit::skip::root());
    let temp = tempfile::tempdir().unwrap();
    let (store, diff_id, _) = store(temp.path());
    let layer = store.layer_path(&diff_id);
    assert_eq!(complaints(&store, &layer), Vec::<String>::new());
    let list = super::objects::read_list(&layer.join("objects")).unwrap();
    assert_eq!(list.len(), 2);
    let path = |n: usize| {
        temp.path()
            .join("objects")
            .join(crate::erofs::object_path(&list[n]))
    };
    let whole = std::fs::read(path(0)).unwrap();
    let mut bytes = whole.clone();
    bytes[1000] ^= 1;
    std::fs::write(path(0), &bytes).unwrap();
    let found = complaints(&store, &layer);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("does not have its digest"), "{found:?}");
    std::fs::write(path(0), &bytes[1..]).unwrap();
    assert!(complaints(&store, &layer)[0].contains("299999 bytes, not 300000"));
    std::fs::write(path(0), whole).unwrap();
    std::fs::remove_file(path(1)).unwrap();
    assert!(complaints(&store, &layer)[0].contains("No such file"));
    let recipe = layer.join("recipe");
    let mut text = Vec::new();
    let mut file = std::fs::File::open(&recipe).unwrap();
    file.read_to_end(&mut text).unwrap();
    std::fs::write(&recipe, &text[..text.len() / 2]).unwrap();
    assert!(!complaints(&store, &layer).is_empty());
}

#[test]
fn usage_counts_what_is_shared_once() {
    require!(carrack_testkit::skip::root());
    let temp = tempfile::tempdir().unwrap();
    let (store, diff_id, _) = store(temp.path());
    let layer = store.layer_path(&diff_id);
    let once = store.driver().usage(std::slice::from_ref(&layer)).unwrap();
    let blocks = |path: &std::path::Path| {
        use std::os::unix::fs::MetadataExt;
        path.symlink_metadata().unwrap().blocks() * 512
    };
    let mut want = blocks(&layer);
    let files = std::fs::read_dir(&layer)
        .unwrap()
        .map(|e| e.unwrap().path());
    want += files.map(|path| blocks(&path)).sum::<u64>();
    for object in super::objects::read_list(&layer.join("objects")).unwrap() {
        want += blocks(
            &temp
                .path()
                .join("objects")
                .join(crate::erofs::object_path(&object)),
        );
    }
    assert_eq!(once, want);
}

#[test]
fn what_is_wanted_stays_in_its_place() {
    require!(carrack_testkit::skip::root());
    let temp = tempfile::tempdir().unwrap();
    std::fs::create_dir(temp.path().join("tmp")).unwrap();
    let objects = temp.path().join("objects");
    let object = |first, last| {
        let mut digest = [last; 32];
        digest[0] = first;
        ObjectId {
            digest,
            sparse: last % 2 == 1,
        }
    };
    let path = |id: &ObjectId| objects.join(crate::erofs::object_path(id));
    let (kept, beside) = (object(1, 1), [object(1, 2), object(1, 3)]);
    let alone = [object(2, 1), object(2, 2)];
    for id in beside.iter().chain(&alone).chain([&kept]) {
        std::fs::create_dir_all(path(id).parent().unwrap()).unwrap();
        std::fs::write(path(id), [7; 600]).unwrap();
    }
    let layer = temp.path().join("layer");
    std::fs::create_dir(&layer).unwrap();
    std::fs::write(layer.join("objects"), to_bytes(&kept)).unwrap();
    let pool = super::Pool::new(temp.path(), false);
    let given = std::cell::Cell::new(0);
    let trash = || {
        given.set(given.get() + 1);
        temp.path().join(format!("tmp/1.{}", given.get()))
    };
    let collect = |kept: &[std::path::PathBuf]| {
        pool.collect(kept, &temp.path().join("tmp"), &trash)
            .unwrap();
    };
    collect(std::slice::from_ref(&layer));
    assert!(path(&kept).exists());
    assert!(!beside.iter().chain(&alone).any(|id| path(id).exists()));
    assert!(!path(&alone[0]).parent().unwrap().exists());
    // One directory as it was, one for all that had to be picked out.
    assert_eq!(given.get(), 2);
    collect(&[layer]);
    assert_eq!(given.get(), 2);
    collect(&[]);
    let left: Vec<_> = std::fs::read_dir(&objects).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0].file_name(), "lock");
}

#[test]
fn a_layer_alone_is_what_it_is_upon_nothing() {
    let entries = [
        file("implied/by/file"),
        dir("a", 0o711),
        file("a/one"),
        Entry {
            link: b"a/one".to_vec(),
            ..Entry::new(Kind::HardLink, "b/two")
        },
        file("a/.wh.gone"),
        file("a/.wh..wh..opq"),
        file("c/.wh.all"),
        file("replaced"),
        dir("replaced", 0o700),
    ];
    let bytes = |tree: &Tree| {
        let mut bytes = Vec::new();
        crate::erofs::write(tree, crate::erofs::Options::default(), &mut bytes).unwrap();
        bytes
    };
    for entries in [&entries[..], &entries[1..], &[dir("./", 0o700)], &[]] {
        let mut upon = nothing();
        merge(&mut upon, layer(entries));
        let alone = alone(layer(entries));
        assert_eq!(find(&alone, "a/gone"), None);
        assert!(bytes(&alone) == bytes(&upon), "{entries:?}");
    }
}

#[test]
fn a_sparse_file_is_no_file_without_holes() {
    require!(carrack_testkit::skip::root());
    let temp = tempfile::tempdir().unwrap();
    let at = temp.path().join("layer");
    std::fs::create_dir(&at).unwrap();
    std::fs::create_dir(temp.path().join("objects")).unwrap();
    let driver = super::PoolDriver::new(temp.path(), false);
    let mut unpack = crate::driver::Driver::unpacker(&driver, &at).unwrap();
    let sparse = Entry {
        size: 1 << 40,
        sparse: Some(vec![Segment {
            offset: 1 << 39,
            length: 3,
        }]),
        ..file("sparse")
    };
    let key = unpack.entry(&sparse, &mut &b"abc"[..]).unwrap().unwrap();
    unpack.finish().unwrap();
    crate::driver::Driver::publish(&driver, &at).unwrap();
    let id = from_bytes(&key).unwrap();
    assert!(id.sparse);
    let path = temp
        .path()
        .join("objects")
        .join(crate::erofs::object_path(&id));
    let object = std::fs::File::open(path).unwrap();
    assert_eq!(object.metadata().unwrap().len(), 1 << 40);
    let mut bytes = [9; 5];
    object.read_exact_at(&mut bytes, (1 << 39) - 1).unwrap();
    assert_eq!(&bytes, b"\0abc\0");
}
