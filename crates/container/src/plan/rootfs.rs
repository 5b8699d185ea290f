//! The root file system, planned: tree, mounts, devices, protection.

use super::Source;
use super::devices::{DevicePlan, device_plans};
use super::mounts::{Fresh, MountContext, MountKind, MountPlan, inside, mount_plan, remounted};
use super::options::{libc_ms as ms, propagation_named};
use super::process::c_string;
use crate::error::{Error, Names};
use carrack_spec::runtime::{Mount, NamespaceKind, Spec};
use carrack_sys::mount::{MountAttr, clone_tree_with};
use rustix::fs::CWD;
use std::cell::RefCell;
use std::collections::HashSet;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

/// The root file system of a container.
#[derive(Debug)]
pub struct RootfsPlan {
    /// The root's mount.
    pub tree: Source,
    /// Where it is on the host.
    pub path: CString,
    /// Propagation of the child's copy of the host's mounts (`MS_…`).
    pub propagation: u64,
    /// Mounts in order.
    pub mounts: Vec<MountPlan>,
    /// Room for the descriptors of the mounts that init holds, by index; empty when it holds none.
    pub held: RefCell<Vec<Option<OwnedFd>>>,
    /// Devices to make.
    pub devices: Vec<DevicePlan>,
    /// Symbolic links in `/dev`: target and name.
    pub links: Vec<(CString, CString)>,
    /// How the tree becomes the root.
    pub pivot: Pivot,
    /// Propagation of the container's root at the end.
    pub final_propagation: Option<u64>,
    /// Make the root mount read-only.
    pub readonly: bool,
    /// Paths to cover.
    pub masked_paths: Vec<CString>,
    /// Paths to make read-only.
    pub readonly_paths: Vec<CString>,
}

/// How the tree becomes the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pivot {
    /// pivot_root(2).
    PivotRoot,
    /// Move the mount over the root and chroot (`--no-pivot`, for an initramfs). The old
    /// root stays in the namespace below the new one, where the host's procfs and sysfs,
    /// named here, would let a user namespace in the container mount unmasked ones.
    Move(Vec<CString>),
}

/// What the caller decided.
pub struct RootfsContext<'a> {
    /// The bundle.
    pub bundle: &'a Path,
    /// The root file system, canonical.
    pub rootfs: &'a Path,
    /// The caller may clone mounts in its own namespace.
    pub privileged: bool,
    /// The container has a user namespace of its own.
    pub user_namespace: bool,
    /// `--no-pivot`.
    pub no_pivot: bool,
    /// Mounts in the place of those of type `cgroup`.
    pub cgroup_mounts: Vec<CgroupMounts>,
}

/// What a mount of type `cgroup` stands for.
pub struct CgroupMounts {
    /// Its index in the configuration.
    pub index: usize,
    /// The mounts to carry out.
    pub mounts: Vec<MountPlan>,
}

/// Where procfs and sysfs are mounted outside of `rootfs`, the deepest last mounted first.
fn visible_mounts(rootfs: &Path) -> Result<Vec<CString>, Error> {
    let file = Path::new("/proc/self/mountinfo");
    let text = std::fs::read_to_string(file)
        .map_err(|error| Error::path("cannot read the mounts from", file, error))?;
    let mut paths = visible_in(&text, rootfs);
    paths.reverse();
    paths
        .iter()
        .map(|path| c_string(path, "mountinfo"))
        .collect()
}

fn visible_in(mountinfo: &str, rootfs: &Path) -> Vec<String> {
    let of_line = |line: &str| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let kind = filesystem.split(' ').next()?;
        let path = mount.split(' ').nth(4)?;
        // The kernel writes these four so (proc(5)), the backslash among them.
        let path = [("040", " "), ("011", "\t"), ("012", "\n"), ("134", "\\")]
            .iter()
            .fold(path.to_owned(), |path, (code, character)| {
                path.replace(&format!("\\{code}"), character)
            });
        (matches!(kind, "proc" | "sysfs") && !Path::new(&path).starts_with(rootfs)).then_some(path)
    };
    mountinfo.lines().filter_map(of_line).collect()
}

const LINKS: [(&std::ffi::CStr, &std::ffi::CStr); 5] = [
    (c"/proc/self/fd", c"fd"),
    (c"/proc/self/fd/0", c"stdin"),
    (c"/proc/self/fd/1", c"stdout"),
    (c"/proc/self/fd/2", c"stderr"),
    (c"pts/ptmx", c"ptmx"),
];

