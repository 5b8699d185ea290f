//! What both drivers make of an entry: its place, its meaning, its attributes. Pure.
//!
//! A name is split into components; `..` may not climb above the root. Whiteouts (image specification,
//! `layer.md`) are told from names.

use crate::tar::{Entry, TarError};
use rustix::io::Errno;

const WHITEOUT_PREFIX: &[u8] = b".wh.";
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";

/// A layer that could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The stream is not a tar archive that can be read.
    #[error("bad layer archive")]
    Tar(#[from] TarError),
    /// A name climbs above the layer's root.
    #[error("entry {0:?} points outside its layer")]
    Escapes(String),
    /// A whiteout without a name to hide.
    #[error("entry {0:?} is a whiteout of nothing")]
    Whiteout(String),
    /// A system call failed for an entry.
    #[error("cannot {action} {path:?}")]
    Entry {
        /// What was tried.
        action: &'static str,
        /// Name of the entry.
        path: String,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
}

/// What the last component of a name asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning<'a> {
    /// A thing of that name.
    Thing(&'a [u8]),
    /// The directory hides what lower layers have in it.
    Opaque,
    /// What lower layers have under this name is hidden.
    Whiteout(&'a [u8]),
    /// Book-keeping of the aufs driver (`.wh..wh.plnk`, `.wh..wh.aufs`), no content.
    Nothing,
}

/// Splits a name lexically; `.` and empty parts vanish, `..` takes one part back.
pub(crate) fn components(path: &[u8]) -> Result<Vec<&[u8]>, ExtractError> {
    let mut parts = Vec::new();
    for part in path.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                if parts.pop().is_none() {
                    return Err(ExtractError::Escapes(lossy(path)));
                }
            }
            name => parts.push(name),
        }
    }
    Ok(parts)
}

/// What a name without slashes means.
pub(crate) fn meaning<'a>(name: &'a [u8], entry: &Entry) -> Result<Meaning<'a>, ExtractError> {
    if name == WHITEOUT_OPAQUE {
        return Ok(Meaning::Opaque);
    }
    match name.strip_prefix(WHITEOUT_PREFIX) {
        None => Ok(Meaning::Thing(name)),
        Some(b"" | b"." | b"..") => Err(ExtractError::Whiteout(lossy(&entry.path))),
        Some(hidden) if hidden.starts_with(WHITEOUT_PREFIX) => Ok(Meaning::Nothing),
        Some(hidden) => Ok(Meaning::Whiteout(hidden)),
    }
}

/// Attributes that belong to the content.
pub(crate) fn wanted_xattrs(entry: &Entry) -> impl Iterator<Item = (&[u8], &[u8])> {
    entry
        .xattrs
        .iter()
        .map(|(k, v)| (k.as_slice(), v.as_slice()))
        .filter(|(key, _)| !is_of_host(key) && !key.contains(&0))
}

/// Whether an attribute is the host's, not the content's. Those of overlayfs would let a layer forge
/// whiteouts and redirects; labels of security modules are given by the policy of the host.
pub(crate) fn is_of_host(key: &[u8]) -> bool {
    let host = [
        b"trusted.overlay.".as_slice(),
        b"user.overlay.",
        b"security.selinux",
        b"security.apparmor",
        b"security.SMACK64",
        b"security.ima",
        b"security.evm",
    ];
    host.iter().any(|prefix| key.starts_with(prefix))
}

pub(crate) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn failed(action: &'static str, entry: &Entry) -> impl FnOnce(Errno) -> ExtractError {
    let path = &entry.path;
    move |errno| ExtractError::Entry {
        action,
        path: lossy(path),
        source: errno.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::Kind;

    #[test]
    fn names_are_split_and_never_climb_out() {
        let split = |path: &'static [u8]| components(path).map(|p| p.join(b"|".as_slice())).ok();
        assert_eq!(split(b"./a//b/").unwrap(), b"a|b");
        assert_eq!(split(b"/a/../b/.").unwrap(), b"b");
        assert_eq!(split(b"").unwrap(), b"");
        assert_eq!(split(b"a/../.."), None);
        assert_eq!(split(b"../etc"), None);
    }

    #[test]
    fn whiteouts_are_told_from_names() {
        let entry = Entry::new(Kind::Regular, ".wh.x");
        let of = |name: &'static [u8]| meaning(name, &entry).ok();
        assert_eq!(of(b"a"), Some(Meaning::Thing(b"a")));
        assert_eq!(of(b".wh.a"), Some(Meaning::Whiteout(b"a")));
        assert_eq!(of(b".wh..wh..opq"), Some(Meaning::Opaque));
        assert_eq!(of(b".wh..wh.plnk"), Some(Meaning::Nothing));
        assert_eq!(of(b".wh.."), None);
        assert_eq!(of(b".wh.."), None);
        assert_eq!(of(b".wh."), None);
    }
}
