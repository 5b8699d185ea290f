//! A store whose user is killed at any step, or whose disk is full: it is valid, nothing that was there
//! is lost, and the next try succeeds (needs root, and strace for the kills).

use carrack_spec::image::ContainerConfig;
use carrack_store::tar::{Entry, Kind, Writer};
use carrack_store::{
    CheckOptions, Compression, DriverKind, ImageWriter, LoadOptions, PruneOptions, Store,
};
use carrack_testkit::{require, skip};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The system calls at which a kill is tried: those that change something.
const CALLS: &str = "mkdir,mkdirat openat rename renameat2 renameat fsync syncfs write pwrite64 \
    unlink,unlinkat flock rmdir linkat utimensat";
/// Of many calls of a kind, about so many are tried.
const TRIES: u32 = 12;

fn archive(at: &Path, name: &str, files: usize) -> PathBuf {
    let mut image = ImageWriter::new(ContainerConfig::default());
    for layer in 0..2 {
        let mut tar = Writer::new(Vec::new());
        for n in 0..files {
            let text = format!("{name} {n}").repeat(300);
            let entry = Entry {
                size: text.len() as u64,
                ..Entry::new(Kind::Regular, format!("d{layer}/f{n}"))
            };
            tar.append(&entry, &mut text.as_bytes()).unwrap();
        }
        image
            .layer(tar.finish().unwrap(), Compression::Gzip)
            .unwrap();
    }
    let path = at.join(format!("{name}.tar"));
    let file = std::fs::File::create(&path).unwrap();
    let reference = format!("{name}:1").parse().unwrap();
    image.write_layout(Some(&reference), file).unwrap();
    path
}

fn load(store: &Store, path: &Path) -> Result<(), carrack_store::LoadError> {
    let path = Some(path.to_owned());
    store
        .load(&LoadOptions {
            path,
            ..LoadOptions::default()
        })
        .map(drop)
}

/// What the killed process does: it loads, tags, loads another under a name that was taken, prunes and
/// removes.
fn work(store: &Store, archives: &Path) {
    load(store, &archives.join("new.tar")).unwrap();
    store
        .tag_image("new:1", &"moving:1".parse().unwrap())
        .unwrap();
    store
        .tag_image("kept:1", &"moving:1".parse().unwrap())
        .unwrap();
    store.untag_image("new:1").unwrap();
    store.prune(&PruneOptions::default()).unwrap();
    store.remove_image("moving:1", false).unwrap();
}

/// Run by the tests below in a process of its own.
#[test]
fn child_that_works() {
    let Some(root) = std::env::var_os("CARRACK_TEST_WORKS") else {
        return;
    };
    let root = PathBuf::from(root);
    work(&Store::open(root.join("store")).unwrap(), &root);
}

/// Runs the child, killed at the `count`th of a call by any of its threads; true when it was.
fn killed_at(root: &Path, call: &str, count: u32) -> bool {
    let status = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e"])
        .arg(format!("trace={call}"))
        .arg("-e")
        .arg(format!("inject={call}:signal=KILL:when={count}"))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_works", "--test-threads=1"])
        .env("CARRACK_TEST_WORKS", root)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    !status.success()
}

/// The store is whole, and what was there before is there.
fn assert_whole(root: &Path, how: &str) {
    let store = Store::open(root.join("store")).unwrap();
    let checked = store.check(CheckOptions::default(), &|_| {}).unwrap();
    assert!(checked.is_clean(), "{how}: {:?}", checked.problems);
    let kept = store
        .find_image("kept:1")
        .unwrap_or_else(|e| panic!("{how}: {e}"));
    assert_eq!(kept.layers.len(), 2);
    for name in ["tmp", "leases"] {
        let left = std::fs::read_dir(root.join("store").join(name))
            .unwrap()
            .count();
        assert_eq!(left, 0, "{how}: left in {name}");
    }
}

#[test]
fn a_kill_at_any_step_leaves_a_valid_store() {
    require!(skip::root());
    require!(skip::strace());
    let temp = tempfile::tempdir().unwrap();
    archive(temp.path(), "new", 6);
    let kept = archive(temp.path(), "kept", 6);
    let store = Store::open(temp.path().join("store")).unwrap();
    load(&store, &kept).unwrap();
    let mut tried = 0;
    for call in CALLS.split_whitespace() {
        let mut count = 1;
        let mut step = 1;
        while killed_at(temp.path(), call, count) {
            assert_whole(temp.path(), &format!("killed at {call} number {count}"));
            tried += 1;
            // Close together at first, then ever wider.
            if tried % TRIES == 0 {
                step *= 2;
            }
            count += step;
        }
        assert_whole(temp.path(), "not killed");
    }
    println!("killed at {tried} steps");
    assert!(tried > 50, "only {tried} steps were tried");
    work(&store, temp.path());
    assert_whole(temp.path(), "at the end");
}

/// A small file system, unmounted on drop.
struct Small(PathBuf);

impl Small {
    fn tmpfs(at: PathBuf, options: &str) -> Self {
        std::fs::create_dir(&at).unwrap();
        let data = std::ffi::CString::new(options).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("none", &at, "tmpfs", flags, data.as_c_str()).unwrap();
        Self(at)
    }

