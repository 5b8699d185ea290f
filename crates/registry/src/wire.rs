//! One question to a host: redirects are followed, passing troubles are tried again.
//!
//! Contract
//! - Fields of [`Call::private`] (authorization, configured headers) go to the origin
//!   of the call only, never along with a redirect to another scheme, host or port.
//! - At most [`REDIRECTS_MAX`] redirects; never from TLS to plain HTTP, unless the
//!   endpoint is configured as insecure; with a payload only 307 and 308.
//! - What is given back may be any answer, also a refusal: the caller decides.

use std::io::{self, Read};
use std::time::Duration;

use crate::error::{Asked, ERROR_BYTES_MAX, Error, Refusal, api_errors, is_transient_status};
use crate::http::{Http, HttpError, Payload, Request, Response, read_limited};
use crate::retry::{Retry, rate_limit};
use crate::tls::TlsSettings;
use crate::url::Url;

/// Most redirects that are followed for one question.
pub const REDIRECTS_MAX: u32 = 8;
/// How long the body of an error is waited for.
const ERROR_BODY_WAIT: Duration = Duration::from_secs(10);

/// Bytes that can be read more than once, as pushing them may take several tries.
pub trait Content: Sync {
    /// How many bytes there are.
    fn size(&self) -> u64;

    /// The bytes from an offset on.
    ///
    /// # Errors
    /// Errors of opening.
    fn reader(&self, from: u64) -> io::Result<Box<dyn Read + '_>>;
}

impl Content for &[u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn reader(&self, from: u64) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(rest(self, from)))
    }
}

impl Content for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn reader(&self, from: u64) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(rest(self, from)))
    }
}

fn rest(bytes: &[u8], from: u64) -> &[u8] {
    let from = usize::try_from(from).unwrap_or(usize::MAX);
    bytes.get(from..).unwrap_or_default()
}

/// A content whose reader is made by a closure.
pub struct ReadFrom<F> {
    size: u64,
    open: F,
}

impl<F> ReadFrom<F>
where
    F: Fn(u64) -> io::Result<Box<dyn Read>> + Sync,
{
    /// A content of `size` bytes; `open` gives the bytes from an offset on.
    pub fn new(size: u64, open: F) -> Self {
        Self { size, open }
    }
}

impl<F> Content for ReadFrom<F>
where
    F: Fn(u64) -> io::Result<Box<dyn Read>> + Sync,
{
    fn size(&self) -> u64 {
        self.size
    }

    fn reader(&self, from: u64) -> io::Result<Box<dyn Read + '_>> {
        (self.open)(from)
    }
}

/// What goes with a question.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    None,
    Bytes(&'a [u8]),
    Content(&'a dyn Content, u64, u64),
}

/// A question.
#[derive(Clone)]
pub(crate) struct Call<'a> {
    pub(crate) method: &'static str,
    pub(crate) url: Url,
    pub(crate) tls: &'a TlsSettings,
    /// Fields that may go to any host.
    pub(crate) fields: Vec<(String, String)>,
    /// Fields for the origin of the URL only.
    pub(crate) private: Vec<(String, String)>,
    pub(crate) source: Source<'a>,
    /// Tries altogether; one means that the caller does it.
    pub(crate) attempts: u32,
    /// Redirects to plain HTTP are allowed.
    pub(crate) insecure: bool,
}

impl<'a> Call<'a> {
    pub(crate) fn new(method: &'static str, url: Url, tls: &'a TlsSettings) -> Self {
        Self {
            method,
            url,
            tls,
            fields: Vec::new(),
            private: Vec::new(),
            source: Source::None,
            attempts: u32::MAX,
            insecure: false,
        }
    }

    pub(crate) fn field(mut self, name: &str, value: impl Into<String>) -> Self {
        self.fields.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn source(mut self, source: Source<'a>) -> Self {
        self.source = source;
        self
    }

    pub(crate) fn asked(&self) -> Asked {
        Asked {
            method: self.method,
            url: self.url.clone(),
        }
    }
}

/// An answer, and who gave it in the end.
pub(crate) struct Answer {
    pub(crate) response: Response,
    pub(crate) asked: Asked,
    /// Whether the origin of the call itself answered, not another one after a redirect.
    pub(crate) own: bool,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.response.status
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.response.field(name)
    }

    /// The answer when its status is one of these, else the refusal as an error.
    pub(crate) fn expect(self, statuses: &[u16]) -> Result<Self, Error> {
        match statuses.contains(&self.status()) {
            true => Ok(self),
            false => Err(Error::Refused(Box::new(self.refusal()))),
        }
    }

    /// What the registry says in its refusal.
    pub(crate) fn refusal(mut self) -> Refusal {
        let body = read_limited(&mut self.response.body, ERROR_BYTES_MAX, ERROR_BODY_WAIT);
        Refusal {
            status: self.status(),
            rate: rate_limit(&self.response),
            errors: api_errors(&body.ok().flatten().unwrap_or_default()),
            asked: self.asked,
        }
    }

