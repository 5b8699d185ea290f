//! `images-floor [--flush] HOST/NAME DIR`: the least that a pull can cost.
//!
//! Reads an image from a registry without TLS, digests each layer as it comes and as it is unpacked, and
//! makes its files below DIR/N with owners, modes, times and attributes. No store, no records, no
//! second try, no defence against hostile archives: trust it with nothing but `images-make`'s images.
//! With `--flush` what was written is durable at the end.
//!
//! It is as parallel as a pull can be: several layers at once, each on two threads.
//!
//! ```text
//! socket ─► sha256 ─► gunzip ═══ a few buffers ═══► sha256 ─► tar ─► files
//! ```

mod http;
mod unpack;

use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Layers at the same time.
const LAYERS_AT_ONCE: usize = 4;
const BUFFER_BYTES: usize = 256 << 10;
const BUFFERS: usize = 4;
const INPUT_BYTES: usize = 128 << 10;

fn main() -> Result<()> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let flush = args.first().is_some_and(|arg| arg == "--flush");
    if flush {
        args.remove(0);
    }
    let [image, directory] = args.as_slice() else {
        bail!("usage: images-floor [--flush] HOST/NAME DIR");
    };
    let (host, name) = image.split_once('/').context("no host in the name")?;
    let directory = Path::new(directory);
    rustix::process::umask(rustix::fs::Mode::empty());
    let manifest = document(host, name, "manifests/latest")?;
    let config = document(
        host,
        name,
        &format!("blobs/{}", text(&manifest, "/config/digest")?),
    )?;
    let digests = |document: &Value, at: &str, key: &str| -> Result<Vec<String>> {
        let list = document.pointer(at).and_then(Value::as_array);
        let list = list.with_context(|| format!("no {at}"))?;
        list.iter().map(|value| text(value, key)).collect()
    };
    let blobs = digests(&manifest, "/layers", "/digest")?;
    let diff_ids = digests(&config, "/rootfs/diff_ids", "")?;
    let layers: Vec<(String, String, PathBuf)> = blobs
        .into_iter()
        .zip(diff_ids)
        .enumerate()
        .map(|(n, (blob, diff_id))| (blob, diff_id, directory.join(n.to_string())))
        .collect();
    let queue = Mutex::new(layers.iter());
    let run = || -> Result<()> {
        while let Some((blob, diff_id, at)) = queue.lock().ok().and_then(|mut q| q.next()) {
            layer(host, name, blob, diff_id, at).with_context(|| blob.clone())?;
        }
        Ok(())
    };
    std::thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..LAYERS_AT_ONCE.min(layers.len()))
            .map(|_| scope.spawn(run))
            .collect();
        workers
            .into_iter()
            .try_for_each(|worker| match worker.join() {
                Ok(outcome) => outcome,
                Err(_) => bail!("a thread panicked"),
            })
    })?;
    if flush {
        rustix::fs::syncfs(std::fs::File::open(directory)?)?;
    }
    Ok(())
}

fn document(host: &str, name: &str, what: &str) -> Result<Value> {
    let mut bytes = Vec::new();
    http::get(host, name, what)?.read_to_end(&mut bytes)?;
    serde_json::from_slice(&bytes).with_context(|| what.to_owned())
}

fn text(value: &Value, at: &str) -> Result<String> {
    let text = value.pointer(at).and_then(Value::as_str);
    Ok(text.with_context(|| format!("no text at {at}"))?.to_owned())
}

/// Brings one layer in.
fn layer(host: &str, name: &str, blob: &str, diff_id: &str, at: &Path) -> Result<()> {
    std::fs::create_dir_all(at)?;
    let (full, receive) = sync_channel(BUFFERS);
    let (empty, take) = sync_channel(BUFFERS);
    for _ in 0..BUFFERS {
        let _ = empty.send(Vec::new());
    }
    std::thread::scope(|scope| -> Result<()> {
        let second = scope.spawn(move || -> Result<()> {
            let mut stream = Stream::new(receive, empty);
            unpack::unpack(&mut stream, at)?;
            check(stream.finish(), diff_id)
        });
        let first = read(host, name, blob, &full, &take);
        drop((full, take));
        let second = second.join();
        first?;
        second.unwrap_or_else(|_| bail!("a thread panicked"))
    })
}

fn read(
    host: &str,
    name: &str,
    blob: &str,
    full: &SyncSender<Vec<u8>>,
    empty: &Receiver<Vec<u8>>,
) -> Result<()> {
    let source = Hashed(
        http::get(host, name, &format!("blobs/{blob}"))?,
        Sha256::new(),
    );
    let input = BufReader::with_capacity(INPUT_BYTES, source);
    let mut decoder = flate2::bufread::MultiGzDecoder::new(input);
    loop {
        let mut buffer = empty.recv()?;
        buffer.resize(BUFFER_BYTES, 0);
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match decoder.read(rest)? {
                0 => break,
                count => filled += count,
            }
        }
        if filled == 0 {
            break;
        }
        buffer.truncate(filled);
        full.send(buffer)?;
    }
    check(decoder.into_inner().into_inner().1, blob)
}

fn check(hash: Sha256, wanted: &str) -> Result<()> {
    let found: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    match wanted.strip_prefix("sha256:") == Some(&found) {
        true => Ok(()),
        false => bail!("{wanted} has the digest {found}"),
    }
}

/// Digests what is read.
struct Hashed<R>(R, Sha256);

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.0.read(buffer)?;
        self.1.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

/// The unpacked stream on its second thread.
pub struct Stream {
    full: Receiver<Vec<u8>>,
    empty: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
    hash: Sha256,
}

impl Stream {
    fn new(full: Receiver<Vec<u8>>, empty: SyncSender<Vec<u8>>) -> Stream {
        Stream {
            full,
            empty,
            current: Vec::new(),
            at: 0,
            hash: Sha256::new(),
        }
    }

    /// Bytes that come next, at most `most`; none at the end.
    pub fn peek(&mut self, most: usize) -> &[u8] {
        if self.at >= self.current.len()
            && let Ok(next) = self.full.recv()
        {
            self.hash.update(&next);
            let used = std::mem::replace(&mut self.current, next);
            self.at = 0;
            let _ = self.empty.send(used);
        }
        let rest = self.current.get(self.at..).unwrap_or_default();
        rest.get(..rest.len().min(most)).unwrap_or_default()
    }

    /// Passes over bytes that `peek` gave.
    pub fn consume(&mut self, count: usize) {
        self.at += count;
    }

    /// Fills `buffer`; false at the end of the stream.
    pub fn fill(&mut self, buffer: &mut [u8]) -> bool {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let bytes = self.peek(rest.len());
            let count = bytes.len();
            if let Some(to) = rest.get_mut(..count).filter(|to| !to.is_empty()) {
                to.copy_from_slice(bytes);
            } else {
                return false;
            }
            self.consume(count);
            filled += count;
        }
        true
    }

    fn finish(mut self) -> Sha256 {
        loop {
            let count = self.peek(usize::MAX).len();
            if count == 0 {
                return self.hash;
            }
            self.consume(count);
        }
    }
}