/// Plans the root file system and names its elements.
pub fn rootfs_plan(
    spec: &Spec,
    mut context: RootfsContext<'_>,
    names: &mut Names,
) -> Result<RootfsPlan, Error> {
    let linux = spec.linux.as_ref();
    let wanted = linux.map_or("", |linux| &linux.rootfs_propagation);
    let named = match wanted {
        "" => None,
        name => Some(propagation_named(name).ok_or_else(|| {
            let reason = format!(
                "{name:?} is none of shared, slave, private, unbindable with an optional r"
            );
            Error::invalid("linux.rootfsPropagation", reason)
        })?),
    };
    let kind = named.unwrap_or(ms::SLAVE | ms::REC) & !ms::REC;
    let text = context
        .rootfs
        .to_str()
        .ok_or_else(|| Error::invalid("root.path", "is not UTF-8"))?;
    names.rootfs = text.to_owned();
    let path = c_string(text, "root.path")?;
    let own_tree = match kind {
        ms::SHARED => ms::SLAVE,
        // At the end only: until then paths of it are bound, to protect them.
        ms::UNBINDABLE => ms::PRIVATE,
        kind => kind,
    };
    let mount_context = MountContext {
        bundle: context.bundle,
        rootfs: context.rootfs,
        privileged: context.privileged,
        tree_propagation: if kind == ms::SHARED { 0 } else { ms::SLAVE },
        mount_label: linux.map_or("", |linux| &linux.mount_label),
        label_option: spec
            .annotations
            .get("run.oci.mount_context_type")
            .map_or("context", String::as_str),
        uid_mappings: linux.map_or(&[][..], |linux| &linux.uid_mappings),
        gid_mappings: linux.map_or(&[][..], |linux| &linux.gid_mappings),
        user_namespace: linux
            .and_then(|linux| crate::validate::path_of(linux, NamespaceKind::User)),
        remounted: remounted(&spec.mounts),
    };
    let mut mounts = Vec::with_capacity(spec.mounts.len());
    for (index, mount) in spec.mounts.iter().enumerate() {
        if let Some(at) = context
            .cgroup_mounts
            .iter()
            .position(|group| group.index == index)
        {
            let group = context.cgroup_mounts.swap_remove(at);
            names.mounts.extend(
                group
                    .mounts
                    .iter()
                    .map(|_| describe(mount, mount_context.mount_label)),
            );
            mounts.extend(group.mounts);
            continue;
        }
        mounts.push(mount_plan(mount, index, &mount_context)?);
        names
            .mounts
            .push(describe(mount, mount_context.mount_label));
    }
    find_remounted(&mut mounts);
    find_fresh(&mut mounts);
    let held = match mounts.iter().any(|mount| mount.hold) {
        true => mounts.iter().map(|_| None).collect(),
        false => Vec::new(),
    };
    let set_up_dev = !spec.mounts.iter().any(|mount| {
        inside(&mount.destination) == "dev"
            && (mount.kind == "bind" || mount.options.iter().any(|o| o == "bind" || o == "rbind"))
    });
    let devices = if set_up_dev {
        device_plans(spec, context.user_namespace)?
    } else {
        Vec::new()
    };
    names.devices = devices
        .iter()
        .map(|d| d.host_path.to_string_lossy().into_owned())
        .collect();
    let paths = |list: &[String], field: &str| -> Result<Vec<CString>, Error> {
        list.iter()
            .enumerate()
            .map(|(index, path)| protected_path(path, &format!("{field}[{index}]")))
            .collect()
    };
    let (masked, readonly) =
        linux.map_or((&[][..], &[][..]), |l| (&l.masked_paths, &l.readonly_paths));
    let (masked, readonly) = (each_once(masked), each_once(readonly));
    names.masked.clone_from(&masked);
    names.readonly.clone_from(&readonly);
    Ok(RootfsPlan {
        tree: root_tree(&path, own_tree, context.privileged)?,
        path,
        propagation: ms::REC
            | if kind == ms::PRIVATE {
                ms::PRIVATE
            } else {
                ms::SLAVE
            },
        mounts,
        held: RefCell::new(held),
        devices,
        links: if set_up_dev {
            LINKS.map(|(t, n)| (t.to_owned(), n.to_owned())).into()
        } else {
            Vec::new()
        },
        pivot: if context.no_pivot {
            Pivot::Move(visible_mounts(context.rootfs)?)
        } else {
            Pivot::PivotRoot
        },
        final_propagation: named
            .filter(|change| change & !ms::REC == ms::SHARED || change & ms::UNBINDABLE != 0),
        readonly: spec.root.as_ref().is_some_and(|root| root.readonly),
        masked_paths: paths(&masked, "linux.maskedPaths")?,
        readonly_paths: paths(&readonly, "linux.readonlyPaths")?,
    })
}

