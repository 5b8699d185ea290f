//! `create` and `run`: from a bundle to a process.
//!
//! ```text
//! read config.json · validate · state directory · record · cgroup · plan
//! clone ── child replays (crate::init) ──────────────▶ exec
//!   └ record with pid · id maps, scope, devices · GO · answers ─▶ done
//! ```
//! Whatever fails undoes what was made, in reverse: the child is killed, the
//! cgroup destroyed, the directory removed. When this process is killed
//! half-way, the kernel kills the child, and the record says enough for
//! `delete --force`.

use crate::error::{Error, Names};
use crate::init;
use crate::namespaces::{self, KINDS};
use crate::options::{Console, CreateOptions};
use crate::plan::{self, InitPlan};
use crate::record::{Record, StateDir};
use crate::runtime::{Container, Created, Made, Runtime};
use crate::talk::{Answers, Child, Until};
use crate::userns::{self, Mapping};
use crate::{filter, hooks, netdev, procfs, rdt, seed, validate};
use carrack_cgroup::{Driver, Group, Layout, Request};
use carrack_spec::ContainerId;
use carrack_spec::runtime::{Linux, NamespaceKind, Process, Seccomp, Spec, State, Status};
use carrack_sys::clone::{Cloned, ns};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::Rlimit;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// CAP_SYS_ADMIN.
pub const CAP_SYS_ADMIN: u32 = 21;

/// What a failed create takes back, in reverse order of making.
#[derive(Default)]
pub struct Undo {
    pub directory: Option<StateDir>,
    pub group: Option<Group>,
    pub rdt: Option<PathBuf>,
    pub child: Option<OwnedFd>,
}

impl Undo {
    pub fn run(self) {
        if let Some(child) = &self.child {
            let _ = carrack_sys::pidfd::send_signal(child.as_fd(), 9);
            let _ = carrack_sys::pidfd::wait(child.as_fd(), true);
        }
        if let Some(group) = &self.group
            && let Err(error) = group.destroy()
        {
            log::warn!("cannot take back the cgroup: {error}");
        }
        if let Some(path) = &self.rdt {
            rdt::remove(path);
        }
        if let Some(directory) = &self.directory
            && let Err(error) = directory.remove()
        {
            log::warn!("cannot take back the state directory: {error}");
        }
    }
}

/// Makes a container; its init waits for start, or goes on at once.
pub fn create(
    runtime: &Runtime,
    id: &ContainerId,
    mut options: CreateOptions,
    at_once: bool,
) -> Result<Created, Error> {
    let bundle = std::fs::canonicalize(&options.bundle)
        .map_err(|e| Error::path("cannot find the bundle", &options.bundle, e))?;
    let (text, mut spec) = configuration(&bundle, options.spec.take())?;
    spec.mounts.append(&mut options.extra_mounts);
    if let (Some(process), Some(size)) = (&mut spec.process, options.console_size) {
        process.console_size = Some(size);
    }
    validate::spec(&spec)?;
    let mut undo = Undo {
        directory: Some(StateDir::create(runtime.root(), id)?),
        ..Undo::default()
    };
    let maker = Maker {
        runtime,
        id,
        bundle: &bundle,
        text: &text,
        spec: &spec,
        at_once,
    };
    match maker.make(options, &mut undo) {
        Ok(mut created) => {
            created.container.made = undo.group.map(|group| Made { group, spec });
            Ok(created)
        }
        Err(error) => {
            undo.run();
            Err(error)
        }
    }
}

/// The configuration and its text: what the caller gave, or the bundle's `config.json`.
fn configuration(bundle: &Path, given: Option<Box<Spec>>) -> Result<(Vec<u8>, Spec), Error> {
    if let Some(spec) = given {
        let text = serde_json::to_vec(&spec)
            .map_err(|e| Error::system("cannot write the configuration as JSON", e))?;
        return Ok((text, *spec));
    }
    let path = bundle.join("config.json");
    let text = read_config(&path)?;
    let spec = Spec::from_json(&text).map_err(|source| Error::Parse { path, source })?;
    Ok((text, spec))
}

/// Reads the configuration, never more than the limit.
pub fn read_config(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |e| Error::path("cannot read", path, e);
    let file = File::open(path).map_err(failed)?;
    let mut text = Vec::with_capacity(32 << 10);
    let limit = carrack_spec::runtime::CONFIG_BYTES_MAX as u64 + 1;
    std::io::Read::read_to_end(&mut std::io::Read::take(&file, limit), &mut text)
        .map_err(failed)?;
    Ok(text)
}

