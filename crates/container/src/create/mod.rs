//! `create` and `run`: from a bundle to a process.
//!
//! ```text
//! read config.json · validate · state directory · record · cgroup · plan ([`planning`])
//! clone ── child replays (crate::init) ──────────────▶ exec
//!   └ record with pid · id maps, scope, devices ([`outside`]) · GO · answers ─▶ done
//! ```
//! Whatever fails undoes what was made, in reverse: the child is killed, the
//! cgroup destroyed, the directory removed. When this process is killed
//! half-way, the kernel kills the child, and the record says enough for
//! `delete --force`.

mod outside;
mod planning;

use crate::error::Error;
use crate::init;
use crate::options::CreateOptions;
use crate::plan::{self, InitPlan};
use crate::record::{self, Record, StateDir};
use crate::runtime::{Container, Created, Made, Runtime};
use crate::talk::{self, Answers, Child, Until};
use crate::userns::{self, Mapping};
use crate::{config, filter, group, hooks, namespaces, netdev, pid_file, procfs, rdt, validate};
use carrack_cgroup::{Group, Layout};
use carrack_spec::ContainerId;
use carrack_spec::runtime::{Linux, Seccomp, Spec, Status};
use carrack_sys::clone::Cloned;
use outside::Outside;
use planning::{Planned, Planner};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What a failed create takes back, in reverse order of making.
#[derive(Default)]
pub struct Undo {
    pub directory: Option<StateDir>,
    pub group: Option<Group>,
    pub rdt: Option<PathBuf>,
    pub devices: netdev::Moved,
    pub child: Option<OwnedFd>,
}

impl Undo {
    /// Moves `pid` into its resctrl group; what was made for the container alone is taken back.
    pub fn enter_rdt(
        &mut self,
        closid: &rdt::Closid<'_>,
        pid: i32,
        record: &mut Record,
    ) -> Result<(), Error> {
        let (path, made) = rdt::apply(closid, pid)?;
        record.intel_rdt_path = path.to_string_lossy().into_owned();
        record.carrack.intel_rdt_made = made;
        self.rdt = made.then_some(path);
        Ok(())
    }

    /// The end of a making: the container keeps what was made, or all of it is taken back.
    pub fn settle(self, made: Result<Created, Error>, spec: Spec) -> Result<Created, Error> {
        match made {
            Ok(mut created) => {
                created.container.made = self.group.map(|group| Made { group, spec });
                Ok(created)
            }
            Err(error) => {
                self.run();
                Err(error)
            }
        }
    }

