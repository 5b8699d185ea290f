//! Cgroup paths from outside, checked once.
//!
//! A `cgroupsPath` comes from a configuration file that may be hostile, so it
//! is split into components and refused when one of them could leave the
//! hierarchy (`..`) or name a control file by accident. Nothing here does I/O.

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// Longest cgroup path accepted, in bytes (`PATH_MAX` less room for file names).
pub const PATH_BYTES_MAX: usize = 3072;
/// Longest component, in bytes (`NAME_MAX`).
pub const COMPONENT_BYTES_MAX: usize = 255;

/// A checked cgroup path below the root of a hierarchy or below the caller's own cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CgroupPath {
    /// Counted from the root of the hierarchy rather than from the caller's cgroup.
    pub absolute: bool,
    /// `a/b/c`, never empty unless the path was `/`.
    pub relative: String,
}

impl CgroupPath {
    /// Parses `a/b`, `/a/b`; repeated slashes and `.` are dropped, `..` is refused.
    pub fn parse(path: &str) -> Result<Self> {
        let refuse = |reason| {
            Err(Error::Path {
                path: path.to_owned(),
                reason,
            })
        };
        if path.len() > PATH_BYTES_MAX {
            return refuse("longer than 3072 bytes");
        }
        let mut relative = String::with_capacity(path.len());
        for part in path.split('/') {
            match part {
                "" | "." => continue,
                ".." => return refuse("`..` could leave the cgroup hierarchy"),
                _ => {}
            }
            if let Some(reason) = bad_component(part) {
                return refuse(reason);
            }
            if !relative.is_empty() {
                relative.push('/');
            }
            relative.push_str(part);
        }
        Ok(CgroupPath {
            absolute: path.starts_with('/'),
            relative,
        })
    }
}

/// Why a name cannot be a cgroup's, or `None` when it can.
fn bad_component(part: &str) -> Option<&'static str> {
    if part.len() > COMPONENT_BYTES_MAX {
        return Some("a component is longer than 255 bytes");
    }
    if part.bytes().any(|b| b == 0 || b == b'\n') {
        return Some("a component holds a NUL or newline, which no cgroup name may");
    }
    None
}

/// One checked name of a child cgroup.
pub(crate) fn component(name: &str) -> Result<&str> {
    let reason = match name {
        "" | "." | ".." => Some("a cgroup needs a name of its own"),
        _ if name.contains('/') => Some("a name holds no slash"),
        _ => bad_component(name),
    };
    match reason {
        None => Ok(name),
        Some(reason) => Err(Error::Path {
            path: name.to_owned(),
            reason,
        }),
    }
}

/// The name of one control file, for `unified`.
pub(crate) fn is_control_file(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= COMPONENT_BYTES_MAX
        && name.contains('.')
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// `dir` + `/a/b`, without `Path::join`'s rule that an absolute right side replaces the left.
pub(crate) fn below(dir: &Path, relative: &str) -> PathBuf {
    let relative = relative.trim_start_matches('/');
    if relative.is_empty() {
        dir.to_owned()
    } else {
        dir.join(relative)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_without_leaving_the_hierarchy() {
        for (text, absolute, relative) in [
            ("/a/b", true, "a/b"),
            ("a", false, "a"),
            ("//a///./b/", true, "a/b"),
            ("/", true, ""),
            ("", false, ""),
        ] {
            let path = CgroupPath::parse(text).unwrap();
            assert_eq!(
                (path.absolute, path.relative.as_str()),
                (absolute, relative)
            );
        }
        for text in [
            "..",
            "/a/../b",
            "a/..",
            "a\0b",
            "a\nb",
            &"x".repeat(256),
            &"x/".repeat(2000),
        ] {
            assert!(CgroupPath::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_component_is_one_plain_name() {
        assert!(component("web-1").is_ok());
        for name in ["", ".", "..", "a/b", "a\n"] {
            assert!(component(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn unified_keys_are_control_files_only() {
        for name in ["memory.max", "io.bfq.weight", "hugetlb.2MB.max"] {
            assert!(is_control_file(name));
        }
        for name in ["", "x", "../memory.max", "a/b.c", ".x.y", "memory.max\n"] {
            assert!(!is_control_file(name), "{name:?}");
        }
    }

    #[test]
    fn below_never_replaces_the_base() {
        assert_eq!(below(Path::new("/m"), "/a"), Path::new("/m/a"));
        assert_eq!(below(Path::new("/m"), ""), Path::new("/m"));
    }
}
