//! Mounts that come from outside of the container, as both sides must name them.
//!
//! A dump maps each mount point to a name, a restore maps the name to what is to
//! be mounted. The name is the mount point with the symbolic links of the root
//! file system resolved, as runc has it. Masked files all have one name,
//! `/dev/null`.

use crate::error::Error;
use crate::init::inroot;
use crate::plan::options::{self, libc_ms as ms};
use crate::plan::{self, MountKind, Source};
use crate::validate;
use carrack_cgroup::ContainerMounts;
use carrack_spec::runtime::{Mount, NamespaceKind, Spec};
use rustix::fs::{CWD, Mode, OFlags};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Name and source of what covers masked files.
pub const NULL: &str = "/dev/null";

/// A mount from outside.
#[derive(Debug, PartialEq, Eq)]
pub struct External {
    /// Inside the root, lexically clean, no leading slash.
    pub destination: CString,
    /// On the host.
    pub source: String,
}

/// What a mount of the configuration becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// A mount from outside.
    Bind {
        /// With all below it.
        recursive: bool,
    },
    /// A file system that criu stores or mounts itself.
    FileSystem,
    /// The hierarchies of cgroups.
    Cgroup,
    /// No mount of its own.
    Nothing,
}

/// Tells mounts apart.
pub fn sort(mount: &Mount, index: usize) -> Result<Sort, Error> {
    if matches!(mount.kind.as_str(), "cgroup" | "cgroup2") {
        return Ok(Sort::Cgroup);
    }
    let parsed = options::parse(&mount.options);
    if parsed.flags & ms::REMOUNT != 0 || parsed.no_follow {
        return Ok(Sort::Nothing);
    }
    if mount.kind != "bind" && !parsed.is_bind() {
        return Ok(Sort::FileSystem);
    }
    if parsed.idmap.is_some() || !mount.uid_mappings.is_empty() {
        return Err(Error::invalid(
            format!("mounts[{index}]"),
            "an idmapped mount can be neither checkpointed nor restored",
        ));
    }
    Ok(Sort::Bind {
        recursive: parsed.flags & ms::REC != 0,
    })
}

/// All mounts from outside.
pub fn external(
    spec: &Spec,
    bundle: &Path,
    cgroups: &ContainerMounts,
) -> Result<Vec<External>, Error> {
    let linux = spec.linux.as_ref();
    let namespace = linux.is_some_and(|linux| validate::has(linux, NamespaceKind::Cgroup));
    let mut list = Vec::new();
    for (index, mount) in spec.mounts.iter().enumerate() {
        match sort(mount, index)? {
            Sort::Nothing | Sort::FileSystem => {}
            Sort::Bind { .. } => list.push(External {
                destination: destination(mount, index)?,
                source: bundle.join(&mount.source).to_string_lossy().into_owned(),
            }),
            Sort::Cgroup => {
                let context = plan::CgroupContext {
                    mounts: cgroups,
                    // What criu reads of a v1 hierarchy (`release_agent`) a user namespace may not
                    // mount with; what is bound from outside looks the same.
                    namespace: namespace && plan::is_unified(mount, cgroups),
                    privileged: false,
                };
                let plans = plan::cgroup_plan(mount, index, &context)?;
                list.extend(plans.into_iter().filter_map(|plan| match plan.kind {
                    MountKind::Bind {
                        source: Source::Path(path),
                        ..
                    } => Some(External {
                        destination: plan.destination,
                        source: path.to_string_lossy().into_owned(),
                    }),
                    _ => None,
                }));
            }
        }
    }
    let user = linux.is_some_and(|linux| validate::has(linux, NamespaceKind::User));
    for device in plan::device_plans(spec, user)? {
        if device.bind {
            let inside = plan::inside(&device.path.to_string_lossy());
            list.push(External {
                destination: plan::c_string(&inside, "linux.devices")?,
                source: device.host_path.to_string_lossy().into_owned(),
            });
        }
    }
    Ok(list)
}

