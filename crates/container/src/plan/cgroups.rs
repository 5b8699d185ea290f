//! Mounts of type `cgroup` and `cgroup2`, which stand for whatever hierarchies
//! the host has.
//!
//! In a new cgroup namespace the hierarchies are mounted anew, and the namespace
//! makes the container's cgroup their root. Without one the container's own
//! cgroup directories are bound. On v1 and hybrid hosts they gather below a
//! small tmpfs, with links for controllers that share a hierarchy.

use super::Source;
use super::mounts::{Detached, MountKind, MountPlan, inside};
use super::options::{self, Options, libc_ms as ms};
use super::process::c_string;
use crate::error::Error;
use carrack_cgroup::Mode;
use carrack_spec::runtime::Mount;
use carrack_sys::mount::{MountAttr, clone_tree, mount_setattr};
use rustix::fs::CWD;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::AsFd;

/// What is known about the container's cgroups.
pub struct CgroupContext<'a> {
    /// How the host has its hierarchies.
    pub mode: Mode,
    /// The container's directories by controller; the empty name is v2.
    pub paths: &'a BTreeMap<String, String>,
    /// The container has a cgroup namespace of its own.
    pub namespace: bool,
    /// The caller may clone mounts in its own namespace.
    pub privileged: bool,
}

/// Plans the mount at `index`; the path to make read-only at the end comes second.
pub fn cgroup_plan(
    mount: &Mount,
    index: usize,
    context: &CgroupContext<'_>,
) -> Result<(Vec<MountPlan>, Option<CString>), Error> {
    let field = format!("mounts[{index}]");
    let destination = inside(&mount.destination);
    let options = options::parse(&mount.options);
    let builder = Builder {
        field: &field,
        options: &options,
        context,
    };
    if mount.kind == "cgroup2" || context.mode == Mode::Unified {
        let plan = builder.hierarchy(&destination, "", context.paths.get(""))?;
        return Ok((vec![plan], None));
    }
    let plans = builder.gathering(&destination)?;
    let late = (options.flags & ms::RDONLY != 0)
        .then(|| c_string(&destination, &field))
        .transpose()?;
    Ok((plans, late))
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
            recursive: MountAttr::default(),
            propagation: self.options.propagation.clone(),
            over_proc: false,
            in_fresh: None,
        })
    }

    /// The small tmpfs that the hierarchies of v1 gather in, and what follows it.
    fn gathering(&self, destination: &str) -> Result<Vec<MountPlan>, Error> {
        let mut directories: BTreeMap<&String, Vec<&str>> = BTreeMap::new();
        for (controller, directory) in self.context.paths {
            directories.entry(directory).or_default().push(controller);
        }
        let (mut below, mut links, mut binds) = (Vec::new(), Vec::new(), Vec::new());
        for (directory, controllers) in directories {
            // The hierarchy's directory is named as hosts name it: `cpu,cpuacct`, `systemd`, `unified`.
            let joined = controllers.join(",");
            let name = match joined.as_str() {
                "" => "unified",
                name => name.strip_prefix("name=").unwrap_or(name),
            };
            if self.context.namespace {
                let (kind, data) = self.file_system(&joined)?;
                below.push((c_string(name, self.field)?, kind, data));
            } else {
                binds.push(self.bind(&format!("{destination}/{name}"), directory)?);
            }
            for controller in controllers.iter().filter(|_| controllers.len() > 1) {
                links.push((
                    c_string(controller, self.field)?,
                    c_string(name, self.field)?,
                ));
            }
        }
        let kind = MountKind::Gather {
            flags: self.options.flags,
            below,
            links,
        };
        let mut plans = vec![self.plan(destination, kind)?];
        plans.extend(binds);
        Ok(plans)
    }

    fn hierarchy(
        &self,
        destination: &str,
        controllers: &str,
        directory: Option<&String>,
    ) -> Result<MountPlan, Error> {
        if !self.context.namespace
            && let Some(directory) = directory
        {
            return self.bind(destination, directory);
        }
        let (kind, data) = self.file_system(controllers)?;
        // Where the host's v2 is seen at the same place already (`/sys` bound without rights),
        // mount(2) refuses to put it on itself, and only a detached mount can go there.
        let detached = controllers.is_empty().then(|| Detached {
            options: Vec::new(),
            attr: self.options.attributes().set,
        });
        let kind = MountKind::FileSystem {
            kind,
            source: c"cgroup".to_owned(),
            flags: self.options.flags,
            data,
            detached,
            copy_up: false,
            keep_mode: false,
            no_links: false,
        };
        self.plan(destination, kind)
    }

    fn bind(&self, destination: &str, directory: &str) -> Result<MountPlan, Error> {
        let path = c_string(directory, self.field)?;
        let attr = self.options.attributes();
        let source = if self.context.privileged {
            let failed = |e| Error::system(format!("cannot open the cgroup {directory}"), e);
            let tree = clone_tree(CWD, &path, false).map_err(failed)?;
            let attr = MountAttr {
                propagation: ms::SLAVE,
                ..attr
            };
            mount_setattr(tree.as_fd(), false, &attr).map_err(failed)?;
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

    /// Type and data of a hierarchy's file system.
    fn file_system(&self, controllers: &str) -> Result<(CString, Option<CString>), Error> {
        if controllers.is_empty() {
            return Ok((c"cgroup2".to_owned(), None));
        }
        let data = match controllers.strip_prefix("name=") {
            Some(_) => format!("none,{controllers}"),
            None => controllers.to_owned(),
        };
        Ok((c"cgroup".to_owned(), Some(c_string(&data, self.field)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plans(mode: Mode, paths: &[(&str, &str)], namespace: bool) -> Vec<MountPlan> {
        let paths = paths
            .iter()
            .map(|(a, b)| (a.to_string(), b.to_string()))
            .collect();
        let mount = Mount {
            destination: "/sys/fs/cgroup".into(),
            kind: "cgroup".into(),
            options: vec!["ro".into()],
            ..Mount::default()
        };
        let context = CgroupContext {
            mode,
            paths: &paths,
            namespace,
            privileged: false,
        };
        cgroup_plan(&mount, 0, &context).unwrap().0
    }

    #[test]
    fn v2_is_one_mount() {
        let plans = plans(Mode::Unified, &[("", "/sys/fs/cgroup/x")], true);
        assert_eq!(plans.len(), 1);
        assert_eq!(plans[0].destination.as_c_str(), c"sys/fs/cgroup");
    }

    #[test]
    fn shared_hierarchies_get_links() {
        let paths = [
            ("cpu", "/h/cpu/x"),
            ("cpuacct", "/h/cpu/x"),
            ("name=systemd", "/h/systemd/x"),
        ];
        let plans = plans(Mode::Legacy, &paths, false);
        let names: Vec<_> = plans
            .iter()
            .map(|p| p.destination.to_str().unwrap())
            .collect();
        assert_eq!(
            names,
            [
                "sys/fs/cgroup",
                "sys/fs/cgroup/cpu,cpuacct",
                "sys/fs/cgroup/systemd"
            ]
        );
        let MountKind::Gather { links, .. } = &plans[0].kind else {
            panic!()
        };
        assert_eq!(links.len(), 2);
    }
}
