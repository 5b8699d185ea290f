//! From a configuration to the plan that init replays.
//!
//! Everything is looked up, opened and checked here, before the clone: what is
//! wrong with a configuration is found while nothing of the container runs. A
//! plan is made once, for one child.

use super::Maker;
use crate::error::{Error, Names};
use crate::namespaces;
use crate::options::CreateOptions;
use crate::plan::{self, InitPlan, ProcessPlan, RootfsPlan};
use crate::record::StateDir;
use crate::userns::{self, Mapping};
use crate::{filter, hooks, passwd, rdt, seed, validate};
use carrack_cgroup::Group;
use carrack_seccomp::Program;
use carrack_spec::runtime::{Hook, Linux, NamespaceKind, Seccomp};
use carrack_sys::clone::ns;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

/// What a plan is made of, beside the options of the call.
pub struct Planner<'a, 'l> {
    pub maker: &'a Maker<'a>,
    pub linux: &'l Linux,
    pub group: &'a Group,
    /// Which way id maps are written.
    pub mapping: Mapping,
    /// The caller's effective capabilities.
    pub own: u64,
    /// What the standard streams are.
    pub streams: &'a [String],
}

/// A plan, and what its maker has to know of it.
pub struct Planned<'l> {
    pub plan: InitPlan,
    /// What the numbers that init reports stand for.
    pub names: Names,
    /// Namespaces (`CLONE_NEW…`) that the container does not share with the caller.
    pub namespaces: u64,
    /// The seccomp profile, for its listener.
    pub profile: Option<Seccomp>,
    /// The resctrl group that init goes to.
    pub closid: Option<rdt::Closid<'l>>,
}