/// A mount's destination inside the root.
pub fn destination(mount: &Mount, index: usize) -> Result<CString, Error> {
    plan::c_string(
        &plan::inside(&mount.destination),
        &format!("mounts[{index}]"),
    )
}

/// A root file system in which names are resolved.
pub struct Root {
    fd: OwnedFd,
    path: String,
}

impl Root {
    /// Opens the root file system on the host.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |e| Error::path("cannot open the root file system", path, e);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(failed)?;
        let path = path_of(fd.as_fd()).map_err(failed)?;
        Ok(Self { fd, path })
    }

    /// The destination with symbolic links resolved as far as it exists; with a leading slash.
    pub fn name(&self, destination: &CStr) -> String {
        let whole = destination.to_string_lossy().into_owned();
        let mut existing = whole.as_str();
        loop {
            let rest = whole.get(existing.len()..).unwrap_or_default();
            if existing.is_empty() {
                return format!("/{}", rest.trim_start_matches('/'));
            }
            if let Some(found) = self.resolve(existing) {
                return format!("{found}{rest}");
            }
            existing = existing.rsplit_once('/').map_or("", |(parent, _)| parent);
        }
    }

    fn resolve(&self, path: &str) -> Option<String> {
        let path = CString::new(path).ok()?;
        let found = inroot::open(self.fd.as_fd(), &path, OFlags::PATH).ok()?;
        let path = path_of(found.as_fd()).ok()?;
        let inside = path.strip_prefix(self.path.trim_end_matches('/'))?;
        (inside.starts_with('/') && inside.len() > 1).then(|| inside.to_owned())
    }
}

/// Where a descriptor's file is.
pub fn path_of(fd: BorrowedFd<'_>) -> carrack_sys::Result<String> {
    use std::os::fd::AsRawFd;
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let path = rustix::fs::readlinkat(CWD, link, Vec::new())?;
    Ok(path.to_string_lossy().into_owned())
}

/// The masked paths that are files in the container, whose root is open at `root`.
pub fn masked_files(spec: &Spec, root: BorrowedFd<'_>) -> Vec<String> {
    let masked = spec
        .linux
        .as_ref()
        .map_or(&[][..], |linux| &linux.masked_paths);
    let is_file = |path: &&String| {
        let Ok(inside) = CString::new(plan::inside(path)) else {
            return false;
        };
        inroot::open(root, &inside, OFlags::PATH)
            .and_then(|found| inroot::is_directory(found.as_fd()))
            .is_ok_and(|directory| !directory)
    };
    masked.iter().filter(is_file).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(json: &str) -> Mount {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn mounts_are_told_apart() {
        let of = |json| sort(&mount(json), 0);
        let bind = r#"{"destination":"/a","source":"/b","options":["rbind","ro"]}"#;
        assert_eq!(of(bind).unwrap(), Sort::Bind { recursive: true });
        let proc = r#"{"destination":"/proc","type":"proc"}"#;
        assert_eq!(of(proc).unwrap(), Sort::FileSystem);
        let remount = r#"{"destination":"/a","type":"bind","options":["bind","remount","ro"]}"#;
        assert_eq!(of(remount).unwrap(), Sort::Nothing);
        let cgroup = r#"{"destination":"/sys/fs/cgroup","type":"cgroup"}"#;
        assert_eq!(of(cgroup).unwrap(), Sort::Cgroup);
        let mapped = r#"{"destination":"/a","source":"/b","options":["bind","idmap"]}"#;
        assert!(of(mapped).is_err());
    }

    #[test]
    fn names_follow_links_inside_the_root_as_far_as_they_go() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("run")).unwrap();
        std::fs::create_dir_all(directory.path().join("var")).unwrap();
        std::os::unix::fs::symlink("/run", directory.path().join("var/run")).unwrap();
        let root = Root::open(directory.path()).unwrap();
        assert_eq!(root.name(c"var/run"), "/run");
        assert_eq!(root.name(c"var/run/not/there"), "/run/not/there");
        assert_eq!(root.name(c"nowhere"), "/nowhere");
    }
}
