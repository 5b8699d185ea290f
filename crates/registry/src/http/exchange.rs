//! One request and the head of its answer.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::body::{Body, Framing};
use super::pool::Connection;
use super::{FIELDS_MAX, HEAD_BYTES_MAX, Http, HttpError, INTERIM_MAX, io_error};
use crate::proxy::Proxy;
use crate::tls::TlsSettings;
use crate::url::Url;

/// How much of a stream is sent at once.
const SEND_BYTES: usize = 128 << 10;
/// How long an answer is waited for after the server refused more of a body.
const EARLY_ANSWER_WAIT: Duration = Duration::from_secs(2);

/// What goes with a request.
pub(crate) enum Payload<'a> {
    /// Nothing.
    None,
    /// These bytes.
    Bytes(&'a [u8]),
    /// So many bytes of this stream.
    Stream(&'a mut dyn Read, u64),
}

/// A request.
pub(crate) struct Request<'a> {
    pub(crate) method: &'static str,
    pub(crate) url: &'a Url,
    pub(crate) tls: &'a TlsSettings,
    pub(crate) fields: &'a [(String, String)],
    pub(crate) payload: Payload<'a>,
}

/// The head of an answer, and its body to read.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: Body,
    fields: Vec<(String, String)>,
}

impl Response {
    /// The first field of that name, whatever its case.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        let found = fields.find(|field| field.0.eq_ignore_ascii_case(name));
        found.map(|field| field.1.as_str())
    }

    /// All fields of that name.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let same = move |field: &&(String, String)| field.0.eq_ignore_ascii_case(name);
        self.fields
            .iter()
            .filter(same)
            .map(|field| field.1.as_str())
    }
}

/// What went wrong, and whether the server may have seen the request.
struct Failure {
    error: HttpError,
    unseen: bool,
}

impl Failure {
    fn seen(error: HttpError) -> Self {
        Self {
            error,
            unseen: false,
        }
    }
}

impl Http {
    /// Sends a request and reads the head of its answer.
    ///
    /// A pooled connection that the server closed in the meantime is replaced by a
    /// new one without the caller knowing, unless a stream was already read from.
    pub(crate) fn send(&self, request: &mut Request<'_>) -> Result<Response, HttpError> {
        let (key, proxy) = self.route(request.url, request.tls);
        if let Some(connection) = self.pool.take(&key) {
            match self.run(connection, request, proxy) {
                Ok(response) => return Ok(response),
                Err(failure) if !failure.unseen => return Err(failure.error),
                Err(_) => {}
            }
        }
        let connection = self.dial(request.url, request.tls, key, proxy)?;
        self.run(connection, request, proxy)
            .map_err(|failure| failure.error)
    }

    fn run(
        &self,
        mut connection: Connection,
        request: &mut Request<'_>,
        proxy: Option<&Proxy>,
    ) -> Result<Response, Failure> {
        let stall = self.timeouts.stall;
        let wait = connection.set_wait(stall).map_err(HttpError::Io);
        wait.map_err(Failure::seen)?;
        let head = self.head(request, proxy).map_err(Failure::seen)?;
        let streams = matches!(request.payload, Payload::Stream(..));
        let sent = send(&mut connection, head, &mut request.payload, stall);
        let refused = match sent {
            Ok(()) => None,
            Err(error @ HttpError::Source(_)) => return Err(Failure::seen(error)),
            Err(error) => Some(error),
        };
        let wait = match refused {
            None => self.timeouts.answer,
            Some(_) => EARLY_ANSWER_WAIT.min(self.timeouts.answer),
        };
        let used = connection.used;
        let answer = read_head(&mut connection, request.method, wait);
        match answer {
            Ok(mut head) => {
                head.keep &= refused.is_none();
                let pool = Arc::clone(&self.pool);
                Ok(Response {
                    status: head.status,
                    fields: head.fields,
                    body: Body::new(connection, pool, head.framing, head.keep, stall),
                })
            }
            Err(error) => {
                // A server may close an idle connection at any time: then nothing at
                // all came back, and asking anew is safe.
                let silent = connection.buffered().is_empty()
                    && matches!(error, HttpError::Closed | HttpError::Io(_));
                Err(Failure {
                    error: refused.unwrap_or(error),
                    unseen: used && silent && !streams,
                })
            }
        }
    }