/// What is known about a container before anything of it exists.
pub struct Maker<'a> {
    pub runtime: &'a Runtime,
    pub id: &'a ContainerId,
    pub bundle: &'a Path,
    /// The configuration as it was read.
    pub text: &'a [u8],
    pub spec: &'a Spec,
    /// Do not wait for start.
    pub at_once: bool,
}

impl Maker<'_> {
    fn make(&self, options: CreateOptions, undo: &mut Undo) -> Result<Created, Error> {
        let directory = StateDir::of(self.runtime.root(), self.id);
        let empty = Linux::default();
        let linux = self.spec.linux.as_ref().unwrap_or(&empty);
        let proc = procfs::open()?;
        let mut record = self.first_record(linux, &proc)?;
        record.external_descriptors = stream_names(&proc, options.stdio.as_ref());
        directory.save_config(self.text)?;
        directory.save(&record)?;

        let layout = Layout::detect()?;
        let group = undo
            .group
            .insert(self.make_group(&layout, &mut record, &proc)?);
        record.cgroup_paths = group.paths();
        let resources = linux.resources.clone().unwrap_or_default();
        group.apply(&resources)?;
        group.apply_devices(&plan::device_rules(&resources.devices))?;

        let mut names = Names::default();
        let own = userns::own_caps();
        let privileged = own & (1 << CAP_SYS_ADMIN) != 0;
        let (mut birth, all) = namespaces::plan(linux, privileged, &mut names)?;
        record.carrack.namespaces = all;
        let makes_user = validate::makes(linux, NamespaceKind::User);
        let closid = rdt::plan(linux, self.id)?;
        birth.wait =
            makes_user || group.needs_attach() || !linux.net_devices.is_empty() || closid.is_some();
        if !group.needs_attach() {
            let entry = group.entry()?;
            birth.cgroup = entry.v2;
            birth.tasks = entry.v1_tasks;
        }
        let seccomp = linux
            .seccomp
            .as_ref()
            .map(|text| filter::filter(self.runtime.root(), text))
            .transpose()?
            .flatten();
        let (program, profile) =
            seccomp.map_or((None, None), |(program, profile)| (Some(program), profile));
        let mapping = userns::mapping(&linux.uid_mappings, &linux.gid_mappings, own);
        let settings = Settings {
            group,
            mode: layout.mode(),
            privileged,
            own,
            mapping,
            all,
        };
        let parts = Parts {
            proc,
            birth,
            program,
            streams: &record.external_descriptors,
        };
        let mut plan = self.plan(linux, options, &settings, parts, &mut names)?;
        let hook_output = plan
            .hooks
            .output
            .as_ref()
            .map(|fd| fd.try_clone().map(File::from));
        let hook_output = hook_output
            .transpose()
            .map_err(|e| Error::system("cannot copy a descriptor", e))?;
        let pid_file = plan.pid_file.take();

        if seed::use_seed(&mut plan, self.asks_for_hooks(), self.runtime.root()) {
            names.joins.push("host's smallest mount".to_owned());
        }
        let mut child = self.clone_child(&plan, hook_output)?;
        undo.child = Some(
            child
                .pidfd
                .try_clone()
                .map_err(|e| Error::system("cannot copy a descriptor", e))?,
        );
        let proc = plan.proc.as_fd();
        note_init(&mut record, proc, child.pid);
        directory.save(&record)?;
        if plan.birth.wait {
            if makes_user {
                userns::write_maps(
                    proc,
                    child.pid,
                    &linux.uid_mappings,
                    &linux.gid_mappings,
                    mapping,
                )?;
                apply_from_outside(&plan.process, proc, child.pid)?;
            }
            if let Some(group) = undo.group.as_ref().filter(|group| group.needs_attach()) {
                group.attach(child.pid)?;
                record.cgroup_paths = group.paths();
            }
            netdev::move_devices(linux, proc, child.pid)?;
            if let Some(closid) = &closid {
                let (path, made) = rdt::apply(closid, child.pid)?;
                undo.rdt = made.then(|| path.clone());
                record.intel_rdt_path = path.to_string_lossy().into_owned();
                record.carrack.intel_rdt_made = made;
            }
            directory.save(&record)?;
            child.go()?;
        }
        let mut answers = CreateAnswers {
            maker: self,
            directory: &directory,
            record: &mut record,
            plan: &plan,
            profile: profile.as_ref(),
        };
        let until = if self.at_once {
            Until::Executed
        } else {
            Until::Ready
        };
        child.follow(until, &names, &mut answers)?;
        if let Some(path) = &pid_file {
            write_pid_file(path, child.pid)?;
        }
        if let (true, Some(hooks)) = (self.at_once, &self.spec.hooks) {
            let state = self.state(&record, Status::Running);
            hooks::run("poststart", &hooks.poststart, &state)?;
        }
        let container =
            Container::from_parts(self.runtime.clone(), self.id.clone(), directory, record);
        Ok(Created {
            container,
            console: child.console,
            pidfd: child.pidfd,
        })
    }

    /// Makes the cgroup. Root of a user namespace looks like root and may have no right to any
    /// cgroup all the same; that is looked at only when it fails.
    fn make_group(
        &self,
        layout: &Layout,
        record: &mut Record,
        proc: &OwnedFd,
    ) -> Result<Group, Error> {
        let made = create_group(layout, record, self.spec);
        let auto = self.runtime.options().rootless.is_none();
        if made.is_err()
            && auto
            && !record.carrack.rootless_cgroups
            && userns::is_inside_one(proc.as_fd())
        {
            record.carrack.rootless_cgroups = true;
            return create_group(layout, record, self.spec);
        }
        made
    }

    pub fn first_record(&self, linux: &Linux, proc: &OwnedFd) -> Result<Record, Error> {
        let mut record = Record::new(self.id);
        let spec = self.spec;
        let root = spec.root.as_ref().map_or("", |root| &root.path);
        let rootfs = self.bundle.join(root);
        record.config.rootfs = text_of(&rootfs, "root.path")?;
        let bundle = text_of(self.bundle, "bundle")?;
        record.config.labels = vec![format!("bundle={bundle}")];
        record.config.labels.extend(
            spec.annotations
                .iter()
                .map(|(name, value)| format!("{name}={value}")),
        );
        let own = &mut record.carrack;
        own.bundle = bundle;
        own.oci_version = carrack_spec::runtime::OCI_VERSION.to_owned();
        own.annotations = spec.annotations.clone();
        own.creator = std::process::id() as i32;
        own.creator_start = procfs::start_time(proc.as_fd(), own.creator).unwrap_or(0);
        own.systemd = self.runtime.options().systemd_cgroup;
        own.systemd_user = own.systemd && !rustix::process::geteuid().is_root();
        own.cgroups_path = linux.cgroups_path.clone();
        own.rootless_cgroups = self.runtime.options().rootless.unwrap_or_else(|| {
            !rustix::process::geteuid().is_root() || !procfs::in_first_user_namespace(proc.as_fd())
        });
        Ok(record)
    }

    fn plan(
        &self,
        linux: &Linux,
        mut options: CreateOptions,
        settings: &Settings<'_>,
        parts: Parts<'_>,
        names: &mut Names,
    ) -> Result<InitPlan, Error> {
        let rootfs = self
            .bundle
            .join(self.spec.root.as_ref().map_or("", |root| &root.path));
        let process = self
            .spec
            .process
            .as_ref()
            .ok_or_else(|| Error::invalid("process", "is missing"))?;
        let cgroup_mounts = self.cgroup_mounts(linux, settings)?;
        let context = plan::RootfsContext {
            bundle: self.bundle,
            rootfs: &rootfs,
            privileged: settings.privileged,
            user_namespace: settings.all & ns::USER != 0,
            no_pivot: options.no_pivot,
            cgroup_mounts,
        };
        let rootfs_plan = plan::rootfs_plan(self.spec, context, names)?;
        let makes_user = validate::makes(linux, NamespaceKind::User);
        let user_namespace = settings.all & ns::USER != 0;
        let home = || match &rootfs_plan.tree {
            plan::Source::Tree(tree) => home_of(process, Some(tree.as_fd())),
            plan::Source::Path(_) => home_of(process, open_root(&rootfs).as_ref().map(AsFd::as_fd)),
        };
        let context = plan::ProcessContext {
            available: if user_namespace {
                u64::MAX
            } else {
                settings.own
            },
            own: settings.own,
            strict: self.runtime.options().strict,
            user_namespace,
            groups_denied: makes_user && settings.mapping == Mapping::Single,
            keep_groups: annotation(self.spec, "run.oci.keep_original_groups"),
            home: home(),
            extra_env: &options.extra_env,
        };
        let mut process_plan = plan::process_plan(process, &context)?;
        plan::name_process(names, process);
        process_plan.seccomp = parts.program.map(plan::seccomp_plan);
        process_plan.memory_policy = linux
            .memory_policy
            .as_ref()
            .map(plan::memory_policy)
            .transpose()?;
        process_plan.personality = linux
            .personality
            .as_ref()
            .map(plan::personality)
            .transpose()?;
        process_plan.terminal = terminal_plan(process, &options.console)?;
        process_plan.stdio = options.stdio.take();
        for (null, name) in process_plan.null_streams.iter_mut().zip(parts.streams) {
            *null = name == "/dev/null";
        }
        process_plan.preserve_fds = options.preserve_fds;
        if !linux.mount_label.is_empty() && process.selinux_label.is_empty() {
            log::debug!("linux.mountLabel is set without process.selinuxLabel");
        }
        let field = "linux.sysctl";
        names.sysctl = linux.sysctl.keys().cloned().collect();
        let sysctl = linux
            .sysctl
            .iter()
            .map(|(name, value)| {
                let path = format!("sys/{}", validate::sysctl_path(name));
                Ok((plan::c_string(&path, field)?, plan::c_string(value, field)?))
            })
            .collect::<Result<_, Error>>()?;
        let text = |value: &str, field: &str| match value {
            "" => Ok(None),
            value => plan::c_string(value, field).map(Some),
        };
        let hooks = self.hooks(names, process_plan.env.strings())?;
        Ok(InitPlan {
            birth: parts.birth,
            proc: parts.proc,
            time_offsets: time_offsets(linux)?,
            keyring: match options.no_new_keyring {
                true => None,
                false => Some(plan::c_string(&format!("_ses.{}", self.id), "id")?),
            },
            loopback: validate::makes(linux, NamespaceKind::Network),
            rootfs: rootfs_plan,
            run_hooks: self.asks_for_hooks(),
            hooks,
            hostname: text(&self.spec.hostname, "hostname")?,
            domainname: text(&self.spec.domainname, "domainname")?,
            sysctl,
            process: process_plan,
            outside_limits: makes_user,
            start: if self.at_once {
                None
            } else {
                Some(self.make_fifo()?)
            },
            pid_file: options.pid_file,
        })
    }

    fn cgroup_mounts(
        &self,
        linux: &Linux,
        settings: &Settings<'_>,
    ) -> Result<Vec<plan::CgroupMounts>, Error> {
        let paths = settings.group.paths();
        let context = plan::CgroupContext {
            mode: settings.mode,
            paths: &paths,
            namespace: validate::has(linux, NamespaceKind::Cgroup),
            privileged: settings.privileged,
        };
        let mut out = Vec::new();
        for (index, mount) in self.spec.mounts.iter().enumerate() {
            if matches!(mount.kind.as_str(), "cgroup" | "cgroup2") {
                let (mounts, late_readonly) = plan::cgroup_plan(mount, index, &context)?;
                out.push(plan::CgroupMounts {
                    index,
                    mounts,
                    late_readonly,
                });
            }
        }
        Ok(out)
    }

    fn asks_for_hooks(&self) -> bool {
        self.spec.hooks.as_ref().is_some_and(|hooks| {
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
        let Some(hooks) = &self.spec.hooks else {
            return Ok(plan::Hooks::default());
        };
        if hooks.create_container.is_empty() && hooks.start_container.is_empty() {
            return Ok(plan::Hooks::default());
        }
        let paths = |list: &[carrack_spec::runtime::Hook]| {
            list.iter().map(|hook| hook.path.clone()).collect()
        };
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

    fn make_fifo(&self) -> Result<OwnedFd, Error> {
        let path = StateDir::of(self.runtime.root(), self.id).fifo();
        let failed = |e| Error::path("cannot make", &path, e);
        rustix::fs::mknodat(
            CWD,
            &path,
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .map_err(failed)?;
        // Open for both ends: init then never sees an end of file, and start sees that init lives.
        rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(failed)
    }

    fn clone_child(&self, plan: &InitPlan, hook_output: Option<File>) -> Result<Child, Error> {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|e| Error::system("cannot make a socket pair", e))?;
        match namespaces::give_birth(&plan.birth, plan.proc.as_fd())? {
            Cloned::Child => {
                // Our copy of the parent's end must not keep the conversation open.
                drop(ours);
                init::init(plan, theirs.as_fd())
            }
            Cloned::Parent { pid, pidfd } => Ok(Child {
                pid,
                pidfd,
                socket: ours,
                console: None,
                hook_output,
            }),
        }
    }

    pub fn state(&self, record: &Record, status: Status) -> State {
        State {
            oci_version: record.carrack.oci_version.clone(),
            id: record.id.clone(),
            status,
            pid: record.init_process_pid,
            bundle: record.carrack.bundle.clone(),
            annotations: record.carrack.annotations.clone(),
        }
    }
}

struct Settings<'a> {
    group: &'a Group,
    mode: carrack_cgroup::Mode,
    privileged: bool,
    own: u64,
    mapping: Mapping,
    all: u64,
}

struct Parts<'a> {
    proc: OwnedFd,
    /// What the standard streams are.
    streams: &'a [String],
    birth: plan::Birth,
    program: Option<carrack_seccomp::Program>,
}

