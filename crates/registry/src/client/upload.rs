//! Uploads of blobs, as a small state machine.
//!
//! ```text
//! HEAD blob ── there ──────────────────────────────────────────► Existed
//!    │ 404
//! POST uploads/?mount&from ── 201 ─────────────────────────────► Mounted
//!    │ 202 Location                                  (each further repository in turn)
//!    ├─ whole ──► PUT Location?digest (all bytes) ── 201 ──────► Uploaded
//!    │               │ broken                           ▲
//!    └─ in parts ─► PATCH Location (a part) ── 202 ─┐   │
//!                    ▲   │ broken, 416              │   │
//!                    │   └─► GET Location ── Range ─┤   │
//!                    └──── more ────────────────────┴───┴─ PUT Location?digest
//! ```
//!
//! After a break the registry says how much it has, and the upload goes on there; when
//! it does not know the upload any more, a new one begins. Tries without progress are
//! limited by the retry policy. An upload that fails for another reason than the way to the registry is
//! given up there (`DELETE Location`).

use std::io::Read;

use carrack_spec::image::Descriptor;
use carrack_spec::{Algorithm, Digest};
use sha2::{Digest as _, Sha256};

use super::push::Pushed;
use super::{Ask, At, Repository, To};
use crate::error::Error;
use crate::url::{Url, escape};
use crate::wire::{Answer, Content, Source};

/// Largest part of a stream of unknown digest, which is kept in memory.
const PART_BYTES: usize = 8 << 20;
/// Largest part that a registry may ask for (`OCI-Chunk-Min-Length`).
const PART_BYTES_MAX: u64 = 64 << 20;
/// Most repositories that are tried for a mount.
const MOUNTS_MAX: usize = 8;

/// How a blob is uploaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UploadOptions {
    /// Send parts of this size; whole when not given.
    pub part_bytes: Option<u64>,
    /// Repositories of the same registry that may have the blob.
    pub mount_from: Vec<String>,
    /// Do not ask whether the blob is there.
    pub skip_check: bool,
}

/// An upload that the registry knows.
#[derive(Clone)]
struct Session {
    location: Url,
    /// How many bytes the registry has.
    have: u64,
    /// Least size of a part, as the registry wants it.
    part_min: u64,
}

impl Repository {
    /// Pushes a blob, unless the registry has it or can take it from elsewhere.
    ///
    /// # Errors
    /// [`Error`] of the registry, or of reading the content.
    pub fn push_blob(
        &self,
        digest: &Digest,
        content: &dyn Content,
        options: &UploadOptions,
    ) -> Result<Pushed, Error> {
        if !options.skip_check && self.has_blob(digest)? {
            return Ok(Pushed::Existed);
        }
        let mut mounts = options.mount_from.iter().take(MOUNTS_MAX);
        let mut session = loop {
            match mounts.next() {
                None => break None,
                Some(from) => match self.mount(digest, from)? {
                    Mount::Done => return Ok(Pushed::Mounted),
                    Mount::Upload(session) => break Some(session),
                    Mount::Refused => {}
                },
            }
        };
        let policy = &self.inner().wire.retry;
        let mut failures = 0;
        loop {
            let before = session.as_ref().map_or(0, |session| session.have);
            match self.upload(digest, content, options, &mut session) {
                Ok(()) => return Ok(Pushed::Uploaded),
                Err(error) => {
                    let after = session.as_ref().map_or(0, |session| session.have);
                    failures = if after > before { 1 } else { failures + 1 };
                    if failures >= policy.attempts_max || !may_continue(&error) {
                        if let Some(session) = &session {
                            self.abandon(session, &error);
                        }
                        return Err(error);
                    }
                    log::debug!("{error}; going on with the upload");
                    std::thread::sleep(policy.delay(failures));
                    // The answer may have been lost, not the upload.
                    if matches!(self.has_blob(digest), Ok(true)) {
                        return Ok(Pushed::Uploaded);
                    }
                    session = session.and_then(|session| self.status(session));
                }
            }
        }
    }

    /// Looks whether the registry has a blob, or can take it from another repository of its own
    /// (`UploadOptions::mount_from`), without having its bytes at hand; none when it cannot.
    ///
    /// # Errors
    /// [`Error`] of the registry.
    pub fn obtain_blob(
        &self,
        digest: &Digest,
        options: &UploadOptions,
    ) -> Result<Option<Pushed>, Error> {
        if !options.skip_check && self.has_blob(digest)? {
            return Ok(Some(Pushed::Existed));
        }
        for from in options.mount_from.iter().take(MOUNTS_MAX) {
            match self.mount(digest, from)? {
                Mount::Done => return Ok(Some(Pushed::Mounted)),
                Mount::Refused => {}
                Mount::Upload(session) => self.give_up(&session),
            }
        }
        Ok(None)
    }

