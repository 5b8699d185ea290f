//! Layers: what a reader hands out as content, and what its observer sees, are together every byte of the
//! archive, once and in order. And any bytes read as a recipe end in steps or an error.
#![no_main]

use carrack_store::tar::{Observer, Reader};
use carrack_store::{Recipe, Step};
use libfuzzer_sys::fuzz_target;
use std::io::BufRead;

#[derive(Default)]
struct Seen(Vec<u8>);

impl Observer for Seen {
    fn literal(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut reader = Reader::observed(bytes, Seen::default());
    let mut whole = true;
    loop {
        match reader.next_entry() {
            Ok(Some(entry)) => {
                let mut left = entry.stored();
                // As a driver does: all of an entry's bytes, or none.
                while left > 0 && !entry.mode.is_multiple_of(2) {
                    let Ok(part) = reader.fill_buf().map(<[u8]>::to_vec) else {
                        return;
                    };
                    reader.observer().0.extend_from_slice(&part);
                    reader.consume(part.len());
                    left -= part.len() as u64;
                }
                if let Some(map) = &entry.sparse {
                    let ends = map.iter().map(|s| s.offset + s.length);
                    assert!(ends.max().unwrap_or(0) <= entry.size);
                }
            }
            Ok(None) => break,
            Err(_) => {
                whole = false;
                break;
            }
        }
    }
    if whole {
        let (_, seen) = reader.finish().expect("bytes in memory can be read");
        assert_eq!(seen.0, bytes);
    }
    if let Ok(mut recipe) = Recipe::new(bytes) {
        while let Ok(Some(step)) = recipe.step() {
            assert!(!matches!(step, Step::Literal(l) if l.len() > 64 << 10));
        }
    }
});
