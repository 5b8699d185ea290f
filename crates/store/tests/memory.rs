//! Memory stays the same whatever a layer's size and shape (needs root). A test program of its own: what it
//! measures is the process's peak.

use carrack_store::tar::{Entry, Kind, Writer};
use carrack_store::{CheckOptions, LayerSource, Store};
use carrack_testkit::require;
use std::io::{Cursor, Read};

const PEAK_KIB_MAX: u64 = 64 << 10;
/// Entries of a small layer and of a large one, and what the large one may take more: a million is to stay
/// below the peak.
const FEW: u64 = 1_000;
const MANY: u64 = 30_000;
const MORE_KIB_MAX: u64 = 4 << 10;

/// A layer made while it is read: the `n`th member comes from `make`.
struct Made<F> {
    make: F,
    n: u64,
    count: u64,
    current: Cursor<Vec<u8>>,
}

impl<F: FnMut(u64) -> Entry> Read for Made<F> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let got = self.current.read(buf)?;
            if got > 0 || self.n == self.count {
                return Ok(got);
            }
            let entry = (self.make)(self.n);
            self.n += 1;
            let mut writer = Writer::new(Vec::new());
            let size = entry.size;
            writer.append(&entry, &mut std::io::repeat(b'x').take(size))?;
            let mut bytes = writer.finish()?;
            // The end mark is for the last member only.
            if self.n < self.count {
                bytes.truncate(bytes.len() - 1024);
            }
            self.current = Cursor::new(bytes);
        }
    }
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Takes a layer of `count` members in, gives it out again, checks it and removes it; the peak until then.
fn pass(store: &Store, count: u64, make: &dyn Fn(u64) -> Entry) -> u64 {
    let lease = store.lease().unwrap();
    let open = || {
        Ok(Made {
            make: |n| {
                let mut entry = make(n);
                if entry.kind == Kind::Symlink {
                    entry.link = b"/to".to_vec();
                }
                entry
            },
            n: 0,
            count,
            current: Cursor::default(),
        })
    };
    let made = store
        .ingest(&lease, &LayerSource::default(), open, &|_| {})
        .unwrap();
    assert_eq!(made.info.entries, count);
    let bytes = store
        .export_layer(&lease, &made.diff_id, std::io::sink())
        .unwrap();
    assert_eq!(bytes, made.info.archive);
    let checked = store.check(CheckOptions::default(), &|_| {}).unwrap();
    assert!(checked.is_clean(), "{:?}", checked.problems);
    drop(lease);
    store.collect_garbage().unwrap();
    peak_kib()
}

#[test]
fn memory_stays_flat() {
    require!(carrack_testkit::skip::root());
    // In memory where possible: it is the names that count.
    let temp = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let temp = temp.unwrap();
    let store = Store::open(temp.path()).unwrap();
    let many = |n: u64| match n % 10 {
        0 => Entry::new(Kind::Directory, format!("d{n}")),
        _ => Entry::new(Kind::Regular, format!("d{}/f{n}", n - n % 10)),
    };
    let huge = |n: u64| Entry {
        size: 8 << 20,
        ..Entry::new(Kind::Regular, format!("huge{n}"))
    };
    // Attributes that no file system keeps are a way to make names long.
    let wordy = |n: u64| Entry {
        xattrs: vec![(b"user.overlay.x".to_vec(), vec![b'y'; 900 << 10])],
        ..Entry::new(Kind::Fifo, format!("fifo{n}"))
    };
    let over = |_| Entry::new(Kind::Symlink, "again");
    let few = pass(&store, FEW, &many);
    let more = pass(&store, MANY, &many);
    assert!(more - few < MORE_KIB_MAX, "{few} KiB, then {more} KiB");
    // The test itself holds a member at a time.
    for (count, make) in [
        (9, &huge as &dyn Fn(u64) -> Entry),
        (30, &wordy),
        (5_000, &over),
    ] {
        let peak = pass(&store, count, make);
        assert!(peak < PEAK_KIB_MAX, "{peak} KiB");
    }
}

/// The header of a PAX block whose one record is a name of 4 GiB, and as much of it as is asked for.
#[test]
fn a_name_of_four_gigabytes_is_refused_from_its_header() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(temp.path()).unwrap();
    let mut header = [0; 512];
    let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
    put(0, b"pax");
    put(124, &[0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 30]);
    put(156, b"xustar");
    put(263, b"00");
    put(148, b"        ");
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
    let start = [&header[..], b"4294967326 path="].concat();
    let lease = store.lease().unwrap();
    let open = || Ok(start.as_slice().chain(std::io::repeat(b'n')));
    let error = store
        .ingest(&lease, &LayerSource::default(), open, &|_| {})
        .unwrap_err();
    let mut source: &dyn std::error::Error = &error;
    while let Some(next) = source.source() {
        source = next;
    }
    let text = source.to_string();
    assert!(text.contains("4294967326 bytes of names"), "{text}");
}
