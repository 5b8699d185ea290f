//! Names of slices and scopes, and where their cgroups are. Pure.
//!
//! `a-b.slice` lies in `a.slice`, so its cgroup is `a.slice/a-b.slice`; `-.slice`
//! is the root. Source: systemd.slice(5), systemd.unit(5).

use crate::error::{Error, Result};

/// Longest unit name systemd takes, in bytes.
const UNIT_BYTES_MAX: usize = 255;

/// A parsed `slice:prefix:name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnitPath {
    pub slice: String,
    pub unit: String,
}

impl UnitPath {
    /// Parses `linux.cgroupsPath` for systemd; the empty path is a scope of ours named after the id.
    pub fn parse(path: &str, id: &str, user: bool) -> Result<UnitPath> {
        let default_slice = if user { "user.slice" } else { "system.slice" };
        let refuse = |reason| Error::Path {
            path: path.to_owned(),
            reason,
        };
        let (slice, prefix, name) = if path.is_empty() {
            (default_slice, "carrack", id)
        } else {
            let mut parts = path.split(':');
            match (parts.next(), parts.next(), parts.next(), parts.next()) {
                (Some(slice), Some(prefix), Some(name), None) => (slice, prefix, name),
                _ => {
                    return Err(refuse(
                        "the systemd driver needs the form slice:prefix:name",
                    ));
                }
            }
        };
        if name.is_empty() {
            return Err(refuse("the name in slice:prefix:name is empty"));
        }
        let slice = if slice.is_empty() {
            default_slice
        } else {
            slice
        };
        expand_slice(slice)?;
        let unit = match (name.ends_with(".slice"), prefix) {
            (true, _) => name.to_owned(),
            (false, "") => format!("{}.scope", escape(name)),
            (false, prefix) => format!("{}-{}.scope", escape(prefix), escape(name)),
        };
        if unit.len() > UNIT_BYTES_MAX {
            return Err(refuse("the unit's name would be longer than 255 bytes"));
        }
        if name.ends_with(".slice") {
            expand_slice(name)?;
        }
        Ok(UnitPath {
            slice: slice.to_owned(),
            unit,
        })
    }

    /// The unit's cgroup below the manager's, without a leading slash.
    pub fn cgroup(&self) -> Result<String> {
        if self.unit.ends_with(".slice") {
            return expand_slice(&self.unit);
        }
        let slice = expand_slice(&self.slice)?;
        Ok(if slice.is_empty() {
            self.unit.clone()
        } else {
            format!("{slice}/{}", self.unit)
        })
    }
}

/// `a-b.slice` → `a.slice/a-b.slice`; `-.slice` → the empty path.
pub(crate) fn expand_slice(slice: &str) -> Result<String> {
    let refuse = |reason| {
        Err(Error::Path {
            path: slice.to_owned(),
            reason,
        })
    };
    let Some(stem) = slice.strip_suffix(".slice") else {
        return refuse("a slice's name ends in .slice");
    };
    if stem == "-" {
        return Ok(String::new());
    }
    if !stem.bytes().all(is_unit_byte) {
        return refuse("a slice's name holds letters, digits and :-_.\\ only");
    }
    let mut path = String::new();
    let mut prefix = String::new();
    for part in stem.split('-') {
        if part.is_empty() {
            return refuse("a slice's name has no empty part between dashes");
        }
        if !prefix.is_empty() {
            prefix.push('-');
            path.push('/');
        }
        prefix.push_str(part);
        path.push_str(&prefix);
        path.push_str(".slice");
    }
    Ok(path)
}

fn is_unit_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b':' | b'-' | b'_' | b'.' | b'\\')
}

/// Bytes that no unit name may hold as `\xNN`, as systemd-escape writes them.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if is_unit_byte(byte) || byte == b'@' {
            out.push(byte as char);
        } else {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_expand_to_their_parents() {
        for (slice, path) in [
            ("-.slice", ""),
            ("system.slice", "system.slice"),
            ("a-b-c.slice", "a.slice/a-b.slice/a-b-c.slice"),
        ] {
            assert_eq!(expand_slice(slice).unwrap(), path);
        }
        for slice in [
            "",
            "system",
            ".slice",
            "a--b.slice",
            "-a.slice",
            "a-.slice",
            "a/b.slice",
            "../x.slice",
        ] {
            assert!(expand_slice(slice).is_err(), "{slice:?}");
        }
    }

    #[test]
    fn cgroup_paths_become_scopes() {
        let parse = |path, user| UnitPath::parse(path, "web", user);
        let unit = parse("machine.slice:libpod:abc", false).unwrap();
        assert_eq!(unit.unit, "libpod-abc.scope");
        assert_eq!(unit.cgroup().unwrap(), "machine.slice/libpod-abc.scope");
        let unit = parse("", false).unwrap();
        assert_eq!(unit.cgroup().unwrap(), "system.slice/carrack-web.scope");
        assert_eq!(parse("", true).unwrap().slice, "user.slice");
        assert_eq!(parse("::abc", false).unwrap().unit, "abc.scope");
        assert_eq!(
            parse("-.slice:p:n", false).unwrap().cgroup().unwrap(),
            "p-n.scope"
        );
        assert_eq!(
            parse("a.slice:p:x+y", false).unwrap().unit,
            "p-x\\x2by.scope"
        );
        assert_eq!(
            parse("a.slice:p:a-b.slice", false)
                .unwrap()
                .cgroup()
                .unwrap(),
            "a.slice/a-b.slice"
        );
        for path in [
            "/a/b",
            "a.slice:b",
            "a:b:c:d",
            "a.slice:b:",
            "a/b.slice:c:d",
            "a.slice:p:../../x.slice",
        ] {
            assert!(parse(path, false).is_err(), "{path:?}");
        }
        assert!(UnitPath::parse("", &"x".repeat(300), false).is_err());
    }
}
