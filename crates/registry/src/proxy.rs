//! Proxies as the environment names them: `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`; HTTP or SOCKS 5.
//!
//! Contract: a pure value, made from pairs of names and values; which process
//! environment they come from is the caller's business. The lower-case form of a
//! name wins, as in curl. `HTTP_PROXY` in upper case is ignored inside a CGI program
//! (`REQUEST_METHOD` is set), because there a client of the web server writes it.
//!
//! `NO_PROXY` is a list of hosts, separated by commas or spaces:
//!
//! | entry | matches |
//! |---|---|
//! | `example.org` | that host and every host below it |
//! | `.example.org`, `*.example.org` | hosts below it only |
//! | `example.org:5000` | the same, on that port only |
//! | `10.0.0.7`, `[::1]:5000` | that address |
//! | `10.0.0.0/8`, `fd00::/8` | addresses in that network |
//! | `*` | everything |
//!
//! `localhost` and loopback addresses never go through a proxy.

use std::fmt;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::url::{Url, UrlError, split_port};

/// Where a SOCKS proxy listens unless its URL says.
const SOCKS_PORT: u16 = 1080;

/// A proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    kind: ProxyKind,
    url: Url,
    /// User and password.
    login: Option<(Vec<u8>, Vec<u8>)>,
}

/// What a proxy speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyKind {
    /// HTTP: takes plain requests whole, and makes tunnels for others.
    Http,
    /// SOCKS 5: makes connections, and resolves names.
    Socks,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

/// Without the credentials.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ProxyKind::Http => write!(f, "{}", self.url),
            ProxyKind::Socks => write!(f, "socks5://{}:{}", self.url.host(), self.url.port()),
        }
    }
}

/// Why a proxy's URL is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{variable} is no URL of a proxy (http://[USER:PASSWORD@]HOST[:PORT], or https:// or socks5://)"
)]
pub struct ProxyError {
    /// The variable of the environment.
    pub variable: &'static str,
    /// What is wrong with it.
    #[source]
    pub source: UrlError,
}

impl Proxy {
    /// Parses `[SCHEME://][USER:PASSWORD@]HOST[:PORT]`; the scheme is `http`, `https`, `socks5` or
    /// `socks5h` (the same: the proxy resolves names).
    ///
    /// # Errors
    /// [`UrlError`] says what is wrong.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let authority = rest.get(..end).unwrap_or(rest);
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        let login = user.map(|user| {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            (unescape(name), unescape(password))
        });
        let (kind, url) = match scheme.to_ascii_lowercase().as_str() {
            "socks5" | "socks5h" => {
                let port = match split_port(host) {
                    Some((_, None)) => format!(":{SOCKS_PORT}"),
                    _ => String::new(),
                };
                (ProxyKind::Socks, format!("http://{host}{port}"))
            }
            _ => (ProxyKind::Http, format!("{scheme}://{host}")),
        };
        Ok(Self {
            kind,
            url: Url::parse(&url)?,
            login,
        })
    }

    /// What it speaks.
    pub fn kind(&self) -> ProxyKind {
        self.kind
    }

    /// Where it listens; the scheme tells whether it is spoken to over TLS.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// User and password.
    pub(crate) fn login(&self) -> Option<(&[u8], &[u8])> {
        let (user, password) = self.login.as_ref()?;
        Some((user, password))
    }

    /// Value of the `Proxy-Authorization` header.
    pub(crate) fn authorization(&self) -> Option<String> {
        let (user, password) = self.login()?;
        let pair = [user, b":", password].concat();
        Some(format!("Basic {}", STANDARD.encode(pair)))
    }

    /// Whether plain requests go to it whole.
    pub(crate) fn takes_requests(&self) -> bool {
        self.kind == ProxyKind::Http
    }

    /// What two requests must have in common to share a connection to it.
    pub(crate) fn identity(&self) -> String {
        format!("{self} {}", self.authorization().unwrap_or_default())
    }
}

/// Which proxy a request goes through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    except: Vec<Exception>,
}

/// One entry of `NO_PROXY`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Exception {
    All,
    Network(Network),
    Host {
        name: String,
        below_only: bool,
        port: Option<u16>,
    },
}

impl Proxies {
    /// Reads the variables of an environment.
    ///
    /// # Errors
    /// [`ProxyError`] names the variable that has no proxy's URL.
    pub fn from_environment<'a>(
        variables: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, ProxyError> {
        let variables: Vec<(&str, &str)> = variables.into_iter().collect();
        let get = |name: &str| {
            let found = variables.iter().find(|(n, _)| *n == name);
            found
                .map(|(_, value)| value.trim())
                .filter(|v| !v.is_empty())
        };
        let proxy = |lower: &'static str, upper: &'static str, allow_upper: bool| {
            let (variable, value) = match (get(lower), get(upper)) {
                (Some(value), _) => (lower, value),
                (None, Some(value)) if allow_upper => (upper, value),
                _ => return Ok(None),
            };
            let parsed = Proxy::parse(value).map(Some);
            parsed.map_err(|source| ProxyError { variable, source })
        };
        let in_cgi = get("REQUEST_METHOD").is_some();
        let except = get("no_proxy").or_else(|| get("NO_PROXY")).unwrap_or("");
        Ok(Self {
            http: proxy("http_proxy", "HTTP_PROXY", !in_cgi)?,
            https: proxy("https_proxy", "HTTPS_PROXY", true)?,
            except: except
                .split([',', ' ', '\t'])
                .filter(|entry| !entry.is_empty())
                .filter_map(exception)
                .collect(),
        })
    }

