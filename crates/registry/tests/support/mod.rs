//! What several test files need: clients that do not wait long, and bytes to send.
#![allow(dead_code, reason = "each test file uses a part")]

pub mod server;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use carrack_registry::{Builder, Client, Retry, Timeouts};
use carrack_spec::Digest;
use sha2::{Digest as _, Sha256};

/// A client that gives up soon.
pub fn hasty() -> Builder {
    Client::builder()
        .files(Arc::new(|path: &Path| -> io::Result<Vec<u8>> {
            std::fs::read(path)
        }))
        .timeouts(Timeouts {
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(5),
            stall: Duration::from_millis(400),
        })
        .retry(Retry {
            attempts_max: 3,
            delay_first: Duration::from_millis(10),
            delay_max: Duration::from_millis(50),
            retry_after_max: Duration::from_secs(2),
        })
}

pub fn digest(bytes: &[u8]) -> Digest {
    Digest::from_sha256(Sha256::digest(bytes).into())
}

/// Bytes that do not repeat soon.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(&mut next)
        .take(length / 8 + 1)
        .flatten()
        .collect();
    bytes.truncate(length);
    bytes
}