impl<'l> Planner<'_, 'l> {
    /// Makes the plan.
    pub fn plan(&self, proc: OwnedFd, options: CreateOptions) -> Result<Planned<'l>, Error> {
        let mut names = Names::default();
        let privileged = userns::is_admin(self.own);
        let (mut birth, namespaces) = namespaces::plan(self.linux, privileged, &mut names)?;
        if let Some(path) = validate::path_of(self.linux, NamespaceKind::User) {
            userns::check_joined(self.linux, path)?;
        }
        let closid = rdt::plan(self.linux, self.maker.id)?;
        birth.wait = self.makes_user()
            || self.group.needs_attach()
            || !self.linux.net_devices.is_empty()
            || closid.is_some();
        if !self.group.needs_attach() {
            let entry = self.group.entry()?;
            birth.cgroup = entry.v2;
            birth.tasks = entry.v1_tasks.into();
        }
        let (program, profile) = filter::of(self.maker.runtime.root(), self.linux)?;
        let rootfs = self.rootfs(namespaces, options.no_pivot, &mut names)?;
        let no_new_keyring = options.no_new_keyring;
        let process = self.process(options, namespaces, &rootfs, program, &mut names)?;
        let sysctl = self.sysctl(&mut names)?;
        let hooks = self.hooks(&mut names, process.env.strings())?;
        let spec = self.maker.spec;
        let mut plan = InitPlan {
            birth,
            proc,
            time_offsets: time_offsets(self.linux)?,
            keyring: match no_new_keyring {
                true => None,
                false => Some(plan::session_keyring(self.maker.id)?),
            },
            loopback: validate::makes(self.linux, NamespaceKind::Network),
            rootfs,
            run_hooks: self.asks_for_hooks(),
            hooks,
            hostname: unless_empty(&spec.hostname, "hostname")?,
            domainname: unless_empty(&spec.domainname, "domainname")?,
            sysctl,
            process,
            outside_limits: self.makes_user(),
            start: match self.maker.at_once {
                true => None,
                false => Some(self.directory().make_fifo()?),
            },
        };
        if seed::use_seed(&mut plan, self.maker.runtime.root()) {
            names.joins.push("host's smallest mount".to_owned());
        }
        Ok(Planned {
            plan,
            names,
            namespaces,
            profile,
            closid,
        })
    }

    fn directory(&self) -> StateDir {
        StateDir::of(self.maker.runtime.root(), self.maker.id)
    }

    fn makes_user(&self) -> bool {
        validate::makes(self.linux, NamespaceKind::User)
    }

    fn rootfs(
        &self,
        namespaces: u64,
        no_pivot: bool,
        names: &mut Names,
    ) -> Result<RootfsPlan, Error> {
        let context = plan::RootfsContext {
            bundle: self.maker.bundle,
            rootfs: &self.maker.rootfs(),
            privileged: userns::is_admin(self.own),
            user_namespace: namespaces & ns::USER != 0,
            no_pivot,
            cgroup_mounts: self.cgroup_mounts()?,
        };
        plan::rootfs_plan(self.maker.spec, context, names)
    }

    fn cgroup_mounts(&self) -> Result<Vec<plan::CgroupMounts>, Error> {
        let mounts = self.group.mounts_for_container();
        let context = plan::CgroupContext {
            mounts: &mounts,
            namespace: validate::has(self.linux, NamespaceKind::Cgroup),
            // A scope's cgroups are there only once its first process is: the child binds them.
            privileged: userns::is_admin(self.own) && !self.group.needs_attach(),
        };
        let mut out = Vec::new();
        for (index, mount) in self.maker.spec.mounts.iter().enumerate() {
            if matches!(mount.kind.as_str(), "cgroup" | "cgroup2") {
                let mounts = plan::cgroup_plan(mount, index, &context)?;
                out.push(plan::CgroupMounts { index, mounts });
            }
        }
        Ok(out)
    }

    fn process(
        &self,
        options: CreateOptions,
        namespaces: u64,
        rootfs: &RootfsPlan,
        program: Option<Program>,
        names: &mut Names,
    ) -> Result<ProcessPlan, Error> {
        let spec = self.maker.spec;
        let process = spec
            .process
            .as_ref()
            .ok_or_else(|| Error::invalid("process", "is missing"))?;
        let user_namespace = namespaces & ns::USER != 0;
        let home = match &rootfs.tree {
            plan::Source::Tree(tree) => passwd::home_of(process, Some(tree.as_fd())),
            plan::Source::Path(_) | plan::Source::Inside(_) => {
                passwd::home_below(process, &self.maker.rootfs())
            }
        };
        let context = plan::ProcessContext {
            available: if user_namespace { u64::MAX } else { self.own },
            own: self.own,
            strict: self.maker.runtime.options().strict,
            user_namespace,
            groups_denied: self.makes_user() && self.mapping == Mapping::Single,
            keep_groups: plan::keeps_groups(spec),
            home,
            extra_env: &options.extra_env,
        };
        let mut planned = plan::process_plan(process, &context)?;
        plan::name_process(names, process);
        planned.seccomp = program.map(plan::seccomp_plan);
        planned.add_linux(self.linux)?;
        planned.terminal = plan::terminal_plan(process, &options.console)?;
        planned.stdio = options.stdio;
        for (null, name) in planned.null_streams.iter_mut().zip(self.streams) {
            *null = name == "/dev/null";
        }
        planned.preserve_fds = options.preserve_fds;
        if !self.linux.mount_label.is_empty() && process.selinux_label.is_empty() {
            log::debug!("linux.mountLabel is set without process.selinuxLabel");
        }
        Ok(planned)
    }

    fn sysctl(&self, names: &mut Names) -> Result<Vec<(CString, CString)>, Error> {
        let field = "linux.sysctl";
        names.sysctl = self.linux.sysctl.keys().cloned().collect();
        self.linux
            .sysctl
            .iter()
            .map(|(name, value)| {
                let path = format!("sys/{}", validate::sysctl_path(name));
                Ok((plan::c_string(&path, field)?, plan::c_string(value, field)?))
            })
            .collect()
    }

    /// Whether init has to wait while the hooks of the runtime namespace run, or runs some itself.
    fn asks_for_hooks(&self) -> bool {
        self.maker.spec.hooks.as_ref().is_some_and(|hooks| {
            let lists = [
                &hooks.prestart,
                &hooks.create_runtime,
                &hooks.create_container,
                &hooks.start_container,
            ];
            lists.iter().any(|list| !list.is_empty())
        })
    }

    fn hooks(&self, names: &mut Names, env: &[CString]) -> Result<plan::Hooks, Error> {
        let Some(hooks) = &self.maker.spec.hooks else {
            return Ok(plan::Hooks::default());
        };
        if hooks.create_container.is_empty() && hooks.start_container.is_empty() {
            return Ok(plan::Hooks::default());
        }
        let paths = |list: &[Hook]| list.iter().map(|hook| hook.path.clone()).collect();
        names.hooks = [
            paths(&hooks.create_container),
            paths(&hooks.start_container),
        ];
        let file =
            || hooks::memory_file().map_err(|e| Error::system("cannot make a file in memory", e));
        Ok(plan::Hooks {
            create_container: hooks::plan(&hooks.create_container, "hooks.createContainer", &[])?,
            start_container: hooks::plan(&hooks.start_container, "hooks.startContainer", env)?,
            states: Some([file()?, file()?]),
            output: Some(file()?),
        })
    }
}

fn unless_empty(text: &str, field: &str) -> Result<Option<CString>, Error> {
    match text {
        "" => Ok(None),
        text => plan::c_string(text, field).map(Some),
    }
}

fn time_offsets(linux: &Linux) -> Result<Option<CString>, Error> {
    if linux.time_offsets.is_empty() {
        return Ok(None);
    }
    let lines: String = linux
        .time_offsets
        .iter()
        .map(|(clock, offset)| format!("{clock} {} {}\n", offset.secs, offset.nanosecs))
        .collect();
    plan::c_string(&lines, "linux.timeOffsets").map(Some)
}
