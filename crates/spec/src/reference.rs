//! Image references as people type them: `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`.
//!
//! The grammar is that of the distribution specification, with docker's two
//! conveniences: a missing host is `docker.io`, and a path of one component
//! there belongs to `library/`. A reference without tag and digest means the tag
//! `latest`. Equal references have equal text after [`Reference`]'s `Display`.

use crate::{Digest, DigestError};
use std::fmt;
use std::str::FromStr;

/// Longest host and path together, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest tag in bytes.
pub const TAG_BYTES_MAX: usize = 128;
/// The host of a reference that names none.
pub const DEFAULT_HOST: &str = "docker.io";
/// The tag of a reference that has neither tag nor digest.
pub const DEFAULT_TAG: &str = "latest";

/// A parsed, normalised image reference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    host: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a string is not a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The name is empty.
    #[error("the image name is empty")]
    Empty,
    /// Host and path are too long together.
    #[error("the image name has {0} bytes; at most {NAME_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// The host has a character that no host name has, or a bad port.
    #[error("{0:?} is not a registry host")]
    Host(String),
    /// A component of the path is malformed.
    #[error(
        "{0:?} is not an image name: use lower-case letters and digits, separated by single . _ __ or -"
    )]
    Path(String),
    /// The tag is malformed.
    #[error("{0:?} is not a tag: use at most {TAG_BYTES_MAX} letters, digits, _ . or -")]
    Tag(String),
    /// The part after `@` is malformed.
    #[error("bad digest in the reference")]
    Digest(#[source] DigestError),
}

impl Reference {
    /// Registry host with its port, `docker.io` by default.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Repository path in the registry.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag; absent only when there is a digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, when the reference names one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Host and path without the parts that are the default, as listings show them.
    pub fn familiar_name(&self) -> String {
        if self.host != DEFAULT_HOST {
            return format!("{}/{}", self.host, self.path);
        }
        let short = self.path.strip_prefix("library/");
        short.unwrap_or(&self.path).to_owned()
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let (rest, digest) = match s.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(ReferenceError::Digest)?;
                (rest, Some(digest))
            }
            None => (s, None),
        };
        let (name, tag) = split_tag(rest);
        if let Some(tag) = tag {
            check_tag(tag)?;
        }
        let (host, path) = split_host(name);
        if path.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if let Some(host) = host {
            check_host(host)?;
        }
        if !path.split('/').all(is_component) {
            return Err(ReferenceError::Path(clip(path)));
        }
        let host = host.unwrap_or(DEFAULT_HOST);
        let host = if host == "index.docker.io" {
            DEFAULT_HOST
        } else {
            host
        };
        let path = if host == DEFAULT_HOST && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        let length = host.len() + 1 + path.len();
        if length > NAME_BYTES_MAX {
            return Err(ReferenceError::TooLong(length));
        }
        let tag = match (tag, &digest) {
            (None, None) => Some(DEFAULT_TAG.to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self {
            host: host.to_owned(),
            path,
            tag,
            digest,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// A colon after the last slash separates the tag; before it, it belongs to a port.
fn split_tag(s: &str) -> (&str, Option<&str>) {
    let last = s.rfind('/').map_or(0, |i| i + 1);
    match s.get(last..).and_then(|tail| tail.find(':')) {
        Some(i) => {
            let (name, tag) = s.split_at(last + i);
            (name, tag.strip_prefix(':'))
        }
        None => (s, None),
    }
}

/// The first component is a host when it could not be a path component of docker.io.
fn split_host(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':'])
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (Some(first), rest)
        }
        _ => (None, name),
    }
}

