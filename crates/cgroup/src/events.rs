//! Being told of out-of-memory and of pressure, as descriptors to poll.
//!
//! | | v1 | v2 (also beside v1) |
//! |---|---|---|
//! | out of memory | eventfd on `memory.oom_control` | inotify on `memory.events` and `cgroup.events` |
//! | pressure | eventfd on `memory.pressure_level` | a PSI trigger on `cpu`, `memory` or `io.pressure` |
//!
//! PSI needs no controller, so a hybrid host uses it too. The watch registers
//! when it is made: nothing that happens later is lost, several events may come
//! as one. A watch ends (tells so once, then stays ended) when its group is removed or,
//! on v2, empties. Dropping it unregisters.

use crate::error::{Error, Result};
use crate::files;
use crate::group::{Group, Node};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{OFlags, inotify};
use rustix::io::Errno;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What an [`OomWatch`] tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OomEvent {
    /// The kernel killed this many processes since the last event (at least one; v1 without
    /// a count says one).
    Killed(u64),
    /// The group is gone or holds no process any more; nothing follows.
    Ended,
}

/// Tells of processes that were killed because the group ran out of memory.
#[derive(Debug)]
pub struct OomWatch {
    fd: OwnedFd,
    source: OomSource,
    kills: u64,
}

#[derive(Debug)]
enum OomSource {
    V1 { control: PathBuf },
    V2 { events: PathBuf, cgroup: PathBuf },
}

/// A resource with pressure stall information.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Processor time.
    Cpu,
    /// Memory.
    Memory,
    /// Block I/O.
    Io,
}

/// When a [`PressureWatch`] speaks up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threshold {
    /// Count only the time in which all tasks waited, rather than any.
    pub all_tasks: bool,
    /// Waiting time within the window that is too much.
    pub stall: Duration,
    /// 500 ms to 10 s; without CAP_SYS_RESOURCE a multiple of 2 s (Linux 6.5).
    pub window: Duration,
}

/// Tells that the group waited too long for a resource; at most once a window.
#[derive(Debug)]
pub struct PressureWatch {
    fd: OwnedFd,
    source: PressureSource,
}

#[derive(Debug)]
enum PressureSource {
    /// A PSI trigger: lives as long as the descriptor, `POLLPRI` and no read.
    Psi { file: PathBuf },
    /// v1 memory level on an eventfd.
    Level { control: PathBuf },
}

impl Group {
    /// Watches for out-of-memory kills in the group and its nested groups.
    ///
    /// Fails with [`Error::MissingController`] when no hierarchy counts its memory.
    pub fn watch_oom(&self) -> Result<OomWatch> {
        if let Some(node) = self.v1("memory") {
            let control = node.file("memory.oom_control");
            let fd = register(node, &control, "")?;
            let kills = kills_v1(&control);
            return Ok(OomWatch {
                fd,
                source: OomSource::V1 { control },
                kills,
            });
        }
        let missing = || Error::MissingController {
            controller: "memory",
            field: "out-of-memory events".to_owned(),
            reason: "no cgroup of this group has it".to_owned(),
        };
        let node = self.v2().ok_or_else(missing)?;
        let (events, cgroup) = (node.file("memory.events"), node.file("cgroup.events"));
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let fd = inotify::init(flags).map_err(|e| Error::io("watch", &events, e))?;
        for path in [&events, &cgroup] {
            match inotify::add_watch(&fd, path, inotify::WatchFlags::MODIFY) {
                Ok(_) => {}
                Err(Errno::NOENT) if self.exists() => return Err(missing()),
                Err(e) => return Err(Error::io("watch", path, e)),
            }
        }
        let kills = kills_v2(&events).unwrap_or(0);
        Ok(OomWatch {
            fd,
            source: OomSource::V2 { events, cgroup },
            kills,
        })
    }

