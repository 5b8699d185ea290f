//! Several users of one store at once, and sources that fail (needs root).

use carrack_spec::Digest;
use carrack_spec::image::{Descriptor, media_type};
use carrack_store::tar::{Entry, Kind, Writer};
use carrack_store::{
    CheckOptions, Compression, ImportOptions, LayerError, LayerSource, Progress, PruneOptions,
    Store, compress,
};
use carrack_testkit::require;
use std::io::{Error, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

fn layer(files: usize, text: &str) -> Vec<u8> {
    let mut tar = Writer::new(Vec::new());
    for n in 0..files {
        let entry = Entry {
            size: text.len() as u64,
            ..Entry::new(Kind::Regular, format!("d{}/f{n}", n % 7))
        };
        tar.append(&entry, &mut text.as_bytes()).unwrap();
    }
    tar.finish().unwrap()
}

/// The layer compressed, and what a manifest and a configuration say of it.
fn source(tar: &[u8], compression: Compression) -> (LayerSource, Vec<u8>) {
    let mut blob = Vec::new();
    let descriptor = compress(tar, compression, &mut blob).unwrap();
    let diff_id = compress(tar, Compression::None, std::io::sink())
        .unwrap()
        .digest;
    let source = LayerSource {
        diff_id: Some(diff_id),
        blob: Some(descriptor),
    };
    (source, blob)
}

/// Gives bytes a few at a time, and perhaps fails.
struct Slow<'a> {
    bytes: &'a [u8],
    fails: bool,
}

impl Read for Slow<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        std::thread::sleep(Duration::from_millis(5));
        let n = buf.len().min(self.bytes.len()).min(500);
        if n == 0 && self.fails {
            return Err(Error::other("the line is cut"));
        }
        buf[..n].copy_from_slice(&self.bytes[..n]);
        self.bytes = &self.bytes[n..];
        Ok(n)
    }
}

#[test]
fn ingests_of_one_layer_share_one() {
    require!(carrack_testkit::skip::root());
    let temp = tempfile::tempdir().unwrap();
    Store::open(temp.path()).unwrap();
    let (known, blob) = source(&layer(50, "text"), Compression::Zstd);
    let unknown = LayerSource {
        diff_id: None,
        ..known.clone()
    };
    for source in [&known, &unknown] {
        let (opened, waited) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    // As a process of its own would.
                    let store = Store::open(temp.path()).unwrap();
                    let lease = store.lease().unwrap();
                    let open = || {
                        opened.fetch_add(1, Ordering::Relaxed);
                        Ok(Slow {
                            bytes: &blob,
                            fails: false,
                        })
                    };
                    let progress = |p| {
                        if p == Progress::Waiting {
                            waited.fetch_add(1, Ordering::Relaxed);
                        }
                    };
                    let made = store.ingest(&lease, source, open, &progress).unwrap();
                    assert_eq!(Some(made.diff_id), known.diff_id);
                });
            }
        });
        assert_eq!(opened.into_inner(), 1);
        assert!(waited.into_inner() >= 1);
        let store = Store::open(temp.path()).unwrap();
        assert_eq!(store.collect_garbage().unwrap().layers.len(), 1);
    }
}

#[test]
fn the_next_takes_over_when_one_fails() {
    require!(carrack_testkit::skip::root());
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(temp.path()).unwrap();
    let (source, blob) = source(&layer(50, "text"), Compression::Gzip);
    let first_runs = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let lease = store.lease().unwrap();
            let open = || {
                first_runs.store(true, Ordering::Release);
                let bytes = &blob[..blob.len() / 2];
                Ok(Slow { bytes, fails: true })
            };
            let error = store.ingest(&lease, &source, open, &|_| {}).unwrap_err();
            assert!(matches!(error, LayerError::Read(..)), "{error}");
        });
        while !first_runs.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        let lease = store.lease().unwrap();
        store
            .ingest(&lease, &source, || Ok(blob.as_slice()), &|_| {})
            .unwrap();
    });
    assert!(
        store
            .check(CheckOptions::default(), &|_| {})
            .unwrap()
            .is_clean()
    );
}