struct CreateAnswers<'a> {
    maker: &'a Maker<'a>,
    directory: &'a StateDir,
    record: &'a mut Record,
    plan: &'a InitPlan,
    profile: Option<&'a Seccomp>,
}

impl Answers for CreateAnswers<'_> {
    fn run_hooks(&mut self, _pid: i32) -> Result<(), Error> {
        let Some(hooks) = &self.maker.spec.hooks else {
            return Ok(());
        };
        let state = self.maker.state(self.record, Status::Creating);
        hooks::run("prestart", &hooks.prestart, &state)?;
        hooks::run("createRuntime", &hooks.create_runtime, &state)?;
        if let Some(states) = &self.plan.hooks.states {
            let created = self.maker.state(self.record, Status::Created);
            for (file, state) in states.iter().zip([&state, &created]) {
                let text = serde_json::to_vec(state).unwrap_or_default();
                rustix::io::pwrite(file, &text, 0)
                    .map_err(|e| Error::system("cannot pass the state to hooks", e))?;
            }
        }
        Ok(())
    }

    fn listener(&mut self, pid: i32, descriptor: OwnedFd) -> Result<(), Error> {
        let Some(profile) = self.profile else {
            return Ok(());
        };
        let state = self.maker.state(self.record, Status::Creating);
        crate::filter::hand_on(profile, pid, state, descriptor)
    }

    fn moved(&mut self, pid: i32) -> Result<(), Error> {
        note_init(self.record, self.plan.proc.as_fd(), pid);
        self.directory.save(self.record)
    }
}

