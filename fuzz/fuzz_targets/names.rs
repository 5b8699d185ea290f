//! Identifiers, digests and references: what was accepted prints as something that is
//! accepted again and means the same.
#![no_main]

use carrack_spec::{ContainerId, Digest, Reference};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(id) = text.parse::<ContainerId>() {
        assert_eq!(id.as_str(), text);
        assert!(!text.contains('/') && text != "." && text != "..");
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string().parse::<Digest>().as_ref(), Ok(&digest));
    }
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(
            reference.to_string().parse::<Reference>().as_ref(),
            Ok(&reference)
        );
    }
});