/// Run by the test below in a process of its own.
#[test]
fn child_that_stalls() {
    let Some(root) = std::env::var_os("CARRACK_TEST_STALLS") else {
        return;
    };
    let store = Store::open(root).unwrap();
    let (source, blob) = source(&layer(50, "text"), Compression::Gzip);
    let lease = store.lease().unwrap();
    let open = || Ok(blob[..blob.len() / 2].chain(Stalls));
    let _ = store.ingest(&lease, &source, open, &|_| {});
}

struct Stalls;

impl Read for Stalls {
    fn read(&mut self, _buf: &mut [u8]) -> std::io::Result<usize> {
        println!("stalled");
        std::thread::sleep(Duration::from_secs(1000));
        Ok(0)
    }
}

#[test]
fn the_next_takes_over_when_one_is_killed() {
    require!(carrack_testkit::skip::root());
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(temp.path()).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_stalls", "--nocapture"])
        .env("CARRACK_TEST_STALLS", temp.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("stalled") {
        line.clear();
        let got = std::io::BufRead::read_line(&mut out, &mut line).unwrap();
        assert!(got > 0, "the child ended");
    }
    let (source, blob) = source(&layer(50, "text"), Compression::Gzip);
    // Nobody takes away what a living process makes.
    Store::open(temp.path()).unwrap().collect_garbage().unwrap();
    assert_eq!(
        std::fs::read_dir(temp.path().join("tmp")).unwrap().count(),
        1
    );
    std::thread::scope(|scope| {
        let (told, waits) = std::sync::mpsc::channel();
        let (store, source, blob) = (&store, &source, &blob);
        let second = scope.spawn(move || {
            let lease = store.lease().unwrap();
            let open = || Ok(blob.as_slice());
            let progress = |p| {
                if p == Progress::Waiting {
                    told.send(()).unwrap();
                }
            };
            store.ingest(&lease, source, open, &progress).unwrap()
        });
        waits.recv().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        second.join().unwrap();
    });
    let store = Store::open(temp.path()).unwrap();
    assert_eq!(
        std::fs::read_dir(temp.path().join("tmp")).unwrap().count(),
        0
    );
    assert!(
        store
            .check(CheckOptions::default(), &|_| {})
            .unwrap()
            .is_clean()
    );
}

#[test]
fn makers_removers_and_listers_never_meet_an_error() {
    require!(carrack_testkit::skip::root());
    let temp = tempfile::tempdir().unwrap();
    let shared = layer(20, "shared");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let makers: Vec<_> = (0..3)
            .map(|n| {
                let (shared, root) = (&shared, temp.path());
                scope.spawn(move || {
                    for round in 0..15 {
                        let store = Store::open(root).unwrap();
                        let name = format!("image{n}:{round}");
                        let options = ImportOptions {
                            name: Some(name.parse().unwrap()),
                            comment: Some(name.clone()),
                            ..ImportOptions::default()
                        };
                        store.import(shared.as_slice(), options, &|_| {}).unwrap();
                        let also = format!("also{n}:1").parse().unwrap();
                        store.tag_image(&name, &also).unwrap();
                        store.remove_image(&name, false).unwrap();
                    }
                })
            })
            .collect();
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let store = Store::open(temp.path()).unwrap();
                    store.prune(&PruneOptions::default()).unwrap();
                    store.images().unwrap();
                }
            });
        }
        let outcomes: Vec<_> = makers.into_iter().map(|maker| maker.join()).collect();
        stop.store(true, Ordering::Relaxed);
        assert!(outcomes.iter().all(Result::is_ok), "see the panics above");
    });
    let store = Store::open(temp.path()).unwrap();
    assert_eq!(store.images().unwrap().len(), 3);
    assert!(
        store
            .check(CheckOptions::default(), &|_| {})
            .unwrap()
            .is_clean()
    );
}