    /// Tells the registry that an upload ends here. One that does not know how forgets it later.
    fn give_up(&self, session: &Session) {
        let ask = Ask::new("DELETE").attempts(1);
        match self
            .inner()
            .ask(&self.pusher(), At::Url(&session.location), &ask)
        {
            Ok(answer) => answer.drain(),
            Err(error) => log::debug!("an upload stays unfinished: {error}"),
        }
    }

    /// Gives an upload up after an error, unless the registry cannot be reached anyway.
    fn abandon(&self, session: &Session, error: &Error) {
        if !error.is_transient() {
            self.give_up(session);
        }
    }

    /// Pushes a stream whose digest is not known before its end. At most a part of it
    /// is in memory at a time.
    ///
    /// # Errors
    /// [`Error`] of the registry, or of reading the stream.
    pub fn push_stream(
        &self,
        media_type: &str,
        stream: &mut dyn Read,
    ) -> Result<Descriptor, Error> {
        let mut session = self.begin(Algorithm::Sha256)?;
        let sent = self.send_stream(&mut session, stream);
        let (digest, size) = sent.inspect_err(|error| self.abandon(&session, error))?;
        match self.close(&session.location, &digest, Source::None, u32::MAX) {
            Err(error) if !matches!(self.has_blob(&digest), Ok(true)) => Err(error),
            _ => Ok(Descriptor::new(media_type, digest, size)),
        }
    }

    /// Sends a stream in parts; what it was.
    fn send_stream(
        &self,
        session: &mut Session,
        stream: &mut dyn Read,
    ) -> Result<(Digest, u64), Error> {
        let part_bytes = usize::try_from(session.part_min.max(PART_BYTES as u64));
        let mut part = vec![0; part_bytes.unwrap_or(PART_BYTES)];
        let mut hash = Sha256::new();
        let mut size = 0;
        loop {
            let count = read_full(stream, &mut part).map_err(Error::Source)?;
            let bytes = part.get(..count).unwrap_or_default();
            hash.update(bytes);
            if count > 0 {
                self.send_part(session, bytes, size)?;
            }
            size += count as u64;
            if count < part.len() {
                break;
            }
        }
        Ok((Digest::from_sha256(hash.finalize().into()), size))
    }

    /// Sends a part of a stream that begins at `start`, as often as needed.
    fn send_part(&self, session: &mut Session, part: &[u8], start: u64) -> Result<(), Error> {
        let policy = &self.inner().wire.retry;
        let end = start + part.len() as u64;
        let mut failures = 0;
        while session.have < end {
            let before = session.have;
            let from = before.saturating_sub(start);
            match self.patch(session, &part, from, end - before) {
                Ok(()) => {}
                Err(error) => {
                    failures = if session.have > before {
                        1
                    } else {
                        failures + 1
                    };
                    if failures >= policy.attempts_max || !may_continue(&error) {
                        return Err(error);
                    }
                    std::thread::sleep(policy.delay(failures));
                    // Bytes before this part are gone for us: the upload must be known.
                    *session = self
                        .status(session.clone())
                        .filter(|session| session.have >= start)
                        .ok_or(error)?;
                }
            }
        }
        Ok(())
    }

    /// One go at an upload: from where the registry is to the end.
    fn upload(
        &self,
        digest: &Digest,
        content: &dyn Content,
        options: &UploadOptions,
        slot: &mut Option<Session>,
    ) -> Result<(), Error> {
        let session = match slot {
            Some(session) => session,
            None => slot.insert(self.begin(digest.algorithm())?),
        };
        let size = content.size();
        // Once a part was sent, the rest goes in parts too: not every registry takes a
        // final PUT with a body behind PATCHes.
        let part = match options.part_bytes {
            None if session.have == 0 => {
                let source = match size {
                    0 => Source::None,
                    _ => Source::Content(content, 0, size),
                };
                self.close(&session.location, digest, source, 1)?;
                return Ok(());
            }
            None => size,
            Some(part) => part.clamp(1, PART_BYTES_MAX).max(session.part_min),
        };
        while session.have < size {
            let count = part.min(size - session.have);
            let from = session.have;
            self.patch(session, content, from, count)?;
        }
        self.close(&session.location, digest, Source::None, u32::MAX)?;
        Ok(())
    }

    /// Sends `count` bytes from an offset of the content.
    fn patch(
        &self,
        session: &mut Session,
        content: &dyn Content,
        from: u64,
        count: u64,
    ) -> Result<(), Error> {
        let last = session.have + count - 1;
        let ask = Ask::new("PATCH")
            .field("Content-Type", "application/octet-stream")
            .field("Content-Range", format!("{}-{last}", session.have))
            .source(Source::Content(content, from, count))
            .attempts(1);
        let answer = self
            .inner()
            .ask(&self.pusher(), At::Url(&session.location), &ask)?;
        let answer = answer.expect(&[201, 202, 204])?;
        session.follow(&answer)?;
        let have = match answer.field("range").and_then(range_end) {
            // A registry that kept less than it was sent says so here.
            Some(end) if end > 0 => end.saturating_add(1),
            _ => last + 1,
        };
        if have < session.have || have > last + 1 {
            return Err(answer.protocol(format!(
                "{} bytes were there, {count} were sent, and now there are {have}",
                session.have
            )));
        }
        session.have = have;
        answer.drain();
        Ok(())
    }

