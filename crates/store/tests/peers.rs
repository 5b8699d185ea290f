//! Archives as other programs write them: taken in, compared with what GNU tar makes of them, and made
//! again bit for bit (needs root: owners and devices).

use carrack_store::{CheckOptions, LayerSource, Store};
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Everything about a file that an archive keeps.
#[derive(Debug, PartialEq, Eq)]
struct Facts {
    mode: u32,
    owner: (u32, u32),
    /// Seconds: not every form has more.
    mtime: i64,
    size: u64,
    device: u64,
    target: Option<PathBuf>,
    content: Option<Vec<u8>>,
    xattr: Option<Vec<u8>>,
    /// Number of the first file that is the same.
    same_as: usize,
}

/// Contents up to here are compared as a whole.
const CONTENT_BYTES_MAX: u64 = 1 << 20;

/// Times of directories only where GNU tar restores them: it loses some in the order of other writers.
fn facts(root: &Path, with_xattrs: bool, with_times: bool) -> BTreeMap<PathBuf, Facts> {
    let mut paths = vec![];
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.symlink_metadata().unwrap().is_dir() {
                left.push(path.clone());
            }
            paths.push(path);
        }
    }
    paths.sort();
    let mut inodes = HashMap::new();
    let of = |(n, path): (usize, &PathBuf)| {
        let m = path.symlink_metadata().unwrap();
        let mut value = [0; 256];
        let xattr = rustix::fs::lgetxattr(path, "user.note", &mut value).ok();
        let facts = Facts {
            mode: m.mode(),
            owner: (m.uid(), m.gid()),
            mtime: if m.is_dir() && !with_times {
                0
            } else {
                m.mtime()
            },
            size: if m.is_dir() { 0 } else { m.size() },
            device: m.rdev(),
            target: std::fs::read_link(path).ok(),
            content: (m.is_file() && m.size() <= CONTENT_BYTES_MAX)
                .then(|| std::fs::read(path).unwrap()),
            xattr: xattr.filter(|_| with_xattrs).map(|n| value[..n].to_vec()),
            same_as: *inodes.entry(m.ino()).or_insert(n),
        };
        (path.strip_prefix(root).unwrap().to_owned(), facts)
    };
    paths.iter().enumerate().map(of).collect()
}

fn run(program: &str, args: &[&OsStr]) -> bool {
    let output = Command::new(program).args(args).output().unwrap();
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        println!("{program} {args:?}: {text}");
    }
    output.status.success()
}

/// A tree with one of everything.
fn make_tree(at: &Path) {
    let long = "n".repeat(180);
    let deep = at.join("deep").join(&long).join(&long);
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join("file"), "deep down").unwrap();
    std::fs::write(at.join("empty"), "").unwrap();
    std::fs::write(at.join("small"), "small").unwrap();
    std::fs::write(at.join(OsStr::from_bytes(b"not-\xff-utf8")), "bytes").unwrap();
    std::fs::write(at.join("exact"), [7; 1024]).unwrap();
    std::fs::hard_link(at.join("small"), at.join("z-hard")).unwrap();
    std::os::unix::fs::symlink("small", at.join("link")).unwrap();
    std::os::unix::fs::symlink(format!("/{long}"), at.join("long-link")).unwrap();
    std::fs::write(at.join("setuid"), "program").unwrap();
    std::os::unix::fs::chown(at.join("setuid"), Some(1_000), Some(3_000_000)).unwrap();
    let mode = std::fs::Permissions::from_mode(0o6755);
    std::fs::set_permissions(at.join("setuid"), mode).unwrap();
    let sticky = at.join("sticky");
    std::fs::create_dir(&sticky).unwrap();
    std::fs::set_permissions(&sticky, std::fs::Permissions::from_mode(0o3777)).unwrap();
    std::fs::write(sticky.join("inside"), "x").unwrap();
    use rustix::fs::{CWD, FileType, mknodat};
    mknodat(CWD, at.join("fifo"), FileType::Fifo, 0o640.into(), 0).unwrap();
    let null = rustix::fs::makedev(1, 3);
    mknodat(
        CWD,
        at.join("null"),
        FileType::CharacterDevice,
        0o666.into(),
        null,
    )
    .unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    // A file system without attributes has none to lose.
    let _ = rustix::fs::setxattr(at.join("small"), "user.note", b"a\0b\n=c", flags);
    let sparse = std::fs::File::create(at.join("sparse")).unwrap();
    for n in 0..40_u64 {
        sparse.write_all_at(b"island", n * (1 << 16)).unwrap();
    }
    sparse.set_len(5 << 20).unwrap();
    let hole = std::fs::File::create(at.join("hole")).unwrap();
    hole.set_len(1 << 20).unwrap();
    let big = std::fs::File::create(at.join("big")).unwrap();
    big.write_all_at(&[3; 700_000], 0).unwrap();
}

