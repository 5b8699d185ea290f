//! The writer without a kernel: what is refused, and what the bytes are like.

use super::*;
use std::collections::BTreeMap;
use std::io::Write;

fn inode(content: Content) -> Inode {
    Inode {
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: (0, 0),
        attributes: BTreeMap::new(),
        content,
    }
}

fn directory() -> Inode {
    inode(Content::Directory(BTreeMap::new()))
}

fn link(tree: &mut Tree, directory: InodeId, name: &[u8], id: InodeId) {
    let Content::Directory(names) = &mut tree.get_mut(directory).content else {
        panic!("not a directory");
    };
    names.insert(name.into(), id);
}

fn with(name: &[u8], node: Inode) -> Tree {
    let mut tree = Tree::new(directory());
    let id = tree.add(node);
    link(&mut tree, InodeId::ROOT, name, id);
    tree
}

fn refused(tree: &Tree) -> (String, Limit) {
    match write(tree, Options::default(), std::io::sink()) {
        Err(WriteError::Tree(TreeError { path, limit })) => (path, limit),
        other => panic!("{other:?}"),
    }
}

fn image(tree: &Tree, long_prefixes: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let size = write(tree, Options { long_prefixes }, &mut out).unwrap();
    assert_eq!(size, out.len() as u64);
    out
}

#[test]
fn an_object_stands_below_its_first_byte() {
    let mut digest = [0xab; 32];
    digest[1] = 0x01;
    let path = |sparse| object_path(&ObjectId { digest, sparse });
    assert!(path(false).starts_with("ab/01ab"), "{}", path(false));
    assert_eq!(path(false).len(), 65);
    assert_eq!(path(true), path(false) + "s");
}

#[test]
fn the_root_is_found_in_an_image() {
    for (uid, gid, mtime) in [(7, 8, (0, 0)), (70_000, 8, (0, 0)), (0, 70_000, (5, 6))] {
        let mut tree = Tree::new(Inode {
            mode: 0o1750,
            uid,
            gid,
            mtime,
            ..directory()
        });
        let below = tree.add(directory());
        link(&mut tree, InodeId::ROOT, b"below", below);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&image(&tree, true)).unwrap();
        let mode = 0o1750;
        assert_eq!(root(&file).unwrap(), Root { uid, gid, mode });
    }
    let mut file = tempfile::tempfile().unwrap();
    assert!(root(&file).is_err());
    file.write_all(&[0; 8192]).unwrap();
    assert!(root(&file).is_err());
}

#[test]
fn what_does_not_fit_is_named() {
    for name in [&b""[..], b".", b"..", b"a/b", b"a\0", &[b'n'; 256]] {
        let found = refused(&with(name, directory()));
        assert_eq!(found, ("/".to_owned(), Limit::Name), "{name:?}");
    }
    for to in [&b""[..], b"a\0b", &[b'x'; 4096]] {
        let node = inode(Content::Symlink(to.into()));
        assert_eq!(refused(&with(b"l", node)), ("/l".to_owned(), Limit::Link));
    }
    for node in [
        Content::CharDevice(4096, 0),
        Content::BlockDevice(0, 1 << 20),
    ] {
        assert_eq!(refused(&with(b"d", inode(node))).1, Limit::Device);
    }
    let names = [
        "user.",
        "system.posix_acl_accessX",
        "btrfs.compression",
        "nodot",
        "user.a\0b",
    ];
    for name in names {
        let mut node = directory();
        node.attributes.insert(name.as_bytes().into(), [].into());
        let found = refused(&with(b"f", node));
        assert_eq!(found, ("/f".to_owned(), Limit::AttributeName), "{name}");
    }
    let mut node = directory();
    node.attributes
        .insert((*b"user.a").into(), vec![0; 65536].into());
    assert_eq!(refused(&with(b"f", node)).1, Limit::AttributeValue);
    let mut node = directory();
    for i in 0..5u8 {
        let name = format!("user.{i}").into_bytes();
        node.attributes.insert(name.into(), vec![i; 65535].into());
    }
    assert_eq!(refused(&with(b"f", node)).1, Limit::Attributes);
    assert_eq!(refused(&Tree::new(inode(Content::Fifo))).1, Limit::Root);
}

#[test]
fn a_directory_has_one_name() {
    let mut tree = with(b"a", directory());
    let a = tree.child(InodeId::ROOT, b"a").unwrap();
    let b = tree.add(directory());
    link(&mut tree, a, b"b", b);
    assert!(write(&tree, Options::default(), std::io::sink()).is_ok());
    // A second name, the directory in itself, and the root in it.
    for target in [a, b, InodeId::ROOT] {
        let mut tree = tree.clone();
        link(&mut tree, b, b"again", target);
        assert_eq!(refused(&tree), ("/a/b".to_owned(), Limit::DirectoryLink));
    }
}

#[test]
fn the_same_tree_gives_the_same_bytes_whatever_was_made_before() {
    let file = |n: u8| inode(Content::Inline([n; 100].into()));
    let mut one = Tree::new(directory());
    let mut other = Tree::new(directory());
    let names = [&b"z"[..], b"a", b"m"];
    for (n, name) in names.iter().enumerate() {
        let id = one.add(file(n as u8));
        link(&mut one, InodeId::ROOT, name, id);
    }
    for (n, name) in names.iter().enumerate().rev() {
        other.add(file(99)); // without a name
        let id = other.add(file(n as u8));
        link(&mut other, InodeId::ROOT, name, id);
    }
    assert_eq!(image(&one, true), image(&other, true));
}

#[test]
fn a_failing_output_is_reported() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let outcome = write(&with(b"d", directory()), Options::default(), Full);
    assert!(matches!(outcome, Err(WriteError::Output(_))), "{outcome:?}");
}

#[test]
fn frequent_attributes_take_little_room() {
    let tree = |files: u16| {
        let mut tree = Tree::new(directory());
        for n in 0..files {
            let mut digest = [0; 32];
            digest[..2].copy_from_slice(&n.to_be_bytes());
            let object = ObjectId {
                digest,
                sparse: false,
            };
            let id = tree.add(inode(Content::Pooled {
                size: 5000,
                object,
                verity: None,
            }));
            let name = format!("file-{n:05}");
            link(&mut tree, InodeId::ROOT, name.as_bytes(), id);
        }
        tree
    };
    let plain = image(&tree(1000), false).len();
    let short = image(&tree(1000), true).len();
    assert!(short < plain, "{short} {plain}");
    // Compact inode, filter, one reference, redirect, one hole; and the name.
    assert!(short < 1000 * (128 + 12 + 10) + 5 * 4096, "{short}");
}
