//! What can be done with a container that exists.
//!
//! Status is never stored: it follows from init (alive with the recorded start
//! time?), the fifo (waits for start?) and the freezer.
//!
//! ```text
//! creating ──▶ created ──start──▶ running ◀──pause/resume──▶ paused
//!     │           │ kill            │ exit, kill                │ kill
//!     └───────────┴────────────▶ stopped ──delete──▶ gone
//! ```

use crate::error::Error;
use crate::runtime::Container;
use crate::{config, group, hooks, procfs, rdt};
use carrack_cgroup::{Group, Layout};
use carrack_spec::runtime::{IntelRdt, Process, Resources, Spec, State, Status};
use carrack_sys::clone::ns;
use carrack_sys::{Errno, pidfd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

const SIGKILL: i32 = 9;
/// How often a cgroup is looked at that a dying child may still be in.
const ORPHAN_LOOKS_MAX: u32 = 100;
/// Time between two looks.
const ORPHAN_LOOK: std::time::Duration = std::time::Duration::from_millis(20);
/// How long a killed init may take to end, in seconds.
const KILL_SECONDS_MAX: i64 = 10;

impl Container {
    /// Where the container is in its life.
    ///
    /// # Errors
    /// When procfs or the freezer cannot be read.
    pub fn status(&self) -> Result<Status, Error> {
        Ok(self.look()?.0)
    }

    /// Where the container is in its life, and its init while that lives.
    pub(crate) fn look(&self) -> Result<(Status, Option<OwnedFd>), Error> {
        let own = &self.record.carrack;
        if self.record.init_process_pid == 0 {
            let creating = own.creator != 0 && find(own.creator, own.creator_start).is_some();
            let status = match creating {
                true => Status::Creating,
                false => Status::Stopped,
            };
            return Ok((status, None));
        }
        let Some(init) = self.init() else {
            return Ok((Status::Stopped, None));
        };
        let status = if self.directory.waits_for_start() {
            Status::Created
        } else if self.is_frozen()? {
            Status::Paused
        } else {
            Status::Running
        };
        Ok((status, Some(init)))
    }

    fn is_frozen(&self) -> Result<bool, Error> {
        if self.record.cgroup_paths.is_empty() {
            return Ok(false);
        }
        Ok(self.cgroup()?.is_frozen().unwrap_or(false))
    }

    /// The state as the specification defines it.
    ///
    /// # Errors
    /// As [`Container::status`].
    pub fn state(&self) -> Result<State, Error> {
        Ok(self.record.state(self.status()?))
    }

    /// The configuration as it was at create.
    ///
    /// # Errors
    /// When the copy cannot be read.
    pub fn spec(&self) -> Result<Spec, Error> {
        config::read(&self.directory.config()).map(|(_, spec)| spec)
    }

    /// The configuration's process, as a base for an exec.
    ///
    /// # Errors
    /// As [`Container::spec`].
    pub fn exec_process(&self) -> Result<Process, Error> {
        Ok(self.spec()?.process.unwrap_or_default())
    }

    /// The container's cgroups: limits, statistics, events.
    ///
    /// # Errors
    /// When the host's hierarchies cannot be found.
    pub fn cgroup(&self) -> Result<Group, Error> {
        let layout = match self.layout.get() {
            Some(layout) => layout,
            None => {
                let found = Layout::detect()?;
                self.layout.get_or_init(|| found)
            }
        };
        Ok(Group::open(
            layout,
            &self.record.cgroup_paths,
            group::driver(&self.record),
        ))
    }

    /// Starts the program of a created container.
    ///
    /// # Errors
    /// [`Error::WrongStatus`] unless it is created.
    pub fn start(&mut self) -> Result<(), Error> {
        let status = self.status()?;
        if status != Status::Created {
            return Err(self.wrong_status("start", status));
        }
        let fifo = self.directory.fifo();
        let failed = |e| Error::path("cannot start through", &fifo, e);
        // Not blocking: a fifo that nobody reads is an init that died (ENXIO).
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let writer = rustix::fs::open(&fifo, flags, Mode::empty()).map_err(|e| match e {
            Errno::NXIO => self.wrong_status("start", Status::Stopped),
            e => failed(e),
        })?;
        // The one who removes the fifo starts the container; a second start finds it gone.
        std::fs::remove_file(&fifo).map_err(|e| Error::path("cannot remove", &fifo, e))?;
        rustix::io::write(&writer, b"0").map_err(failed)?;
        if let Some(hooks) = self.spec()?.hooks {
            let state = self.record.state(Status::Running);
            if let Err(error) = hooks::run("poststart", &hooks.poststart, &state) {
                // As runtime.md's lifecycle asks since 1.3.0; delete then runs the poststop hooks.
                self.kill(9, false)?;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Sends a signal to init, or with `all` to every process of the container.
    ///
    /// # Errors
    /// [`Error::NotRunning`] when it has stopped.
    pub fn kill(&self, signal: i32, all: bool) -> Result<(), Error> {
        let alive = self.init();
        let own_pids = self.record.carrack.namespaces & ns::PID != 0;
        // Without a pid namespace of its own, init's end leaves the others running.
        if all || (!own_pids && signal == SIGKILL) {
            let group = self.cgroup()?;
            if alive.is_none() && group.pids(true).unwrap_or_default().is_empty() {
                return if all { Ok(()) } else { Err(self.not_running()) };
            }
            return Ok(group.kill(signal)?);
        }
        let Some(init) = alive else {
            return Err(self.not_running());
        };
        match pidfd::send_signal(init.as_fd(), signal) {
            Ok(()) => {}
            Err(Errno::SRCH) => return Err(self.not_running()),
            Err(error) => {
                return Err(Error::system(
                    format!("cannot send signal {signal} to container {}", self.id),
                    error,
                ));
            }
        }
        if signal == SIGKILL && self.is_frozen()? {
            // A v1 freezer holds back even SIGKILL.
            self.cgroup()?.thaw()?;
        }
        Ok(())
    }

    /// Init, while it lives.
    pub(crate) fn init(&self) -> Option<OwnedFd> {
        if self.record.init_process_pid == 0 {
            return None;
        }
        find(self.record.init_process_pid, self.record.init_process_start)
    }

    /// Removes the container and all that is left of it: processes, cgroups,
    /// files. With `force` also one that runs.
    ///
    /// # Errors
    /// [`Error::NotStopped`] without `force`; what cannot be removed.
    pub fn delete(mut self, force: bool) -> Result<(), Error> {
        self.remove(force)
    }

    /// Deletes the container; the value is of no use after that.
    pub(crate) fn remove(&mut self, force: bool) -> Result<(), Error> {
        let (status, init) = self.look()?;
        match status {
            Status::Stopped | Status::Created => {}
            _ if force => {}
            status => {
                return Err(Error::NotStopped {
                    id: self.record.id.clone(),
                    status,
                });
            }
        }
        if status == Status::Creating {
            let creator = pidfd::open(self.record.carrack.creator);
            if let Ok(creator) = creator {
                let _ = pidfd::send_signal(creator.as_fd(), SIGKILL);
                let _ = wait_for_end(&creator);
            }
        }
        let (group, spec) = match self.made.take() {
            Some(made) => (Some(made.group), Some(made.spec)),
            None => (None, self.spec().ok()),
        };
        self.end_processes(init, group, spec.as_ref())?;
        if self.record.carrack.intel_rdt_made {
            rdt::remove(Path::new(&self.record.intel_rdt_path));
        }
        self.directory.remove()?;
        if let Some(hooks) = spec.and_then(|spec| spec.hooks)
            && let Err(error) = hooks::run(
                "poststop",
                &hooks.poststop,
                &self.record.state(Status::Stopped),
            )
        {
            log::warn!("{error}");
        }
        Ok(())
    }

    fn end_processes(
        &self,
        init: Option<OwnedFd>,
        group: Option<Group>,
        spec: Option<&Spec>,
    ) -> Result<(), Error> {
        if let Some(init) = init {
            let _ = pidfd::send_signal(init.as_fd(), SIGKILL);
            if self.is_frozen()? {
                self.cgroup()?.thaw()?;
            }
            wait_for_end(&init).map_err(|e| {
                Error::system(format!("init of container {} does not end", self.id), e)
            })?;
        }
        let group = match (group, spec) {
            (Some(group), _) => group,
            // A create that was killed before it knew its cgroups: find them the way they were made.
            (None, Some(spec))
                if self.record.cgroup_paths.is_empty() && self.record.init_process_pid == 0 =>
            {
                match self.find_group(spec)? {
                    Some(group) => group,
                    None => return Ok(()),
                }
            }
            _ => self.cgroup()?,
        };
        Ok(group.destroy()?)
    }

    /// The cgroup of a create that was killed before it noted which it is. `None` when it is
    /// somebody else's.
    fn find_group(&self, spec: &Spec) -> Result<Option<Group>, Error> {
        let layout = Layout::detect()?;
        for _ in 0..ORPHAN_LOOKS_MAX {
            match group::create(&layout, &self.record, spec) {
                // The create's child, of which nobody knows the pid, dies with its parent: soon.
                Err(Error::Cgroup(carrack_cgroup::Error::NotEmpty { .. })) => {
                    std::thread::sleep(ORPHAN_LOOK);
                }
                other => return other.map(Some),
            }
        }
        log::warn!(
            "the cgroup that container {} would have used is another's; it stays",
            self.id
        );
        Ok(None)
    }

    /// Freezes every process of the container.
    ///
    /// # Errors
    /// [`Error::WrongStatus`] unless it is running or created.
    pub fn pause(&self) -> Result<(), Error> {
        match self.status()? {
            Status::Running | Status::Created => Ok(self.cgroup()?.freeze()?),
            status => Err(self.wrong_status("pause", status)),
        }
    }

    /// Lets a paused container go on.
    ///
    /// # Errors
    /// [`Error::WrongStatus`] unless it is paused.
    pub fn resume(&self) -> Result<(), Error> {
        match self.status()? {
            Status::Paused => Ok(self.cgroup()?.thaw()?),
            Status::Created if self.is_frozen()? => Ok(self.cgroup()?.thaw()?),
            status => Err(self.wrong_status("resume", status)),
        }
    }

    /// Changes limits; what is absent stays as it is.
    ///
    /// # Errors
    /// [`Error::WrongStatus`] when it has stopped; what the kernel refuses.
    pub fn update(&mut self, resources: &Resources, rdt: Option<&IntelRdt>) -> Result<(), Error> {
        let status = self.status()?;
        if status == Status::Stopped {
            return Err(self.wrong_status("update", status));
        }
        let group = self.cgroup()?;
        group.apply(resources)?;
        if !resources.devices.is_empty() {
            group.apply_devices(&crate::plan::device_rules(&resources.devices))?;
        }
        if let Some(settings) = rdt {
            if self.record.intel_rdt_path.is_empty() {
                return Err(Error::invalid(
                    "linux.intelRdt",
                    "the container has no resource control group",
                ));
            }
            rdt::update(Path::new(&self.record.intel_rdt_path), settings)?;
        }
        Ok(())
    }

    /// Process ids of the container's processes, as the host sees them.
    ///
    /// # Errors
    /// When the cgroup cannot be read.
    pub fn processes(&self) -> Result<Vec<i32>, Error> {
        Ok(self.cgroup()?.pids(true)?)
    }

    pub(crate) fn wrong_status(&self, verb: &'static str, status: Status) -> Error {
        Error::WrongStatus {
            verb,
            id: self.record.id.clone(),
            status,
        }
    }

    pub(crate) fn not_running(&self) -> Error {
        Error::NotRunning {
            id: self.record.id.clone(),
        }
    }
}

/// The process with this pid and start time, while it lives.
fn find(pid: i32, start: u64) -> Option<OwnedFd> {
    // The descriptor first, then the start time: the pid can't change hands in between.
    let pidfd = pidfd::open(pid).ok()?;
    let proc = procfs::open().ok()?;
    (procfs::start_time(proc.as_fd(), pid) == Some(start)).then_some(pidfd)
}

/// Waits until the process has ended, whoever reaps it.
fn wait_for_end(process: &OwnedFd) -> carrack_sys::Result<()> {
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    let timeout = Timespec {
        tv_sec: KILL_SECONDS_MAX,
        tv_nsec: 0,
    };
    match rustix::io::retry_on_intr(|| poll(&mut fds, Some(&timeout)))? {
        0 => Err(Errno::TIMEDOUT),
        _ => {
            // Reap it when it is our own child; somebody else's is their work.
            match pidfd::wait(process.as_fd(), false) {
                Ok(_) | Err(Errno::CHILD) => Ok(()),
                Err(error) => Err(error),
            }
        }
    }
}