/// What the standard streams are, in the kernel's words: a checkpoint names pipes by them.
pub fn stream_names(proc: &OwnedFd, stdio: Option<&[OwnedFd; 3]>) -> Vec<String> {
    use std::os::fd::AsRawFd;
    let number = |index| stdio.map_or(index, |stdio| stdio[index as usize].as_raw_fd());
    (0..3)
        .map(|index| {
            let link = format!("self/fd/{}", number(index));
            rustix::fs::readlinkat(proc, link, Vec::new())
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default()
        })
        .collect()
}

fn text_of(path: &Path, field: &str) -> Result<String, Error> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| Error::invalid(field, "is not UTF-8"))
}

/// Makes the container's cgroup from what the record says; also how a killed create is cleaned up.
pub fn create_group(layout: &Layout, record: &Record, spec: &Spec) -> Result<Group, Error> {
    const PREFIX: &str = "org.systemd.property.";
    let properties: Vec<(&str, &str)> = spec
        .annotations
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value.as_str())))
        .collect();
    let request = Request {
        id: &record.id,
        path: &record.carrack.cgroups_path,
        driver: driver(record),
        rootless: record.carrack.rootless_cgroups,
        properties: &properties,
    };
    Ok(Group::create(layout, &request)?)
}

/// Who made the container's cgroup.
pub fn driver(record: &Record) -> Driver {
    match record.carrack.systemd {
        true => Driver::Systemd {
            user: record.carrack.systemd_user,
        },
        false => Driver::Cgroupfs,
    }
}

