//! A stream that is digested while it is read.

use carrack_spec::Digest;
use sha2::{Digest as _, Sha256};
use std::io::Read;

/// Passes bytes on and counts and digests them (SHA-256).
pub struct Digesting<R> {
    input: R,
    hash: Sha256,
    bytes: u64,
}

impl<R: Read> Digesting<R> {
    /// Digests what is read from `input`.
    pub fn new(input: R) -> Self {
        Self {
            input,
            hash: Sha256::new(),
            bytes: 0,
        }
    }

    /// Reads what is left, so that the digest covers the whole stream.
    ///
    /// # Errors
    /// Errors of the stream.
    pub fn drain(&mut self) -> std::io::Result<()> {
        std::io::copy(self, &mut std::io::sink()).map(|_| ())
    }

    /// Digest and number of the bytes read so far.
    pub fn finish(self) -> (Digest, u64) {
        (Digest::from_sha256(self.hash.finalize().into()), self.bytes)
    }
}

impl<R: Read> Read for Digesting<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let got = self.input.read(buf)?;
        if let Some(part) = buf.get(..got) {
            self.hash.update(part);
        }
        self.bytes += got as u64;
        Ok(got)
    }
}

/// SHA-256 of bytes in memory.
pub(crate) fn digest_of(bytes: &[u8]) -> Digest {
    Digest::from_sha256(Sha256::digest(bytes).into())
}
