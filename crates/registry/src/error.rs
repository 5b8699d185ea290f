//! Errors of the client: what was asked, of whom, and what the registry itself says.
//!
//! Contract: no text holds a secret (URLs are shown without the values of their
//! queries, bodies are cut and cleaned of control characters), `Display` does not
//! repeat the source, and [`Error::hint`] is what a person can do.

use std::fmt;
use std::time::Duration;

use carrack_spec::Digest;
use carrack_spec::runtime::ParseError;
use serde::Deserialize;

use crate::config::ConfigError;
use crate::credentials::CredentialsError;
use crate::http::HttpError;
use crate::url::{Url, UrlError};

/// Most bytes of an error's body that are read.
pub(crate) const ERROR_BYTES_MAX: usize = 64 << 10;
/// Most characters of one message that are shown.
const MESSAGE_CHARS_MAX: usize = 300;
/// Most errors of one answer that are kept.
const API_ERRORS_MAX: usize = 8;

/// A method and a URL, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// `GET`, `PUT`, …
    pub method: &'static str,
    /// The URL; shown without secrets.
    pub url: Url,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.url)
    }
}

/// One error in the form of the distribution specification.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ApiError {
    /// For example `MANIFEST_UNKNOWN`.
    pub code: String,
    /// The registry's own words.
    pub message: String,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code.as_str(), self.message.as_str()) {
            ("", message) => f.write_str(message),
            (code, "") => f.write_str(code),
            (code, message) => write!(f, "{code}: {message}"),
        }
    }
}

/// What the registry says of its limits (`RateLimit-*`, `Retry-After`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests allowed in the window.
    pub limit: Option<u64>,
    /// Requests left.
    pub remaining: Option<u64>,
    /// The window.
    pub window: Option<Duration>,
    /// How long to wait.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(limit) = self.limit {
            let window = self.window.map(|w| format!(" in {}", span(w)));
            parts.push(format!("{limit} requests{}", window.unwrap_or_default()));
        }
        if let Some(remaining) = self.remaining {
            parts.push(format!("{remaining} left"));
        }
        if let Some(wait) = self.retry_after {
            parts.push(format!("try again in {}", span(wait)));
        }
        f.write_str(&parts.join(", "))
    }
}

fn span(time: Duration) -> String {
    match time.as_secs() {
        s if s >= 7200 => format!("{} h", s / 3600),
        s if s >= 120 => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}

/// An answer that is no success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What was asked.
    pub asked: Asked,
    /// The status code.
    pub status: u16,
    /// The registry's errors.
    pub errors: Vec<ApiError>,
    /// Its limits, when it speaks of them.
    pub rate: Option<RateLimit>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}", self.asked, self.status, phrase(self.status))?;
        for error in &self.errors {
            write!(f, ": {error}")?;
        }
        match &self.rate {
            Some(rate) => write!(f, " (limit: {rate})"),
            None => Ok(()),
        }
    }
}

