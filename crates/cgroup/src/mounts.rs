//! What a mount of type `cgroup` inside a container consists of, as data.
//!
//! ```text
//! v2      DEST                      the one hierarchy
//! v1      DEST                      a tmpfs
//!         DEST/memory               one directory a hierarchy
//!         DEST/cpu,cpuacct          co-mounted controllers share one,
//!         DEST/cpu -> cpu,cpuacct   with a symbolic link for each
//!         DEST/unified              v2 of a hybrid host
//! ```
//!
//! In a cgroup namespace of its own the container mounts the file systems
//! themselves (their root is then the container's cgroup); otherwise the
//! container's own directories are bound. Nothing here does I/O.

use crate::group::Group;
use crate::layout::{Mode, Version};
use std::path::PathBuf;

/// One hierarchy to mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HierarchyMount {
    /// Directory name below the mount's destination; empty when it is the destination itself.
    pub name: String,
    /// `cgroup` or `cgroup2`, for a mount inside a new cgroup namespace.
    pub fs_type: &'static str,
    /// Mount data for it: `cpu,cpuacct`, `name=systemd`, empty for v2.
    pub data: String,
    /// The container's directory on the host, for a bind mount.
    pub source: PathBuf,
}

/// A symbolic link beside the hierarchies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its name, `cpu`.
    pub name: String,
    /// Where it points, `cpu,cpuacct`.
    pub target: String,
}

/// The parts of a `cgroup` mount.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContainerMounts {
    /// The destination is a tmpfs with the hierarchies below it (v1 and hybrid).
    pub tmpfs: bool,
    /// The hierarchies; one with an empty name on pure v2.
    pub hierarchies: Vec<HierarchyMount>,
    /// The links.
    pub links: Vec<Link>,
}

impl Group {
    /// What a `cgroup` mount in a container of this group binds or mounts.
    ///
    /// Empty hierarchies for a group without cgroups (rootless): then only a bind of the host's
    /// directory, or nothing, can be shown.
    pub fn mounts_for_container(&self) -> ContainerMounts {
        let mut mounts = ContainerMounts {
            tmpfs: self.mode != Mode::Unified,
            ..Default::default()
        };
        for node in &self.nodes {
            if node.version == Version::V2 {
                mounts.hierarchies.push(HierarchyMount {
                    name: match self.mode {
                        Mode::Unified => String::new(),
                        _ => "unified".to_owned(),
                    },
                    fs_type: "cgroup2",
                    data: String::new(),
                    source: node.dir.clone(),
                });
                continue;
            }
            // The host's directory name, as programs look for that; else the controllers.
            let data = node.controllers.join(",");
            let name = node.mountpoint.file_name().map_or_else(
                || data.trim_start_matches("name=").to_owned(),
                |n| n.to_string_lossy().into_owned(),
            );
            if node.controllers.len() > 1 {
                let others = node.controllers.iter().filter(|c| **c != name);
                mounts.links.extend(others.map(|c| Link {
                    name: c.trim_start_matches("name=").to_owned(),
                    target: name.clone(),
                }));
            }
            mounts.hierarchies.push(HierarchyMount {
                name,
                fs_type: "cgroup",
                data,
                source: node.dir.clone(),
            });
        }
        mounts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::Node;

    fn group(mode: Mode, nodes: &[(Version, &[&str], &str)]) -> Group {
        let nodes = nodes
            .iter()
            .map(|(version, controllers, mountpoint)| Node {
                version: *version,
                controllers: controllers.iter().map(|c| (*c).to_owned()).collect(),
                mountpoint: mountpoint.into(),
                dir: PathBuf::from(mountpoint).join("web"),
            })
            .collect();
        Group {
            mode,
            nodes,
            scope: None,
            rootless: false,
            tasks: Default::default(),
        }
    }

    #[test]
    fn co_mounted_controllers_get_links() {
        let mounts = group(
            Mode::Hybrid,
            &[
                (
                    Version::V1,
                    &["cpu", "cpuacct"],
                    "/sys/fs/cgroup/cpu,cpuacct",
                ),
                (Version::V1, &["name=systemd"], "/sys/fs/cgroup/systemd"),
                (Version::V2, &[], "/sys/fs/cgroup/unified"),
            ],
        )
        .mounts_for_container();
        assert!(mounts.tmpfs);
        let names: Vec<_> = mounts.hierarchies.iter().map(|h| h.name.as_str()).collect();
        assert_eq!(names, ["cpu,cpuacct", "systemd", "unified"]);
        assert_eq!(mounts.hierarchies[1].data, "name=systemd");
        let links: Vec<_> = mounts
            .links
            .iter()
            .map(|l| (l.name.as_str(), l.target.as_str()))
            .collect();
        assert_eq!(links, [("cpu", "cpu,cpuacct"), ("cpuacct", "cpu,cpuacct")]);
    }

    #[test]
    fn pure_v2_is_one_mount() {
        let mounts =
            group(Mode::Unified, &[(Version::V2, &[], "/sys/fs/cgroup")]).mounts_for_container();
        assert!(!mounts.tmpfs && mounts.links.is_empty());
        assert_eq!(mounts.hierarchies.len(), 1);
        assert_eq!(mounts.hierarchies[0].name, "");
        assert_eq!(mounts.hierarchies[0].fs_type, "cgroup2");
    }
}
