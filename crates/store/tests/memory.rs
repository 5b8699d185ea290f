//! Memory stays the same whatever a layer's size and shape (needs root). A test program of its own: what it
//! measures is the process's peak.

use carrack_store::tar::{Entry, Kind, Writer};
use carrack_store::{LayerSource, Store};
use carrack_testkit::require;
use std::io::{Cursor, Read};

const PEAK_KIB_MAX: u64 = 64 << 10;
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

#[test]
fn memory_stays_flat() {
    require!(carrack_testkit::skip::root());
    let temp = tempfile::tempdir().unwrap();
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
    let makes: [(u64, &dyn Fn(u64) -> Entry); 4] =
        [(10_000, &many), (9, &huge), (30, &wordy), (5_000, &over)];
    for (count, make) in makes {
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
        drop(lease);
        store.collect_garbage().unwrap();
    }
    // The test itself holds a member at a time.
    let peak = peak_kib();
    assert!(peak < PEAK_KIB_MAX, "{peak} KiB");
}
