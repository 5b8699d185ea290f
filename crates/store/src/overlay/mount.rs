//! Mounts layers with overlayfs, as a mount that is attached nowhere.
//!
//! The mount comes as a descriptor (fsopen(2), fsmount(2), Linux 5.2): whoever receives it attaches it
//! in a mount namespace of its own, so the host's mount table never grows with the number of
//! containers, and a mount without an owner vanishes by itself.
//!
//! Directories are named to the kernel through descriptors (`/proc/self/fd/N`): no path is too long and
//! no character of a path is special. Layers are added one by one with `lowerdir+` (Linux 6.5). An older
//! kernel takes that for an option of some file system and refuses when the mount is made; it goes, as
//! does what no kernel mounts, the ways of [`placed`].

use super::{Privilege, placed};
use crate::driver::Upper;
use crate::lease::Lease;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// mount(2) cuts longer options off.
const PAGE_BYTES_MAX: usize = 4095;
const MESSAGE_BYTES_MAX: usize = 1024;
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

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
    /// The owners of a layer's files cannot be mapped.
    #[error(
        "cannot map the owners of {path}: the file system must support idmapped mounts (ext4, xfs, btrfs, tmpfs on newer kernels)"
    )]
    Map {
        /// The layer.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// Too many layers for a kernel before Linux 6.5.
    #[error("this kernel cannot mount {0} layers; Linux 6.5 or newer is needed for that many")]
    TooManyLayers(usize),
    /// fuse-overlayfs does not mount, for the reason given.
    #[error("fuse-overlayfs cannot mount the overlay: {0}")]
    Program(String),
    /// Nobody mounts the overlay.
    #[error("{program}, and the kernel refuses by itself")]
    Nobody {
        /// Why fuse-overlayfs does not.
        program: Box<OverlayError>,
        /// Why the kernel does not.
        #[source]
        kernel: Box<OverlayError>,
    },
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

impl OverlayError {
    /// The kernel does not know, or does not want, what it was given.
    fn is_refusal(&self) -> bool {
        let invalid = Some(Errno::INVAL.raw_os_error());
        matches!(self, Self::Mount { source, .. } if source.raw_os_error() == invalid)
    }

    /// The kernel makes no overlay of such directories, or for such a caller.
    fn is_beyond_kernel(&self) -> bool {
        let codes = [Errno::INVAL, Errno::PERM, Errno::NODEV, Errno::OPNOTSUPP];
        let codes = codes.map(|code| Some(code.raw_os_error()));
        matches!(self, Self::Mount { source, .. } if codes.contains(&source.raw_os_error()))
    }
}

/// Mounts `lowers` (topmost first), under `upper` when there is one.
///
/// With a user namespace in `idmap`, every layer is mounted with its map of owners first, so the files
/// stay as they are and only look as if they belonged to the container's users. What the container
/// writes has its real owners.
///
/// A directory is there for a moment, with the lease's leave, when an older kernel needs one.
///
/// Needs CAP_SYS_ADMIN in the user namespace of the mount namespace.
///
/// # Errors
/// [`OverlayError`].
pub(super) fn mount_detached(
    lowers: &[PathBuf],
    upper: Option<Upper<'_>>,
    idmap: Option<BorrowedFd<'_>>,
    privilege: Privilege,
    lease: &Lease,
) -> Result<OwnedFd, OverlayError> {
    let opened = lowers.iter().map(|path| match idmap {
        Some(userns) => open_mapped(path, userns),
        None => open(path),
    });
    let opened = opened.collect::<Result<Vec<_>, _>>()?;
    let directories = upper.map(open_upper).transpose()?;
    let detached = match idmap {
        Some(_) => opened.as_slice(),
        None => &[],
    };
    let both = upper.zip(directories.as_ref());
    let made = attached_if_need_be(detached, &lease.temporary(), || {
        match assemble(&opened, None, both, privilege) {
            // The newer calls say more about what is wrong.
            Err(error) if error.is_refusal() => {
                mount_by_options(&opened, both, privilege, &lease.temporary()).map_err(|older| {
                    match older {
                        OverlayError::TooManyLayers(_) => older,
                        _ => error,
                    }
                })
            }
            other => other,
        }
    });
    match made {
        Err(kernel) if idmap.is_none() && kernel.is_beyond_kernel() => {
            placed::by_program(lowers, upper, &lease.temporary()).map_err(|program| {
                OverlayError::Nobody {
                    program: Box::new(program),
                    kernel: Box::new(kernel),
                }
            })
        }
        made => made,
    }
}

/// The same by mount(2), for kernels before Linux 6.5.
fn mount_by_options(
    lowers: &[OwnedFd],
    upper: Option<(Upper<'_>, &UpperDirectories)>,
    privilege: Privilege,
    place: &Path,
) -> Result<OwnedFd, OverlayError> {
    let paths: Vec<String> = lowers.iter().map(proc_path).collect();
    let mut options = format!("lowerdir={}", paths.join(":"));
    if privilege == Privilege::UserNamespace {
        options.push_str(",userxattr");
    }
    let mut flags = MountFlags::RDONLY.bits().into();
    if let Some((request, UpperDirectories { upper, work })) = upper {
        flags = 0;
        let (upper, work) = (proc_path(upper), proc_path(work));
        options.push_str(&format!(",upperdir={upper},workdir={work}"));
        if request.volatile {
            options.push_str(",volatile");
        }
    }
    if options.len() > PAGE_BYTES_MAX {
        return Err(OverlayError::TooManyLayers(lowers.len()));
    }
    unmarked(upper.map(|(upper, _)| upper), || {
        placed::by_options(&options, flags, place)
    })
}

/// Mounts. A volatile mount marks the writable layer, which the kernel then mounts no more, and does so
/// also when it fails afterwards: such a mark is taken away.
fn unmarked<T>(
    upper: Option<Upper<'_>>,
    mount: impl FnOnce() -> Result<T, OverlayError>,
) -> Result<T, OverlayError> {
    let mark = upper.filter(|upper| upper.volatile);
    let mark = mark.map(|upper| upper.work.join("work/incompat/volatile"));
    let mark = mark.filter(|mark| !mark.exists());
    let mounted = mount();
    if let (Err(_), Some(mark)) = (&mounted, mark) {
        let _ = std::fs::remove_dir_all(mark);
    }
    mounted
}

/// Mounts one directory as it is, read-only.
///
/// # Errors
/// [`OverlayError`].
pub(super) fn mount_directory(
    path: &Path,
    idmap: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd, OverlayError> {
    let failed = |step| {
        move |e: carrack_sys::Errno| OverlayError::Mount {
            step,
            message: String::new(),
            source: e.into(),
        }
    };
    let tree = match idmap {
        Some(userns) => open_mapped(path, userns)?,
        None => carrack_sys::mount::clone_tree(open(path)?.as_fd(), c"", false)
            .map_err(failed("open_tree"))?,
    };
    let attribute = carrack_sys::mount::MountAttr {
        set: carrack_sys::mount::attr::RDONLY,
        ..Default::default()
    };
    carrack_sys::mount::mount_setattr(tree.as_fd(), false, &attribute)
        .map_err(failed("mount_setattr"))?;
    Ok(tree)
}

/// Mounts one layer whose files may have their bytes below `data`, under `upper` when there is one.
/// With `verity` the kernel opens only files of `data` that have the digest that the layer states.
///
/// # Errors
/// [`OverlayError`].
pub(crate) fn mount_image(
    layer: OwnedFd,
    data: &Path,
    verity: bool,
    upper: Option<Upper<'_>>,
    place: &Path,
) -> Result<OwnedFd, OverlayError> {
    let directories = upper.map(open_upper).transpose()?;
    let upper = upper.zip(directories.as_ref());
    let directory = open(data)?;
    let layer = [layer];
    let mount = |metacopy| {
        let data = Data {
            directory: &directory,
            verity,
            metacopy,
        };
        assemble(&layer, Some(data), upper, Privilege::Root)
    };
    attached_if_need_be(&layer, place, || match mount(verity) {
        Err(error) if !verity && error.is_refusal() => mount(true),
        other => other,
    })
}

/// Calls `mount`, and when the kernel refuses it calls it again with the detached mounts attached for as
/// long as the call takes: before Linux 6.15 overlayfs takes none that are not attached. What it took
/// is its own.
fn attached_if_need_be(
    detached: &[OwnedFd],
    place: &Path,
    mount: impl Fn() -> Result<OwnedFd, OverlayError>,
) -> Result<OwnedFd, OverlayError> {
    match mount() {
        Err(error) if !detached.is_empty() && error.is_refusal() => {
            let _attached = Attached::new(detached, place)?;
            mount()
        }
        other => other,
    }
}

/// Mounts that are attached below a directory until this is dropped.
struct Attached {
    directory: PathBuf,
    places: Vec<PathBuf>,
}

impl Attached {
    fn new(mounts: &[OwnedFd], directory: &Path) -> Result<Self, OverlayError> {
        let make = |path: &Path| {
            rustix::fs::mkdir(path, Mode::from_raw_mode(0o700)).map_err(|e| OverlayError::Open {
                path: path.to_owned(),
                source: e.into(),
            })
        };
        make(directory)?;
        let mut attached = Self {
            directory: directory.to_owned(),
            places: Vec::new(),
        };
        for (i, mount) in mounts.iter().enumerate() {
            let place = directory.join(i.to_string());
            make(&place)?;
            attached.places.push(place.clone());
            carrack_sys::mount::attach(mount.as_fd(), open(&place)?.as_fd()).map_err(|e| {
                OverlayError::Mount {
                    step: "attach",
                    message: String::new(),
                    source: e.into(),
                }
            })?;
        }
        Ok(attached)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        for place in &self.places {
            // Where nothing was attached yet there is nothing to detach.
            let _ = rustix::mount::unmount(place, rustix::mount::UnmountFlags::DETACH);
            let _ = std::fs::remove_dir(place);
        }
        if let Err(error) = std::fs::remove_dir(&self.directory) {
            log::warn!("cannot remove {}: {error}", self.directory.display());
        }
    }
}

/// A data-only layer.
struct Data<'a> {
    directory: &'a OwnedFd,
    verity: bool,
    /// Changes of owner, mode and times copy no bytes up, and renamed directories are redirected: before
    /// Linux 6.16, and with `verity`, data-only layers are to be had with these only.
    metacopy: bool,
}

fn assemble(
    lowers: &[OwnedFd],
    data: Option<Data<'_>>,
    upper: Option<(Upper<'_>, &UpperDirectories)>,
    privilege: Privilege,
) -> Result<OwnedFd, OverlayError> {
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
    let flag = |key: &'static str| rustix::mount::fsconfig_set_flag(fs.as_fd(), key);
    set("source", "carrack").map_err(failed("source"))?;
    if privilege == Privilege::UserNamespace {
        flag("userxattr").map_err(failed("userxattr"))?;
    }
    if let Some(data) = &data {
        if data.metacopy {
            set("metacopy", "on").map_err(failed("metacopy"))?;
            set("redirect_dir", "on").map_err(failed("redirect_dir"))?;
        }
        if data.verity {
            set("verity", "require").map_err(failed("verity"))?;
        }
    }
    for lower in lowers {
        set("lowerdir+", &proc_path(lower)).map_err(failed("lowerdir+"))?;
    }
    if let Some(data) = &data {
        set("datadir+", &proc_path(data.directory)).map_err(failed("datadir+"))?;
    }
    if let Some((_, UpperDirectories { upper, work })) = upper {
        set("upperdir", &proc_path(upper)).map_err(failed("upperdir"))?;
        set("workdir", &proc_path(work)).map_err(failed("workdir"))?;
    }
    if upper.is_some_and(|(u, _)| u.volatile) {
        flag("volatile").map_err(failed("volatile"))?;
    }
    unmarked(upper.map(|(upper, _)| upper), || {
        rustix::mount::fsconfig_create(fs.as_fd()).map_err(failed("create"))
    })?;
    let attributes = match upper {
        Some(_) => MountAttrFlags::empty(),
        None => MountAttrFlags::MOUNT_ATTR_RDONLY,
    };
    rustix::mount::fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(failed("fsmount"))
}

struct UpperDirectories {
    upper: OwnedFd,
    work: OwnedFd,
}

fn open_upper(upper: Upper<'_>) -> Result<UpperDirectories, OverlayError> {
    Ok(UpperDirectories {
        upper: open(upper.upper)?,
        work: open(upper.work)?,
    })
}

/// A detached mount of the directory whose owners are shown by the user namespace's map.
pub(crate) fn open_mapped(path: &Path, userns: BorrowedFd<'_>) -> Result<OwnedFd, OverlayError> {
    let failed = |source: std::io::Error| OverlayError::Map {
        path: path.to_owned(),
        source,
    };
    let directory = open(path)?;
    let tree = carrack_sys::mount::clone_tree(directory.as_fd(), c"", false)
        .map_err(|e| failed(e.into()))?;
    let attribute = carrack_sys::mount::MountAttr {
        set: carrack_sys::mount::attr::IDMAP,
        userns_fd: userns.as_raw_fd() as u64,
        ..Default::default()
    };
    carrack_sys::mount::mount_setattr(tree.as_fd(), false, &attribute)
        .map_err(|e| failed(e.into()))?;
    Ok(tree)
}

fn open(path: &Path) -> Result<OwnedFd, OverlayError> {
    rustix::fs::open(path, DIRECTORY, Mode::empty()).map_err(|e| OverlayError::Open {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_page_take_many_layers() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let temp = tempfile::tempdir().unwrap();
        let lowers = (0..60).map(|n| {
            let path = temp.path().join(n.to_string());
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join(format!("of-{n}")), "").unwrap();
            open(&path).unwrap()
        });
        let lowers: Vec<OwnedFd> = lowers.collect();
        let place = temp.path().join("place");
        let mount = mount_by_options(&lowers, None, Privilege::own(), &place).unwrap();
        assert_eq!(std::fs::read_dir(proc_path(&mount)).unwrap().count(), 60);
        assert!(!place.exists());
        let many: Vec<OwnedFd> = (0..400).map(|_| open(temp.path()).unwrap()).collect();
        let error = mount_by_options(&many, None, Privilege::own(), &place).unwrap_err();
        assert!(error.to_string().contains("layers"), "{error}");
        assert!(!place.exists());
    }
}