fn check_host(host: &str) -> Result<(), ReferenceError> {
    let bad = || ReferenceError::Host(clip(host));
    let (name, port) = match host.strip_prefix('[') {
        Some(v6) => {
            let (address, tail) = v6.split_once(']').ok_or_else(bad)?;
            if address.is_empty() || !address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') {
                return Err(bad());
            }
            match tail {
                "" => return Ok(()),
                _ => ("v6", Some(tail.strip_prefix(':').ok_or_else(bad)?)),
            }
        }
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    let label = |l: &str| {
        !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let port_fits = port.is_none_or(|p| {
        !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok()
    });
    if name.split('.').all(label) && port_fits {
        Ok(())
    } else {
        Err(bad())
    }
}

fn check_tag(tag: &str) -> Result<(), ReferenceError> {
    let mut bytes = tag.bytes();
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let first = bytes.next().is_some_and(word);
    if first && tag.len() <= TAG_BYTES_MAX && bytes.all(|b| word(b) || matches!(b, b'.' | b'-')) {
        Ok(())
    } else {
        Err(ReferenceError::Tag(clip(tag)))
    }
}

/// Letters and digits, separated by `.`, `_`, `__` or any number of `-`.
fn is_component(s: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends_fit = s.bytes().next().is_some_and(word) && s.bytes().last().is_some_and(word);
    let runs_fit = s
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|run| matches!(run, "" | "." | "_" | "__") || run.bytes().all(|b| b == b'-'));
    ends_fit && runs_fit
}

fn clip(s: &str) -> String {
    s.chars().take(160).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn normalises_as_docker_does() {
        let d = format!("sha256:{}", "b".repeat(64));
        let table = [
            ("busybox", "docker.io/library/busybox:latest", "busybox"),
            ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox"),
            ("me/app", "docker.io/me/app:latest", "me/app"),
            ("localhost/app", "localhost/app:latest", "localhost/app"),
            (
                "localhost:5000/app:v1",
                "localhost:5000/app:v1",
                "localhost:5000/app",
            ),
            (
                "quay.io/a/b__c/d-e",
                "quay.io/a/b__c/d-e:latest",
                "quay.io/a/b__c/d-e",
            ),
            (
                "index.docker.io/busybox",
                "docker.io/library/busybox:latest",
                "busybox",
            ),
            ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app"),
        ];
        for (typed, full, familiar) in table {
            let reference: Reference = typed.parse().unwrap();
            assert_eq!(reference.to_string(), full);
            assert_eq!(reference.familiar_name(), familiar);
        }
        let pinned: Reference = format!("app@{d}").parse().unwrap();
        assert_eq!(pinned.tag(), None);
        assert_eq!(pinned.to_string(), format!("docker.io/library/app@{d}"));
        let both: Reference = format!("app:1@{d}").parse().unwrap();
        assert_eq!(both.tag(), Some("1"));
    }

    #[test]
    fn refuses_what_no_registry_would_accept() {
        for bad in [
            "",
            ":",
            "@",
            "Busybox",
            "a//b",
            "/a",
            "a/",
            "a:",
            "a:b:c",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "a b",
            "a@sha256:12",
            "host:99999/a",
            "ho_st.x/a",
            "a/../b",
            "a:\u{e9}",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad:?}");
        }
        assert!(matches!(
            "a".repeat(300).parse::<Reference>(),
            Err(ReferenceError::TooLong(_))
        ));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(s in "\\PC{0,80}") {
            let _ = s.parse::<Reference>();
        }

        #[test]
        fn display_is_a_fixed_point(
            host in proptest::option::of("[a-z]{1,8}\\.[a-z]{2,3}(:[1-9][0-9]{0,3})?"),
            path in "[a-z0-9]{1,8}(/[a-z0-9]{1,8}(-|_|__|\\.)[a-z0-9]{1,8}){0,3}",
            tag in proptest::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}"),
        ) {
            let mut typed = host.map_or(String::new(), |h| h + "/") + &path;
            if let Some(tag) = tag {
                typed = typed + ":" + &tag;
            }
            let once: Reference = typed.parse().unwrap();
            let twice: Reference = once.to_string().parse().unwrap();
            prop_assert_eq!(once, twice);
        }
    }
}