/// Why something with a registry did not work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration forbids it or is wrong.
    #[error("the configuration of registries does not allow this")]
    Config(#[source] ConfigError),
    /// No endpoint of the configuration may be asked this.
    #[error("no host that is configured for {0} may be asked for it")]
    NoEndpoint(String),
    /// A URL from configuration or from a registry is unusable.
    #[error("{what} is no usable URL")]
    Url {
        /// Where the URL comes from.
        what: String,
        /// Why it is refused.
        #[source]
        source: UrlError,
    },
    /// No answer.
    #[error("{asked}")]
    Http {
        /// What was asked.
        asked: Box<Asked>,
        /// Why there is no answer.
        #[source]
        source: HttpError,
    },
    /// An answer that is no success.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The registry does not accept who we are.
    #[error("{} refuses {}", .host, who(.username.as_deref()))]
    Unauthorized {
        /// The registry.
        host: String,
        /// Whose credentials were shown.
        username: Option<String>,
        /// Its answer.
        refusal: Box<Refusal>,
    },
    /// The server that gives out tokens did not.
    #[error("cannot get a token for {host}")]
    Token {
        /// The registry.
        host: String,
        /// Why.
        #[source]
        source: Box<Error>,
    },
    /// The registry's challenge cannot be answered.
    #[error("{host} asks for authentication in a way that is not followed: {reason}")]
    Challenge {
        /// The registry.
        host: String,
        /// What is wrong.
        reason: String,
    },
    /// Credentials could not be looked up.
    #[error("cannot get the credentials for {host}")]
    Credentials {
        /// The registry.
        host: String,
        /// Why.
        #[source]
        source: CredentialsError,
    },
    /// A redirect that is not followed.
    #[error("{asked}: redirected {reason}")]
    Redirect {
        /// What was asked.
        asked: Box<Asked>,
        /// Why it is not followed.
        reason: String,
    },
    /// The content is not what its digest says.
    #[error("{asked}: the content has digest {found}, expected {expected}")]
    Digest {
        /// What was asked.
        asked: Box<Asked>,
        /// What it should be.
        expected: Box<Digest>,
        /// What it is.
        found: Box<Digest>,
    },
    /// The content is longer or shorter than its descriptor says.
    #[error("{asked}: the content has {found} bytes, expected {expected}")]
    Size {
        /// What was asked.
        asked: Box<Asked>,
        /// What it should be.
        expected: u64,
        /// What it is.
        found: u64,
    },
    /// A document is longer than allowed.
    #[error("{asked}: the answer is longer than the {limit} bytes that are allowed")]
    TooLarge {
        /// What was asked.
        asked: Box<Asked>,
        /// The limit.
        limit: usize,
    },
    /// A document is malformed.
    #[error("the document {digest} is malformed")]
    Document {
        /// Its digest.
        digest: Box<Digest>,
        /// What is wrong.
        #[source]
        source: ParseError,
    },
    /// A document of a kind that is not known.
    #[error("{0} is no image: its type is {1:?}")]
    MediaType(String, String),
    /// The tag for referrers leads to something else.
    #[error("{tag} should list referrers, but is of type {media_type:?}; it is left as it is")]
    NoReferrers {
        /// The repository and the tag.
        tag: String,
        /// What is there.
        media_type: String,
    },
    /// A document that claims to be two things at once.
    #[error("the document {0} is ambiguous: it has the properties of an index and of a manifest")]
    Ambiguous(Box<Digest>),
    /// Docker's first manifest format.
    #[error(
        "{0} is stored in docker's schema 1, which has no content digests and is not supported; push it again with a newer tool"
    )]
    Schema1(String),
    /// No manifest of an index fits.
    #[error("there is no image for {wanted} (there are: {available})")]
    NoPlatform {
        /// What was looked for.
        wanted: String,
        /// What there is.
        available: String,
    },
    /// The answer breaks the protocol.
    #[error("{asked}: {reason}")]
    Protocol {
        /// What was asked.
        asked: Box<Asked>,
        /// What is wrong.
        reason: String,
    },
    /// What is pushed cannot be read.
    #[error("cannot read what is to be pushed")]
    Source(#[source] std::io::Error),
    /// Every endpoint failed; the last one is the registry itself.
    #[error("mirrors failed before: {mirrors}")]
    Mirrors {
        /// What the mirrors said.
        mirrors: String,
        /// What the registry itself says.
        #[source]
        last: Box<Error>,
    },
    /// A name in a registry's answer, or given by the caller, is malformed.
    #[error("{0:?} is no name of a repository")]
    Name(String),
}

/// What stands behind an error, for exit codes and decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// There is no such thing.
    NotFound,
    /// Login is needed, or is not enough.
    Unauthorized,
    /// Too many requests.
    RateLimited,
    /// The network or the registry is out of order; later may be better.
    Unavailable,
    /// The registry sent something that cannot be trusted.
    Untrusted,
    /// The registry cannot do this.
    Unsupported,
    /// The configuration of this machine.
    Configuration,
    /// Anything else.
    Other,
}

impl Error {
    /// What stands behind it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Config(_) | Self::NoEndpoint(_) | Self::Credentials { .. } => {
                ErrorKind::Configuration
            }
            Self::Http { source, .. } => match source {
                HttpError::TlsSettings(_) => ErrorKind::Configuration,
                _ => ErrorKind::Unavailable,
            },
            Self::Refused(refusal) => match refusal.status {
                401 | 403 => ErrorKind::Unauthorized,
                404 => ErrorKind::NotFound,
                405 => ErrorKind::Unsupported,
                429 => ErrorKind::RateLimited,
                408 | 500.. => ErrorKind::Unavailable,
                _ => ErrorKind::Other,
            },
            Self::Unauthorized { .. } | Self::Challenge { .. } => ErrorKind::Unauthorized,
            Self::Token { source, .. } | Self::Mirrors { last: source, .. } => source.kind(),
            Self::Schema1(_) | Self::NoPlatform { .. } => ErrorKind::Unsupported,
            Self::Source(_) | Self::Name(_) | Self::MediaType(..) | Self::NoReferrers { .. } => {
                ErrorKind::Other
            }
            Self::Url { .. }
            | Self::Redirect { .. }
            | Self::Digest { .. }
            | Self::Size { .. }
            | Self::TooLarge { .. }
            | Self::Document { .. }
            | Self::Ambiguous(_)
            | Self::Protocol { .. } => ErrorKind::Untrusted,
        }
    }

    /// Whether there is no such thing.
    pub fn is_not_found(&self) -> bool {
        self.kind() == ErrorKind::NotFound
    }

    /// Whether the same request may work later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Http { source, .. } => source.is_transient(),
            Self::Refused(refusal) => is_transient_status(refusal.status),
            Self::Token { source, .. } | Self::Mirrors { last: source, .. } => {
                source.is_transient()
            }
            _ => false,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unauthorized {
                host,
                username: None,
                ..
            } => Some(format!(
                "the repository does not exist or needs a login: carrack login {host}"
            )),
            Self::Unauthorized { host, .. } => Some(format!(
                "check the password or the rights: carrack login {host}"
            )),
            Self::Token { host, source } => match source.kind() {
                ErrorKind::Unauthorized => {
                    Some(format!("check the password: carrack login {host}"))
                }
                _ => source.hint(),
            },
            Self::Mirrors { last, .. } => last.hint(),
            Self::Http { source, .. } => http_hint(source),
            Self::Refused(refusal) => match refusal.status {
                429 => Some("log in to get a higher limit, or use a mirror".to_owned()),
                403 => Some("the account has no right to do this".to_owned()),
                404 => Some("check the name and the tag".to_owned()),
                _ => None,
            },
            _ => None,
        }
    }
}

