//! Container identifiers.
//!
//! An identifier becomes a directory name, a cgroup name and a key in other
//! programs' tables, so the accepted alphabet is runc's: ASCII letters, digits
//! and `_ + - .`, never `.` or `..`.

use std::fmt;
use std::str::FromStr;

/// Longest identifier in bytes: a directory entry (`NAME_MAX`).
pub const ID_BYTES_MAX: usize = 255;

/// A container's identifier, known to be safe as one path component.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(String);

/// Why a string is not a container identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContainerIdError {
    /// The string is empty.
    #[error("container ID is empty")]
    Empty,
    /// The string is longer than [`ID_BYTES_MAX`].
    #[error("container ID is {0} bytes long; at most {ID_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// A character outside the alphabet, or the names `.` and `..`.
    #[error("invalid container ID {0:?}: use letters, digits and the characters _ + - . only")]
    Invalid(String),
}

impl ContainerId {
    /// The identifier as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerId {
    type Err = ContainerIdError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if s.is_empty() {
            return Err(ContainerIdError::Empty);
        }
        if s.len() > ID_BYTES_MAX {
            return Err(ContainerIdError::TooLong(s.len()));
        }
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+' | b'-' | b'.');
        if s == "." || s == ".." || !s.bytes().all(fits) {
            return Err(ContainerIdError::Invalid(s.chars().take(80).collect()));
        }
        Ok(Self(s.to_owned()))
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for ContainerId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_engines_use() {
        for id in ["a", "web-1", "0f3c", "a.b+c_d-e", "...", "-x"] {
            assert_eq!(id.parse::<ContainerId>().unwrap().as_str(), id);
        }
    }

    #[test]
    fn refuses_what_is_not_one_path_component() {
        for id in ["", ".", "..", "a/b", "a b", "é", "a\0", "a\n"] {
            assert!(id.parse::<ContainerId>().is_err(), "{id:?}");
        }
        assert_eq!(
            "x".repeat(256).parse::<ContainerId>(),
            Err(ContainerIdError::TooLong(256))
        );
    }
}
