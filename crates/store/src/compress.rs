//! Compression for pushing and saving. The same bytes give the same bytes each time, on any machine and
//! with any number of threads, so a layer that was pushed once is found again by its digest.
//!
//! gzip: one member. The input is cut into chunks of fixed size, each compressed on its own with the end
//! of the chunk before as its dictionary, and ended on a byte boundary; the pieces in order are one
//! deflate stream. zstd: one frame, one thread.

use crate::ingest::Form;
use crate::write::Compression;
use carrack_spec::image::Descriptor;
use flate2::{Compress, Crc, FlushCompress};
use sha2::{Digest as _, Sha256};
use std::collections::VecDeque;
use std::io::{Error, Read, Result, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

const CHUNK_BYTES: usize = 512 << 10;
/// What deflate can look back.
const WINDOW_BYTES: usize = 32 << 10;
/// Levels of gzip: the least, the usual and the greatest.
pub const LEVEL_GZIP: (i32, i32, i32) = (1, 6, 9);
/// Levels of zstd; the greatest ones need much memory to decompress and are left out.
pub const LEVEL_ZSTD: (i32, i32, i32) = (1, 3, 19);
const THREADS_MAX: usize = 8;
/// No name, no time, an unknown system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// Compresses `input` to its end into `output`, with the usual level; describes what was written.
///
/// # Errors
/// Errors of either stream.
pub fn compress(
    input: impl Read,
    compression: Compression,
    output: impl Write,
) -> Result<Descriptor> {
    compress_at(None, input, compression, output)
}

/// As [`compress`], with a level; one beyond the greatest or least counts as that.
///
/// # Errors
/// Errors of either stream.
pub fn compress_at(
    level: Option<i32>,
    mut input: impl Read,
    compression: Compression,
    output: impl Write,
) -> Result<Descriptor> {
    let level = |(least, usual, greatest): (i32, i32, i32)| {
        level.map_or(usual, |level| level.clamp(least, greatest))
    };
    let mut output = Hashed {
        output,
        hash: Sha256::new(),
        bytes: 0,
    };
    let form = match compression {
        Compression::None => {
            crate::copy::copy(&mut input, &mut output)?;
            Form::Plain
        }
        Compression::Gzip => {
            gzip(&mut input, level(LEVEL_GZIP).unsigned_abs(), &mut output)?;
            Form::Gzip
        }
        Compression::Zstd => {
            let mut encoder = zstd::stream::write::Encoder::new(&mut output, level(LEVEL_ZSTD))?;
            encoder.include_checksum(true)?;
            crate::copy::copy(&mut input, &mut encoder)?;
            encoder.finish()?;
            Form::Zstd
        }
    };
    output.flush()?;
    let digest = carrack_spec::Digest::from_sha256(output.hash.finalize().into());
    Ok(Descriptor::new(form.media_type(), digest, output.bytes))
}

/// A piece of the input, what stands before it, and where its compressed form goes.
struct Job {
    dictionary: Vec<u8>,
    bytes: Vec<u8>,
    last: bool,
    done: SyncSender<Result<Vec<u8>>>,
}

fn gzip(input: &mut impl Read, level: u32, output: &mut impl Write) -> Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(THREADS_MAX);
    let (jobs, queue) = sync_channel::<Job>(threads);
    let queue = Mutex::new(queue);
    output.write_all(&GZIP_HEADER)?;
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| work(&queue, level));
        }
        // Moved in, so that the workers see its end on every way out.
        let jobs = jobs;
        let mut waiting: VecDeque<Receiver<Result<Vec<u8>>>> = VecDeque::new();
        let mut crc = Crc::new();
        let mut dictionary = Vec::new();
        let mut bytes = chunk(input)?;
        loop {
            crc.update(&bytes);
            let next = chunk(input)?;
            let last = next.is_empty();
            let tail = bytes.len().saturating_sub(WINDOW_BYTES);
            let end = bytes.get(tail..).unwrap_or_default().to_vec();
            let (done, result) = sync_channel(1);
            let job = Job {
                dictionary: std::mem::replace(&mut dictionary, end),
                bytes: std::mem::replace(&mut bytes, next),
                last,
                done,
            };
            jobs.send(job).map_err(|_| stopped())?;
            waiting.push_back(result);
            while waiting.len() > if last { 0 } else { 2 * threads } {
                let Some(result) = waiting.pop_front() else {
                    break;
                };
                output.write_all(&result.recv().map_err(|_| stopped())??)?;
            }
            if last {
                break;
            }
        }
        output.write_all(&crc.sum().to_le_bytes())?;
        output.write_all(&crc.amount().to_le_bytes())
    })
}

