//! Pulls every blob of an image, verifies it and throws it away: how fast is the client?
//!
//! ```text
//! cargo run --release -p carrack-registry --example pull -- 127.0.0.1:5000/app:latest
//! ```
//! `RAW=1` leaves the check of digests out, as who hashes the bytes himself would.

use std::error::Error;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use carrack_registry::{Client, DocumentKind, Proxies, Repository, Which};
use carrack_spec::Reference;
use carrack_spec::image::{Descriptor, Platform};

fn main() -> Result<(), Box<dyn Error>> {
    let name = std::env::args().nth(1).ok_or("usage: pull REFERENCE")?;
    let reference: Reference = name.parse()?;
    let variables: Vec<(String, String)> = std::env::vars().collect();
    let variables = variables.iter().map(|(n, v)| (n.as_str(), v.as_str()));
    let client = Client::builder()
        .files(Arc::new(|path: &Path| -> io::Result<Vec<u8>> {
            std::fs::read(path)
        }))
        .system_roots(std::fs::read("/etc/ssl/certs/ca-certificates.crt").unwrap_or_default())
        .proxies(Proxies::from_environment(variables)?)
        .build();
    let repository = client.repository(&reference)?;
    let which = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => Which::Digest(digest),
        (None, tag) => Which::Tag(tag.unwrap_or("latest")),
    };
    let mut document = repository.manifest(which)?;
    if document.kind() == DocumentKind::Index {
        let chosen = document.choose(&Platform::native())?;
        document = repository.manifest(Which::Digest(&chosen.digest))?;
    }
    let manifest = document.manifest()?;
    let begun = Instant::now();
    let results: Vec<io::Result<u64>> = std::thread::scope(|scope| {
        let threads: Vec<_> = std::iter::once(&manifest.config)
            .chain(&manifest.layers)
            .map(|descriptor| scope.spawn(|| drain(&repository, descriptor)))
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
        };
        threads.into_iter().map(join).collect()
    });
    let bytes: u64 = results.into_iter().sum::<io::Result<u64>>()?;
    let seconds = begun.elapsed().as_secs_f64();
    #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = bytes as f64 / seconds / 1e6;
    println!("{bytes} bytes in {seconds:.3} s: {rate:.0} MB/s");
    Ok(())
}

/// Reads a blob to its end.
fn drain(repository: &Repository, descriptor: &Descriptor) -> io::Result<u64> {
    let blob = repository.blob(descriptor).map_err(io::Error::other)?;
    let mut source: Box<dyn Read> = match std::env::var_os("RAW") {
        Some(_) => Box::new(blob),
        None => Box::new(blob.verified()),
    };
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0;
    loop {
        match source.read(&mut buffer)? {
            0 => return Ok(total),
            count => total += count as u64,
        }
    }
}
