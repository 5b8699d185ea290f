//! `exec`: another process in a container.
//!
//! The child enters the cgroup by itself and all namespaces in one setns(2) on
//! init's pidfd. The pid namespace is entered by the calling thread for its next
//! child; without the right to do so, the child joins first and clones once more.

use crate::error::{Error, Names};
use crate::init;
use crate::namespaces;
use crate::options::ExecOptions;
use crate::plan::{self, Birth, ProcessPlan};
use crate::runtime::Container;
use crate::talk::{self, Answers, Child, Until};
use crate::userns::{self, Mapping};
use crate::{filter, passwd, pid_file, procfs};
use carrack_cgroup::Group;
use carrack_spec::runtime::{Linux, Seccomp, Spec, Status};
use carrack_sys::Errno;
use carrack_sys::clone::{Cloned, ns};
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// A process that was started in a container.
#[derive(Debug)]
pub struct Executed {
    /// Its process id, in the caller's pid namespace.
    pub pid: i32,
    /// The process, a child of the caller, who reaps it.
    pub pidfd: OwnedFd,
    /// The terminal's master, for [`crate::Console::Master`].
    pub console: Option<OwnedFd>,
}

impl Container {
    /// Runs a process in the container. Returns once its program runs.
    ///
    /// Needs the rights that created the container.
    ///
    /// # Errors
    /// [`Error::WrongStatus`] when the container is stopped or paused; every step that fails.
    pub fn exec(&self, mut options: ExecOptions) -> Result<Executed, Error> {
        let (status, init) = self.look()?;
        match status {
            Status::Created | Status::Running => {}
            Status::Paused if options.ignore_paused => {}
            Status::Stopped => return Err(self.not_running()),
            status => return Err(self.wrong_status("exec in", status)),
        }
        let init = init.ok_or_else(|| self.not_running())?;
        let spec = self.spec()?;
        let proc = procfs::open()?;
        let mut names = Names::default();
        let mut birth = self.birth(&init, &options, &proc, &mut names)?;
        let pid_file = options.pid_file.take();
        let (plan, profile) = self.process_plan(&spec, options, &mut names)?;
        let affinity = InitialAffinity::set(&plan)?;
        let cloned = self.clone_child(&mut birth, &plan, &proc);
        affinity.restore();
        let mut child = cloned?;
        let mut answers = ExecAnswers {
            container: self,
            profile: profile.as_ref(),
            status,
        };
        let followed = child
            .follow(Until::Executed, &names, &mut answers)
            .and_then(|()| {
                pid_file
                    .as_deref()
                    .map_or(Ok(()), |path| pid_file::write(path, child.pid))
            });
        if let Err(error) = followed {
            child.kill();
            return Err(error);
        }
        Ok(Executed {
            pid: child.pid,
            pidfd: child.pidfd,
            console: child.console,
        })
    }

    fn birth(
        &self,
        init: &OwnedFd,
        options: &ExecOptions,
        proc: &OwnedFd,
        names: &mut Names,
    ) -> Result<Birth, Error> {
        let flags = self.record.carrack.namespaces;
        let privileged =
            userns::is_admin(userns::own_caps()) && procfs::in_first_user_namespace(proc.as_fd());
        let copy = || {
            init.try_clone()
                .map_err(|e| Error::system("cannot copy a descriptor", e))
        };
        let mut birth = Birth {
            session: true,
            hidden: true,
            become_root: flags & ns::USER != 0,
            ignored: procfs::ignored(procfs::own_stat(proc.as_fd()).as_ref()),
            ..Birth::default()
        };
        if flags & ns::PID != 0 && privileged {
            birth.parent_joins.push((copy()?, ns::PID));
        }
        let others = if privileged { flags & !ns::PID } else { flags };
        if others != 0 {
            names.joins.push("container's".to_owned());
            birth.joins.push((copy()?, others));
        }
        birth.second = others & ns::PID != 0;
        let group = self.exec_group(options)?;
        if !group.is_none() {
            let entry = group.entry()?;
            birth.tasks = entry.v1_tasks.into();
            birth.cgroup = entry.v2;
        }
        Ok(birth)
    }

    /// The container's cgroup, or the sub-cgroups of `--cgroup`.
    fn exec_group(&self, options: &ExecOptions) -> Result<Group, Error> {
        let mut group = self.cgroup()?;
        for wanted in &options.cgroup {
            group = match wanted.split_once(':') {
                Some((controllers, path)) => {
                    let controllers: Vec<&str> = controllers.split(',').collect();
                    group.sub_of(&controllers, path)?
                }
                None => group.sub(wanted)?,
            };
        }
        Ok(group)
    }

