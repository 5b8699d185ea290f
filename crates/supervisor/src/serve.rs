//! The loop: connections, signals, and the table of containers and processes.

use crate::driver::{Driver, Made, Streams};
use crate::{exit, roots};
use carrack_spec::ContainerId;
use carrack_spec::runtime::Status;
use carrack_sys::{cred, pidfd, signal};
use carrack_task::{
    Answer, Call, Connection, Create, Event, Exec, Exit, FRAME_TIMEOUT_MS, Failure, FailureKind,
    Id, Incoming, Message, TaskError,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, WaitOptions};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Time between SIGTERM and SIGKILL for what loses its connection, in milliseconds.
pub const GRACE_MS: u64 = 10_000;
/// Most connections at a time.
const CONNECTIONS_MAX: usize = 64;
/// Most processes (containers and execs) at a time.
const PROCESSES_MAX: usize = 4096;
const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;
const SIGCHLD: i32 = 17;

/// How a monitor is started.
#[derive(Debug)]
pub struct Options {
    /// Its directory.
    pub directory: PathBuf,
    /// The connection to the engine that started it.
    pub socket: OwnedFd,
    /// The locked descriptor of `lock`; held until the end.
    pub lock: Option<OwnedFd>,
}

/// A monitor that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A step of the start failed.
    #[error("cannot {0}")]
    Start(&'static str, #[source] std::io::Error),
    /// The engine does not fit.
    #[error("cannot speak with the engine")]
    Task(#[from] TaskError),
    /// Waiting failed.
    #[error("cannot wait for events")]
    Wait(#[source] std::io::Error),
}

/// Serves until no connection and no container is left.
///
/// The caller must have one thread only: signals are blocked and the mount namespace is changed.
///
/// # Errors
/// [`ServeError`] when the start fails. Later failures are told to whom they concern.
pub fn serve(options: Options, driver: impl Driver) -> Result<(), ServeError> {
    let start = |what| move |e: rustix::io::Errno| ServeError::Start(what, e.into());
    // Fails only for a process group leader, which has no terminal to lose either.
    let _ = rustix::process::setsid();
    signal::block_all().map_err(start("block signals"))?;
    let signals = signal::descriptor().map_err(start("receive signals"))?;
    cred::child_subreaper(true).map_err(start("become a subreaper"))?;
    roots::leave_host_mounts().map_err(start("make a mount namespace"))?;
    let listener =
        listen(&options.directory).map_err(|e| ServeError::Start("listen on task.sock", e))?;
    let first = Connection::new(options.socket);
    first.greet()?;
    let mut monitor = Monitor {
        directory: options.directory,
        driver,
        connections: BTreeMap::from([(0, first)]),
        next_connection: 1,
        containers: BTreeMap::new(),
        processes: Vec::new(),
    };
    while !(monitor.connections.is_empty() && monitor.containers.is_empty()) {
        monitor.turn(&signals, &listener)?;
    }
    drop(options.lock);
    Ok(())
}

/// The path of a socket may have 107 bytes; through a descriptor any directory fits.
fn listen(directory: &Path) -> std::io::Result<UnixListener> {
    let at = std::fs::File::open(directory)?;
    let path = format!("/proc/self/fd/{}/task.sock", at.as_raw_fd());
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

struct Monitor<D> {
    directory: PathBuf,
    driver: D,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    containers: BTreeMap<ContainerId, Container>,
    processes: Vec<Running>,
}

struct Container {
    bundle: PathBuf,
    mounted: bool,
    release: bool,
    remove: Vec<PathBuf>,
    /// The connection that the container ends with.
    tied: Option<u64>,
    exit: Option<Exit>,
    /// When patience ends.
    deadline: Option<Instant>,
}

struct Running {
    container: ContainerId,
    exec: Option<Id>,
    pid: i32,
    pidfd: OwnedFd,
    terminal: Option<OwnedFd>,
    tied: Option<u64>,
}

type Outcome = Result<(Answer, Option<OwnedFd>), Failure>;

impl<D: Driver> Monitor<D> {
    /// Waits for the next thing to do, and does it.
    fn turn(&mut self, signals: &OwnedFd, listener: &UnixListener) -> Result<(), ServeError> {
        let (mut signalled, mut called, mut ready) = (false, false, Vec::new());
        {
            let mut fds = vec![
                PollFd::new(signals, PollFlags::IN),
                PollFd::new(listener, PollFlags::IN),
            ];
            fds.extend(
                self.connections
                    .values()
                    .map(|c| PollFd::new(c, PollFlags::IN)),
            );
            let limit = self.patience();
            match poll(&mut fds, limit.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(ServeError::Wait(error.into())),
            }
            let mut found = fds.iter().map(|fd| !fd.revents().is_empty());
            if let (Some(first), Some(second)) = (found.next(), found.next()) {
                (signalled, called) = (first, second);
            }
            ready.extend(
                self.connections
                    .keys()
                    .zip(found)
                    .filter(|(_, is)| *is)
                    .map(|(key, _)| *key),
            );
        }
        // Calls first: an exit that is already there must not overtake the answer about its process.
        for key in ready {
            self.receive(key);
        }
        if called {
            self.accept(listener);
        }
        if signalled {
            while let Ok((number, _)) = signal::take(signals.as_fd()) {
                match number {
                    SIGCHLD => self.reap(),
                    SIGTERM => self.end_all(),
                    _ => {}
                }
            }
        }
        self.lose_patience();
        Ok(())
    }

    fn patience(&self) -> Option<Timespec> {
        let first = self.containers.values().filter_map(|c| c.deadline).min()?;
        let left = first.saturating_duration_since(Instant::now());
        Some(Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: i64::from(left.subsec_nanos()),
        })
    }

    fn accept(&mut self, listener: &UnixListener) {
        let Ok((socket, _)) = listener.accept() else {
            return;
        };
        let connection = Connection::new(socket.into());
        if self.connections.len() >= CONNECTIONS_MAX {
            log::warn!("a connection was refused: there are {CONNECTIONS_MAX} already");
        } else if let Err(error) = connection.greet() {
            log::warn!("a connection was refused: {error}");
        } else {
            self.connections.insert(self.next_connection, connection);
            self.next_connection += 1;
        }
    }

    fn receive(&mut self, key: u64) {
        let Some(connection) = self.connections.get(&key) else {
            return;
        };
        let sent = match connection.receive(FRAME_TIMEOUT_MS) {
            Ok(Incoming {
                message: Message::Call { seq, call },
                fds,
            }) => {
                let outcome = self.carry_out(key, *call, fds);
                self.answer(key, seq, outcome)
            }
            Ok(Incoming { message, .. }) => Err(TaskError::Unexpected {
                wanted: "Call",
                found: message.name().to_owned(),
            }),
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            if !matches!(error, TaskError::Closed) {
                log::warn!("a connection failed: {error}");
            }
            self.disconnected(key);
        }
    }

    fn answer(&self, key: u64, seq: u64, outcome: Outcome) -> Result<(), TaskError> {
        let Some(connection) = self.connections.get(&key) else {
            return Ok(());
        };
        match outcome {
            Ok((answer, terminal)) => {
                let fds: Vec<_> = terminal.iter().map(AsFd::as_fd).collect();
                connection.send(&Message::Done { seq, answer }, &fds)
            }
            Err(failure) => connection.send(&Message::Failed { seq, failure }, &[]),
        }
    }

    fn carry_out(&mut self, key: u64, call: Call, fds: Vec<OwnedFd>) -> Outcome {
        let done = |()| (Answer::Done, None);
        match call {
            Call::Create(create) => self.create(key, create, fds),
            Call::Start { id } => self.driver.start(&self.known(&id.0)?).map(done),
            Call::Exec(exec) => self.exec(key, exec, fds),
            Call::Signal {
                id,
                all: true,
                signal,
                ..
            } => {
                let id = self.known(&id.0)?;
                self.driver.signal_all(&id, signal).map(done)
            }
            Call::Signal {
                id, exec, signal, ..
            } => {
                let running = self.running(&id.0, exec.as_ref())?;
                pidfd::send_signal(running.pidfd.as_fd(), signal)
                    .map(done)
                    .map_err(|e| system("signal the process", e))
            }
            Call::Resize { id, exec, size } => {
                let running = self.running(&id.0, exec.as_ref())?;
                let terminal = running.terminal.as_ref().ok_or_else(|| Failure {
                    kind: FailureKind::WrongState,
                    message: format!("container {id} has no terminal"),
                })?;
                carrack_sys::pty::set_size(terminal.as_fd(), size.height, size.width)
                    .map(done)
                    .map_err(|e| system("resize the terminal", e))
            }
            Call::State { id } => self.state(&id.0),
            Call::Delete { id, force } => {
                let id = self.known(&id.0)?;
                self.delete(&id, force).map(done)
            }
        }
    }

    fn create(&mut self, key: u64, create: Create, fds: Vec<OwnedFd>) -> Outcome {
        let id = create.id.0.clone();
        if self.containers.contains_key(&id) {
            return Err(Failure {
                kind: FailureKind::Exists,
                message: format!("container {id} exists already"),
            });
        }
        self.check_room()?;
        let mut fds = fds.into_iter();
        let root = if create.root { fds.next() } else { None };
        let streams = streams(create.terminal, fds)?;
        if let Some(root) = &root {
            roots::attach_root(root.as_fd(), &create.bundle)
                .map_err(|e| system("attach the root file system", e))?;
        }
        // The mount must have no second holder, or it outlives its removal from the namespace.
        drop(root);
        let container = Container {
            bundle: create.bundle.clone(),
            mounted: create.root,
            release: create.release,
            remove: create.remove,
            tied: create.tied.then_some(key),
            exit: None,
            deadline: None,
        };
        match self
            .driver
            .create(&id, &create.bundle, create.start, streams)
        {
            Ok(made) => {
                self.containers.insert(id.clone(), container);
                self.made(key, id, None, made, false)
            }
            Err(failure) => {
                self.clear(&id, container);
                Err(failure)
            }
        }
    }

    fn exec(&mut self, key: u64, exec: Exec, fds: Vec<OwnedFd>) -> Outcome {
        let id = self.known(&exec.id.0)?;
        if self.running(&id, Some(&exec.exec)).is_ok() {
            let message = format!("container {id} has a process {} already", exec.exec);
            return Err(Failure {
                kind: FailureKind::Exists,
                message,
            });
        }
        self.check_room()?;
        let streams = streams(exec.process.terminal, fds.into_iter())?;
        let made = self.driver.exec(&id, exec.process, streams)?;
        self.made(key, id, Some(exec.exec), made, exec.tied)
    }

    /// Keeps a new process in the table, and one descriptor of its terminal for `Resize`.
    fn made(
        &mut self,
        key: u64,
        container: ContainerId,
        exec: Option<Id>,
        made: Made,
        tied: bool,
    ) -> Outcome {
        // The process runs: without a copy its terminal keeps its size, and that is all.
        let copy = |fd: &OwnedFd| {
            let copy = fd.try_clone();
            copy.inspect_err(|e| log::warn!("cannot keep the terminal of {container}: {e}"))
                .ok()
        };
        let kept = made.terminal.as_ref().and_then(copy);
        let answer = Answer::Created {
            pid: made.pid,
            terminal: made.terminal.is_some(),
        };
        self.processes.push(Running {
            container,
            exec,
            pid: made.pid,
            pidfd: made.pidfd,
            terminal: kept,
            tied: tied.then_some(key),
        });
        Ok((answer, made.terminal))
    }

    fn state(&mut self, id: &ContainerId) -> Outcome {
        let id = self.known(id)?;
        let exit = self.containers.get(&id).and_then(|c| c.exit);
        let status = match exit {
            Some(_) => Status::Stopped,
            None => self.driver.status(&id)?,
        };
        let pid = self.running(&id, None).map_or(0, |r| r.pid);
        Ok((Answer::State { status, pid, exit }, None))
    }

    fn delete(&mut self, id: &ContainerId, force: bool) -> Result<(), Failure> {
        self.driver.delete(id, force)?;
        self.reap_of(id);
        if let Some(container) = self.containers.remove(id) {
            self.clear(id, container);
        }
        Ok(())
    }

    /// Takes away the mount and the directories of a container that is gone. Goes on after a failure.
    fn clear(&self, id: &ContainerId, container: Container) {
        if container.mounted
            && let Err(error) = roots::detach_root(&container.bundle)
        {
            log::warn!("cannot unmount the root file system of container {id}: {error}");
        }
        for path in &container.remove {
            match std::fs::remove_dir_all(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    log::warn!("cannot remove {}: {error}", path.display());
                }
                _ => {}
            }
        }
    }

    /// Reaps all that ended. Children that are not in the table came to us as the subreaper.
    fn reap(&mut self) {
        while let Ok(Some(pid)) = carrack_sys::reap::ended_child() {
            match self.processes.iter().position(|p| p.pid == pid) {
                Some(index) => self.ended(index),
                None => {
                    let pid = Pid::from_raw(pid);
                    if rustix::process::waitpid(pid, WaitOptions::NOHANG).is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// A process of the table can be reaped: do so, write the record, clean up, tell.
    fn ended(&mut self, index: usize) {
        let process = self.processes.swap_remove(index);
        let how = match pidfd::wait(process.pidfd.as_fd(), false) {
            Ok(Some(how)) => how,
            // Somebody else reaped it; what is certain is that it ended.
            _ => pidfd::Exit::Signal(SIGKILL),
        };
        let exit = exit::now(how);
        let id = process.container;
        if process.exec.is_none() {
            self.container_ended(&id, exit);
        }
        self.tell(&Event::Exited {
            id: Id(id),
            exec: process.exec,
            exit,
        });
    }

    fn container_ended(&mut self, id: &ContainerId, exit: Exit) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        container.exit = Some(exit);
        container.deadline = None;
        if !container.remove.contains(&self.directory)
            && let Err(error) = exit::write(&self.directory, &exit)
        {
            log::error!("cannot write the exit record of container {id}: {error}");
        }
        if container.release
            && let Err(failure) = self.delete(id, true)
        {
            log::error!("cannot delete container {id}: {}", failure.message);
            if let Some(container) = self.containers.remove(id) {
                self.clear(id, container);
            }
        }
    }

    /// Processes of a deleted container end at once; wait for them, so that none stays a zombie.
    fn reap_of(&mut self, id: &ContainerId) {
        while let Some(index) = self.processes.iter().position(|p| p.container == *id) {
            let process = self.processes.swap_remove(index);
            let how = match pidfd::wait(process.pidfd.as_fd(), true) {
                Ok(Some(how)) => how,
                // The deletion has reaped it, after it killed it.
                _ => pidfd::Exit::Signal(SIGKILL),
            };
            let exit = exit::now(how);
            self.tell(&Event::Exited {
                id: Id(id.clone()),
                exec: process.exec,
                exit,
            });
        }
    }

    fn tell(&mut self, event: &Event) {
        let message = Message::Event {
            event: event.clone(),
        };
        let failed: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, c)| c.send(&message, &[]).is_err())
            .map(|(key, _)| *key)
            .collect();
        for key in failed {
            self.disconnected(key);
        }
    }

    fn disconnected(&mut self, key: u64) {
        self.connections.remove(&key);
        for process in self.processes.iter().filter(|p| p.tied == Some(key)) {
            let _ = pidfd::send_signal(process.pidfd.as_fd(), SIGKILL);
        }
        let tied: Vec<_> = self
            .containers
            .iter()
            .filter(|(_, c)| c.tied == Some(key))
            .map(|(id, _)| id.clone())
            .collect();
        for id in tied {
            self.end(&id);
        }
    }

    fn end_all(&mut self) {
        let all: Vec<_> = self.containers.keys().cloned().collect();
        for id in all {
            self.end(&id);
        }
    }

    /// Asks a container to end. One that never ran, or has ended, is deleted at once.
    fn end(&mut self, id: &ContainerId) {
        let ran = self
            .driver
            .status(id)
            .is_ok_and(|s| !matches!(s, Status::Created | Status::Stopped));
        if !ran {
            if let Err(failure) = self.delete(id, true) {
                log::error!("cannot delete container {id}: {}", failure.message);
                self.containers.remove(id);
            }
            return;
        }
        for process in self.processes.iter_mut().filter(|p| p.container == *id) {
            // The last descriptor of a terminal: its programs get SIGHUP.
            process.terminal = None;
            if process.exec.is_none() {
                let _ = pidfd::send_signal(process.pidfd.as_fd(), SIGTERM);
            }
        }
        if let Some(container) = self.containers.get_mut(id) {
            container.deadline = Some(Instant::now() + Duration::from_millis(GRACE_MS));
            // Nobody is left who could remove it later.
            container.release = true;
        }
    }

    fn lose_patience(&mut self) {
        let now = Instant::now();
        let late: Vec<_> = self
            .containers
            .iter_mut()
            .filter(|(_, c)| c.deadline.is_some_and(|d| d <= now))
            .map(|(id, c)| {
                c.deadline = None;
                id.clone()
            })
            .collect();
        for id in late {
            if let Err(failure) = self.driver.signal_all(&id, SIGKILL) {
                log::error!("cannot kill container {id}: {}", failure.message);
            }
            if let Ok(running) = self.running(&id, None) {
                let _ = pidfd::send_signal(running.pidfd.as_fd(), SIGKILL);
            }
        }
    }

    fn known(&self, id: &ContainerId) -> Result<ContainerId, Failure> {
        match self.containers.contains_key(id) {
            true => Ok(id.clone()),
            false => Err(not_found(format!("container {id} does not exist"))),
        }
    }

    fn running(&self, id: &ContainerId, exec: Option<&Id>) -> Result<&Running, Failure> {
        let found = self
            .processes
            .iter()
            .find(|p| p.container == *id && p.exec.as_ref() == exec);
        found.ok_or_else(|| {
            not_found(format!(
                "container {id} has no such process, or it has ended"
            ))
        })
    }

    fn check_room(&self) -> Result<(), Failure> {
        match self.processes.len() < PROCESSES_MAX {
            true => Ok(()),
            false => Err(Failure {
                kind: FailureKind::Other,
                message: format!("the sandbox has {PROCESSES_MAX} processes already"),
            }),
        }
    }
}

fn streams(terminal: bool, fds: impl Iterator<Item = OwnedFd>) -> Result<Streams, Failure> {
    if terminal {
        return Ok(Streams::Terminal);
    }
    let fds: Vec<OwnedFd> = fds.collect();
    <[OwnedFd; 3]>::try_from(fds)
        .map(Streams::Passed)
        .map_err(|fds| Failure {
            kind: FailureKind::Other,
            message: format!("three standard streams are needed, {} came", fds.len()),
        })
}

fn not_found(message: String) -> Failure {
    Failure {
        kind: FailureKind::NotFound,
        message,
    }
}

fn system(what: &str, error: impl std::fmt::Display) -> Failure {
    Failure {
        kind: FailureKind::Other,
        message: format!("cannot {what}: {error}"),
    }
}