    /// Watches for pressure on one resource.
    ///
    /// On a host without PSI (v1 only, or `psi=0`) memory alone can be watched, by the kernel's
    /// own levels: `all_tasks` is `critical`, otherwise `medium`; stall and window do not matter then.
    pub fn watch_pressure(
        &self,
        resource: Resource,
        threshold: Threshold,
    ) -> Result<PressureWatch> {
        let name = match resource {
            Resource::Cpu => "cpu.pressure",
            Resource::Memory => "memory.pressure",
            Resource::Io => "io.pressure",
        };
        if let Some(node) = self.v2() {
            match psi(&node.file(name), threshold) {
                Err(e) if matches!(e.raw_os_error(), Some(ENOENT | EOPNOTSUPP)) => {}
                other => return other,
            }
        }
        match self.v1("memory") {
            Some(node) if resource == Resource::Memory => {
                let control = node.file("memory.pressure_level");
                let level = if threshold.all_tasks {
                    "critical"
                } else {
                    "medium"
                };
                Ok(PressureWatch {
                    fd: register(node, &control, level)?,
                    source: PressureSource::Level { control },
                })
            }
            _ => Err(Error::Unsupported {
                field: name.to_owned(),
                reason: "the kernel keeps no pressure stall information here (boot with psi=1, and mount cgroup2)",
            }),
        }
    }
}

const ENOENT: i32 = Errno::NOENT.raw_os_error();
const EOPNOTSUPP: i32 = Errno::OPNOTSUPP.raw_os_error();

/// v1: an eventfd told of a control file's events (`cgroup.event_control`).
fn register(node: &Node, control: &Path, argument: &str) -> Result<OwnedFd> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let fd = eventfd(0, flags).map_err(|e| Error::io("watch", control, e))?;
    let watched =
        files::open(control, OFlags::RDONLY).map_err(|e| Error::io("open", control, e))?;
    let line = format!("{} {} {argument}", fd.as_raw_fd(), watched.as_raw_fd());
    files::write(&node.file("cgroup.event_control"), line.trim_end())?;
    Ok(fd)
}

fn psi(file: &Path, threshold: Threshold) -> Result<PressureWatch> {
    let fd = files::open(file, OFlags::RDWR | OFlags::NONBLOCK)
        .map_err(|e| Error::io("open", file, e))?;
    let line = format!(
        "{} {} {}",
        if threshold.all_tasks { "full" } else { "some" },
        threshold.stall.as_micros(),
        threshold.window.as_micros()
    );
    files::write_fd(&fd, line.as_bytes()).map_err(|e| match e {
        Errno::INVAL | Errno::PERM => Error::Write {
            path: file.to_owned(),
            value: line.clone(),
            hint: " (the window is 0.5 to 10 s and the stall not above it; without CAP_SYS_RESOURCE the window must be a multiple of 2 s)".to_owned(),
            source: e.into(),
        },
        e => files::write_error(file, &line, e),
    })?;
    Ok(PressureWatch {
        fd,
        source: PressureSource::Psi {
            file: file.to_owned(),
        },
    })
}

