//! The root file system: attach, mount, make devices, pivot, protect.
//!
//! ```text
//! prepare   propagation off · attach the root tree · mounts in order · devices, links
//! (hooks of the runtime and of the container see the root at its host path)
//! enter     pivot (or move, or chroot) · the old root is gone
//! protect   read-only paths · masked paths · read-only root
//! ```
//! Every destination is a descriptor inside the root (see [`super::inroot`]).

use super::inroot::{self, Want};
use super::report::{self, At, Message, Stage, Step};
use super::wait_for_go;
use crate::plan::{Detached, DevicePlan, Fresh, MountKind, MountPlan, Pivot, RootfsPlan, Source};
use carrack_sys::Errno;
use carrack_sys::late::Late;
use carrack_sys::mount::{self, MountAttr, attr};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const MS_SLAVE: u64 = 1 << 19;
const MS_REC: u64 = 16384;
const PROC_SUPER_MAGIC: u64 = 0x9fa0;

/// The root's descriptor: the parent's, or our own clone.
pub enum Root<'a> {
    /// The parent made it.
    Given(BorrowedFd<'a>),
    /// Cloned by path.
    Own(OwnedFd),
}

impl AsFd for Root<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Given(fd) => *fd,
            Self::Own(fd) => fd.as_fd(),
        }
    }
}

/// Builds the root file system at its host path; returns its descriptor. Mounts that something is
/// done to later are kept in `held`, by their index.
pub fn prepare<'a>(
    plan: &'a RootfsPlan,
    held: &mut [Option<OwnedFd>],
    socket: BorrowedFd<'_>,
) -> Step<Root<'a>> {
    mount::mount(c"", c"/", c"", plan.propagation, None).at(Stage::Propagation)?;
    let tree = match &plan.tree {
        Source::Tree(fd) => Root::Given(fd.as_fd()),
        Source::Path(path) | Source::Inside(path) => {
            Root::Own(mount::clone_tree(CWD, path, true).at(Stage::RootTree)?)
        }
    };
    attach_root(plan, tree.as_fd())?;
    // Device modes and directories are exactly what the plan says. The process gets its own mask later.
    rustix::process::umask(Mode::empty());
    let mut entered: Option<&CStr> = None;
    for (index, mount) in plan.mounts.iter().enumerate() {
        match &mount.in_fresh {
            Some(fresh) => mount_fresh(tree.as_fd(), mount, fresh, &mut entered)
                .at_index(Stage::Mount, index)?,
            None => {
                entered = None;
                let made = mount_one(tree.as_fd(), plan, index, held, socket)?;
                if let (true, Some(slot)) = (mount.hold, held.get_mut(index)) {
                    *slot = made;
                }
            }
        }
    }
    let dev = make_devices(tree.as_fd(), &plan.devices)?;
    make_links(tree.as_fd(), dev, plan)?;
    Ok(tree)
}

fn attach_root(plan: &RootfsPlan, tree: BorrowedFd<'_>) -> Step {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let target = match rustix::fs::open(plan.path.as_c_str(), flags, Mode::empty()) {
        // A user namespace's root need not be able to search the way to the root file system, and
        // a seed namespace does not have it: any place in our own mount namespace serves.
        Err(Errno::ACCESS | Errno::NOENT) => rustix::fs::open(c"/", flags, Mode::empty()),
        other => other,
    };
    let target = Late::from(target.at(Stage::RootAttach)?);
    mount::attach(tree, target.as_fd()).at(Stage::RootAttach)
}

/// Mounts into a new directory of a fresh tmpfs, which stays the working directory for the next.
fn mount_fresh<'a>(
    root: BorrowedFd<'_>,
    plan: &MountPlan,
    fresh: &'a Fresh,
    entered: &mut Option<&'a CStr>,
) -> carrack_sys::Result<()> {
    let MountKind::FileSystem {
        kind,
        source,
        flags,
        data,
        ..
    } = &plan.kind
    else {
        return Err(Errno::INVAL);
    };
    if *entered != Some(fresh.top.as_c_str()) {
        let top = Late::from(inroot::open(
            root,
            &fresh.top,
            OFlags::PATH | OFlags::DIRECTORY,
        )?);
        inroot::enter(top.as_fd())?;
        *entered = Some(&fresh.top);
    }
    rustix::fs::mkdirat(CWD, &fresh.name, Mode::from_raw_mode(0o755))?;
    mount::mount(source, &fresh.name, kind, *flags, data.as_deref())
}

