//! A container that was spawned, and processes that joined it.
//!
//! ```text
//! ContainerBuilder ──spawn──▶ Running ──wait──▶ Exit
//!                   create      │ exec ──▶ Child ──wait──▶ Exit
//!                     └ start   │ statistics limit pause resume kill watch_…
//!                               └ delete
//! ```
//! As with [`std::process::Child`], dropping a handle ends nothing: the container
//! stays, and [`Runtime::load`] finds it again by its id. [`Running::delete`]
//! ends and removes it; [`Running::delete_on_drop`] asks for that on every way
//! out of a scope. Both handles reap their own process and no other.

use super::stdio::{self, Ends};
use super::{Command, Console, ContainerBuilder, CreateOptions};
use crate::error::Error;
use crate::options::ExecOptions;
use crate::runtime::{Container, Runtime};
use carrack_cgroup::{Group, Limits, OomWatch, PressureWatch, Resource, Stats, Threshold};
use carrack_spec::runtime::Status;
use carrack_sys::pidfd::{self, Exit};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// How much is read from a pipe at once, in bytes.
const READ_BYTES: usize = 64 << 10;
const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// A container and its first process, a child of the caller.
#[derive(Debug)]
pub struct Running {
    container: Container,
    init: Reaped,
    delete_on_drop: bool,
    /// The writing end of standard input, when it is piped.
    pub stdin: Option<PipeWriter>,
    /// The reading end of standard output, when it is piped.
    pub stdout: Option<PipeReader>,
    /// The reading end of standard error, when it is piped.
    pub stderr: Option<PipeReader>,
    /// The terminal's master, when there is a terminal.
    pub terminal: Option<OwnedFd>,
}

/// A process that joined a container, a child of the caller.
#[derive(Debug)]
pub struct Child {
    pid: i32,
    process: Reaped,
    /// The writing end of standard input, when it is piped.
    pub stdin: Option<PipeWriter>,
    /// The reading end of standard output, when it is piped.
    pub stdout: Option<PipeReader>,
    /// The reading end of standard error, when it is piped.
    pub stderr: Option<PipeReader>,
    /// The terminal's master, when there is a terminal.
    pub terminal: Option<OwnedFd>,
}

/// What a process printed and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// Standard output, when it is piped.
    pub stdout: Vec<u8>,
    /// Standard error, when it is piped.
    pub stderr: Vec<u8>,
}

/// A child of ours: reaped once, remembered after that.
#[derive(Debug)]
struct Reaped {
    pidfd: OwnedFd,
    exit: Option<Exit>,
}

/// Makes the container of a builder.
pub(super) fn make(
    mut builder: ContainerBuilder,
    runtime: &Runtime,
    id: &str,
    start: bool,
) -> Result<Running, Error> {
    let id = id.parse().map_err(|e| Error::Setting {
        setting: "id",
        reason: format!("{e}"),
    })?;
    // The record and every hook get to see an absolute path.
    builder.root = std::fs::canonicalize(&builder.root)
        .map_err(|e| Error::path("cannot find the root file system", &builder.root, e))?;
    let spec = builder.build()?;
    let directory = std::env::current_dir()
        .map_err(|e| Error::system("cannot find the working directory", e))?;
    let terminal = builder.process.has_terminal();
    let (stdio, ends) = match terminal {
        true => (None, Ends::default()),
        false => stdio::open(&builder.process.streams)?,
    };
    let options = CreateOptions {
        bundle: directory,
        spec: Some(Box::new(spec)),
        console: if terminal {
            Console::Master
        } else {
            Console::None
        },
        stdio,
        ..CreateOptions::default()
    };
    let created = match start {
        true => runtime.run(&id, options)?,
        false => runtime.create(&id, options)?,
    };
    Ok(Running {
        container: created.container,
        init: Reaped {
            pidfd: created.pidfd,
            exit: None,
        },
        delete_on_drop: false,
        stdin: ends.stdin,
        stdout: ends.stdout,
        stderr: ends.stderr,
        terminal: created.console,
    })
}

impl Running {
    /// The container, for everything that has no method here.
    pub fn container(&self) -> &Container {
        &self.container
    }

    /// The first process' id, as the caller sees it.
    pub fn pid(&self) -> i32 {
        self.container.record().init_process_pid
    }

    /// Starts the program of a container that was made by [`ContainerBuilder::create`].
    ///
    /// # Errors
    /// [`Error::WrongStatus`] when it was started before.
    pub fn start(&mut self) -> Result<(), Error> {
        self.container.start()
    }

    /// Where the container is in its life.
    ///
    /// # Errors
    /// As [`Container::status`].
    pub fn status(&self) -> Result<Status, Error> {
        self.container.status()
    }

    /// Waits for the first process to end. Closes a piped standard input before, so that a
    /// program that reads to its end does end.
    ///
    /// # Errors
    /// When somebody else reaped the process.
    pub fn wait(&mut self) -> Result<Exit, Error> {
        drop(self.stdin.take());
        self.init.wait()
    }