    /// Begins an upload of a blob with a digest of this kind.
    fn begin(&self, algorithm: Algorithm) -> Result<Session, Error> {
        let to = self.pusher();
        let path = match algorithm {
            Algorithm::Sha256 => "blobs/uploads/".to_owned(),
            other => format!("blobs/uploads/?digest-algorithm={}", other.name()),
        };
        let answer = self.inner().ask(&to, At::Path(&path), &Ask::new("POST"))?;
        let answer = answer.expect(&[202])?;
        let session = Session::new(&answer)?;
        answer.drain();
        Ok(session)
    }

    fn mount(&self, digest: &Digest, from: &str) -> Result<Mount, Error> {
        let to = self.pusher();
        let to = To {
            scopes: to.scopes.with(&format!("repository:{from}:pull")),
            ..to
        };
        let path = format!("blobs/uploads/?mount={digest}&from={}", escape(from));
        let answer = match self.inner().ask(&to, At::Path(&path), &Ask::new("POST")) {
            Ok(answer) => answer,
            // No right to read there is no reason not to upload.
            Err(Error::Unauthorized { .. }) => return Ok(Mount::Refused),
            Err(error) => return Err(error),
        };
        let mount = match answer.status() {
            201 => Mount::Done,
            202 => Mount::Upload(Session::new(&answer)?),
            _ => Mount::Refused,
        };
        answer.drain();
        Ok(mount)
    }

    /// Ends an upload, with the whole content or with what was sent in parts.
    fn close(
        &self,
        location: &Url,
        digest: &Digest,
        source: Source<'_>,
        attempts: u32,
    ) -> Result<(), Error> {
        let url = location.with_query("digest", &digest.to_string());
        let ask = Ask::new("PUT")
            .field("Content-Type", "application/octet-stream")
            .source(source)
            .attempts(attempts);
        let answer = self.inner().ask(&self.pusher(), At::Url(&url), &ask)?;
        answer.expect(&[200, 201, 204])?.drain();
        Ok(())
    }

    /// Where an upload stands; none when the registry does not know it any more.
    fn status(&self, mut session: Session) -> Option<Session> {
        let to = self.pusher();
        let at = At::Url(&session.location);
        let answer = self.inner().ask(&to, at, &Ask::new("GET")).ok()?;
        let answer = answer.expect(&[200, 202, 204]).ok()?;
        session.follow(&answer).ok()?;
        // docker's registry says 0-0 for no byte as for one: then none counts.
        session.have = match answer.field("range").and_then(range_end)? {
            0 => 0,
            end => end.saturating_add(1),
        };
        answer.drain();
        // A fresh start is surer than going on with nothing.
        (session.have > 0).then_some(session)
    }
}

/// What came of the wish to take a blob from another repository.
enum Mount {
    Done,
    Upload(Session),
    Refused,
}

impl Session {
    fn new(answer: &Answer) -> Result<Self, Error> {
        let min = answer.field("oci-chunk-min-length");
        let min = min.and_then(|min| min.parse().ok()).unwrap_or(0);
        let mut session = Self {
            location: answer.asked.url.clone(),
            have: 0,
            part_min: u64::min(min, PART_BYTES_MAX),
        };
        match answer.field("location") {
            Some(_) => session.follow(answer)?,
            None => return Err(answer.protocol("the registry began an upload without a Location")),
        }
        Ok(session)
    }

    /// Takes over the place where the registry wants the next request.
    fn follow(&mut self, answer: &Answer) -> Result<(), Error> {
        let Some(location) = answer.field("location") else {
            return Ok(());
        };
        let from = &answer.asked.url;
        let next = from.join(location).map_err(|source| Error::Url {
            what: "the Location of an upload".to_owned(),
            source,
        })?;
        let next = next.lifted_to(from);
        if from.https() && !next.https() {
            return Err(answer.protocol("the upload was sent from TLS to plain HTTP"));
        }
        self.location = next;
        Ok(())
    }
}

/// Whether the state of the upload is worth asking for after this error.
fn may_continue(error: &Error) -> bool {
    let refused = match error {
        // Unknown upload, wrong offset, or a broken one: a new one may do better.
        Error::Refused(refusal) => matches!(refusal.status, 404 | 409 | 416),
        _ => false,
    };
    refused || error.is_transient()
}

/// The end of `0-END` or `bytes=0-END`.
fn range_end(value: &str) -> Option<u64> {
    let value = value.strip_prefix("bytes=").unwrap_or(value);
    value.split_once('-')?.1.trim().parse().ok()
}

fn read_full(stream: &mut dyn Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_ends_are_read_in_both_forms() {
        assert_eq!(range_end("0-99"), Some(99));
        assert_eq!(range_end("bytes=0-99"), Some(99));
        assert_eq!(range_end("99"), None);
        assert_eq!(range_end("0--1"), None);
    }
}