/// Carries out one mount; returns its descriptor, where there is one that the plan does not hold.
fn mount_one(
    root: BorrowedFd<'_>,
    all: &RootfsPlan,
    index: usize,
    held: &[Option<OwnedFd>],
    socket: BorrowedFd<'_>,
) -> Step<Option<OwnedFd>> {
    let plan = &all.mounts[index];
    match &plan.kind {
        MountKind::Bind {
            source,
            attr,
            recursive,
        } => {
            let mut cloned = None;
            let tree = match source {
                Source::Tree(fd) => fd.as_fd(),
                Source::Path(_) | Source::Inside(_) => {
                    let own = clone_source(root, source, *recursive)
                        .at_index(Stage::MountSource, index)?;
                    if *attr != MountAttr::default() {
                        mount::mount_setattr(own.as_fd(), false, attr)
                            .at_index(Stage::MountAttributes, index)?;
                    }
                    let own: &OwnedFd = cloned.insert(own);
                    own.as_fd()
                }
            };
            let directory = inroot::is_directory(tree).at_index(Stage::Mount, index)?;
            let want = if directory {
                Want::Directory
            } else {
                Want::File
            };
            let target = inroot::ensure(root, &plan.destination, want)
                .map(Late::from)
                .at_index(Stage::MountDestination, index)?;
            if !plan.over_proc {
                refuse_procfs(target.as_fd()).at_index(Stage::MountDestination, index)?;
            }
            if let Err(errno) = mount::attach(tree, target.as_fd()) {
                // The kernel says only that it is invalid to put the one kind on the other.
                let differ = inroot::is_directory(target.as_fd()) != Ok(directory);
                return Err(if differ { Errno::NOTDIR } else { errno })
                    .at_index(Stage::Mount, index);
            }
            after(plan, tree, index)?;
            Ok(cloned)
        }
        MountKind::Symlink { target } => inroot::make_symlink(root, &plan.destination, target)
            .map(|()| None)
            .at_index(Stage::MountDestination, index),
        MountKind::Gather {
            flags,
            below,
            links,
        } => {
            let target = inroot::ensure(root, &plan.destination, Want::Directory)
                .map(Late::from)
                .at_index(Stage::MountDestination, index)?;
            let top =
                gather(target.as_fd(), *flags, below, links).at_index(Stage::CgroupMount, index)?;
            after(plan, top.as_fd(), index)?;
            Ok(Some(top))
        }
        MountKind::FileSystem {
            kind,
            source,
            flags,
            data,
            detached,
            copy_up,
            keep_mode,
            no_links,
        } => {
            let mode = keep_mode
                .then(|| mode_of(root, &plan.destination))
                .flatten();
            let target = if *no_links {
                ensure_without_links(root, &plan.destination)
            } else {
                inroot::ensure(root, &plan.destination, Want::Directory)
            };
            let target = target
                .map(Late::from)
                .at_index(Stage::MountDestination, index)?;
            let plain = plan.propagation.is_empty() && plan.recursive == MountAttr::default();
            let untouched = !*copy_up && plain && mode.is_none() && !plan.hold;
            let Some(detached) = detached.as_ref().filter(|_| !untouched) else {
                inroot::enter(target.as_fd()).at_index(Stage::Mount, index)?;
                let made = mount::mount(source, c".", kind, *flags, data.as_deref());
                match (made, detached) {
                    (Err(Errno::BUSY), Some(detached)) => {
                        make_detached(kind, source, detached, mode)
                            .and_then(|made| mount::attach(made.as_fd(), target.as_fd()))
                    }
                    (made, _) => made,
                }
                .at_index(Stage::Mount, index)?;
                // Only a remount has more to do here, and the target is its mount.
                after(plan, target.as_fd(), index)?;
                return Ok(None);
            };
            let mounted = make_detached(kind, source, detached, mode)
                .and_then(|made| mount::attach(made.as_fd(), target.as_fd()).map(|()| made))
                .at_index(Stage::Mount, index)?;
            if *copy_up {
                let message = Message::CopyUp {
                    index: index as u32,
                };
                report::send(socket, message, &[target.as_fd(), mounted.as_fd()])
                    .at_index(Stage::CopyUp, index)?;
                wait_for_go(socket)?;
            }
            after(plan, mounted.as_fd(), index)?;
            Ok(Some(mounted))
        }
        MountKind::Remount { attr, of } => {
            let found;
            let mounted = match of.and_then(|index| mount_of(all, held, index)) {
                Some(mounted) => mounted,
                // One that came with the root, or by another name.
                None => {
                    found = inroot::open(root, &plan.destination, OFlags::PATH)
                        .at_index(Stage::MountDestination, index)?;
                    found.as_fd()
                }
            };
            mount::mount_setattr(mounted, false, attr).at_index(Stage::MountAttributes, index)?;
            after(plan, mounted, index)?;
            Ok(None)
        }
    }
}

