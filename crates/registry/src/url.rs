//! The URLs that a registry client meets: `http` or `https`, a host, a port, a target.
//!
//! Contract: [`Url`] holds nothing that could break a request apart (no spaces, no
//! control characters, no user information, no fragment), two URLs have equal
//! [`Url::origin`] exactly when credentials of one may go to the other, and what
//! `Display` writes holds no secret: values of queries are shown only for the few
//! names that never carry one.

use std::fmt;

/// Longest URL, in bytes; signed links of object stores have one or two thousand.
pub const URL_BYTES_MAX: usize = 16 << 10;

/// Query names whose values are shown in messages; all others may be signatures.
const SHOWN: [&str; 11] = [
    "service",
    "scope",
    "account",
    "digest",
    "mount",
    "from",
    "n",
    "last",
    "ns",
    "artifactType",
    "q",
];

/// An `http` or `https` URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Url {
    https: bool,
    host: String,
    port: u16,
    target: String,
}

/// Why a text is not a URL that is followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Another scheme, or none.
    #[error("{0:?} is no http or https URL")]
    Scheme(String),
    /// The host or the port is malformed.
    #[error("{0:?} has no valid host and port")]
    Host(String),
    /// A user name or a password stands in it.
    #[error("the URL has user information; credentials are given by `login`")]
    UserInfo,
    /// It has a space, a control character or a character outside ASCII.
    #[error("the URL has characters that must be escaped")]
    Character,
    /// It is too long.
    #[error("the URL has {0} bytes; at most {URL_BYTES_MAX} are followed")]
    TooLong(usize),
}

impl Url {
    /// Parses an absolute URL.
    ///
    /// # Errors
    /// [`UrlError`] says what is wrong.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        check(text)?;
        let clipped = || text.chars().take(80).collect::<String>();
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| UrlError::Scheme(clipped()))?;
        let https = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(UrlError::Scheme(clipped())),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        if authority.contains('@') {
            return Err(UrlError::UserInfo);
        }
        let (host, port) =
            split_port(authority).ok_or_else(|| UrlError::Host(authority.to_owned()))?;
        Ok(Self {
            https,
            host: host.to_ascii_lowercase(),
            port: port.unwrap_or(if https { 443 } else { 80 }),
            target: rooted(target),
        })
    }

    /// A URL from its parts; `host` may have a port.
    ///
    /// # Errors
    /// [`UrlError`] says what is wrong.
    pub fn of(https: bool, host: &str, target: &str) -> Result<Self, UrlError> {
        let scheme = if https { "https" } else { "http" };
        Self::parse(&format!("{scheme}://{host}{target}"))
    }

    /// The URL that `reference` means in a document from `self`.
    ///
    /// # Errors
    /// [`UrlError`] says what is wrong.
    pub fn join(&self, reference: &str) -> Result<Self, UrlError> {
        check(reference)?;
        let with = |target: String| Self {
            target: rooted(&target),
            ..self.clone()
        };
        if is_absolute(reference) {
            return Self::parse(reference);
        }
        if reference.starts_with("//") {
            let scheme = if self.https { "https:" } else { "http:" };
            return Self::parse(&format!("{scheme}{reference}"));
        }
        if reference.starts_with('/') {
            return Ok(with(reference.to_owned()));
        }
        let path = self.path();
        if reference.is_empty() || reference.starts_with('#') {
            return Ok(self.clone());
        }
        if reference.starts_with('?') {
            return Ok(with(format!("{path}{reference}")));
        }
        let folder = path
            .rfind('/')
            .map_or("/", |i| path.get(..=i).unwrap_or("/"));
        Ok(with(format!("{folder}{reference}")))
    }

    /// The same URL with one more query.
    #[must_use]
    pub fn with_query(&self, name: &str, value: &str) -> Self {
        let mark = if self.target.contains('?') { '&' } else { '?' };
        Self {
            target: format!("{}{mark}{name}={}", self.target, escape(value)),
            ..self.clone()
        }
    }

    /// Whether the connection is encrypted.
    pub fn https(&self) -> bool {
        self.https
    }

    /// Host name or address, without the brackets of IPv6.
    pub fn host(&self) -> &str {
        self.host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(&self.host)
    }

    /// Port, also where the scheme's own is not written.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port as the `Host` header wants them.
    pub fn authority(&self) -> String {
        let usual = if self.https { 443 } else { 80 };
        if self.port == usual {
            self.host.clone()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Path and query, never empty.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The path alone.
    pub fn path(&self) -> &str {
        self.target
            .split_once('?')
            .map_or(self.target.as_str(), |(path, _)| path)
    }

    /// Scheme, host and port: what credentials belong to.
    pub fn origin(&self) -> (bool, &str, u16) {
        (self.https, &self.host, self.port)
    }

    /// The same URL over the scheme and port of `base`, when only these differ downwards.
    ///
    /// A registry behind a proxy that ends TLS often writes `http` into the
    /// locations of uploads: the host is right, the scheme is not known to it.
    #[must_use]
    pub(crate) fn lifted_to(self, base: &Self) -> Self {
        if base.https
            && !self.https
            && self.host == base.host
            && [80, base.port].contains(&self.port)
        {
            return Self {
                https: true,
                port: base.port,
                ..self
            };
        }
        self
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path())?;
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        for (at, pair) in pairs.enumerate() {
            let mark = if at == 0 { '?' } else { '&' };
            let name = pair.split('=').next().unwrap_or_default();
            if SHOWN.contains(&name) {
                write!(f, "{mark}{pair}")?;
            } else {
                write!(f, "{mark}{name}=…")?;
            }
        }
        Ok(())
    }
}

