//! Private parsers, opened to `fuzz/`: any bytes give a value or an error.

use crate::systemd::wire::{HEADER_BYTES, Message};
use crate::{layout, stats};

/// Messages of the bus, as they come off its socket.
pub fn bus_message(bytes: &[u8]) {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        return;
    };
    if let Ok(length) = Message::length(header) {
        assert!(length >= HEADER_BYTES);
        let _ = Message::decode(bytes.get(..length).unwrap_or(bytes));
    }
}

/// Files of procfs that tell of cgroups.
pub fn proc_files(text: &str) {
    for own in layout::parse_proc_cgroup(text) {
        assert!(own.controllers.iter().all(|name| !name.is_empty()));
    }
    for line in text.lines() {
        layout::parse_mountinfo_line(line);
    }
}

/// Statistics files.
pub fn statistics(text: &str) {
    stats::parse_each(text);
}