/// The descriptor of a mount that the plan or init holds.
fn mount_of<'a>(
    plan: &'a RootfsPlan,
    held: &'a [Option<OwnedFd>],
    index: usize,
) -> Option<BorrowedFd<'a>> {
    match &plan.mounts.get(index)?.kind {
        MountKind::Bind {
            source: Source::Tree(tree),
            ..
        } => Some(tree.as_fd()),
        _ => held.get(index)?.as_ref().map(AsFd::as_fd),
    }
}

/// Clones a source that the parent left to us.
fn clone_source(
    root: BorrowedFd<'_>,
    source: &Source,
    recursive: bool,
) -> carrack_sys::Result<OwnedFd> {
    match source {
        Source::Tree(fd) => mount::clone_tree(fd.as_fd(), c"", recursive),
        Source::Path(path) => mount::clone_tree(CWD, path, recursive),
        Source::Inside(path) => {
            let path = if path.is_empty() {
                c"."
            } else {
                path.as_c_str()
            };
            let found = inroot::open(root, path, OFlags::PATH)?;
            mount::clone_tree(found.as_fd(), c"", recursive)
        }
    }
}

/// A new file system that is mounted nowhere yet, its root of this mode where one is named.
fn make_detached(
    kind: &CStr,
    source: &CStr,
    detached: &Detached,
    mode: Option<Mode>,
) -> carrack_sys::Result<OwnedFd> {
    let fs = Late::from(rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?);
    rustix::mount::fsconfig_set_string(fs.as_fd(), c"source", source)?;
    for (name, value) in &detached.options {
        match value {
            Some(value) => rustix::mount::fsconfig_set_string(fs.as_fd(), name, value)?,
            None => rustix::mount::fsconfig_set_flag(fs.as_fd(), name)?,
        }
    }
    if let Some(mode) = mode {
        let digit = |shift: u32| b'0' + (mode.as_raw_mode() >> shift & 7) as u8;
        let octal = [digit(9), digit(6), digit(3), digit(0), 0];
        let octal = CStr::from_bytes_with_nul(&octal).map_err(|_| Errno::INVAL)?;
        rustix::mount::fsconfig_set_string(fs.as_fd(), c"mode", octal)?;
    }
    rustix::mount::fsconfig_create(fs.as_fd())?;
    let attr = MountAttrFlags::from_bits_retain(detached.attr as u32);
    rustix::mount::fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attr)
}

/// The mode of what the image has at a destination, if anything.
fn mode_of(root: BorrowedFd<'_>, path: &CStr) -> Option<Mode> {
    let there = inroot::open(root, path, OFlags::PATH | OFlags::DIRECTORY).ok()?;
    let stat = rustix::fs::fstat(&there).ok()?;
    Some(Mode::from_raw_mode(stat.st_mode))
}