/// Notes which process is init.
pub fn note_init(record: &mut Record, proc: BorrowedFd<'_>, pid: i32) {
    record.init_process_pid = pid;
    record.init_process_start = procfs::start_time(proc, pid).unwrap_or(0);
    record.namespace_paths = KINDS
        .iter()
        .map(|(_, _, _, file, name)| ((*name).to_owned(), format!("/proc/{pid}/ns/{file}")))
        .collect();
}

/// Limits that a process in a new user namespace may not raise itself. They are raised
/// only: a low limit, say of open files, could stop what init has to do before it
/// takes on the exact limits itself.
fn apply_from_outside(
    process: &plan::ProcessPlan,
    proc: BorrowedFd<'_>,
    pid: i32,
) -> Result<(), Error> {
    if let Some(value) = &process.oom_score_adj
        && let Err(error) = procfs::write(proc, &format!("{pid}/oom_score_adj"), value.to_bytes())
    {
        if process.strict {
            return Err(Error::system("cannot set process.oomScoreAdj", error));
        }
        log::warn!("cannot set process.oomScoreAdj: {error}; the container goes on without it");
    }
    for (resource, limit) in &process.rlimits {
        let now = rustix::process::getrlimit(*resource);
        let raised = Rlimit {
            current: at_least(now.current, limit.current),
            maximum: at_least(now.maximum, limit.maximum),
        };
        if raised == now {
            continue;
        }
        let target = rustix::process::Pid::from_raw(pid);
        rustix::process::prlimit(target, *resource, raised)
            .map_err(|e| Error::system(format!("cannot set the limit {resource:?}"), e))?;
    }
    Ok(())
}