/// Escapes what may not stand in the value of a query.
pub fn escape(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' => {
                text.push(char::from(byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// Host and optional port of an authority; `None` when it is malformed.
pub(crate) fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, tail) = rest.split_once(']')?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            let host = authority.get(..address.len() + 2)?;
            match tail {
                "" => (host, None),
                _ => (host, Some(tail.strip_prefix(':')?)),
            }
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if host.is_empty() || !(host.starts_with('[') || host.bytes().all(letter)) {
        return None;
    }
    match port {
        None => Some((host, None)),
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => {
            Some((host, Some(port.parse().ok().filter(|port| *port != 0)?)))
        }
        Some(_) => None,
    }
}

/// Whether a scheme stands in front (and not only in a query).
fn is_absolute(reference: &str) -> bool {
    reference
        .split_once("://")
        .is_some_and(|(scheme, _)| scheme.bytes().all(|b| b.is_ascii_alphanumeric()))
}

fn rooted(target: &str) -> String {
    let target = target.split_once('#').map_or(target, |(target, _)| target);
    if target.starts_with('/') {
        target.to_owned()
    } else {
        format!("/{target}")
    }
}

fn check(text: &str) -> Result<(), UrlError> {
    if text.len() > URL_BYTES_MAX {
        return Err(UrlError::TooLong(text.len()));
    }
    match text.bytes().all(|b| b.is_ascii_graphic()) {
        true => Ok(()),
        false => Err(UrlError::Character),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn joins_as_browsers_do() {
        let base = url("https://r.example:5000/v2/app/blobs/uploads/1?_state=x");
        for (reference, wanted) in [
            ("/v2/x?a=b", "https://r.example:5000/v2/x?a=b"),
            ("2?y=z", "https://r.example:5000/v2/app/blobs/uploads/2?y=z"),
            ("?y=z", "https://r.example:5000/v2/app/blobs/uploads/1?y=z"),
            ("//cdn.example/b", "https://cdn.example/b"),
            ("http://cdn.example", "http://cdn.example/"),
            ("HTTPS://CDN.example:443/a#f", "https://cdn.example/a"),
            ("/a?u=http://x/", "https://r.example:5000/a?u=http://x/"),
        ] {
            assert_eq!(base.join(reference), Ok(url(wanted)), "{reference}");
        }
    }

    #[test]
    fn refuses_what_could_break_a_request_apart() {
        for bad in [
            "",
            "ftp://a/",
            "file:///etc/passwd",
            "https://",
            "https://user:pw@host/",
            "https://host:0/",
            "https://host:65536/",
            "https://host:+1/",
            "https://[::1/",
            "https://[::1]x/",
            "https://ho st/",
            "https://host/a b",
            "https://host/a\r\nX: y",
            "https://h\u{f6}st/",
            "https://ho%73t/",
        ] {
            assert!(Url::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn shows_no_signature() {
        let signed = url("https://cdn.example/b?X-Amz-Signature=secret&digest=sha256:1");
        assert_eq!(
            signed.to_string(),
            "https://cdn.example/b?X-Amz-Signature=…&digest=sha256:1"
        );
    }

    #[test]
    fn an_upload_location_with_the_wrong_scheme_is_lifted() {
        let base = url("https://r.example/v2/");
        assert_eq!(
            url("http://r.example/u").lifted_to(&base),
            url("https://r.example/u")
        );
        let other = url("http://other.example/u");
        assert_eq!(other.clone().lifted_to(&base), other);
    }

    proptest! {
        #[test]
        fn parsing_and_joining_never_panic(a in "\\PC{0,60}", b in "[a-z:/?#@\\[\\]%.0-9]{0,40}") {
            let _ = Url::parse(&a);
            if let Ok(base) = Url::parse(&format!("https://{b}")) {
                let _ = base.join(&a);
                let _ = base.join(&b);
                prop_assert_eq!(Url::parse(&format!("https://{}{}", base.authority(), base.target())), Ok(base));
            }
        }
    }
}