fn refused(root: &Path, source: &LayerSource, blob: &[u8]) -> LayerError {
    let store = Store::open(root).unwrap();
    let lease = store.lease().unwrap();
    let outcome = store.ingest(&lease, source, || Ok(blob), &|_| {});
    drop(lease);
    for name in ["tmp", "layers", "ingests", "leases"] {
        assert_eq!(
            std::fs::read_dir(root.join(name)).unwrap().count(),
            0,
            "{name}"
        );
    }
    outcome.unwrap_err()
}

#[test]
fn a_lying_source_is_told_by_what_it_lied_about() {
    require!(carrack_testkit::skip::root());
    let temp = tempfile::tempdir().unwrap();
    let tar = layer(30, "text");
    let (good, blob) = source(&tar, Compression::Gzip);
    let other = Digest::from_sha256([1; 32]);
    let with = |digest: Option<Digest>, size: u64| LayerSource {
        blob: Some(Descriptor::new(
            media_type::LAYER_GZIP,
            digest.unwrap_or_else(|| good.blob.as_ref().unwrap().digest.clone()),
            size,
        )),
        ..good.clone()
    };
    let length = blob.len() as u64;
    let error = refused(temp.path(), &with(Some(other.clone()), length), &blob);
    assert!(matches!(error, LayerError::Blob { .. }), "{error}");
    let error = refused(temp.path(), &with(None, length + 1), &blob);
    assert!(matches!(error, LayerError::Size { .. }), "{error}");
    let error = refused(temp.path(), &with(None, length - 1), &blob);
    assert!(matches!(error, LayerError::Read(..)), "{error}");
    let wrong = LayerSource {
        diff_id: Some(other),
        ..good.clone()
    };
    let error = refused(temp.path(), &wrong, &blob);
    assert!(matches!(error, LayerError::DiffId { .. }), "{error}");
    for cut in [0, 1, 5, blob.len() / 2, blob.len() - 1] {
        refused(temp.path(), &good, &blob[..cut]);
    }
    for (head, name) in [(&b"\xfd7zXZ\0"[..], "xz"), (b"BZh91AY", "bzip2")] {
        let error = refused(temp.path(), &LayerSource::default(), head);
        let text = std::error::Error::source(&error).unwrap().to_string();
        assert!(text.contains(name), "{text}");
    }
    refused(temp.path(), &LayerSource::default(), b"no archive at all");
}

#[test]
fn compressed_streams_come_in_several_pieces() {
    require!(carrack_testkit::skip::root());
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(temp.path()).unwrap();
    let tar = layer(30, "text");
    let halves = tar.split_at(tar.len() / 3);
    let gzip = |bytes: &[u8]| {
        let mut out = Vec::new();
        compress(bytes, Compression::Gzip, &mut out).unwrap();
        out
    };
    let members = [gzip(halves.0), gzip(&[]), gzip(halves.1)].concat();
    let frame = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let skipped = b"\x5a\x2a\x4d\x18\x05\0\0\0table".to_vec();
    let frames = [
        skipped.clone(),
        frame(halves.0),
        skipped.clone(),
        frame(halves.1),
        skipped,
    ]
    .concat();
    for blob in [members, frames] {
        let lease = store.lease().unwrap();
        let made = store
            .ingest(
                &lease,
                &LayerSource::default(),
                || Ok(blob.as_slice()),
                &|_| {},
            )
            .unwrap();
        assert_eq!(made.blob.unwrap().size, blob.len() as u64);
        let mut again = Vec::new();
        store
            .export_layer(&lease, &made.diff_id, &mut again)
            .unwrap();
        assert!(again == tar);
        drop(lease);
        store.collect_garbage().unwrap();
    }
}
