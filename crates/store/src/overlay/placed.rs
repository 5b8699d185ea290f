//! Overlays that the calls for detached mounts cannot make.
//!
//! ```text
//! make a directory ─► mount on it ─► clone the mount, detached ─► unmount, remove the directory
//! ```
//!
//! Two ways to mount need a place for a moment: mount(2), which kernels before Linux 6.5 take layers
//! from (a page of options: some two hundred); and fuse-overlayfs, a program, which
//! does the work where the kernel refuses to: below another overlay (the root of most containers), on
//! a network file system, and in a user namespace before Linux 5.11. It reads whiteouts and opaque
//! directories as the kernel does, serves as long as there is a mount of it, and ends by itself.

use super::mount::OverlayError;
use crate::driver::Upper;
use carrack_sys::mount::{clone_tree, detach};
use rustix::fs::{CWD, Mode};
use std::ffi::{CString, OsString};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const PROGRAM: &str = "fuse-overlayfs";
/// What a value of an option of fuse-overlayfs cannot have in it.
const SEPARATORS: &[u8] = b":,\\";

/// mount(2) of an overlay with these options.
///
/// # Errors
/// [`OverlayError`].
pub(super) fn by_options(options: &str, flags: u64, place: &Path) -> Result<OwnedFd, OverlayError> {
    let options = CString::new(options).map_err(|e| failed("options", e.into()))?;
    at(place, |place| {
        carrack_sys::mount::mount(
            c"carrack",
            &c_path(place)?,
            c"overlay",
            flags,
            Some(&options),
        )
        .map_err(|e| failed("mount", e.into()))
    })
}

/// The mount that fuse-overlayfs makes of `lowers` (topmost first) and `upper`; else why it does not.
///
/// # Errors
/// [`OverlayError::Program`].
pub(super) fn by_program(
    lowers: &[PathBuf],
    upper: Option<Upper<'_>>,
    place: &Path,
) -> Result<OwnedFd, OverlayError> {
    let options = options(lowers, upper)?;
    at(place, |place| {
        // It says what it says, then goes on in the background without this process's streams.
        let output = Command::new(PROGRAM)
            .arg("-o")
            .arg(&options)
            .arg(place)
            .stdin(Stdio::null())
            .output();
        match output {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                Err(OverlayError::Program(said.trim().replace('\n', "; ")))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(OverlayError::Program("it is not installed".into()))
            }
            Err(error) => Err(OverlayError::Program(error.to_string())),
        }
    })
}

fn options(lowers: &[PathBuf], upper: Option<Upper<'_>>) -> Result<OsString, OverlayError> {
    let bytes = |path: &Path| {
        let bytes = path.as_os_str().as_bytes().to_vec();
        match bytes.iter().any(|byte| SEPARATORS.contains(byte)) {
            true => Err(OverlayError::Program(format!(
                "it takes no comma, colon or backslash, as in {}",
                path.display()
            ))),
            false => Ok(bytes),
        }
    };
    let lowers = lowers.iter().map(|path| bytes(path));
    let lowers = lowers.collect::<Result<Vec<_>, _>>()?;
    let mut options = b"lowerdir=".to_vec();
    options.extend(lowers.join(&b':'));
    if let Some(upper) = upper {
        options.extend(b",upperdir=");
        options.extend(bytes(upper.upper)?);
        options.extend(b",workdir=");
        options.extend(bytes(upper.work)?);
        if upper.volatile {
            options.extend(b",volatile");
        }
    }
    Ok(OsString::from_vec(options))
}

/// Calls `mount` with a new directory to mount on, and gives what it mounted, attached nowhere.
fn at(
    place: &Path,
    mount: impl FnOnce(&Path) -> Result<(), OverlayError>,
) -> Result<OwnedFd, OverlayError> {
    rustix::fs::mkdir(place, Mode::from_raw_mode(0o700)).map_err(|e| OverlayError::Open {
        path: place.to_owned(),
        source: e.into(),
    })?;
    let mounted = mount(place).and_then(|()| {
        let target = c_path(place)?;
        let cloned = clone_tree(CWD, &target, false).map_err(|e| failed("open_tree", e.into()));
        detach(&target).map_err(|e| failed("umount", e.into()))?;
        cloned
    });
    if let Err(error) = std::fs::remove_dir(place) {
        log::warn!("cannot remove {}: {error}", place.display());
    }
    mounted
}

fn c_path(path: &Path) -> Result<CString, OverlayError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|e| failed("path", e.into()))
}

fn failed(step: &'static str, source: std::io::Error) -> OverlayError {
    OverlayError::Mount {
        step,
        message: String::new(),
        source,
    }
}
