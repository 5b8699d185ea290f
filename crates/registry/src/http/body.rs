//! Bodies of answers: framing by length, by chunks, or by the end of the connection.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::pool::{Connection, Pool};
use super::{HttpError, io_error};

/// Longest line that announces a chunk, with its extensions.
const CHUNK_LINE_BYTES_MAX: usize = 4 << 10;
/// Longest trailers.
const TRAILER_BYTES_MAX: usize = 16 << 10;
/// How much is read at once where lines are looked for.
const FILL_BYTES: usize = 16 << 10;

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes are left.
    Length(u64),
    /// In a chunk with so many bytes left; at zero a chunk line comes next.
    Chunk { left: u64, first: bool },
    /// The end of the connection.
    Close,
    /// Everything was read.
    Done,
}

/// The body of an answer.
pub(crate) struct Body {
    connection: Option<Connection>,
    pool: Arc<Pool>,
    framing: Framing,
    keep: bool,
    stall: Duration,
}

impl Body {
    pub(super) fn new(
        connection: Connection,
        pool: Arc<Pool>,
        framing: Framing,
        keep: bool,
        stall: Duration,
    ) -> Self {
        let mut body = Self {
            connection: Some(connection),
            pool,
            framing,
            keep,
            stall,
        };
        if matches!(framing, Framing::Length(0) | Framing::Done) {
            body.finish();
        }
        body
    }

    /// Bytes that the answer said the body has.
    pub(crate) fn length(&self) -> Option<u64> {
        match self.framing {
            Framing::Length(left) => Some(left),
            Framing::Done => Some(0),
            Framing::Chunk { .. } | Framing::Close => None,
        }
    }

    /// Reads what is there; zero only at the true end of the body.
    pub(crate) fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, HttpError> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if let Framing::Chunk { left: 0, first } = self.framing {
            self.next_chunk(first)?;
        }
        let left = match self.framing {
            Framing::Done => return Ok(0),
            Framing::Length(left) | Framing::Chunk { left, .. } => left,
            Framing::Close => u64::MAX,
        };
        let most = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let stall = self.stall;
        let connection = self.connection()?;
        connection.set_wait(stall).map_err(HttpError::Io)?;
        let count = connection
            .read(buffer.get_mut(..most).unwrap_or_default())
            .map_err(|e| end_or_error(e, stall))?;
        let moved = count as u64;
        match self.framing {
            Framing::Close if count == 0 => self.finish(),
            _ if count == 0 => return Err(self.fail(HttpError::Truncated)),
            Framing::Length(left) if left == moved => self.finish(),
            Framing::Length(left) => self.framing = Framing::Length(left - moved),
            Framing::Chunk { left, .. } => {
                self.framing = Framing::Chunk {
                    left: left - moved,
                    first: false,
                };
            }
            Framing::Close | Framing::Done => {}
        }
        Ok(count)
    }

    /// Reads the line before the next chunk, and the trailers after the last.
    fn next_chunk(&mut self, first: bool) -> Result<(), HttpError> {
        if !first && !self.line(2)?.is_empty() {
            return Err(self.fail(HttpError::Garbage("a chunk is longer than its line says")));
        }
        let line = self.line(CHUNK_LINE_BYTES_MAX)?;
        let digits = line.split(|b| *b == b';').next().unwrap_or_default();
        let Some(left) = hex(digits.trim_ascii()) else {
            return Err(self.fail(HttpError::Garbage("a chunk has no valid length")));
        };
        self.framing = Framing::Chunk { left, first: false };
        if left > 0 {
            return Ok(());
        }
        let mut total = 0;
        loop {
            let line = self.line(CHUNK_LINE_BYTES_MAX)?;
            total += line.len();
            if line.is_empty() {
                self.finish();
                return Ok(());
            }
            if total > TRAILER_BYTES_MAX {
                return Err(self.fail(HttpError::Garbage("the trailers are too long")));
            }
        }
    }

    /// A line without its end.
    fn line(&mut self, most: usize) -> Result<Vec<u8>, HttpError> {
        let stall = self.stall;
        let connection = self.connection()?;
        connection.set_wait(stall).map_err(HttpError::Io)?;
        let mut seen = 0;
        loop {
            let buffered = connection.buffered();
            let fresh = buffered.get(seen..).unwrap_or_default();
            if let Some(at) = fresh.iter().position(|b| *b == b'\n') {
                let end = seen + at;
                let line = buffered.get(..end).unwrap_or_default();
                let line = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
                connection.consume(end + 1);
                return Ok(line);
            }
            seen = buffered.len();
            if seen > most {
                return Err(self.fail(HttpError::Garbage("a chunk line is too long")));
            }
            let count = connection
                .fill(FILL_BYTES)
                .map_err(|e| end_or_error(e, stall))?;
            if count == 0 {
                return Err(self.fail(HttpError::Truncated));
            }
        }
    }

    fn connection(&mut self) -> Result<&mut Connection, HttpError> {
        self.connection.as_mut().ok_or(HttpError::Truncated)
    }

    /// The body is complete: the connection may serve again.
    fn finish(&mut self) {
        self.framing = Framing::Done;
        if let Some(connection) = self.connection.take()
            && self.keep
        {
            self.pool.put(connection);
        }
    }

    fn fail(&mut self, error: HttpError) -> HttpError {
        self.connection = None;
        error
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_some(buffer).map_err(io::Error::other)
    }
}

/// A body of at most `most` bytes, within `time` altogether; `None` when it is longer.
pub(crate) fn read_limited(
    body: &mut Body,
    most: usize,
    time: Duration,
) -> Result<Option<Vec<u8>>, HttpError> {
    let length = body.length().unwrap_or(0);
    if length > most as u64 {
        return Ok(None);
    }
    let end = Instant::now() + time;
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    let mut buffer = [0; 8 << 10];
    loop {
        let count = body.read_some(&mut buffer)?;
        if count == 0 {
            return Ok(Some(bytes));
        }
        bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
        if bytes.len() > most {
            return Ok(None);
        }
        if Instant::now() > end {
            return Err(HttpError::Stalled(time));
        }
    }
}

/// TLS without its closing message is a truncation, not a fault of the socket.
fn end_or_error(error: io::Error, stall: Duration) -> HttpError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => HttpError::Truncated,
        _ => io_error(error, stall),
    }
}

/// A length in hexadecimal digits, at most 16 of them.
fn hex(digits: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(digits).ok()?;
    if digits.len() > 16 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}