/// Fills a new tmpfs, which it puts on `target`. Nobody else has seen it, so names in it are what
/// we make them. It stays the working directory.
fn gather(
    target: BorrowedFd<'_>,
    flags: u64,
    below: &[(CString, CString, Option<CString>)],
    links: &[(CString, CString)],
) -> carrack_sys::Result<OwnedFd> {
    let fs = Late::from(rustix::mount::fsopen(
        c"tmpfs",
        FsOpenFlags::FSOPEN_CLOEXEC,
    )?);
    rustix::mount::fsconfig_set_string(fs.as_fd(), c"mode", c"755")?;
    rustix::mount::fsconfig_set_string(fs.as_fd(), c"size", c"64k")?;
    rustix::mount::fsconfig_create(fs.as_fd())?;
    let attr = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let top = rustix::mount::fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attr)?;
    mount::attach(top.as_fd(), target)?;
    inroot::enter(top.as_fd())?;
    for (name, kind, data) in below {
        rustix::fs::mkdirat(CWD, name, Mode::from_raw_mode(0o755))?;
        mount::mount(c"cgroup", name, kind, flags, data.as_deref())?;
    }
    for (name, target) in links {
        rustix::fs::symlinkat(target, CWD, name)?;
    }
    Ok(top)
}

/// Recursive attributes and propagation, once the mount is in place.
fn after(plan: &MountPlan, mounted: BorrowedFd<'_>, index: usize) -> Step {
    if plan.recursive != MountAttr::default() {
        mount::mount_setattr(mounted, true, &plan.recursive)
            .at_index(Stage::MountAttributes, index)?;
    }
    for &change in &plan.propagation {
        let attr = MountAttr {
            propagation: change & !MS_REC,
            ..MountAttr::default()
        };
        mount::mount_setattr(mounted, change & MS_REC != 0, &attr)
            .at_index(Stage::MountAttributes, index)?;
    }
    Ok(())
}

/// A destination in which no symbolic link may be, made when it is missing.
fn ensure_without_links(root: BorrowedFd<'_>, path: &CStr) -> carrack_sys::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    match inroot::open_no_links(root, path, flags) {
        Err(Errno::NOENT) => {
            inroot::ensure(root, path, Want::Directory)?;
            inroot::open_no_links(root, path, flags)
        }
        other => other,
    }
}

/// A link in the image must not lead a bind mount onto procfs, where it could
/// hide or fake what the kernel and the runtime read.
fn refuse_procfs(target: BorrowedFd<'_>) -> carrack_sys::Result<()> {
    let kind = rustix::fs::fstatfs(target)?.f_type as u64;
    if kind == PROC_SUPER_MAGIC {
        Err(Errno::PERM)
    } else {
        Ok(())
    }
}

/// Makes the nodes. Returns the container's `/dev` when the last ones lie there.
fn make_devices(root: BorrowedFd<'_>, devices: &[DevicePlan]) -> Step<Option<Late>> {
    let mut directory: Option<(&CStr, Late)> = None;
    for (index, device) in devices.iter().enumerate() {
        let parent = match &directory {
            Some((path, fd)) if *path == device.directory.as_c_str() => fd.as_fd(),
            _ => {
                let fd = inroot::ensure(root, &device.directory, Want::Directory)
                    .at_index(Stage::Device, index)?;
                directory.insert((&device.directory, fd.into())).1.as_fd()
            }
        };
        make_device(root, parent, device).at_index(Stage::Device, index)?;
    }
    let dev = directory.filter(|(path, _)| *path == c"dev" || *path == c"/dev");
    Ok(dev.map(|(_, fd)| fd))
}