#[test]
fn archives_of_other_programs_give_the_same_tree_and_come_back_bit_for_bit() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: unpacking layers needs root");
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let tree = temp.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    make_tree(&tree);
    let gnu = |args: &[&str]| {
        (
            "tar",
            args.iter().map(|a| a.to_string()).collect::<Vec<_>>(),
        )
    };
    let bsd = |format: &str| ("bsdtar", vec![format!("--format={format}")]);
    let forms = [
        gnu(&["--format=gnu", "-S"]),
        gnu(&["--format=gnu"]),
        gnu(&["--format=oldgnu", "-S"]),
        gnu(&["--format=posix", "--xattrs"]),
        gnu(&["--format=posix", "-S", "--sparse-version=0.0"]),
        gnu(&["--format=posix", "-S", "--sparse-version=0.1", "--xattrs"]),
        gnu(&["--format=posix", "-S", "--sparse-version=1.0"]),
        gnu(&[
            "--format=ustar",
            "--exclude=deep",
            "--exclude=setuid",
            "--exclude=long-link",
        ]),
        gnu(&[
            "--format=v7",
            "--exclude=deep",
            "--exclude=setuid",
            "--exclude=long-link",
            "--exclude=fifo",
            "--exclude=null",
        ]),
        bsd("pax"),
        bsd("gnutar"),
        ("busybox tar", vec![]),
    ];
    let store = Store::open(temp.path().join("store")).unwrap();
    for (program, options) in forms {
        let shown = format!("{program} {options:?}");
        let archive = temp.path().join("archive.tar");
        let mut words = program.split(' ');
        let name = words.next().unwrap();
        let mut args: Vec<&OsStr> = words.map(OsStr::new).collect();
        args.push(OsStr::new("-c"));
        args.extend(options.iter().map(OsStr::new));
        args.extend([
            "-f".as_ref(),
            archive.as_os_str(),
            "-C".as_ref(),
            tree.as_os_str(),
            ".".as_ref(),
        ]);
        if Command::new(name).arg("--help").output().is_err() {
            println!("skipped {shown}: not installed");
            continue;
        }
        assert!(run(name, &args), "{shown}");
        let expected = temp.path().join("expected");
        std::fs::create_dir(&expected).unwrap();
        let args = [
            "-xpf".as_ref(),
            archive.as_os_str(),
            "--numeric-owner".as_ref(),
            "--xattrs".as_ref(),
            "--xattrs-include=user.*".as_ref(),
            "-C".as_ref(),
            expected.as_os_str(),
        ];
        assert!(run("tar", &args), "{shown}");

        let bytes = std::fs::read(&archive).unwrap();
        let lease = store.lease().unwrap();
        let layer = store
            .ingest(
                &lease,
                &LayerSource::default(),
                || Ok(bytes.as_slice()),
                &|_| {},
            )
            .unwrap_or_else(|e| panic!("{shown}: {e}: {:?}", std::error::Error::source(&e)));
        let files = store.layer_path(&layer.diff_id).join("fs");
        let with_xattrs = options.iter().any(|o| o == "--xattrs");
        let (found, wanted) = (
            facts(&files, with_xattrs, program == "tar"),
            facts(&expected, with_xattrs, program == "tar"),
        );
        assert_eq!(found.len(), wanted.len(), "{shown}");
        for ((path, found), (other, wanted)) in found.iter().zip(&wanted) {
            assert_eq!(path, other, "{shown}");
            assert_eq!(found, wanted, "{shown}: {path:?}");
        }
        if options.iter().any(|o| o == "-S") {
            let blocks = files.join("sparse").metadata().unwrap().blocks();
            assert!(blocks * 512 < 1 << 20, "{shown}: holes are kept");
            assert_eq!(files.join("hole").metadata().unwrap().blocks(), 0);
        }
        let mut again = Vec::new();
        store
            .export_layer(&lease, &layer.diff_id, &mut again)
            .unwrap();
        assert!(again == bytes, "{shown}: not the same bytes");
        let checked = store.check(CheckOptions::default(), &|_| {}).unwrap();
        assert!(checked.is_clean(), "{shown}: {:?}", checked.problems);
        drop(lease);
        store.collect_garbage().unwrap();
        std::fs::remove_dir_all(&expected).unwrap();
    }
}
