//! Copying between streams with a buffer that is worth a system call.

use std::io::{ErrorKind, Read, Result, Write};

const BUFFER_BYTES: usize = 256 << 10;

/// Copies `input` to its end; gives the number of bytes.
pub(crate) fn copy(input: &mut (impl Read + ?Sized), output: &mut impl Write) -> Result<u64> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut bytes = 0;
    loop {
        let got = match input.read(&mut buffer) {
            Ok(got) => got,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        let Some(part) = buffer.get(..got).filter(|p| !p.is_empty()) else {
            return Ok(bytes);
        };
        output.write_all(part)?;
        bytes += got as u64;
    }
}
