//! Unique names, and directories that go away with everything in them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mount::{UnmountFlags, unmount};

/// A name no other test has: `ckt-<pid>-<counter>`. The audit knows the prefix.
pub fn unique() -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("ckt-{}-{count}", std::process::id())
}

/// A directory that any user may enter, removed when dropped: mounts below it are
/// detached first, so that removal never reaches into a file system it does not own.
#[derive(Debug)]
pub struct TempDir(Option<tempfile::TempDir>);

impl TempDir {
    /// A new directory under `TMPDIR`.
    #[expect(clippy::new_without_default, reason = "it acts on the machine")]
    pub fn new() -> TempDir {
        TempDir::below(&std::env::temp_dir())
    }

    /// A new directory below `parent`.
    pub fn below(parent: &Path) -> TempDir {
        let dir = tempfile::Builder::new()
            .prefix("ckt-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in(parent)
            .unwrap_or_else(|error| panic!("cannot create a temporary directory: {error}"));
        TempDir(Some(dir))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0
            .as_ref()
            .map_or(Path::new("/nonexistent"), |dir| dir.path())
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let Some(dir) = self.0.take() else { return };
        detach_below(dir.path());
        if mount_points()
            .iter()
            .any(|point| Path::new(point).starts_with(dir.path()))
        {
            eprintln!("{}: still holds mounts, left alone", dir.path().display());
            let _ = dir.keep();
        } else if let Err(error) = dir.close() {
            eprintln!("cannot remove a temporary directory: {error}");
        }
    }
}

/// Detaches every mount at or below `dir`, the newest first.
pub fn detach_below(dir: &Path) {
    for point in mount_points()
        .iter()
        .rev()
        .filter(|point| Path::new(point).starts_with(dir))
    {
        let _ = unmount(point.as_str(), UnmountFlags::DETACH);
    }
}

/// Mount points of this mount namespace, in the order of mounting.
pub fn mount_points() -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(unescape)
        .collect()
}

/// Undoes the kernel's octal escapes (`\040` for a space).
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let code = after
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                out.push(char::from(code));
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ() {
        assert_ne!(unique(), unique());
    }

    #[test]
    fn the_kernels_escapes_are_undone() {
        assert_eq!(unescape(r"/a\040b\134c"), r"/a b\c");
        assert_eq!(unescape(r"/plain\9"), r"/plain\9");
    }

    #[test]
    fn a_directory_goes_away_with_its_mounts() {
        if let Err(skip) = crate::skip::root() {
            crate::skip!("{}", skip.reason());
        }
        let dir = TempDir::new();
        let path = dir.path().to_path_buf();
        let inner = path.join("inner");
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("kept"), "").unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", &inner, "tmpfs", flags, None).unwrap();
        drop(dir);
        assert!(!path.exists());
        assert!(
            !mount_points()
                .iter()
                .any(|point| Path::new(point).starts_with(&path))
        );
    }
}
