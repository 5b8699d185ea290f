//! Archives: any bytes end in a finite list of entries or an error, without reading past
//! the end and without memory that the bytes do not pay for.
#![no_main]

use carrack_store::tar::Reader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut reader = Reader::new(bytes);
    let mut entries = 0;
    while let Ok(Some(_)) = reader.next_entry() {
        entries += 1;
        assert!(
            entries <= bytes.len() / 512,
            "an entry takes at least a block"
        );
        assert!(reader.offset() <= bytes.len() as u64);
    }
});
