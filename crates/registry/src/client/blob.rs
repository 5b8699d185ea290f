//! Blobs as streams that survive broken connections.
//!
//! Contract
//! - A [`Blob`] gives exactly as many bytes as its descriptor says, or an error whose
//!   inner value is [`Error`]. Its digest is for the reader to check, who hashes the
//!   bytes anyway on their way to the disk; [`Verified`] does it for others.
//! - After a broken connection or a stall the rest is asked for by range. Where the
//!   registry ignores the range, what was read before is read again and thrown away.
//! - Tries without progress are limited by the retry policy, all by [`RESUMES_MAX`].

use std::io::{self, Read};

use carrack_spec::image::Descriptor;
use carrack_spec::{Algorithm, Digest};
use sha2::{Digest as _, Sha256, Sha512};

use super::{Ask, At, Repository};
use crate::config::Endpoint;
use crate::error::{Asked, Error};
use crate::url::Url;
use crate::wire::{Answer, http_error};

/// Most other places of a blob (`urls` of its descriptor) that are tried.
const URLS_MAX: usize = 8;
/// Most connections that are opened for one blob.
pub const RESUMES_MAX: u32 = 100;
/// As many bytes are progress: the count of failures starts anew.
const PROGRESS_BYTES: u64 = 256 << 10;
/// How much is read at once where it is thrown away.
const SKIP_BYTES: usize = 64 << 10;

/// The bytes of a blob.
pub struct Blob {
    repository: Repository,
    digest: Digest,
    size: u64,
    /// Other places that have it, over TLS.
    urls: Vec<Url>,
    at: u64,
    answer: Option<Answer>,
    /// Failures since the last progress, and where that was.
    failures: u32,
    progress: u64,
    opened: u32,
}

impl Repository {
    /// A blob. The first request is sent here, so a missing blob is an error here.
    ///
    /// # Errors
    /// [`Error`] of the last host that was asked.
    pub fn blob(&self, descriptor: &Descriptor) -> Result<Blob, Error> {
        self.blob_from(descriptor, 0)
    }

    /// The rest of a blob from an offset on.
    ///
    /// # Errors
    /// As [`Self::blob`].
    pub fn blob_from(&self, descriptor: &Descriptor, offset: u64) -> Result<Blob, Error> {
        let mut blob = Blob {
            repository: self.clone(),
            digest: descriptor.digest.clone(),
            size: descriptor.size,
            urls: descriptor
                .urls
                .iter()
                .filter_map(|url| Url::parse(url).ok())
                .filter(Url::https)
                .take(URLS_MAX)
                .collect(),
            at: offset,
            answer: None,
            failures: 0,
            progress: offset,
            opened: 0,
        };
        if blob.at < blob.size {
            blob.open()?;
        }
        Ok(blob)
    }
}

impl Blob {
    /// How many bytes it has altogether.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How many bytes were given.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// How often a connection was opened for it.
    pub fn connections(&self) -> u32 {
        self.opened
    }

    /// The same stream, with the digest checked at its end.
    pub fn verified(self) -> Verified {
        let hash = match self.digest.algorithm() {
            Algorithm::Sha256 => Hash::Sha256(Sha256::new()),
            Algorithm::Sha512 => Hash::Sha512(Sha512::new()),
        };
        Verified { blob: self, hash }
    }

    /// Asks for the bytes from `self.at` on.
    fn open(&mut self) -> Result<(), Error> {
        self.opened += 1;
        let repository = self.repository.clone();
        let path = format!("blobs/{}", self.digest);
        let answer = repository.anywhere(false, &mut |endpoint, attempts| {
            self.ask(endpoint, At::Path(&path), attempts)
        });
        self.answer = Some(match answer {
            // Layers that a registry may not hand on are at their maker's.
            Err(error) if error.is_not_found() => self.elsewhere().ok_or(error)?,
            other => other?,
        });
        Ok(())
    }

    /// The blob from the first of its other places that gives it.
    fn elsewhere(&self) -> Option<Answer> {
        let endpoint = self.repository.endpoints().last()?;
        let mut urls = self.urls.iter();
        urls.find_map(|url| self.ask(endpoint, At::Url(url), 1).ok())
    }

    fn ask(&self, endpoint: &Endpoint, at: At<'_>, attempts: u32) -> Result<Answer, Error> {
        let mut ask = Ask::new("GET").attempts(attempts);
        if self.at > 0 {
            ask = ask.field("Range", format!("bytes={}-", self.at));
        }
        let to = self.repository.puller(endpoint);
        let answer = self.repository.inner().ask(&to, at, &ask)?;
        let mut answer = answer.expect(&[200, 206])?;
        if let Some(encoding) = answer.field("content-encoding")
            && !encoding.eq_ignore_ascii_case("identity")
        {
            return Err(answer.protocol("the blob comes encoded, which was not asked for"));
        }
        let from = match answer.status() {
            206 => {
                let range = answer.field("content-range").unwrap_or_default();
                let (from, total) = content_range(range)
                    .ok_or_else(|| answer.protocol("the range of the answer is malformed"))?;
                if from != self.at {
                    return Err(answer.protocol(format!(
                        "bytes from {} on were asked for and bytes from {from} on came",
                        self.at
                    )));
                }
                self.check_size(&answer.asked, total.unwrap_or(self.size))?;
                from
            }
            _ => 0,
        };
        if let Some(length) = answer.response.body.length() {
            self.check_size(&answer.asked, from.saturating_add(length))?;
        }
        // The range was ignored: what is known already comes again.
        self.skip(&mut answer, self.at - from)?;
        Ok(answer)
    }