    /// Plans the process; the profile of its filter comes with it where that has a listener.
    fn process_plan(
        &self,
        spec: &Spec,
        options: ExecOptions,
        names: &mut Names,
    ) -> Result<(ProcessPlan, Option<Seccomp>), Error> {
        let process = &options.process;
        let own = userns::own_caps();
        let user_namespace = self.record.carrack.namespaces & ns::USER != 0;
        let empty = Linux::default();
        let linux = spec.linux.as_ref().unwrap_or(&empty);
        let mapping = userns::mapping(&linux.uid_mappings, &linux.gid_mappings, own);
        let root = format!("/proc/{}/root", self.record.init_process_pid);
        let context = plan::ProcessContext {
            available: if user_namespace { u64::MAX } else { own },
            own,
            strict: self.runtime.options().strict,
            user_namespace,
            groups_denied: !linux.uid_mappings.is_empty() && mapping == Mapping::Single,
            keep_groups: plan::keeps_groups(spec),
            home: passwd::home_below(process, Path::new(&root)),
            extra_env: &options.extra_env,
        };
        let mut plan = plan::process_plan(process, &context)?;
        plan::name_process(names, process);
        let (program, profile) = filter::of(self.runtime.root(), linux)?;
        plan.seccomp = program.map(plan::seccomp_plan);
        plan.add_linux(linux)?;
        if process.exec_cpu_affinity.is_some() {
            (plan.initial_affinity, plan.affinity) = plan::exec_affinity(process)?;
        }
        if !options.no_new_keyring {
            plan.keyring = Some(plan::session_keyring(self.id())?);
        }
        plan.terminal = plan::terminal_plan(process, &options.console)?;
        plan.stdio = options.stdio;
        plan.preserve_fds = options.preserve_fds;
        Ok((plan, profile))
    }

    fn clone_child(
        &self,
        birth: &mut Birth,
        plan: &ProcessPlan,
        proc: &OwnedFd,
    ) -> Result<Child, Error> {
        let (ours, theirs) = talk::channel()?;
        let cloned = match namespaces::give_birth(birth, proc.as_fd()) {
            Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {
                // The cgroup has controllers on for its children (a service manager runs inside),
                // so no process may live in it: go where init is.
                birth.cgroup = Some(self.cgroup_of_init(proc)?);
                namespaces::give_birth(birth, proc.as_fd())
            }
            other => other,
        };
        match cloned? {
            Cloned::Child => {
                drop(ours);
                init::exec(birth, plan, proc.as_fd(), theirs.as_fd())
            }
            Cloned::Parent { pid, pidfd } => Ok(Child::new(pid, pidfd, ours, None)),
        }
    }

    /// The v2 cgroup that init is in now.
    fn cgroup_of_init(&self, proc: &OwnedFd) -> Result<OwnedFd, Error> {
        let failed = |e: std::io::Error| Error::system("cannot find the cgroup of init", e);
        let path = format!("{}/cgroup", self.record.init_process_pid);
        let text = procfs::read(proc.as_fd(), &path).map_err(failed)?;
        let own = text
            .lines()
            .find_map(|line| line.strip_prefix("0::"))
            .unwrap_or("/");
        let layout = carrack_cgroup::Layout::detect()?;
        let v2 = layout
            .v2()
            .ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
        let directory = v2.mountpoint.join(own.trim_start_matches('/'));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(&directory, flags, Mode::empty())
            .map_err(|e| Error::path("cannot open", &directory, e))
    }
}

struct ExecAnswers<'a> {
    container: &'a Container,
    profile: Option<&'a Seccomp>,
    status: Status,
}

impl Answers for ExecAnswers<'_> {
    fn run_hooks(&mut self, _pid: i32) -> Result<(), Error> {
        Ok(())
    }

    fn listener(&mut self, pid: i32, descriptor: OwnedFd) -> Result<(), Error> {
        let Some(profile) = self.profile else {
            return Ok(());
        };
        filter::hand_on(
            profile,
            pid,
            self.container.record.state(self.status),
            descriptor,
        )
    }

    fn moved(&mut self, _pid: i32) -> Result<(), Error> {
        Ok(())
    }
}

/// The processors of `execCPUAffinity.initial`, which the child inherits from us.
struct InitialAffinity {
    own: Option<rustix::thread::CpuSet>,
}

impl InitialAffinity {
    fn set(plan: &ProcessPlan) -> Result<Self, Error> {
        let Some(cpus) = &plan.initial_affinity else {
            return Ok(Self { own: None });
        };
        let failed = |e| Error::system("cannot set process.execCPUAffinity.initial", e);
        let own = rustix::thread::sched_getaffinity(None).map_err(failed)?;
        carrack_sys::sched::set_affinity(cpus).map_err(failed)?;
        Ok(Self { own: Some(own) })
    }

    fn restore(&self) {
        if let Some(own) = &self.own {
            let _ = rustix::thread::sched_setaffinity(None, own);
        }
    }
}
