//! Mounts of type `cgroup` and `cgroup2`, which stand for whatever hierarchies
//! the host has.
//!
//! In a new cgroup namespace the hierarchies are mounted anew, and the namespace
//! makes the container's cgroup their root. Without one the container's own
//! cgroup directories are bound. On v1 and hybrid hosts they gather below a
//! small tmpfs, with links for controllers that share a hierarchy.

use super::Source;
use super::mounts::{MountKind, MountPlan, detached, inside};
use super::options::{self, Options, libc_ms as ms};
use super::process::c_string;
use crate::error::Error;
use carrack_cgroup::{ContainerMounts, HierarchyMount};
use carrack_spec::runtime::Mount;
use carrack_sys::mount::{MountAttr, attr, clone_tree_with};
use rustix::fs::CWD;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The file system type of v2.
const V2: &str = "cgroup2";

/// What is known about the container's cgroups.
pub struct CgroupContext<'a> {
    /// The container's hierarchies.
    pub mounts: &'a ContainerMounts,
    /// The container has a cgroup namespace of its own.
    pub namespace: bool,
    /// The caller may clone mounts in its own namespace.
    pub privileged: bool,
}

/// Plans the mount at `index`.
pub fn cgroup_plan(
    mount: &Mount,
    index: usize,
    context: &CgroupContext<'_>,
) -> Result<Vec<MountPlan>, Error> {
    let field = format!("mounts[{index}]");
    let destination = inside(&mount.destination);
    let options = options::parse(&mount.options);
    let unified = is_unified(mount, context.mounts);
    check(mount, &options, &field, unified && context.namespace)?;
    let builder = Builder {
        field: &field,
        options: &options,
        context,
    };
    if unified {
        return Ok(vec![builder.unified(&destination)?]);
    }
    builder.gathering(&destination)
}

/// Whether the mount is of the v2 hierarchy by itself, and not of what v1 gathers.
pub fn is_unified(mount: &Mount, mounts: &ContainerMounts) -> bool {
    mount.kind == V2 || !mounts.tmpfs
}

/// What means nothing for a mount that stands for the host's hierarchies. Of those only v2 in
/// a cgroup namespace is a file system whose options can be set.
fn check(mount: &Mount, options: &Options, field: &str, has_data: bool) -> Result<(), Error> {
    let mapped = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
    let reason = if mapped || options.idmap.is_some() {
        "id mappings are for bind mounts"
    } else if options.copy_up {
        "tmpcopyup is for a new tmpfs"
    } else if options.flags & ms::REMOUNT != 0 {
        "a mount of the cgroup hierarchies cannot be remounted"
    } else if !options.data.is_empty() && !has_data {
        let data = &options.data;
        return Err(Error::invalid(
            field,
            format!("{data:?} is no option of a mount of the cgroup hierarchies"),
        ));
    } else {
        return Ok(());
    };
    Err(Error::invalid(field, reason))
}

struct Builder<'a> {
    field: &'a str,
    options: &'a Options,
    context: &'a CgroupContext<'a>,
}