fn work(queue: &Mutex<Receiver<Job>>, level: u32) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else {
            return;
        };
        // Whoever does not wait for it any more has failed.
        let _ = job.done.send(deflate(&job, level));
    }
}

fn deflate(job: &Job, level: u32) -> Result<Vec<u8>> {
    let mut compress = Compress::new(flate2::Compression::new(level), false);
    if !job.dictionary.is_empty() {
        compress
            .set_dictionary(&job.dictionary)
            .map_err(Error::other)?;
    }
    let flush = match job.last {
        true => FlushCompress::Finish,
        false => FlushCompress::Sync,
    };
    let mut out = Vec::with_capacity(job.bytes.len() / 2 + 1024);
    loop {
        let used = usize::try_from(compress.total_in()).unwrap_or(usize::MAX);
        let rest = job.bytes.get(used..).unwrap_or_default();
        let status = compress
            .compress_vec(rest, &mut out, flush)
            .map_err(Error::other)?;
        let all = compress.total_in() == job.bytes.len() as u64;
        // With room left in the buffer a flush is complete.
        if status == flate2::Status::StreamEnd || (!job.last && all && out.len() < out.capacity()) {
            return Ok(out);
        }
        out.reserve(64 << 10);
    }
}

fn chunk(input: &mut impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(CHUNK_BYTES);
    input.take(CHUNK_BYTES as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn stopped() -> Error {
    Error::other("a compressing thread ended")
}

struct Hashed<W> {
    output: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, buf: &[u8]) -> Result<usize> {
        let n = self.output.write(buf)?;
        self.hash.update(buf.get(..n).unwrap_or_default());
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> Result<()> {
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_comes_back_and_is_the_same_each_time() {
        // Compressible, but not by the chunk alone.
        let noise = |n: u64| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
        let block: Vec<u8> = (0..20_000).map(noise).collect();
        let text: Vec<u8> = block
            .iter()
            .copied()
            .cycle()
            .take(3 * CHUNK_BYTES + 17)
            .collect();
        for length in [
            0,
            1,
            CHUNK_BYTES - 1,
            CHUNK_BYTES,
            CHUNK_BYTES + 1,
            text.len(),
        ] {
            let text = &text[..length];
            for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
                let mut first = Vec::new();
                let made = compress(text, compression, &mut first).unwrap();
                assert_eq!(made.size, first.len() as u64);
                assert_eq!(made.digest, crate::digesting::digest_of(&first));
                let mut second = Vec::new();
                compress(text, compression, &mut second).unwrap();
                assert_eq!(first, second);
                let mut back = Vec::new();
                match compression {
                    Compression::None => back = first,
                    Compression::Gzip => {
                        assert!(length < CHUNK_BYTES || first.len() < length / 10);
                        let mut decoder = flate2::bufread::GzDecoder::new(first.as_slice());
                        decoder.read_to_end(&mut back).unwrap();
                        assert!(decoder.into_inner().is_empty(), "one member");
                    }
                    Compression::Zstd => back = zstd::decode_all(first.as_slice()).unwrap(),
                }
                assert_eq!(back, text);
            }
        }
    }
}
