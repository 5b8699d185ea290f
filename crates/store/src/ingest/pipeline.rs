//! The two halves of an ingest, on two threads.
//!
//! ```text
//! caller's thread                                  the layer's own thread
//! source ─► sha256 ─► gunzip, zstd ─► buffers ═══► sha256 (diff id) ─► tar ─► Unpack
//!              (blob)                 ◄═══ empty            └──────► recipe
//! ```
//!
//! A stream without compression is digested once, by the first half: both digests are the same.
//!
//! A few buffers go round, so memory is the same whatever the layer's size, and either half waits for
//! the other. The second half has a umask of its own (zero), so that files are made with their modes.

use super::decompress::{Decompressor, Form, Source};
use crate::copy::fill;
use crate::driver::{DriverError, Unpack};
use crate::recipe;
use crate::tar::{Reader, Segment, TarError};
use crate::unpack::ExtractError;
use carrack_spec::Digest;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{BufRead, BufWriter, Error, ErrorKind, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

const BUFFER_BYTES: usize = 256 << 10;
const BUFFERS: usize = 4;
/// `CLONE_FS` of `linux/sched.h`: file system information, the umask among it.
const CLONE_FS: u64 = 0x200;

/// What went through.
#[derive(Debug)]
pub(super) struct Passed {
    /// How it was compressed.
    pub(super) form: Form,
    /// Digest and size of the bytes as they came.
    pub(super) blob: (Digest, u64),
    /// Digest and size of the uncompressed stream.
    pub(super) diff: (Digest, u64),
    pub(super) unpacked: Unpacked,
}

/// What the second half saw.
#[derive(Debug)]
pub(super) struct Unpacked {
    /// Digest and size of the uncompressed stream, unless the first half has them.
    diff: Option<(Digest, u64)>,
    pub(super) entries: u64,
    /// Bytes of file content.
    pub(super) bytes: u64,
}

/// Which half failed.
#[derive(Debug)]
pub(super) enum Failure {
    Read(Error),
    Unpack(DriverError),
    /// The recipe cannot be written.
    Recipe(Error),
}

/// One buffer, or the end of the stream. A channel that closes without it means that the other half failed.
enum Message {
    /// Comes first, when the first half digests the same bytes.
    Plain,
    Bytes(Vec<u8>),
    End,
}

/// Runs both halves. `read` is called with the number of bytes read so far.
pub(super) fn run<R: Read>(
    source: Source<R>,
    unpack: Box<dyn Unpack>,
    recipe: File,
    read: &dyn Fn(u64),
) -> Result<Passed, Failure> {
    let (full, receive) = sync_channel(BUFFERS);
    let (empty, take) = sync_channel(BUFFERS);
    for _ in 0..BUFFERS {
        let _ = empty.send(Vec::new());
    }
    std::thread::scope(|scope| {
        let second = scope.spawn(move || {
            carrack_sys::clone::unshare(CLONE_FS).map_err(|e| Failure::Recipe(e.into()))?;
            rustix::process::umask(rustix::fs::Mode::empty());
            unpack_all(Buffers::new(receive, empty), unpack, recipe)
        });
        let first = read_all(source, &full, &take, read);
        drop((full, take));
        let unpacked = match second.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        match (first, unpacked) {
            (Ok((form, blob)), Ok(mut unpacked)) => Ok(Passed {
                form,
                diff: unpacked.diff.take().unwrap_or_else(|| blob.clone()),
                blob,
                unpacked,
            }),
            // The second half ended because the first did.
            (Err(First::Read(error)), _) => Err(Failure::Read(error)),
            (_, Err(failure)) => Err(failure),
            (Err(First::Stopped), Ok(_)) => Err(Failure::Read(ErrorKind::BrokenPipe.into())),
        }
    })
}

enum First {
    Read(Error),
    /// The other half has ended.
    Stopped,
}

fn read_all<R: Read>(
    source: Source<R>,
    full: &SyncSender<Message>,
    empty: &Receiver<Vec<u8>>,
    read: &dyn Fn(u64),
) -> Result<(Form, (Digest, u64)), First> {
    let (mut stream, form) = Decompressor::new(source).map_err(First::Read)?;
    if form == Form::Plain {
        full.send(Message::Plain).map_err(|_| First::Stopped)?;
    }
    loop {
        let mut buffer = empty.recv().map_err(|_| First::Stopped)?;
        buffer.resize(BUFFER_BYTES, 0);
        let got = fill(&mut stream, &mut buffer).map_err(First::Read)?;
        if got == 0 {
            break;
        }
        buffer.truncate(got);
        full.send(Message::Bytes(buffer))
            .map_err(|_| First::Stopped)?;
        read(stream.compressed());
    }
    let source = stream.finish().map_err(First::Read)?;
    full.send(Message::End).map_err(|_| First::Stopped)?;
    read(source.count());
    let bytes = source.count();
    Ok((form, (source.digest(), bytes)))
}

fn unpack_all(
    input: Buffers,
    mut unpack: Box<dyn Unpack>,
    recipe: File,
) -> Result<Unpacked, Failure> {
    let tar = |e: TarError| Failure::Unpack(ExtractError::from(e).into());
    let recipe = recipe::Writer::new(BufWriter::new(recipe)).map_err(Failure::Recipe)?;
    let mut reader = Reader::observed(input, recipe);
    let (mut entries, mut bytes) = (0, 0);
    while let Some(entry) = reader.next_entry().map_err(tar)? {
        entries += 1;
        let key = unpack.entry(&entry, &mut reader).map_err(Failure::Unpack)?;
        let Some(key) = key else {
            continue;
        };
        bytes += entry.stored();
        let whole = [Segment {
            offset: 0,
            length: entry.size,
        }];
        let segments = entry.sparse.as_deref().unwrap_or(&whole);
        reader
            .observer()
            .content(&key, segments)
            .map_err(Failure::Recipe)?;
    }
    unpack.finish().map_err(Failure::Unpack)?;
    let (input, recipe) = reader.finish().map_err(tar)?;
    let written = recipe.finish().and_then(|w| Ok(w.into_inner()?));
    written.map_err(Failure::Recipe)?;
    Ok(Unpacked {
        diff: input.finish(),
        entries,
        bytes,
    })
}

/// The stream that the first half sends, digested.
struct Buffers {
    full: Receiver<Message>,
    empty: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
    ended: bool,
    hash: Option<Sha256>,
    bytes: u64,
}

impl Buffers {
    fn new(full: Receiver<Message>, empty: SyncSender<Vec<u8>>) -> Self {
        Self {
            full,
            empty,
            current: Vec::new(),
            at: 0,
            ended: false,
            hash: Some(Sha256::new()),
            bytes: 0,
        }
    }

    fn finish(self) -> Option<(Digest, u64)> {
        let digest = Digest::from_sha256(self.hash?.finalize().into());
        Some((digest, self.bytes))
    }
}

impl BufRead for Buffers {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        while self.at >= self.current.len() && !self.ended {
            match self.full.recv() {
                Ok(Message::Plain) => self.hash = None,
                Ok(Message::Bytes(bytes)) => {
                    if let Some(hash) = &mut self.hash {
                        hash.update(&bytes);
                    }
                    self.bytes += bytes.len() as u64;
                    let used = std::mem::replace(&mut self.current, bytes);
                    self.at = 0;
                    if used.capacity() > 0 {
                        // Whoever does not want it any more has all it needs.
                        let _ = self.empty.send(used);
                    }
                }
                Ok(Message::End) => self.ended = true,
                Err(_) => {
                    let text = "the reading half of the pipeline ended";
                    return Err(Error::new(ErrorKind::BrokenPipe, text));
                }
            }
        }
        Ok(self.current.get(self.at..).unwrap_or_default())
    }

    fn consume(&mut self, n: usize) {
        self.at += n;
    }
}

impl Read for Buffers {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let bytes = self.fill_buf()?;
        let n = bytes.len().min(buf.len());
        if let Some((to, from)) = buf.get_mut(..n).zip(bytes.get(..n)) {
            to.copy_from_slice(from);
        }
        self.consume(n);
        Ok(n)
    }
}