impl Builder<'_> {
    fn plan(&self, destination: &str, kind: MountKind) -> Result<MountPlan, Error> {
        Ok(MountPlan {
            destination: c_string(destination, self.field)?,
            kind,
            recursive: self.options.recursive,
            propagation: self.options.propagation.clone(),
            over_proc: false,
            in_fresh: None,
            late_readonly: false,
            hold: false,
        })
    }

    /// The small tmpfs that the hierarchies of v1 gather in, and what follows it.
    fn gathering(&self, destination: &str) -> Result<Vec<MountPlan>, Error> {
        let (mut below, mut binds) = (Vec::new(), Vec::new());
        for hierarchy in &self.context.mounts.hierarchies {
            let name = &hierarchy.name;
            if self.context.namespace {
                let kind = c_string(hierarchy.fs_type, self.field)?;
                let data = match hierarchy.data.as_str() {
                    "" => None,
                    data => Some(c_string(data, self.field)?),
                };
                below.push((c_string(name, self.field)?, kind, data));
            } else {
                let place = format!("{destination}/{name}");
                binds.push(self.bind(&place, &hierarchy.source)?);
            }
        }
        let links = self.context.mounts.links.iter().map(|link| {
            let name = c_string(&link.name, self.field)?;
            Ok((name, c_string(&link.target, self.field)?))
        });
        let links = links.collect::<Result<_, Error>>()?;
        let kind = MountKind::Gather {
            flags: self.options.flags,
            below,
            links,
        };
        let mut top = self.plan(destination, kind)?;
        top.late_readonly = self.options.flags & ms::RDONLY != 0;
        if !binds.is_empty() && top.recursive.set & attr::RDONLY != 0 {
            // The directories of the bind mounts, which set their own attributes, come first.
            top.recursive.set &= !attr::RDONLY;
            top.late_readonly = true;
        }
        top.hold = top.late_readonly;
        let mut plans = vec![top];
        plans.extend(binds);
        Ok(plans)
    }

    /// The v2 hierarchy by itself, also for a container that is in none of its cgroups.
    fn unified(&self, destination: &str) -> Result<MountPlan, Error> {
        let of_v2 = |h: &&HierarchyMount| h.fs_type == V2;
        let own = self.context.mounts.hierarchies.iter().find(of_v2);
        if !self.context.namespace
            && let Some(own) = own
        {
            return self.bind(destination, &own.source);
        }
        // Where the host's v2 is seen at the same place already (`/sys` bound without rights),
        // mount(2) refuses to put it on itself, and only a detached mount can go there.
        let options = self.options;
        let detached = detached(&options.data, options.flags, options, self.field)?;
        let data = match options.data.as_str() {
            "" => None,
            data => Some(c_string(data, self.field)?),
        };
        let kind = MountKind::FileSystem {
            kind: c_string(V2, self.field)?,
            source: c"cgroup".to_owned(),
            flags: self.options.flags,
            data,
            detached: Some(detached),
            copy_up: false,
            keep_mode: false,
            no_links: false,
        };
        self.plan(destination, kind)
    }

    fn bind(&self, destination: &str, directory: &Path) -> Result<MountPlan, Error> {
        let path = CString::new(directory.as_os_str().as_bytes())
            .map_err(|_| Error::invalid(self.field, "the cgroup's path contains a NUL byte"))?;
        let attr = self.options.attributes();
        let source = if self.context.privileged {
            let failed = |e| Error::path("cannot open the cgroup", directory, e);
            let attr = MountAttr {
                propagation: ms::SLAVE,
                ..attr
            };
            let tree = clone_tree_with(CWD, &path, false, &attr).map_err(failed)?;
            Source::Tree(tree)
        } else {
            Source::Path(path)
        };
        self.plan(
            destination,
            MountKind::Bind {
                source,
                attr,
                recursive: false,
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use carrack_cgroup::Link;

    fn plans(mounts: &ContainerMounts, kind: &str, namespace: bool) -> Vec<MountPlan> {
        let mount = Mount::new("/sys/fs/cgroup", kind, "cgroup", &["ro"]);
        let context = CgroupContext {
            mounts,
            namespace,
            privileged: false,
        };
        cgroup_plan(&mount, 0, &context).unwrap()
    }

    fn hierarchy(name: &str, fs_type: &'static str, data: &str) -> HierarchyMount {
        HierarchyMount {
            name: name.into(),
            fs_type,
            data: data.into(),
            source: format!("/h/{name}/x").into(),
        }
    }

    fn hybrid() -> ContainerMounts {
        ContainerMounts {
            tmpfs: true,
            hierarchies: vec![
                hierarchy("cpu,cpuacct", "cgroup", "cpu,cpuacct"),
                hierarchy("systemd", "cgroup", "name=systemd"),
                hierarchy("unified", V2, ""),
            ],
            links: vec![Link {
                name: "cpu".into(),
                target: "cpu,cpuacct".into(),
            }],
        }
    }

    #[test]
    fn v2_is_one_mount() {
        let v2 = ContainerMounts {
            tmpfs: false,
            hierarchies: vec![hierarchy("", V2, "")],
            links: Vec::new(),
        };
        for (mounts, kind) in [(&v2, "cgroup"), (&v2, "cgroup2"), (&hybrid(), "cgroup2")] {
            for namespace in [true, false] {
                let plans = plans(mounts, kind, namespace);
                assert_eq!(plans.len(), 1);
                assert_eq!(plans[0].destination.as_c_str(), c"sys/fs/cgroup");
                let bound = matches!(plans[0].kind, MountKind::Bind { .. });
                assert_eq!(bound, !namespace);
            }
        }
    }

    #[test]
    fn hierarchies_are_bound_beside_each_other() {
        let plans = plans(&hybrid(), "cgroup", false);
        let names: Vec<_> = plans
            .iter()
            .map(|p| p.destination.to_str().unwrap())
            .collect();
        assert_eq!(
            names,
            [
                "sys/fs/cgroup",
                "sys/fs/cgroup/cpu,cpuacct",
                "sys/fs/cgroup/systemd",
                "sys/fs/cgroup/unified"
            ]
        );
        let MountKind::Gather { links, below, .. } = &plans[0].kind else {
            panic!()
        };
        assert_eq!(links[..], [(c"cpu".to_owned(), c"cpu,cpuacct".to_owned())]);
        assert!(below.is_empty());
    }

    #[test]
    fn a_namespace_mounts_them_anew() {
        let plans = plans(&hybrid(), "cgroup", true);
        assert_eq!(plans.len(), 1);
        let MountKind::Gather { below, .. } = &plans[0].kind else {
            panic!()
        };
        let unified = (c"unified".to_owned(), c"cgroup2".to_owned(), None);
        assert_eq!(below.len(), 3);
        assert_eq!(below[2], unified);
        assert_eq!(below[1].2.as_deref(), Some(c"name=systemd"));
    }
}