    /// ext4 in a file, on a loop device.
    fn ext4(at: PathBuf) -> Self {
        let image = at.with_extension("image");
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(16 << 20).unwrap();
        std::fs::create_dir(&at).unwrap();
        let run = |program: &str, args: &[&str]| {
            let paths = [image.as_os_str(), at.as_os_str()];
            let paths = &paths[..if program == "mount" { 2 } else { 1 }];
            let output = Command::new(program).args(args).args(paths).output();
            let output = output.unwrap();
            assert!(output.status.success(), "{program}: {output:?}");
        };
        run("mkfs.ext4", &["-q", "-m", "0", "-J", "size=4"]);
        run("mount", &["-o", "loop"]);
        Self(at)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Takes every block that is free.
fn fill(path: &Path) {
    let file = std::fs::File::create(path).unwrap();
    let flags = rustix::fs::FallocateFlags::empty();
    let (mut end, mut bytes) = (0, 1 << 20);
    while bytes > 0 {
        match rustix::fs::fallocate(&file, flags, end, bytes) {
            Ok(()) => end += bytes,
            Err(_) => bytes /= 2,
        }
    }
}

/// Names of the documents that the store has.
fn documents(store: &Store) -> Vec<std::ffi::OsString> {
    let entries = std::fs::read_dir(store.root().join("blobs/sha256")).unwrap();
    let mut names: Vec<_> = entries.flatten().map(|e| e.file_name()).collect();
    names.sort();
    names
}

/// Loads into a store on a file system that may be full; true when it was. Then no document is left.
fn is_full(store: &Store, path: &Path, how: &str) -> bool {
    let before = documents(store);
    let Err(error) = load(store, path) else {
        return false;
    };
    assert_eq!(documents(store), before, "{how}");
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    assert!(text.contains("No space left"), "{how}: {text}");
    true
}

/// The drivers that this kernel knows: `pool` needs data-only layers.
fn drivers() -> Vec<DriverKind> {
    match skip::kernel((6, 5)) {
        Ok(()) => vec![DriverKind::Overlay, DriverKind::Pool],
        Err(_) => vec![DriverKind::Overlay],
    }
}

#[test]
fn a_full_disk_leaves_a_valid_store() {
    require!(skip::root());
    let temp = tempfile::tempdir().unwrap();
    let archives = temp.path();
    let (kept, new) = (archive(archives, "kept", 4), archive(archives, "new", 120));
    for driver in drivers() {
        let mut refused = 0;
        // By bytes, and by the number of files.
        let bytes = (0..14).map(|n| format!("size={}k", 220 + 90 * n));
        let files = (0..14).map(|n| format!("size=20m,nr_inodes={}", 70 + 24 * n));
        for (n, options) in bytes.chain(files).enumerate() {
            let small = Small::tmpfs(temp.path().join(format!("{}{n}", driver.name())), &options);
            let root = small.0.clone();
            let store = Store::open_with(root.join("store"), Some(driver)).unwrap();
            if load(&store, &kept).is_err() {
                refused += 1;
                continue;
            }
            refused += u32::from(is_full(&store, &new, &options));
            assert_whole(&root, &options);
            // What did not fit goes, and what is there can be used and removed.
            store.prune(&PruneOptions::default()).unwrap();
            assert_whole(&root, &options);
            store.remove_image("kept:1", false).unwrap();
        }
        assert!(refused >= 4, "{}: only {refused} were full", driver.name());
    }
}

/// As above on a file system that finds room for what was written only later.
#[test]
fn a_full_loop_device_leaves_a_valid_store() {
    require!(skip::root());
    require!(skip::program("mkfs.ext4"));
    require!(skip::exists("/dev/loop-control"));
    let temp = tempfile::tempdir().unwrap();
    let archives = temp.path();
    let (kept, new) = (archive(archives, "kept", 4), archive(archives, "new", 120));
    for driver in drivers() {
        let small = Small::ext4(temp.path().join(driver.name()));
        let root = small.0.clone();
        let store = Store::open_with(root.join("store"), Some(driver)).unwrap();
        load(&store, &kept).unwrap();
        let mut refused = 0;
        for room in (0..9).map(|n| n * (160 << 10)) {
            let filler = root.join("filler");
            let file = std::fs::File::create(&filler).unwrap();
            let free = rustix::fs::statvfs(&root).unwrap();
            let length = (free.f_bavail * free.f_bsize).saturating_sub(room);
            let flags = rustix::fs::FallocateFlags::empty();
            // Its own map takes some as well.
            let _ = rustix::fs::fallocate(&file, flags, 0, length.max(1));
            drop(file);
            let how = format!("{} with {room} bytes", driver.name());
            let full = is_full(&store, &new, &how);
            refused += u32::from(full);
            // A check needs no room, not a block, nor does removing.
            let rest = root.join("rest");
            fill(&rest);
            assert_whole(&root, &how);
            store.prune(&PruneOptions::default()).unwrap();
            if !full {
                store.remove_image("new:1", false).unwrap();
            }
            std::fs::remove_file(&filler).unwrap();
            std::fs::remove_file(&rest).unwrap();
            assert_whole(&root, &how);
        }
        assert!((3..9).contains(&refused), "{refused} were full");
        load(&store, &new).unwrap();
        assert_whole(&root, "with room again");
    }
}