    /// A body of at most `limit` bytes.
    pub(crate) fn bytes(&mut self, limit: usize, wait: Duration) -> Result<Vec<u8>, Error> {
        match read_limited(&mut self.response.body, limit, wait) {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(Error::TooLarge {
                asked: Box::new(self.asked.clone()),
                limit,
            }),
            Err(source) => Err(http_error(self.asked.clone(), source)),
        }
    }

    /// Reads a body that nobody wants, so that the connection can serve again.
    pub(crate) fn drain(mut self) {
        let _ = read_limited(&mut self.response.body, ERROR_BYTES_MAX, ERROR_BODY_WAIT);
    }

    pub(crate) fn protocol(&self, reason: impl Into<String>) -> Error {
        Error::Protocol {
            asked: Box::new(self.asked.clone()),
            reason: reason.into(),
        }
    }
}

pub(crate) fn http_error(asked: Asked, source: HttpError) -> Error {
    match source {
        HttpError::Source(source) => Error::Source(source),
        source => Error::Http {
            asked: Box::new(asked),
            source,
        },
    }
}

/// The layer between HTTP and the protocol of registries.
pub(crate) struct Wire {
    pub(crate) http: Http,
    pub(crate) retry: Retry,
}

impl Wire {
    /// Asks until there is an answer that will not get better by waiting.
    pub(crate) fn call(&self, call: &Call<'_>) -> Result<Answer, Error> {
        let attempts = call.attempts.min(self.retry.attempts_max).max(1);
        for failed in 1..attempts {
            let delay = match self.follow(call) {
                Ok(answer) if !is_transient_status(answer.status()) => return Ok(answer),
                Ok(answer) => {
                    let wait = rate_limit(&answer.response).and_then(|rate| rate.retry_after);
                    if wait.is_some_and(|wait| wait > self.retry.retry_after_max) {
                        return Ok(answer);
                    }
                    log::debug!("{}: {}, trying again", answer.asked, answer.status());
                    self.retry.delay(failed).max(wait.unwrap_or_default())
                }
                Err(error) if error.is_transient() => {
                    log::debug!(
                        "{error}: {:?}, trying again",
                        std::error::Error::source(&error)
                    );
                    self.retry.delay(failed)
                }
                Err(error) => return Err(error),
            };
            std::thread::sleep(delay);
        }
        self.follow(call)
    }

    /// Asks once, and wherever the answer sends us.
    fn follow(&self, call: &Call<'_>) -> Result<Answer, Error> {
        let mut url = call.url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.once(call, &url)?;
            let follows = match call.source {
                Source::None => matches!(answer.status(), 301 | 302 | 303 | 307 | 308),
                _ => matches!(answer.status(), 307 | 308),
            };
            if !follows {
                return Ok(answer);
            }
            let next = next_url(call, &answer)?;
            answer.drain();
            url = next;
        }
        Err(Error::Redirect {
            asked: Box::new(call.asked()),
            reason: format!("more than {REDIRECTS_MAX} times"),
        })
    }

    fn once(&self, call: &Call<'_>, url: &Url) -> Result<Answer, Error> {
        let own = url.origin() == call.url.origin();
        let asked = Asked {
            method: call.method,
            url: url.clone(),
        };
        let elsewhere;
        let tls = if own {
            call.tls
        } else {
            elsewhere = call.tls.for_other_place(url.host() == call.url.host());
            &elsewhere
        };
        let mut fields = call.fields.clone();
        if own {
            fields.extend(call.private.iter().cloned());
        }
        let mut reader;
        let payload = match call.source {
            Source::None => Payload::None,
            Source::Bytes(bytes) => Payload::Bytes(bytes),
            Source::Content(content, from, length) => {
                reader = content.reader(from).map_err(Error::Source)?;
                Payload::Stream(&mut *reader, length)
            }
        };
        let mut request = Request {
            method: call.method,
            url,
            tls,
            fields: &fields,
            payload,
        };
        match self.http.send(&mut request) {
            Ok(response) => Ok(Answer {
                response,
                asked,
                own,
            }),
            Err(source) => Err(http_error(asked, source)),
        }
    }
}

fn next_url(call: &Call<'_>, answer: &Answer) -> Result<Url, Error> {
    let refused = |reason: String| Error::Redirect {
        asked: Box::new(answer.asked.clone()),
        reason,
    };
    let location = answer
        .field("location")
        .ok_or_else(|| refused("to nowhere: there is no Location".to_owned()))?;
    let from = &answer.asked.url;
    let next = from
        .join(location)
        .map_err(|e| refused(format!("to an unusable place: {e}")))?;
    if from.https() && !next.https() && !call.insecure {
        return Err(refused(format!("from TLS to plain HTTP ({next})")));
    }
    Ok(next)
}
