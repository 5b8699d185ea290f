//! HTTP/1.1 as a registry client needs it, blocking.
//!
//! Contract
//! - One request, one response; redirects, authentication and retries are decided
//!   above. A response owns its connection and gives it back to the pool when its
//!   body was read to the end.
//! - Every wait is limited: connecting, a handshake, the head of an answer, and each
//!   single read or write of a body ("stall"). Bodies as a whole are not: a layer may
//!   take an hour as long as it moves.
//! - Everything from the other side is limited: head bytes, number of fields, interim
//!   answers, chunk lines, trailers.
//! - A body is read straight into the caller's buffer, so memory is flat.
//!
//! Why not a general client crate: resolver, TLS roots and stall timeouts would be
//! ours in any case (see `docs/dependencies.md`), and what remains is this folder.

mod body;
mod dial;
mod exchange;
mod pool;
mod socks;

pub(crate) use body::read_limited;
pub(crate) use exchange::{Payload, Request, Response};

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::dns::{DnsError, Resolve};
use crate::proxy::Proxies;
use crate::tls::{TlsConfigs, TlsError};

/// Longest head of an answer, in bytes.
pub(crate) const HEAD_BYTES_MAX: usize = 64 << 10;
/// Most fields in the head of an answer.
pub(crate) const FIELDS_MAX: usize = 128;
/// Most interim answers (1xx) before an answer.
pub(crate) const INTERIM_MAX: usize = 8;
/// Most idle connections kept for one host.
pub(crate) const IDLE_MAX: usize = 8;
/// How long an idle connection is kept.
pub(crate) const IDLE_AGE_MAX: Duration = Duration::from_secs(30);

/// How long the steps of a request may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// Connecting, over all addresses of a host, and each TLS handshake.
    pub connect: Duration,
    /// From the request's last byte to the last byte of the answer's head. Long,
    /// because registries move an upload to its place before they answer.
    pub answer: Duration,
    /// Longest time without a single byte while a body moves.
    pub stall: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            answer: Duration::from_secs(120),
            stall: Duration::from_secs(30),
        }
    }
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The host has no address.
    #[error("cannot resolve the host")]
    Resolve(#[source] DnsError),
    /// No address of the host accepts a connection.
    #[error("cannot connect to {address}")]
    Connect {
        /// The last address tried, with its port.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The TLS settings of the endpoint are wrong.
    #[error("bad TLS settings")]
    TlsSettings(#[source] TlsError),
    /// The TLS handshake failed; the certificate, most of the time.
    #[error("the TLS handshake with {host} failed")]
    Handshake {
        /// The host that was spoken to.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The proxy refused.
    #[error("the proxy {proxy} refused: {reason}")]
    Proxy {
        /// The proxy, without its credentials.
        proxy: String,
        /// Its answer.
        reason: String,
    },
    /// The connection broke.
    #[error("the connection broke")]
    Io(#[source] io::Error),
    /// Nothing moved for too long.
    #[error("no progress for {} s", .0.as_secs())]
    Stalled(Duration),
    /// The connection was closed before an answer.
    #[error("the server closed the connection without an answer")]
    Closed,
    /// The connection was closed in the middle of a body.
    #[error("the server closed the connection in the middle of its answer")]
    Truncated,
    /// What came is no HTTP answer.
    #[error("the answer is no HTTP/1.1: {0}")]
    Garbage(&'static str),
    /// The head of the answer is longer than allowed.
    #[error("the head of the answer exceeds {HEAD_BYTES_MAX} bytes or {FIELDS_MAX} fields")]
    HeadTooLong,
    /// What was to be sent could not be read.
    #[error("cannot read what is to be sent")]
    Source(#[source] io::Error),
}

impl HttpError {
    /// Whether a new try may help.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Resolve(error) => error.is_transient(),
            Self::Connect { .. }
            | Self::Io(_)
            | Self::Stalled(_)
            | Self::Closed
            | Self::Truncated => true,
            // A certificate does not get better by asking again; a reset does.
            Self::Handshake { source, .. } => source.kind() != io::ErrorKind::InvalidData,
            Self::TlsSettings(_)
            | Self::Proxy { .. }
            | Self::Garbage(_)
            | Self::HeadTooLong
            | Self::Source(_) => false,
        }
    }

    /// Whether the other side does not speak TLS on this port, or nobody is there.
    pub(crate) fn may_speak_plain(&self) -> bool {
        matches!(self, Self::Handshake { .. } | Self::Connect { .. })
    }
}

/// Turns an error of a socket into ours.
pub(crate) fn io_error(error: io::Error, limit: Duration) -> HttpError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => HttpError::Stalled(limit),
        _ => HttpError::Io(error),
    }
}

/// Sends requests over pooled connections.
pub(crate) struct Http {
    pub(crate) resolver: Arc<dyn Resolve>,
    pub(crate) tls: TlsConfigs,
    pub(crate) proxies: Proxies,
    pub(crate) timeouts: Timeouts,
    pub(crate) user_agent: String,
    pub(crate) pool: Arc<pool::Pool>,
}

impl Http {
    pub(crate) fn new(
        resolver: Arc<dyn Resolve>,
        tls: TlsConfigs,
        proxies: Proxies,
        timeouts: Timeouts,
        user_agent: String,
    ) -> Self {
        Self {
            resolver,
            tls,
            proxies,
            timeouts,
            user_agent,
            pool: Arc::default(),
        }
    }
}
