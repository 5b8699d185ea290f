//! Copying between streams with a buffer that is worth a system call.
//!
//! [`ahead`] reads on a thread of its own, a few buffers ahead of who takes them.

use std::io::{ErrorKind, Read, Result, Write};
use std::sync::mpsc::sync_channel;

const BUFFER_BYTES: usize = 256 << 10;
const BUFFERS: usize = 4;

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

/// Hands `input` to `take`, a buffer at a time, while the next ones are read; gives the number of bytes.
pub(crate) fn ahead(
    mut input: impl Read + Send,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<u64> {
    let (full, receive) = sync_channel(BUFFERS);
    let (empty, used) = sync_channel(BUFFERS);
    for _ in 0..BUFFERS {
        let _ = empty.send(Vec::new());
    }
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || -> Result<()> {
            // The channel ends when nobody takes buffers any more.
            while let Ok(mut buffer) = used.recv() {
                buffer.resize(BUFFER_BYTES, 0);
                let got = fill(&mut input, &mut buffer)?;
                buffer.truncate(got);
                if got == 0 || full.send(buffer).is_err() {
                    break;
                }
            }
            Ok(())
        });
        let mut bytes = 0;
        let mut taken = Ok(());
        for buffer in receive {
            taken = take(&buffer);
            if taken.is_err() {
                break;
            }
            bytes += buffer.len() as u64;
            let _ = empty.send(buffer);
        }
        drop(empty);
        let read = match reading.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        taken.and(read).map(|()| bytes)
    })
}

/// Reads until the buffer is full or the stream ends.
pub(crate) fn fill(stream: &mut impl Read, buffer: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest) {
            Ok(0) => break,
            Ok(got) => filled += got,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Error;

    #[test]
    fn everything_is_taken_in_order_and_either_end_may_fail() {
        let bytes: Vec<u8> = (0..BUFFER_BYTES * 9 + 5).map(|n| (n / 7) as u8).collect();
        let mut out = Vec::new();
        let mut take = |part: &[u8]| out.write_all(part);
        assert_eq!(
            ahead(bytes.as_slice(), &mut take).unwrap(),
            bytes.len() as u64
        );
        assert_eq!(out, bytes);
        let full = |_: &[u8]| Err(Error::from(ErrorKind::StorageFull));
        let failed = ahead(bytes.as_slice(), full).unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::StorageFull);
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _buffer: &mut [u8]) -> Result<usize> {
                Err(ErrorKind::InvalidData.into())
            }
        }
        let input = bytes.as_slice().chain(Broken);
        let failed = ahead(input, |_| Ok(())).unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::InvalidData);
    }
}