    fn check_size(&self, asked: &Asked, found: u64) -> Result<(), Error> {
        match found == self.size {
            true => Ok(()),
            false => Err(self.wrong_size(asked, found)),
        }
    }

    fn wrong_size(&self, asked: &Asked, found: u64) -> Error {
        Error::Size {
            asked: Box::new(asked.clone()),
            expected: self.size,
            found,
        }
    }

    fn skip(&self, answer: &mut Answer, mut count: u64) -> Result<(), Error> {
        let mut buffer = vec![0; SKIP_BYTES.min(usize::try_from(count).unwrap_or(SKIP_BYTES))];
        while count > 0 {
            let most = usize::try_from(count)
                .unwrap_or(SKIP_BYTES)
                .min(buffer.len());
            let part = buffer.get_mut(..most).unwrap_or_default();
            match answer.response.body.read_some(part) {
                Ok(0) => return Err(self.wrong_size(&answer.asked, self.at - count)),
                Ok(read) => count -= read as u64,
                Err(source) => return Err(http_error(answer.asked.clone(), source)),
            }
        }
        Ok(())
    }

    /// Reads once from the open connection; opens one where there is none.
    fn read_once(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        if self.answer.is_none() {
            self.open()?;
        }
        let size = self.size;
        let left = size - self.at;
        let most = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let Some(answer) = self.answer.as_mut() else {
            return Ok(0);
        };
        let part = buffer.get_mut(..most).unwrap_or_default();
        let count = answer.response.body.read_some(part);
        let count = count.map_err(|source| http_error(answer.asked.clone(), source))?;
        if count == 0 {
            return Err(Error::Size {
                asked: Box::new(answer.asked.clone()),
                expected: size,
                found: self.at,
            });
        }
        self.at += count as u64;
        if self.at == self.size {
            self.finish()?;
        }
        Ok(count)
    }

    /// Nothing may follow; reading the end also frees the connection for others.
    fn finish(&mut self) -> Result<(), Error> {
        let Some(mut answer) = self.answer.take() else {
            return Ok(());
        };
        match answer.response.body.read_some(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(self.wrong_size(&answer.asked, self.size + 1)),
            // All that was promised is here.
            Err(_) => Ok(()),
        }
    }

    /// Whether another connection is worth it after this error.
    fn may_resume(&mut self, error: &Error) -> bool {
        let policy = &self.repository.inner().wire.retry;
        // An end that comes too early is a broken connection in another dress.
        let passing = error.is_transient()
            || matches!(error, Error::Size { found, .. } if *found == self.at && self.at < self.size);
        if self.at >= self.progress.saturating_add(PROGRESS_BYTES) {
            self.progress = self.at;
            self.failures = 0;
        }
        self.failures += 1;
        if !passing || self.failures >= policy.attempts_max || self.opened >= RESUMES_MAX {
            return false;
        }
        log::debug!("{error}; going on at byte {}", self.at);
        std::thread::sleep(policy.delay(self.failures));
        true
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.at >= self.size {
            return Ok(0);
        }
        loop {
            match self.read_once(buffer) {
                Ok(count) => return Ok(count),
                Err(error) => {
                    self.answer = None;
                    if !self.may_resume(&error) {
                        return Err(io::Error::other(error));
                    }
                }
            }
        }
    }
}

/// `bytes FROM-TO/TOTAL`: where it begins, and the total unless it is `*`.
fn content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = value.strip_prefix("bytes ")?.trim().split_once('/')?;
    let (from, to) = range.split_once('-')?;
    let (from, to): (u64, u64) = (from.parse().ok()?, to.parse().ok()?);
    let total = match total {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    (from <= to && total.is_none_or(|total| to < total)).then_some((from, total))
}

enum Hash {
    Sha256(Sha256),
    Sha512(Sha512),
}

/// A blob whose digest is checked when its last byte was read.
pub struct Verified {
    blob: Blob,
    hash: Hash,
}

impl Read for Verified {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.blob.read(buffer)?;
        let part = buffer.get(..count).unwrap_or_default();
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let found = match &mut self.hash {
            Hash::Sha256(hash) => {
                hash.update(part);
                (self.blob.at == self.blob.size).then(|| hex(&hash.clone().finalize()))
            }
            Hash::Sha512(hash) => {
                hash.update(part);
                (self.blob.at == self.blob.size).then(|| hex(&hash.clone().finalize()))
            }
        };
        match found {
            Some(found) if found != self.blob.digest.hex() => {
                let message = format!(
                    "the blob's content is not what its digest {} says (it is {}:{found})",
                    self.blob.digest,
                    self.blob.digest.algorithm().name()
                );
                Err(io::Error::new(io::ErrorKind::InvalidData, message))
            }
            _ => Ok(count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::content_range;

    #[test]
    fn ranges_are_read() {
        for (value, wanted) in [
            ("bytes 5-9/10", Some((5, Some(10)))),
            ("bytes 5-9/*", Some((5, None))),
            ("bytes 5-10/10", None),
            ("bytes 9-5/10", None),
            ("bytes */10", None),
            ("5-9/10", None),
            ("bytes 99999999999999999999-1/2", None),
        ] {
            assert_eq!(content_range(value), wanted, "{value}");
        }
    }
}