fn make_device(
    root: BorrowedFd<'_>,
    parent: BorrowedFd<'_>,
    device: &DevicePlan,
) -> carrack_sys::Result<()> {
    if device.bind {
        return bind_device(root, device);
    }
    let kind = FileType::from_raw_mode(device.mode);
    match rustix::fs::mknodat(
        parent,
        &device.name,
        kind,
        Mode::from_raw_mode(device.mode),
        device.number,
    ) {
        Ok(()) => {}
        // The image or a mount brought it: fine when it is the same device.
        Err(Errno::EXIST) => return same_device(parent, device),
        // Device cgroups and user namespaces may forbid to make what may be used.
        Err(Errno::PERM) => return bind_device(root, device),
        Err(error) => return Err(error),
    }
    if (device.uid, device.gid) != (0, 0) {
        let owner = (
            Some(Uid::from_raw(device.uid)),
            Some(Gid::from_raw(device.gid)),
        );
        rustix::fs::chownat(
            parent,
            &device.name,
            owner.0,
            owner.1,
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
    }
    Ok(())
}

fn same_device(parent: BorrowedFd<'_>, device: &DevicePlan) -> carrack_sys::Result<()> {
    let stat = rustix::fs::statat(parent, &device.name, AtFlags::SYMLINK_NOFOLLOW)?;
    let same = FileType::from_raw_mode(stat.st_mode) == FileType::from_raw_mode(device.mode)
        && (stat.st_rdev == device.number
            || FileType::from_raw_mode(device.mode) == FileType::Fifo);
    if same { Ok(()) } else { Err(Errno::EXIST) }
}

fn bind_device(root: BorrowedFd<'_>, device: &DevicePlan) -> carrack_sys::Result<()> {
    let tree = mount::clone_tree(CWD, &device.host_path, false)?;
    // The host may have another device by this name, or no device at all.
    let stat = rustix::fs::fstat(&tree)?;
    let kind = |mode| FileType::from_raw_mode(mode);
    if kind(stat.st_mode) != kind(device.mode) || stat.st_rdev != device.number {
        return Err(Errno::NODEV);
    }
    let target = inroot::ensure(root, &device.path, Want::File)?;
    refuse_procfs(target.as_fd())?;
    mount::attach(tree.as_fd(), target.as_fd())
}

fn make_links(root: BorrowedFd<'_>, dev: Option<Late>, plan: &RootfsPlan) -> Step {
    if plan.links.is_empty() {
        return Ok(());
    }
    let dev = match dev {
        Some(dev) => dev,
        None => inroot::ensure(root, c"dev", Want::Directory)
            .at(Stage::DeviceLink)?
            .into(),
    };
    for (index, (target, name)) in plan.links.iter().enumerate() {
        match rustix::fs::symlinkat(target, dev.as_fd(), name) {
            // What the image or a mount brought stays.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).at_index(Stage::DeviceLink, index),
        }
    }
    Ok(())
}

/// Makes the tree the root of the process.
pub fn enter(plan: &RootfsPlan, root: BorrowedFd<'_>) -> Step {
    rustix::process::fchdir(root).at(Stage::Pivot)?;
    match &plan.pivot {
        Pivot::PivotRoot => {
            mount::pivot_root_here().at(Stage::Pivot)?;
            // The old root is stacked on the new one; what lies on top at "." is the old one.
            mount::detach(c".").at(Stage::Pivot)?;
        }
        Pivot::Move(visible) => {
            // Nothing of what follows may reach the host's own namespace.
            mount::mount(c"", c"/", c"", MS_SLAVE | MS_REC, None).at(Stage::Pivot)?;
            for path in visible {
                hide(path).at(Stage::Pivot)?;
            }
            mount::mount(c".", c"/", c"", 8192 /* MS_MOVE */, None).at(Stage::Pivot)?;
            rustix::process::chroot(c".").at(Stage::Pivot)?;
        }
    }
    rustix::process::chdir(c"/").at(Stage::Pivot)
}

/// Takes a mount of the old root out of the namespace, or covers one that a user
/// namespace may not take away.
fn hide(path: &CStr) -> carrack_sys::Result<()> {
    match mount::detach(path) {
        Err(Errno::NOENT) => Ok(()),
        Err(Errno::INVAL | Errno::PERM) => {
            mount::mount(c"tmpfs", path, c"tmpfs", 0, Some(c"size=0"))
        }
        other => other,
    }
}

/// Read-only paths, masked paths, and the root's own attributes.
pub fn protect(plan: &RootfsPlan, held: &[Option<OwnedFd>], root: BorrowedFd<'_>) -> Step {
    for (index, path) in plan.readonly_paths.iter().enumerate() {
        make_readonly(root, path).at_index(Stage::ReadonlyPath, index)?;
    }
    let mut mask = Mask::default();
    for (index, path) in plan.masked_paths.iter().enumerate() {
        mask.cover(root, path).at_index(Stage::MaskedPath, index)?;
    }
    let readonly = MountAttr {
        set: attr::RDONLY,
        ..MountAttr::default()
    };
    for (index, mount) in plan.mounts.iter().enumerate() {
        if let (true, Some(mounted)) = (mount.late_readonly, mount_of(plan, held, index)) {
            mount::mount_setattr(mounted, false, &readonly)
                .at_index(Stage::MountAttributes, index)?;
        }
    }
    if plan.readonly {
        mount::mount_setattr(root, false, &readonly).at(Stage::RootAttributes)?;
    }
    // At the very end: nothing can be bound from an unbindable mount, as paths above are.
    if let Some(change) = plan.final_propagation {
        mount::mount(c"", c"/", c"", change, None).at(Stage::Propagation)?;
    }
    Ok(())
}

fn make_readonly(root: BorrowedFd<'_>, path: &CStr) -> carrack_sys::Result<()> {
    let target = match inroot::open(root, path, OFlags::PATH) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        other => Late::from(other?),
    };
    let tree = Late::from(mount::clone_tree(target.as_fd(), c"", true)?);
    let readonly = MountAttr {
        set: attr::RDONLY,
        ..MountAttr::default()
    };
    // Only the path's own mount, as runc does it: mounts below keep what they are.
    mount::mount_setattr(tree.as_fd(), false, &readonly)?;
    mount::attach(tree.as_fd(), target.as_fd())
}