    /// How the first process ended; `None` while it runs.
    ///
    /// # Errors
    /// As [`Running::wait`].
    pub fn try_wait(&mut self) -> Result<Option<Exit>, Error> {
        self.init.try_wait()
    }

    /// Waits at most this long.
    ///
    /// # Errors
    /// As [`Running::wait`].
    pub fn wait_timeout(&mut self, time: Duration) -> Result<Option<Exit>, Error> {
        self.init.wait_timeout(time)
    }

    /// Waits for the end and gathers what the piped streams say meanwhile, in memory.
    ///
    /// # Errors
    /// As [`Running::wait`], and when a pipe cannot be read.
    pub fn wait_with_output(&mut self) -> Result<Output, Error> {
        drop(self.stdin.take());
        let (stdout, stderr) = gather(self.stdout.take(), self.stderr.take())?;
        Ok(Output {
            exit: self.init.wait()?,
            stdout,
            stderr,
        })
    }

    /// Runs another process in the container; returns once its program runs.
    ///
    /// # Errors
    /// As [`Container::exec`].
    pub fn exec(&self, command: Command) -> Result<Child, Error> {
        self.container.spawn(command)
    }

    /// What the container uses.
    ///
    /// # Errors
    /// When its cgroup cannot be read.
    pub fn statistics(&self) -> Result<Stats, Error> {
        Ok(self.container.cgroup()?.stats()?)
    }

    /// Changes limits while it runs; what is not named stays as it is.
    ///
    /// # Errors
    /// As [`Container::update`].
    pub fn limit(&mut self, limits: &Limits) -> Result<(), Error> {
        let resources = limits.build()?;
        self.container.update(&resources, None)
    }

    /// Stops every process until [`Running::resume`].
    ///
    /// # Errors
    /// As [`Container::pause`].
    pub fn pause(&self) -> Result<(), Error> {
        self.container.pause()
    }

    /// Lets a paused container go on.
    ///
    /// # Errors
    /// As [`Container::resume`].
    pub fn resume(&self) -> Result<(), Error> {
        self.container.resume()
    }

    /// Sends a signal, by number, to the first process.
    ///
    /// # Errors
    /// [`Error::NotRunning`] when it has ended.
    pub fn kill(&self, signal: i32) -> Result<(), Error> {
        self.container.kill(signal, false)
    }

    /// Asks the first process to end (SIGTERM) and kills it when it has not after `grace`.
    ///
    /// # Errors
    /// As [`Running::kill`] and [`Running::wait`].
    pub fn stop(&mut self, grace: Duration) -> Result<Exit, Error> {
        for (signal, time) in [(SIGTERM, Some(grace)), (SIGKILL, None)] {
            match self.container.kill(signal, false) {
                Ok(()) | Err(Error::NotRunning { .. }) => {}
                Err(error) => return Err(error),
            }
            let Some(time) = time else { break };
            if let Some(exit) = self.init.wait_timeout(time)? {
                return Ok(exit);
            }
        }
        self.init.wait()
    }

    /// Process ids of all its processes, as the host sees them.
    ///
    /// # Errors
    /// When its cgroup cannot be read.
    pub fn processes(&self) -> Result<Vec<i32>, Error> {
        self.container.processes()
    }

    /// Tells of processes that are killed because the container ran out of memory.
    ///
    /// # Errors
    /// When no memory controller counts for it.
    pub fn watch_oom(&self) -> Result<OomWatch, Error> {
        Ok(self.container.cgroup()?.watch_oom()?)
    }

    /// Tells when its processes wait too long for a resource.
    ///
    /// # Errors
    /// When the kernel has no pressure information, or refuses the threshold.
    pub fn watch_pressure(
        &self,
        resource: Resource,
        threshold: Threshold,
    ) -> Result<PressureWatch, Error> {
        Ok(self
            .container
            .cgroup()?
            .watch_pressure(resource, threshold)?)
    }

    /// A group nested in the container's, made when it is missing: limits of its own for
    /// processes that [`Command::group`] puts there. It goes away with the container.
    ///
    /// On pure cgroup v2 the kernel refuses limits below a group that holds processes itself.
    ///
    /// # Errors
    /// When the name is none, or the group cannot be made.
    pub fn group(&self, name: &str) -> Result<Group, Error> {
        Ok(self.container.cgroup()?.child(name)?)
    }

    /// Ends all processes and removes all that is left of the container.
    ///
    /// # Errors
    /// As [`Container::delete`].
    pub fn delete(mut self) -> Result<(), Error> {
        self.delete_on_drop = false;
        self.container.remove(true)
    }

    /// Deletes the container when this handle is dropped; what fails then is logged.
    pub fn delete_on_drop(mut self) -> Self {
        self.delete_on_drop = true;
        self
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.delete_on_drop
            && let Err(error) = self.container.remove(true)
        {
            log::warn!("cannot delete container {}: {error}", self.container.id());
        }
    }
}

impl AsFd for Running {
    /// The first process: readable (`POLLIN`) once it has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.init.pidfd.as_fd()
    }
}