    /// The request's head, with the payload's length.
    fn head(&self, request: &Request<'_>, proxy: Option<&Proxy>) -> Result<Vec<u8>, HttpError> {
        let url = request.url;
        let authority = url.authority();
        let plain_proxy = proxy.filter(|proxy| !url.https() && proxy.takes_requests());
        let mut head = format!("{} ", request.method);
        if plain_proxy.is_some() {
            head.push_str(&format!("http://{authority}"));
        }
        head.push_str(&format!("{} HTTP/1.1\r\n", url.target()));
        let mut field = |name: &str, value: &str| {
            let clean = |b: u8| b == b'\t' || (b >= b' ' && b != 0x7f);
            let token = |b: u8| b.is_ascii_graphic() && b != b':';
            if name.is_empty() || !name.bytes().all(token) || !value.bytes().all(clean) {
                return Err(HttpError::Garbage("a field to be sent is malformed"));
            }
            head.push_str(&format!("{name}: {value}\r\n"));
            Ok(())
        };
        field("Host", &authority)?;
        field("User-Agent", &self.user_agent)?;
        if let Some(value) = plain_proxy.and_then(Proxy::authorization) {
            field("Proxy-Authorization", &value)?;
        }
        for (name, value) in request.fields {
            field(name, value)?;
        }
        let length = match &request.payload {
            Payload::None if matches!(request.method, "GET" | "HEAD" | "DELETE") => None,
            Payload::None => Some(0),
            Payload::Bytes(bytes) => Some(bytes.len() as u64),
            Payload::Stream(_, size) => Some(*size),
        };
        if let Some(length) = length {
            field("Content-Length", &length.to_string())?;
        }
        head.push_str("\r\n");
        Ok(head.into_bytes())
    }
}

fn send(
    connection: &mut Connection,
    mut head: Vec<u8>,
    payload: &mut Payload<'_>,
    stall: Duration,
) -> Result<(), HttpError> {
    let broken = |e| io_error(e, stall);
    let stream = &mut connection.stream;
    match payload {
        Payload::None => stream.write_all(&head).map_err(broken)?,
        Payload::Bytes(bytes) if bytes.len() <= SEND_BYTES => {
            head.extend_from_slice(bytes);
            stream.write_all(&head).map_err(broken)?;
        }
        Payload::Bytes(bytes) => {
            stream.write_all(&head).map_err(broken)?;
            stream.write_all(bytes).map_err(broken)?;
        }
        Payload::Stream(source, size) => {
            stream.write_all(&head).map_err(broken)?;
            let mut buffer = vec![0; SEND_BYTES];
            let mut left = *size;
            while left > 0 {
                let most = usize::try_from(left).unwrap_or(SEND_BYTES).min(SEND_BYTES);
                let part = buffer.get_mut(..most).unwrap_or_default();
                let count = read_source(*source, part)?;
                let part = part.get(..count).unwrap_or_default();
                stream.write_all(part).map_err(broken)?;
                left -= count as u64;
            }
        }
    }
    stream.flush().map_err(broken)
}

fn read_source(source: &mut dyn Read, buffer: &mut [u8]) -> Result<usize, HttpError> {
    loop {
        match source.read(buffer) {
            Ok(0) => return Err(HttpError::Source(io::ErrorKind::UnexpectedEof.into())),
            Ok(count) => return Ok(count),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(HttpError::Source(e)),
        }
    }
}

/// A parsed head.
#[derive(Debug)]
struct Head {
    status: u16,
    fields: Vec<(String, String)>,
    framing: Framing,
    keep: bool,
}

/// Reads heads until one is final.
fn read_head(connection: &mut Connection, method: &str, wait: Duration) -> Result<Head, HttpError> {
    let end = Instant::now() + wait;
    let mut interim = 0;
    loop {
        if let Some((head, length)) = parse_head(connection.buffered(), method)? {
            connection.consume(length);
            if !(100..200).contains(&head.status) {
                return Ok(head);
            }
            interim += 1;
            if interim > INTERIM_MAX || head.status == 101 {
                return Err(HttpError::Garbage("too many interim answers"));
            }
            continue;
        }
        if connection.buffered().len() >= HEAD_BYTES_MAX {
            return Err(HttpError::HeadTooLong);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(HttpError::Stalled(wait));
        }
        connection.set_wait(left).map_err(HttpError::Io)?;
        let count = connection.fill(HEAD_BYTES_MAX / 4);
        match count.map_err(|e| io_error(e, wait))? {
            0 if connection.buffered().is_empty() => return Err(HttpError::Closed),
            0 => return Err(HttpError::Truncated),
            _ => {}
        }
    }
}