/// What covers masked paths: the container's `/dev/null` over files, one empty
/// read-only tmpfs, shared by all of them, over directories.
#[derive(Default)]
struct Mask {
    null: Option<Late>,
    empty: Option<Late>,
}

impl Mask {
    fn cover(&mut self, root: BorrowedFd<'_>, path: &CStr) -> carrack_sys::Result<()> {
        match inroot::open(root, path, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(directory) => return self.cover_directory(Late::from(directory).as_fd()),
            Err(Errno::NOENT) => return Ok(()),
            // A file, or one on the way.
            Err(Errno::NOTDIR) => {}
            Err(error) => return Err(error),
        }
        let target = match inroot::open(root, path, OFlags::PATH) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            other => Late::from(other?),
        };
        let null = match &self.null {
            Some(fd) => fd,
            None => self.null.insert(open_null(root)?.into()),
        };
        let tree = Late::from(mount::clone_tree(null.as_fd(), c"", false)?);
        mount::attach(tree.as_fd(), target.as_fd())
    }

    fn cover_directory(&mut self, target: BorrowedFd<'_>) -> carrack_sys::Result<()> {
        if let Some(empty) = &self.empty {
            let copy = Late::from(mount::clone_tree(empty.as_fd(), c"", false)?);
            return mount::attach(copy.as_fd(), target);
        }
        let fs = Late::from(rustix::mount::fsopen(
            c"tmpfs",
            FsOpenFlags::FSOPEN_CLOEXEC,
        )?);
        rustix::mount::fsconfig_set_string(fs.as_fd(), c"nr_inodes", c"1")?;
        rustix::mount::fsconfig_create(fs.as_fd())?;
        let flags = MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let empty = rustix::mount::fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags)?;
        let empty = self.empty.insert(empty.into());
        mount::attach(empty.as_fd(), target)?;
        Ok(())
    }
}

/// The container's `/dev/null`, known to be the null device: an image's file
/// in its place would turn a mask into a door (CVE-2025-31133).
fn open_null(root: BorrowedFd<'_>) -> carrack_sys::Result<OwnedFd> {
    let null = inroot::open(root, c"dev/null", OFlags::PATH | OFlags::NOFOLLOW)?;
    match inroot::character_device(null.as_fd())? {
        Some(number) if number == rustix::fs::makedev(1, 3) => Ok(null),
        _ => Err(Errno::NODEV),
    }
}