fn count_after(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .find_map(|l| l.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

fn kills_v1(control: &Path) -> u64 {
    files::try_read(control)
        .ok()
        .and_then(|t| count_after(&t, "oom_kill"))
        .unwrap_or(0)
}

fn kills_v2(events: &Path) -> Option<u64> {
    count_after(&files::try_read(events).ok()?, "oom_kill")
}

/// Waits until the descriptor is ready; false after the time. `None` waits for ever.
fn wait_ready(fd: BorrowedFd<'_>, flags: PollFlags, time: Option<Duration>) -> Result<bool, Errno> {
    let end = time.map(|t| Instant::now() + t);
    loop {
        let left = end.map(|e| e.saturating_duration_since(Instant::now()));
        let spec = left.map(|l| Timespec {
            tv_sec: i64::try_from(l.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: l.subsec_nanos().into(),
        });
        let mut fds = [PollFd::from_borrowed_fd(fd, flags)];
        match poll(&mut fds, spec.as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
}

/// Empties an eventfd; true when it had been told something.
fn drain_eventfd(fd: &OwnedFd) -> bool {
    let mut count = [0u8; 8];
    matches!(rustix::io::read(fd, &mut count), Ok(8))
}

impl OomWatch {
    /// Becomes readable (`POLLIN`) when [`OomWatch::next_event`] may have something to tell.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// What happened since the last call, without waiting.
    pub fn next_event(&mut self) -> Result<Option<OomEvent>> {
        match &self.source {
            OomSource::V1 { control } => {
                if !drain_eventfd(&self.fd) {
                    return Ok(None);
                }
                // The removal of the cgroup is told over the same descriptor.
                let Ok(text) = files::try_read(control) else {
                    return Ok(Some(OomEvent::Ended));
                };
                let now = count_after(&text, "oom_kill").unwrap_or(self.kills + 1);
                // The event precedes the kill, whose count may not be up yet.
                let killed = now.saturating_sub(self.kills).max(1);
                self.kills = self.kills.saturating_add(killed);
                Ok(Some(OomEvent::Killed(killed)))
            }
            OomSource::V2 { events, cgroup } => {
                let mut buffer = [MaybeUninit::<u8>::uninit(); 1024];
                let mut reader = inotify::Reader::new(&self.fd, &mut buffer);
                let mut changed = false;
                while reader.next().is_ok() {
                    changed = true;
                }
                let Some(now) = kills_v2(events) else {
                    return Ok(Some(OomEvent::Ended));
                };
                if now > self.kills {
                    let killed = now - self.kills;
                    self.kills = now;
                    return Ok(Some(OomEvent::Killed(killed)));
                }
                let populated = files::try_read(cgroup)
                    .ok()
                    .and_then(|t| count_after(&t, "populated"));
                match populated {
                    None => Ok(Some(OomEvent::Ended)),
                    Some(0) if changed => Ok(Some(OomEvent::Ended)),
                    Some(_) => Ok(None),
                }
            }
        }
    }

    /// Waits for the next event; `None` after the time (no time: waits for ever).
    pub fn wait(&mut self, time: Option<Duration>) -> Result<Option<OomEvent>> {
        let end = time.map(|t| Instant::now() + t);
        loop {
            if let Some(event) = self.next_event()? {
                return Ok(Some(event));
            }
            let left = end.map(|e| e.saturating_duration_since(Instant::now()));
            let ready = wait_ready(self.fd.as_fd(), PollFlags::IN, left)
                .map_err(|e| Error::io("wait for events of", self.path(), e))?;
            if !ready {
                return Ok(None);
            }
        }
    }

    fn path(&self) -> &Path {
        match &self.source {
            OomSource::V1 { control } => control,
            OomSource::V2 { events, .. } => events,
        }
    }
}

impl PressureWatch {
    /// The descriptor to poll for [`PressureWatch::poll_flags`].
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// `POLLPRI` for PSI, `POLLIN` for v1's levels, as poll(2) bits.
    pub fn poll_flags(&self) -> u16 {
        self.flags().bits()
    }

    fn flags(&self) -> PollFlags {
        match self.source {
            PressureSource::Psi { .. } => PollFlags::PRI,
            PressureSource::Level { .. } => PollFlags::IN,
        }
    }

    /// Waits for the threshold to be crossed; false after the time (no time: waits for ever) and
    /// when the group is gone.
    pub fn wait(&mut self, time: Option<Duration>) -> Result<bool> {
        let (path, eventfd) = match &self.source {
            PressureSource::Psi { file } => (file, false),
            PressureSource::Level { control } => (control, true),
        };
        let ready = wait_ready(self.fd.as_fd(), self.flags(), time)
            .map_err(|e| Error::io("wait for pressure on", path, e))?;
        if eventfd && ready {
            drain_eventfd(&self.fd);
        }
        // A trigger of a removed group polls as an error for ever.
        Ok(ready && rustix::fs::access(path, rustix::fs::Access::EXISTS).is_ok())
    }
}
