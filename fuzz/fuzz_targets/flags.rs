//! Values of command line flags: any text gives a value or an error.
#![no_main]

use carrack_engine::request::{Capability, Network, Tmpfs, Ulimit, Volume};
use libfuzzer_sys::fuzz_target;

#[allow(dead_code)]
#[path = "../../crates/runtime/src/units.rs"]
mod units;

fuzz_target!(|text: &str| {
    if let Ok(volume) = text.parse::<Volume>() {
        assert!(volume.destination.starts_with('/'), "{volume:?}");
    }
    if let Ok(tmpfs) = text.parse::<Tmpfs>() {
        assert!(tmpfs.destination.starts_with('/'), "{tmpfs:?}");
    }
    let _ = text.parse::<Network>();
    let _ = text.parse::<Capability>();
    let _ = text.parse::<Ulimit>();
    let _ = carrack_spec::parse_size(text);
    let _ = units::duration_ns(text);
    let _ = units::signal(text);
});
