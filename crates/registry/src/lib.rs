//! Client of OCI registries (distribution specification 1.1): resolve, pull, push,
//! lists, login, mirrors.
//!
//! Contract
//! - Blocking, and made for many threads: a [`Client`] and its [`Repository`]s are
//!   `Send + Sync` and share connections and tokens.
//! - No disk: configuration, credentials, certificates and what is pushed come from
//!   the caller, as text, bytes or through small traits.
//! - No `getaddrinfo`: the crate works in static programs ([`Resolve`]).
//! - A registry is not trusted: everything it sends is limited, documents are verified
//!   against their digests, blobs against their sizes; credentials go to no host that
//!   they are not for. See the heads of the modules.
//!
//! ```
//! use std::io::{BufRead, BufReader, Read, Write};
//! use carrack_registry::{Client, Which};
//! use carrack_spec::Reference;
//!
//! // A registry with one blob, for the length of this example.
//! let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
//! let host = server.local_addr().unwrap().to_string();
//! std::thread::spawn(move || for stream in server.incoming() {
//!     let mut stream = stream.unwrap();
//!     let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
//!     while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
//!     let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
//! });
//!
//! let client = Client::builder().build();
//! let reference: Reference = format!("{host}/greeting:latest").parse().unwrap();
//! let repository = client.repository(&reference).unwrap();
//!
//! // Normally the descriptor comes from `repository.manifest(Which::Tag("latest"))`.
//! let digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
//! let descriptor = carrack_spec::image::Descriptor::new("text/plain", digest.parse().unwrap(), 5);
//! let mut text = String::new();
//! repository.blob(&descriptor).unwrap().verified().read_to_string(&mut text).unwrap();
//! assert_eq!(text, "hello");
//! # let _ = Which::Tag("latest");
//! ```

mod auth;
mod client;
mod config;
pub mod credentials;
pub mod dns;
mod error;
mod http;
mod link;
mod proxy;
mod retry;
mod tls;
mod url;
mod wire;

pub use auth::{Challenge, MirrorCredentials, parse_challenges};
pub use client::*;
pub use config::*;
pub use credentials::{Anonymous, AuthFile, Credential, Credentials};
pub use dns::{Resolve, SystemResolver};
pub use error::{ApiError, Asked, Error, ErrorKind, RateLimit, Refusal};
pub use http::{HttpError, Timeouts};
pub use link::next_link;
pub use proxy::{Proxies, Proxy, ProxyError, ProxyKind};
pub use retry::Retry;
pub use tls::{Files, TlsError, TlsSettings};
pub use url::{Url, UrlError};
pub use wire::{Content, REDIRECTS_MAX, ReadFrom};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex; a thread that panicked inside left the value whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