impl Container {
    /// Runs another process in the container; returns once its program runs.
    ///
    /// What the command leaves open is as for the container's first process.
    ///
    /// # Errors
    /// As [`Container::exec`]; [`Error::Setting`] for a mistake in the command.
    pub fn spawn(&self, command: Command) -> Result<Child, Error> {
        let options = command.exec_options(self.exec_process()?)?;
        let (stdio, ends) = match command.has_terminal() {
            true => (None, Ends::default()),
            false => stdio::open(&command.streams)?,
        };
        let executed = self.exec(ExecOptions { stdio, ..options })?;
        Ok(Child {
            pid: executed.pid,
            process: Reaped {
                pidfd: executed.pidfd,
                exit: None,
            },
            stdin: ends.stdin,
            stdout: ends.stdout,
            stderr: ends.stderr,
            terminal: executed.console,
        })
    }
}

impl Child {
    /// Its process id, as the caller sees it.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits for it to end; see [`Running::wait`].
    ///
    /// # Errors
    /// When somebody else reaped it.
    pub fn wait(&mut self) -> Result<Exit, Error> {
        drop(self.stdin.take());
        self.process.wait()
    }

    /// How it ended; `None` while it runs.
    ///
    /// # Errors
    /// As [`Child::wait`].
    pub fn try_wait(&mut self) -> Result<Option<Exit>, Error> {
        self.process.try_wait()
    }

    /// Waits at most this long.
    ///
    /// # Errors
    /// As [`Child::wait`].
    pub fn wait_timeout(&mut self, time: Duration) -> Result<Option<Exit>, Error> {
        self.process.wait_timeout(time)
    }

    /// Waits for the end and gathers what the piped streams say meanwhile, in memory.
    ///
    /// # Errors
    /// As [`Child::wait`], and when a pipe cannot be read.
    pub fn wait_with_output(&mut self) -> Result<Output, Error> {
        drop(self.stdin.take());
        let (stdout, stderr) = gather(self.stdout.take(), self.stderr.take())?;
        Ok(Output {
            exit: self.process.wait()?,
            stdout,
            stderr,
        })
    }

    /// Sends it a signal by number. A process that has ended is fine.
    ///
    /// # Errors
    /// When the kernel refuses the signal.
    pub fn kill(&self, signal: i32) -> Result<(), Error> {
        match pidfd::send_signal(self.process.pidfd.as_fd(), signal) {
            Ok(()) | Err(carrack_sys::Errno::SRCH) => Ok(()),
            Err(error) => Err(Error::system(format!("cannot send signal {signal}"), error)),
        }
    }
}

impl AsFd for Child {
    /// The process: readable (`POLLIN`) once it has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.pidfd.as_fd()
    }
}

impl Reaped {
    fn wait(&mut self) -> Result<Exit, Error> {
        loop {
            if let Some(exit) = self.reap(true)? {
                return Ok(exit);
            }
        }
    }

    fn try_wait(&mut self) -> Result<Option<Exit>, Error> {
        self.reap(false)
    }

    fn reap(&mut self, block: bool) -> Result<Option<Exit>, Error> {
        if self.exit.is_none() {
            self.exit = pidfd::wait(self.pidfd.as_fd(), block)
                .map_err(|e| Error::system("cannot wait for the process", e))?;
        }
        Ok(self.exit)
    }

    fn wait_timeout(&mut self, time: Duration) -> Result<Option<Exit>, Error> {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).ok();
            let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
            match poll(&mut fds, timeout.as_ref()) {
                Err(carrack_sys::Errno::INTR) => {}
                Err(e) => return Err(Error::system("cannot wait for the process", e)),
                Ok(_) => return self.reap(false),
            }
        }
    }
}

/// Reads both pipes to their ends, whichever has something.
fn gather(
    stdout: Option<PipeReader>,
    stderr: Option<PipeReader>,
) -> Result<(Vec<u8>, Vec<u8>), Error> {
    let failed = |e: std::io::Error| Error::system("cannot read what the process says", e);
    let mut pipes = [(stdout, Vec::new()), (stderr, Vec::new())];
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let mut fds: Vec<PollFd<'_>> = pipes
            .iter()
            .filter_map(|(pipe, _)| pipe.as_ref())
            .map(|pipe| PollFd::new(pipe, PollFlags::IN))
            .collect();
        if fds.is_empty() {
            let [(_, stdout), (_, stderr)] = pipes;
            return Ok((stdout, stderr));
        }
        rustix::io::retry_on_intr(|| poll(&mut fds, None)).map_err(|e| failed(e.into()))?;
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let open = pipes.iter_mut().filter(|(pipe, _)| pipe.is_some());
        for ((pipe, text), _) in open.zip(ready).filter(|(_, ready)| *ready) {
            let read = pipe.as_mut().map_or(Ok(0), |pipe| pipe.read(&mut buffer));
            match read.map_err(failed)? {
                0 => *pipe = None,
                length => text.extend_from_slice(buffer.get(..length).unwrap_or_default()),
            }
        }
    }
}