/// The list without what stands in it before: one mount is enough.
fn each_once(paths: &[String]) -> Vec<String> {
    let mut seen = HashSet::with_capacity(paths.len());
    paths
        .iter()
        .filter(|path| seen.insert(path.as_str()))
        .cloned()
        .collect()
}

fn protected_path(path: &str, field: &str) -> Result<CString, Error> {
    if !path.starts_with('/') {
        return Err(Error::invalid(
            field,
            format!("{path:?} is not an absolute path"),
        ));
    }
    c_string(&inside(path), field)
}

fn root_tree(path: &CString, propagation: u64, privileged: bool) -> Result<Source, Error> {
    if !privileged {
        return Ok(Source::Path(path.clone()));
    }
    let failed = |e| {
        Error::system(
            format!(
                "cannot open the root file system {}",
                path.to_string_lossy()
            ),
            e,
        )
    };
    let attr = MountAttr {
        propagation,
        ..MountAttr::default()
    };
    let tree = clone_tree_with(CWD, path, true, &attr).map_err(failed)?;
    Ok(Source::Tree(tree))
}

fn describe(mount: &Mount, label: &str) -> String {
    let kind = if mount.kind.is_empty() {
        "bind"
    } else {
        &mount.kind
    };
    let mut text = match mount.source.as_str() {
        "" => format!("{kind} at {}", mount.destination),
        source => format!("{kind} {source} at {}", mount.destination),
    };
    // What the file system judges, and most often finds wrong.
    let data = super::options::parse(&mount.options).data;
    if !data.is_empty() {
        text.push_str(&format!(", with {data}"));
    }
    if !label.is_empty() {
        text.push_str(&format!(", labelled {label} by linux.mountLabel"));
    }
    text
}

/// Tells the mounts that get other options which mount of the plan they mean.
fn find_remounted(mounts: &mut [MountPlan]) {
    for index in 0..mounts.len() {
        let (earlier, rest) = mounts.split_at_mut(index);
        if let Some(again) = rest.first_mut()
            && let MountKind::Remount { of, .. } = &mut again.kind
        {
            let same = |mount: &MountPlan| mount.hold && mount.destination == again.destination;
            *of = earlier.iter().rposition(same);
        }
    }
}

/// Marks the file systems that go into a new directory of a tmpfs which an
/// earlier mount of the plan made: `/dev/pts` and its like. Any mount in between
/// that could have put something there ends it.
fn find_fresh(mounts: &mut [MountPlan]) {
    let mut tops: Vec<CString> = Vec::new();
    let mut made: Vec<CString> = Vec::new();
    for mount in mounts {
        let path = mount.destination.to_bytes();
        let split = path.iter().rposition(|&byte| byte == b'/');
        let plain = matches!(
            &mount.kind,
            MountKind::FileSystem {
                copy_up: false,
                no_links: false,
                flags,
                ..
            } if flags & ms::REMOUNT == 0
        );
        let again = made.contains(&mount.destination);
        if let Some(at) = split
            && plain
            && !again
            && mount.propagation.is_empty()
            && mount.recursive == MountAttr::default()
            && !mount.hold
            && let Some(top) = tops.iter().find(|top| top.to_bytes() == &path[..at])
            && let Ok(name) = CString::new(&path[at + 1..])
        {
            mount.in_fresh = Some(Fresh {
                top: top.clone(),
                name,
            });
        }
        made.push(mount.destination.clone());
        match &mount.kind {
            MountKind::FileSystem {
                kind,
                copy_up: false,
                ..
            } if kind.as_c_str() == c"tmpfs" => {
                tops.push(mount.destination.clone());
            }
            MountKind::FileSystem { .. } | MountKind::Gather { .. } => {}
            // A bind mount's destination may be a link's target anywhere.
            _ => tops.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_procfs_and_sysfs_are_found() {
        let text = "22 1 0:20 / /proc rw,nosuid shared:5 - proc proc rw\n\
                    23 1 0:21 / /sys rw - sysfs sysfs rw\n\
                    24 1 0:22 / /a\\040b/proc rw - proc proc rw\n\
                    25 1 0:22 / /bundle/rootfs/proc rw - proc proc rw\n\
                    26 1 8:1 / / rw - ext4 /dev/sda1 rw\n";
        assert_eq!(
            visible_in(text, Path::new("/bundle/rootfs")),
            ["/proc", "/sys", "/a b/proc"]
        );
    }
}