    fn run(self) {
        // First, as they would go with the child's namespace.
        self.devices.give_back();
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
    if let (Some(process), Some(size)) = (&mut spec.process, options.console_size)
        && process.terminal
    {
        process.console_size = size().or(process.console_size);
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
    let made = maker.make(options, &mut undo);
    undo.settle(made, spec)
}

/// The configuration and its text: what the caller gave, or the bundle's `config.json`.
fn configuration(bundle: &Path, given: Option<Box<Spec>>) -> Result<(Vec<u8>, Spec), Error> {
    match given {
        Some(spec) => {
            let text = serde_json::to_vec(&spec)
                .map_err(|e| Error::system("cannot write the configuration as JSON", e))?;
            Ok((text, *spec))
        }
        None => config::read(&bundle.join("config.json")),
    }
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
    fn make(&self, mut options: CreateOptions, undo: &mut Undo) -> Result<Created, Error> {
        let directory = StateDir::of(self.runtime.root(), self.id);
        let empty = Linux::default();
        let linux = self.spec.linux.as_ref().unwrap_or(&empty);
        let proc = procfs::open()?;
        let own_stat = procfs::own_stat(proc.as_fd());
        let mut record = self.first_record(linux, &proc, own_stat.as_ref())?;
        record.external_descriptors = record::stream_names(&proc, options.stdio.as_ref());
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

        let pid_file = options.pid_file.take();
        let own = userns::own_caps();
        let planner = Planner {
            maker: self,
            linux,
            group,
            mapping: userns::mapping(&linux.uid_mappings, &linux.gid_mappings, own),
            own,
            streams: &record.external_descriptors,
        };
        let mapping = planner.mapping;
        let mut planned = planner.plan(proc, options)?;
        planned.plan.birth.ignored = procfs::ignored(own_stat.as_ref());
        record.carrack.namespaces = planned.namespaces;

        let mut child = clone_child(&planned.plan)?;
        let brought = self
            .bring_up(&mut child, &planned, mapping, &mut record, undo)
            .and_then(|()| self.announce(child.pid, pid_file.as_deref(), &record));
        if let Err(error) = brought {
            undo.child = Some(child.pidfd);
            return Err(error);
        }
        let container =
            Container::from_parts(self.runtime.clone(), self.id.clone(), directory, record);
        Ok(Created {
            container,
            console: child.console,
            pidfd: child.pidfd,
        })
    }

    /// Leads the child to where it waits for start, or to its program.
    fn bring_up(
        &self,
        child: &mut Child,
        planned: &Planned<'_>,
        mapping: Mapping,
        record: &mut Record,
        undo: &mut Undo,
    ) -> Result<(), Error> {
        let directory = StateDir::of(self.runtime.root(), self.id);
        let plan = &planned.plan;
        record.note_init(plan.proc.as_fd(), child.pid);
        directory.save(record)?;
        if plan.birth.wait {
            let empty = Linux::default();
            let outside = Outside {
                linux: self.spec.linux.as_ref().unwrap_or(&empty),
                mapping,
                closid: planned.closid.as_ref(),
                process: &plan.process,
                proc: plan.proc.as_fd(),
                pid: child.pid,
            };
            outside.prepare(record, undo)?;
            directory.save(record)?;
            child.go()?;
        }
        let mut answers = CreateAnswers {
            maker: self,
            directory: &directory,
            record,
            plan,
            profile: planned.profile.as_ref(),
        };
        let until = if self.at_once {
            Until::Executed
        } else {
            Until::Ready
        };
        child.follow(until, &planned.names, &mut answers)
    }

    /// What the caller and the hooks are told about a container that is there.
    fn announce(&self, pid: i32, pid_file: Option<&Path>, record: &Record) -> Result<(), Error> {
        if let Some(path) = pid_file {
            pid_file::write(path, pid)?;
        }
        match &self.spec.hooks {
            Some(hooks) if self.at_once => hooks::run(
                "poststart",
                &hooks.poststart,
                &record.state(Status::Running),
            ),
            _ => Ok(()),
        }
    }

    /// Makes the cgroup. Root of a user namespace looks like root and may have no right to any
    /// cgroup all the same; that is looked at only when it fails.
    fn make_group(
        &self,
        layout: &Layout,
        record: &mut Record,
        proc: &OwnedFd,
    ) -> Result<Group, Error> {
        let made = group::create(layout, record, self.spec);
        let auto = self.runtime.options().rootless.is_none();
        if made.is_err()
            && auto
            && !record.carrack.rootless_cgroups
            && userns::is_inside_one(proc.as_fd())
        {
            record.carrack.rootless_cgroups = true;
            return group::create(layout, record, self.spec);
        }
        made
    }

    /// The record before anything else exists.
    pub fn first_record(
        &self,
        linux: &Linux,
        proc: &OwnedFd,
        own_stat: Option<&procfs::Stat>,
    ) -> Result<Record, Error> {
        let mut record = Record::new(self.id);
        let spec = self.spec;
        record.config.rootfs = text_of(&self.rootfs(), "root.path")?;
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
        (own.creator, own.creator_start) = own_stat.map_or_else(
            || (std::process::id() as i32, 0),
            |stat| (stat.pid, stat.start),
        );
        own.systemd = self.runtime.options().systemd_cgroup;
        own.systemd_user = own.systemd && record.rootless;
        own.cgroups_path = linux.cgroups_path.clone();
        own.rootless_cgroups =
            self.runtime.options().rootless.unwrap_or_else(|| {
                record.rootless || !procfs::in_first_user_namespace(proc.as_fd())
            });
        Ok(record)
    }

    /// The root file system on the host.
    fn rootfs(&self) -> PathBuf {
        let root = self.spec.root.as_ref().map_or("", |root| &root.path);
        self.bundle.join(root)
    }
}

fn text_of(path: &Path, field: &str) -> Result<String, Error> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| Error::invalid(field, "is not UTF-8"))
}

fn clone_child(plan: &InitPlan) -> Result<Child, Error> {
    let hook_output = plan.hooks.output.as_ref();
    let hook_output = hook_output
        .map(|file| file.try_clone().map(File::from))
        .transpose()
        .map_err(|e| Error::system("cannot copy a descriptor", e))?;
    let (ours, theirs) = talk::channel()?;
    match namespaces::give_birth(&plan.birth, plan.proc.as_fd())? {
        Cloned::Child => {
            // Our copy of the parent's end must not keep the conversation open.
            drop(ours);
            init::init(plan, theirs.as_fd())
        }
        Cloned::Parent { pid, pidfd } => Ok(Child::new(pid, pidfd, ours, hook_output)),
    }
}

/// What the parent of a new container answers to its init.
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
        let state = self.record.state(Status::Creating);
        hooks::run("prestart", &hooks.prestart, &state)?;
        hooks::run("createRuntime", &hooks.create_runtime, &state)?;
        if let Some(states) = &self.plan.hooks.states {
            let created = self.record.state(Status::Created);
            for (file, state) in states.iter().zip([&state, &created]) {
                let text = serde_json::to_vec(state).unwrap_or_default();
                rustix::io::pwrite(file, &text, 0)
                    .map_err(|e| Error::system("cannot pass the state to hooks", e))?;
            }
        }
        Ok(())
    }

    fn listener(&mut self, pid: i32, descriptor: OwnedFd) -> Result<(), Error> {
        match self.profile {
            Some(profile) => {
                let state = self.record.state(Status::Creating);
                filter::hand_on(profile, pid, state, descriptor)
            }
            None => Ok(()),
        }
    }

    fn moved(&mut self, pid: i32) -> Result<(), Error> {
        self.record.note_init(self.plan.proc.as_fd(), pid);
        self.directory.save(self.record)
    }
}