    /// The proxy for a URL, or none.
    pub fn for_url(&self, url: &Url) -> Option<&Proxy> {
        let proxy = if url.https() { &self.https } else { &self.http };
        proxy.as_ref().filter(|_| !self.is_excepted(url))
    }

    fn is_excepted(&self, url: &Url) -> bool {
        let host = url.host().trim_end_matches('.');
        let address = host.parse::<IpAddr>().ok();
        if host == "localhost" || address.is_some_and(|a| a.is_loopback()) {
            return true;
        }
        self.except.iter().any(|exception| match exception {
            Exception::All => true,
            Exception::Network(network) => address.is_some_and(|a| network.contains(a)),
            Exception::Host {
                name,
                below_only,
                port,
            } => {
                let below = address.is_none()
                    && host
                        .strip_suffix(name.as_str())
                        .is_some_and(|rest| rest.ends_with('.'));
                let same = !below_only && host == name;
                (same || below) && port.is_none_or(|port| port == url.port())
            }
        })
    }
}

fn exception(entry: &str) -> Option<Exception> {
    if entry == "*" {
        return Some(Exception::All);
    }
    if let Some(network) = Network::parse(entry) {
        return Some(Exception::Network(network));
    }
    if entry.contains('/') {
        return None;
    }
    let entry = entry.strip_prefix('*').unwrap_or(entry);
    let (below_only, entry) = match entry.strip_prefix('.') {
        Some(rest) => (true, rest),
        None => (false, entry),
    };
    let (host, port) = split_port(entry)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some(Exception::Host {
        name: host.trim_end_matches('.').to_ascii_lowercase(),
        below_only,
        port,
    })
}

/// `ADDRESS` or `ADDRESS/BITS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network(IpAddr, u32);

impl Network {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(most), |bits| bits.parse().ok())?;
        (bits <= most).then_some(Self(address, bits))
    }

    pub(crate) fn contains(self, address: IpAddr) -> bool {
        let (a, b, width) = match (address.to_canonical(), self.0.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits().into(), b.to_bits().into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128u32),
            _ => return false,
        };
        let shift = width.saturating_sub(self.1);
        let cut = |bits: u128| bits.checked_shr(shift).unwrap_or(0);
        cut(a) == cut(b)
    }
}

/// Undoes percent escapes; what is no escape stays.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escape = (first == b'%').then(|| tail.get(..2)).flatten();
        let value = escape
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match value {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(no_proxy: &str, url: &str) -> bool {
        let proxies = Proxies::from_environment([
            ("HTTP_PROXY", "http://proxy:3128"),
            ("HTTPS_PROXY", "proxy:3128"),
            ("NO_PROXY", no_proxy),
        ]);
        let url = Url::parse(url).unwrap();
        proxies.unwrap().for_url(&url).is_some()
    }

    #[test]
    fn exceptions_follow_the_table() {
        for (no_proxy, url, through) in [
            ("", "https://a.example.org/", true),
            ("example.org", "https://example.org/", false),
            ("example.org", "https://a.example.org/", false),
            ("example.org", "https://notexample.org/", true),
            (".example.org", "https://example.org/", true),
            ("*.example.org", "https://a.example.org/", false),
            ("example.org:5000", "https://example.org/", true),
            ("example.org:5000", "https://example.org:5000/", false),
            ("EXAMPLE.org", "https://Example.ORG/", false),
            ("10.0.0.0/8", "http://10.1.2.3/", false),
            ("10.0.0.0/8", "http://11.1.2.3/", true),
            ("0.0.0.0/0", "http://11.1.2.3/", false),
            ("fd00::/8", "http://[fd12::1]:5000/", false),
            ("10.0.0.7", "http://10.0.0.7:5000/", false),
            ("[fd00::1]:5000", "http://[fd00::1]:5000/", false),
            ("a, b c.example", "http://c.example/", false),
            ("*", "http://anything/", false),
            ("10.0.0.0/99,b", "http://10.0.0.1/", true),
            ("", "http://localhost:5000/", false),
            ("", "http://127.0.0.2:5000/", false),
        ] {
            assert_eq!(used(no_proxy, url), through, "{no_proxy} {url}");
        }
    }

    #[test]
    fn lower_case_wins_and_cgi_is_not_trusted() {
        let url = Url::parse("http://a.example/").unwrap();
        let both = [
            ("HTTP_PROXY", "http://upper"),
            ("http_proxy", "http://lower"),
        ];
        let proxies = Proxies::from_environment(both).unwrap();
        assert_eq!(proxies.for_url(&url).unwrap().url().host(), "lower");
        let cgi = [("HTTP_PROXY", "http://upper"), ("REQUEST_METHOD", "GET")];
        let proxies = Proxies::from_environment(cgi).unwrap();
        assert_eq!(proxies.for_url(&url), None);
    }

    #[test]
    fn credentials_are_taken_out_of_the_url() {
        let proxy = Proxy::parse("http://me:p%40ss@proxy:3128/").unwrap();
        assert_eq!(proxy.authorization().unwrap(), "Basic bWU6cEBzcw==");
        assert_eq!(format!("{proxy:?}"), "Proxy(http://proxy:3128/)");
        let socks = Proxy::parse("socks5h://me:pw@proxy").unwrap();
        assert_eq!(socks.kind(), ProxyKind::Socks);
        assert_eq!(socks.to_string(), "socks5://proxy:1080");
        assert_eq!(socks.login(), Some((&b"me"[..], &b"pw"[..])));
        let bad = Proxies::from_environment([("https_proxy", "ftp://p:1")]).unwrap_err();
        assert_eq!(bad.variable, "https_proxy");
    }
}