/// The higher of two limits, where none is the highest.
fn at_least(now: Option<u64>, wanted: Option<u64>) -> Option<u64> {
    now.zip(wanted).map(|(now, wanted)| now.max(wanted))
}

/// `HOME` from the root file system's `/etc/passwd`, when the environment has none or an empty one.
pub fn home_of(process: &Process, root: Option<BorrowedFd<'_>>) -> Option<String> {
    if process
        .env
        .iter()
        .rev()
        .find_map(|variable| variable.strip_prefix("HOME="))
        .is_some_and(|home| !home.is_empty())
    {
        return None;
    }
    let home = root.and_then(|root| crate::passwd::home(root, process.user.uid));
    Some(home.unwrap_or_else(|| "/".to_owned()))
}

/// A root file system to look something up in.
pub fn open_root(path: &Path) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).ok()
}

fn annotation(spec: &Spec, name: &str) -> bool {
    spec.annotations
        .get(name)
        .is_some_and(|value| value != "0" && value != "false")
}

fn time_offsets(linux: &Linux) -> Result<Option<std::ffi::CString>, Error> {
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

/// The terminal of a process and the way its master goes.
pub fn terminal_plan(
    process: &Process,
    console: &Console,
) -> Result<Option<plan::TerminalPlan>, Error> {
    let socket = match (process.terminal, console) {
        (false, Console::Socket(_)) => {
            return Err(Error::invalid(
                "process.terminal",
                "a console socket is for a process with a terminal",
            ));
        }
        (false, _) => return Ok(None),
        (true, Console::None) => {
            return Err(Error::invalid(
                "process.terminal",
                "a terminal needs a console socket or a caller in the foreground",
            ));
        }
        (true, Console::Master) => None,
        (true, Console::Socket(path)) => {
            let stream = std::os::unix::net::UnixStream::connect(path)
                .map_err(|e| Error::path("cannot connect to the console socket", path, e))?;
            Some(OwnedFd::from(stream))
        }
    };
    let size = process.console_size.map(|size| (size.height, size.width));
    Ok(Some(plan::TerminalPlan {
        size: size.filter(|&(rows, columns)| rows > 0 && columns > 0),
        socket,
    }))
}

/// Writes a pid file: whole or not at all.
pub fn write_pid_file(path: &Path, pid: i32) -> Result<(), Error> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    let temporary = path.with_file_name(name);
    let failed = |e| Error::path("cannot write the pid file", path, e);
    std::fs::write(&temporary, pid.to_string()).map_err(failed)?;
    std::fs::rename(&temporary, path).map_err(failed)
}