/// The head at the start of `bytes` and its length; `None` when it is not complete.
fn parse_head(bytes: &[u8], method: &str) -> Result<Option<(Head, usize)>, HttpError> {
    let mut space = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut space);
    let length = match parsed.parse(bytes) {
        Ok(httparse::Status::Partial) => return Ok(None),
        Ok(httparse::Status::Complete(length)) => length,
        Err(httparse::Error::TooManyHeaders) => return Err(HttpError::HeadTooLong),
        Err(_) => return Err(HttpError::Garbage("the head is malformed")),
    };
    let status = parsed.code.unwrap_or_default();
    let fields: Vec<(String, String)> = parsed
        .headers
        .iter()
        .map(|field| {
            let value = String::from_utf8_lossy(field.value).trim().to_owned();
            (field.name.to_owned(), value)
        })
        .collect();
    let has = |name: &str, word: &str| {
        let same = |field: &&(String, String)| field.0.eq_ignore_ascii_case(name);
        let mut words = fields.iter().filter(same).flat_map(|f| f.1.split(','));
        words.any(|w| w.trim().eq_ignore_ascii_case(word))
    };
    let keep = parsed.version == Some(1) && !has("connection", "close");
    let bodiless = method == "HEAD" || status < 200 || status == 204 || status == 304;
    let framing = if bodiless {
        Framing::Done
    } else {
        framing(&fields)?
    };
    let head = Head {
        status,
        keep: keep && framing != Framing::Close,
        fields,
        framing,
    };
    Ok(Some((head, length)))
}

/// How the body ends. Contradictions are refused: they are how answers get mixed up.
fn framing(fields: &[(String, String)]) -> Result<Framing, HttpError> {
    let mut length = None;
    let mut chunked = false;
    for (name, value) in fields {
        if name.eq_ignore_ascii_case("transfer-encoding") {
            if chunked || !value.eq_ignore_ascii_case("chunked") {
                return Err(HttpError::Garbage("unknown transfer encoding"));
            }
            chunked = true;
        } else if name.eq_ignore_ascii_case("content-length") {
            let digits = value.bytes().all(|b| b.is_ascii_digit());
            let parsed = value.parse::<u64>().ok().filter(|_| digits);
            let parsed = parsed.ok_or(HttpError::Garbage("malformed content length"))?;
            if length.is_some_and(|length| length != parsed) {
                return Err(HttpError::Garbage("two different content lengths"));
            }
            length = Some(parsed);
        }
    }
    match (chunked, length) {
        (true, Some(_)) => Err(HttpError::Garbage("both chunked and of a given length")),
        (true, None) => Ok(Framing::Chunk {
            left: 0,
            first: true,
        }),
        (false, Some(0)) => Ok(Framing::Done),
        (false, Some(length)) => Ok(Framing::Length(length)),
        (false, None) => Ok(Framing::Close),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(text: &str) -> Result<Option<(Head, usize)>, HttpError> {
        parse_head(text.as_bytes(), "GET")
    }

    #[test]
    fn framing_follows_the_fields() {
        let of = |fields: &str| {
            let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
            let (head, _) = head(&text).unwrap().unwrap();
            (head.framing, head.keep)
        };
        let chunk = Framing::Chunk {
            left: 0,
            first: true,
        };
        assert_eq!(of("Content-Length: 5\r\n"), (Framing::Length(5), true));
        assert_eq!(of("content-length: 0\r\n"), (Framing::Done, true));
        assert_eq!(of("Transfer-Encoding: Chunked\r\n"), (chunk, true));
        assert_eq!(of(""), (Framing::Close, false));
        let closing = "Connection: x, Close\r\nContent-Length: 5\r\n";
        assert_eq!(of(closing), (Framing::Length(5), false));
    }

    #[test]
    fn contradictions_are_refused() {
        for fields in [
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: 99999999999999999999999\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
            assert!(head(&text).is_err(), "{fields}");
        }
    }

    proptest! {
        #[test]
        fn any_head_is_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_head(&bytes, "GET");
            let mut text = b"HTTP/1.1 200 OK\r\n".to_vec();
            text.extend(bytes);
            let _ = parse_head(&text, "GET");
        }
    }
}