fn http_hint(error: &HttpError) -> Option<String> {
    match error {
        HttpError::Handshake { .. } => Some(
            "a registry with a certificate of its own needs its authority in \
             /etc/docker/certs.d/HOST/ca.crt; one without TLS must be configured as insecure"
                .to_owned(),
        ),
        HttpError::Connect { .. } => {
            Some("check the host and the port, and the proxy settings".to_owned())
        }
        _ => None,
    }
}

/// Whether a status asks to come again.
pub(crate) fn is_transient_status(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504 | 520..=527)
}

/// The errors in a body: the specification's document, or its first words.
pub(crate) fn api_errors(body: &[u8]) -> Vec<ApiError> {
    #[derive(Deserialize)]
    struct Document {
        errors: Vec<ApiError>,
    }
    /// What token servers send, OAuth2 and docker hub.
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Flat {
        error: String,
        error_description: String,
        details: String,
        message: String,
    }
    let clean = |error: ApiError| ApiError {
        code: clean(&error.code),
        message: clean(&error.message),
    };
    if let Ok(document) = serde_json::from_slice::<Document>(body) {
        let errors = document.errors.into_iter().map(clean);
        return errors.take(API_ERRORS_MAX).collect();
    }
    if let Ok(flat) = serde_json::from_slice::<Flat>(body) {
        let words = [flat.error_description, flat.details, flat.message];
        let message = words.into_iter().find(|w| !w.is_empty());
        let error = clean(ApiError {
            code: flat.error,
            message: message.unwrap_or_default(),
        });
        return Some(error)
            .filter(|error| *error != ApiError::default())
            .into_iter()
            .collect();
    }
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    if text.is_empty() || text.starts_with('<') {
        return Vec::new();
    }
    vec![clean(ApiError {
        code: String::new(),
        message: text.to_owned(),
    })]
}

/// A text from outside on one line, without control characters, cut.
pub(crate) fn clean(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let kept = words.join(" ");
    kept.chars()
        .filter(|c| !c.is_control())
        .take(MESSAGE_CHARS_MAX)
        .collect()
}

fn who(username: Option<&str>) -> String {
    match username {
        Some(name) => format!("the credentials of {name}"),
        None => "access without a login".to_owned(),
    }
}

/// An error with what stands behind it, in one line.
pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

fn phrase(status: u16) -> &'static str {
    match status {
        301 => "Moved Permanently",
        302 => "Found",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_error_body_is_understood() {
        let one = |code: &str, message: &str| {
            vec![ApiError {
                code: code.into(),
                message: message.into(),
            }]
        };
        for (body, wanted) in [
            (
                r#"{"errors":[{"code":"DENIED","message":"no\nway","detail":{}}]}"#,
                one("DENIED", "no way"),
            ),
            (
                r#"{"error":"invalid_grant","error_description":"expired"}"#,
                one("invalid_grant", "expired"),
            ),
            (
                r#"{"details":"incorrect username or password"}"#,
                one("", "incorrect username or password"),
            ),
            ("plain\u{1b}[31m text", one("", "plain[31m text")),
            ("<html>oops</html>", vec![]),
            ("{}", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(api_errors(body.as_bytes()), wanted, "{body}");
        }
    }

    #[test]
    fn a_rate_limit_is_told_in_words() {
        let rate = RateLimit {
            limit: Some(100),
            remaining: Some(0),
            window: Some(Duration::from_secs(21600)),
            retry_after: Some(Duration::from_secs(90)),
        };
        let text = "100 requests in 6 h, 0 left, try again in 90 s";
        assert_eq!(rate.to_string(), text);
    }
}
