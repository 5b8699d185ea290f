//! Mounts layers with overlayfs, as a mount that is attached nowhere.
//!
//! The mount comes as a descriptor (fsopen(2), fsmount(2), Linux 5.2): whoever receives it attaches it
//! in a mount namespace of its own, so the host's mount table never grows with the number of
//! containers, and a mount without an owner vanishes by itself.
//!
//! Directories are named to the kernel through descriptors (`/proc/self/fd/N`): no path is too long and
//! no character of a path is special. Layers are added one by one with `lowerdir+` (Linux 6.5); an
//! older kernel takes them in one option of at most 255 bytes, which is enough for 13 layers.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// fsconfig(2) refuses longer values.
const OPTION_BYTES_MAX: usize = 255;
const MESSAGE_BYTES_MAX: usize = 1024;

/// An overlay that cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// A layer directory cannot be opened.
    #[error("cannot open the layer directory {path}")]
    Open {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The kernel is too old for so many layers.
    #[error("this kernel cannot mount {0} layers; Linux 6.5 or newer is needed for that many")]
    TooManyLayers(usize),
    /// The kernel refused; `message` is what it said.
    #[error("cannot mount the overlay ({step}){message}")]
    Mount {
        /// The call that failed.
        step: &'static str,
        /// The kernel's explanation, after a colon, or nothing.
        message: String,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
}

/// Mounts `lowers` (topmost first) under `upper` (upper and work directory).
///
/// Needs CAP_SYS_ADMIN in the user namespace of the mount namespace.
///
/// # Errors
/// [`OverlayError`].
pub fn mount_overlay(
    lowers: &[PathBuf],
    upper: Option<(&Path, &Path)>,
    volatile: bool,
) -> Result<OwnedFd, OverlayError> {
    let lowers = lowers
        .iter()
        .map(|p| open(p))
        .collect::<Result<Vec<_>, _>>()?;
    let upper = upper
        .map(|(u, w)| Ok::<_, OverlayError>((open(u)?, open(w)?)))
        .transpose()?;
    let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| {
        OverlayError::Mount {
            step: "fsopen",
            message: String::new(),
            source: e.into(),
        }
    })?;
    let failed = |step| {
        let fs = fs.as_fd();
        move |e: Errno| OverlayError::Mount {
            step,
            message: kernel_message(fs),
            source: e.into(),
        }
    };
    let set =
        |key: &'static str, value: &str| rustix::mount::fsconfig_set_string(fs.as_fd(), key, value);
    set("source", "carrack").map_err(failed("source"))?;
    add_lowers(&lowers, &set).map_err(|e| match e {
        Errno::NAMETOOLONG => OverlayError::TooManyLayers(lowers.len()),
        e => failed("lowerdir")(e),
    })?;
    if let Some((upper, work)) = &upper {
        set("upperdir", &proc_path(upper)).map_err(failed("upperdir"))?;
        set("workdir", &proc_path(work)).map_err(failed("workdir"))?;
        if volatile {
            rustix::mount::fsconfig_set_flag(fs.as_fd(), "volatile").map_err(failed("volatile"))?;
        }
    }
    rustix::mount::fsconfig_create(fs.as_fd()).map_err(failed("create"))?;
    rustix::mount::fsmount(
        fs.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )
    .map_err(failed("fsmount"))
}

fn add_lowers(
    lowers: &[OwnedFd],
    set: &impl Fn(&'static str, &str) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let mut left = lowers.iter();
    let Some(first) = left.next() else {
        return Err(Errno::INVAL);
    };
    match set("lowerdir+", &proc_path(first)) {
        Ok(()) => left.try_for_each(|fd| set("lowerdir+", &proc_path(fd))),
        Err(Errno::INVAL) => {
            let all: Vec<String> = lowers.iter().map(proc_path).collect();
            let all = all.join(":");
            if all.len() > OPTION_BYTES_MAX {
                return Err(Errno::NAMETOOLONG);
            }
            set("lowerdir", &all)
        }
        Err(error) => Err(error),
    }
}

fn open(path: &Path) -> Result<OwnedFd, OverlayError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|e| OverlayError::Open {
        path: path.to_owned(),
        source: e.into(),
    })
}

fn proc_path(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Reading a file system context yields the kernel's messages, one a read, `e overlay: …`.
fn kernel_message(fs: BorrowedFd<'_>) -> String {
    let mut text = String::new();
    let mut buffer = [0; MESSAGE_BYTES_MAX];
    while let Ok(n) = rustix::io::read(fs, &mut buffer) {
        let Some(line) = buffer.get(..n).filter(|l| !l.is_empty()) else {
            break;
        };
        let line = String::from_utf8_lossy(line);
        text = format!("{text}: {}", line.trim_start_matches("e ").trim());
        if text.len() > MESSAGE_BYTES_MAX {
            break;
        }
    }
    text
}
