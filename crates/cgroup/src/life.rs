//! The life of a group's processes: listing, freezing, signalling, and the end.
//!
//! Freezing uses `cgroup.freeze` on v2 and the freezer hierarchy on v1. A v1
//! freezer may stay `FREEZING` while tasks are forked into it or sit in an
//! uninterruptible sleep; writing `FROZEN` again (after a short thaw) moves it on.
//! Signals go through pidfds whose membership was checked after opening, so a
//! reused pid is never hit. Removal works bottom up, retries `EBUSY` (a process
//! that was killed is still leaving) and gives up with the pids that hold it.

use crate::error::{Error, Result};
use crate::files;
use crate::group::{Group, Node};
use crate::layout::Version;
use carrack_sys::pidfd;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a removal retries `EBUSY`, in milliseconds.
pub const REMOVE_TIMEOUT_MS: u64 = 5_000;
/// How long a freeze or thaw may take, in milliseconds.
pub const FREEZE_TIMEOUT_MS: u64 = 10_000;
/// How long [`Group::destroy`] waits for killed processes, in milliseconds.
pub const KILL_TIMEOUT_MS: u64 = 10_000;
const SIGKILL: i32 = 9;
/// How often a stuck v1 freezer is thawed for a moment before it is tried again.
const THAW_EVERY_TRIES: u32 = 50;

impl Group {
    /// The processes in the group by pid as seen from here; `recursive` includes nested groups.
    ///
    /// A process outside the caller's pid namespace is left out. A group that is gone is empty.
    pub fn pids(&self, recursive: bool) -> Result<Vec<i32>> {
        // Every hierarchy lists the same processes unless someone moved one by hand;
        // the devices hierarchy is the one such hands leave alone.
        let node = ["devices", "freezer", "pids", "memory"]
            .iter()
            .find_map(|c| self.v1(c))
            .or_else(|| self.nodes.first());
        match node {
            Some(node) => pids_of(&node.dir, recursive),
            None => Ok(Vec::new()),
        }
    }

    /// The processes of all hierarchies together, nested groups included.
    fn pids_everywhere(&self) -> Result<Vec<i32>> {
        let mut pids = BTreeSet::new();
        for node in &self.nodes {
            pids.extend(pids_of(&node.dir, true)?);
        }
        Ok(pids.into_iter().collect())
    }

    /// Stops every process in the group until [`Group::thaw`]; returns when all stand still.
    pub fn freeze(&self) -> Result<()> {
        match self.freezer("freeze")? {
            (node, Version::V2) => freeze_v2(node),
            (node, Version::V1) => freeze_v1(node),
        }
    }

    /// Lets the group run again.
    pub fn thaw(&self) -> Result<()> {
        match self.freezer("thaw")? {
            (node, Version::V2) => files::write(&node.file("cgroup.freeze"), "0"),
            (node, Version::V1) => files::write(&node.file("freezer.state"), "THAWED"),
        }
    }

    /// Whether the group is frozen; false when it is gone or has no freezer.
    pub fn is_frozen(&self) -> Result<bool> {
        match self.freezer("report its freezer") {
            Ok((node, _)) => node_is_frozen(node),
            Err(_) => Ok(false),
        }
    }

    /// v2 where every process is in it and nothing else freezes, else the v1 freezer.
    fn freezer(&self, what: &'static str) -> Result<(&Node, Version)> {
        if let Some(node) = self.v1("freezer") {
            return Ok((node, Version::V1));
        }
        match self.v2() {
            Some(node) => Ok((node, Version::V2)),
            None => Err(Error::NoCgroup { what }),
        }
    }

    /// Sends a signal to every process in the group and its nested groups.
    ///
    /// SIGKILL uses `cgroup.kill` (Linux 5.14) where it can, which no fork escapes. Otherwise
    /// the group is frozen while the signals go out, so that nothing forks meanwhile.
    pub fn kill(&self, signal: i32) -> Result<()> {
        if signal == SIGKILL
            && let Some(node) = self.v2()
            && self.nodes.len() == 1
        {
            match files::try_write(&node.file("cgroup.kill"), "1") {
                Ok(()) => return Ok(()),
                Err(Errno::NOENT) if !self.exists() => return Ok(()),
                Err(Errno::NOENT | Errno::OPNOTSUPP) => {} // before 5.14, or threaded
                Err(e) => return Err(files::write_error(&node.file("cgroup.kill"), "1", e)),
            }
        }
        if self.nodes.is_empty() {
            return Ok(());
        }
        let was_frozen = self.is_frozen().unwrap_or(false);
        let froze = !was_frozen && self.freeze().is_ok();
        let outcome = self.signal_all(signal);
        // A frozen v1 group takes signals only once thawed; SIGKILL must not wait for that.
        if froze || (was_frozen && signal == SIGKILL) {
            match self.thaw() {
                Err(e) if self.exists() => return outcome.and(Err(e)),
                _ => {}
            }
        }
        outcome
    }

    fn signal_all(&self, signal: i32) -> Result<()> {
        let before = self.pids_everywhere()?;
        let mut handles = Vec::with_capacity(before.len());
        for raw in before {
            match pidfd::open(raw) {
                Ok(fd) => handles.push((raw, fd)),
                Err(Errno::SRCH) => {}
                Err(e) => return Err(Error::io("open a process of", self.any_dir(), e)),
            }
        }
        // Whoever is still listed now is the process its handle was opened for.
        let after = self.pids_everywhere()?;
        for (raw, fd) in handles {
            if after.binary_search(&raw).is_err() {
                continue;
            }
            match pidfd::send_signal(fd.as_fd(), signal) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(e) => return Err(Error::io("signal a process of", self.any_dir(), e)),
            }
        }
        Ok(())
    }

    fn any_dir(&self) -> &Path {
        self.nodes
            .first()
            .map_or(Path::new(""), |n| n.dir.as_path())
    }

    /// Removes the cgroups, nested ones first. Kills nothing: processes in them make it fail
    /// with [`Error::Busy`] after [`REMOVE_TIMEOUT_MS`]. Cgroups already gone are fine.
    pub fn remove(&self) -> Result<()> {
        if let Some(scope) = &self.scope {
            // Stopping a scope would kill what is in it.
            let pids = self.pids_everywhere()?;
            if !pids.is_empty() {
                return Err(Error::Busy {
                    path: self.any_dir().to_owned(),
                    waited_ms: 0,
                    pids,
                });
            }
            crate::systemd::stop(scope);
        }
        let mut first = None;
        let end = Instant::now() + Duration::from_millis(REMOVE_TIMEOUT_MS);
        for node in &self.nodes {
            // Go on after a failure, so that as little as possible stays behind; the time is for all.
            if let Err(e) = remove_tree(&node.dir, end) {
                first.get_or_insert(e);
            }
        }
        if self.scope.is_some() {
            self.nodes.iter().for_each(remove_empty_slices);
        }
        first.map_or(Ok(()), Err)
    }

    /// Kills everything in the group and its nested groups, then removes them.
    pub fn destroy(&self) -> Result<()> {
        // The usual case: everything has ended and nothing was nested. A cgroup that is not
        // empty refuses (EBUSY), and is looked at below.
        if self.scope.is_none() {
            let gone = |node: &Node| matches!(files::rmdir(&node.dir), Ok(()) | Err(Errno::NOENT));
            if self.nodes.iter().filter(|node| !gone(node)).count() == 0 {
                return Ok(());
            }
        }
        let end = Instant::now() + Duration::from_millis(KILL_TIMEOUT_MS);
        let mut pause = Duration::from_millis(1);
        loop {
            let pids = self.pids_everywhere()?;
            if pids.is_empty() {
                break;
            }
            if Instant::now() > end {
                return Err(Error::Busy {
                    path: self.any_dir().to_owned(),
                    waited_ms: KILL_TIMEOUT_MS,
                    pids,
                });
            }
            self.kill(SIGKILL)?;
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
        self.remove()
    }
}

/// pids of one cgroup directory; empty when it is gone.
pub(crate) fn pids_of(dir: &Path, recursive: bool) -> Result<Vec<i32>> {
    let mut pids = BTreeSet::new();
    collect_pids(dir, recursive, &mut pids)?;
    Ok(pids.into_iter().collect())
}

fn collect_pids(dir: &Path, recursive: bool, pids: &mut BTreeSet<i32>) -> Result<()> {
    // EOPNOTSUPP: a threaded cgroup lists its processes at its domain only.
    if let Some(text) = files::read_optional(&dir.join("cgroup.procs"))? {
        pids.extend(
            text.lines()
                .filter_map(|l| l.parse::<i32>().ok())
                .filter(|p| *p > 0),
        );
    }
    if recursive {
        for name in files::children(dir)? {
            collect_pids(&dir.join(name), true, pids)?;
        }
    }
    Ok(())
}

pub(crate) fn node_is_frozen(node: &Node) -> Result<bool> {
    let (file, frozen) = match node.version {
        Version::V2 => ("cgroup.freeze", "1"),
        Version::V1 if node.has("freezer") => ("freezer.state", "FROZEN"),
        Version::V1 => return Ok(false),
    };
    let text = files::read_optional(&node.file(file))?;
    Ok(text.is_some_and(|t| t.trim() == frozen))
}

fn freeze_v1(node: &Node) -> Result<()> {
    let file = node.file("freezer.state");
    let end = Instant::now() + Duration::from_millis(FREEZE_TIMEOUT_MS);
    let mut tries = 0u32;
    loop {
        files::write(&file, "FROZEN")?;
        // Most groups are frozen by the first look; the others get a few microseconds more each time.
        for spin in 0..20u32 {
            match files::read(&file)?.trim() {
                "FROZEN" => return Ok(()),
                "FREEZING" => std::thread::sleep(Duration::from_micros(10 << (spin / 4))),
                _ => break,
            }
        }
        tries += 1;
        if Instant::now() > end {
            files::write(&file, "THAWED")?;
            return Err(timeout(node, "frozen"));
        }
        if tries.is_multiple_of(THAW_EVERY_TRIES) {
            files::write(&file, "THAWED")?;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn timeout(node: &Node, wanted: &'static str) -> Error {
    Error::FreezeTimeout {
        path: node.dir.clone(),
        wanted,
        waited_ms: FREEZE_TIMEOUT_MS,
    }
}

/// Writes `cgroup.freeze` and waits for the event, which says that all processes stand still.
fn freeze_v2(node: &Node) -> Result<()> {
    let path = node.file("cgroup.events");
    let events = files::open(&path, OFlags::RDONLY).map_err(|e| Error::io("open", &path, e))?;
    files::write(&node.file("cgroup.freeze"), "1")?;
    let end = Instant::now() + Duration::from_millis(FREEZE_TIMEOUT_MS);
    loop {
        let mut buffer = [0u8; 256];
        let n = rustix::io::retry_on_intr(|| rustix::io::pread(&events, &mut buffer, 0))
            .map_err(|e| Error::io("read", &path, e))?;
        let text = String::from_utf8_lossy(buffer.get(..n).unwrap_or_default());
        if text.lines().any(|l| l == "frozen 1") {
            return Ok(());
        }
        if Instant::now() >= end {
            files::write(&node.file("cgroup.freeze"), "0")?;
            return Err(timeout(node, "frozen"));
        }
        // The kernel notifies the file on each change; the short wait guards against a missed one.
        let spec = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 100_000_000,
        };
        let mut fds = [PollFd::new(&events, PollFlags::PRI)];
        match poll(&mut fds, Some(&spec)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(Error::io("wait for", &path, e)),
        }
    }
}

/// The slices above a scope, where systemd does not look after them: it made none of the v1
/// cgroups outside these hierarchies, we did. The first one in use ends it.
fn remove_empty_slices(node: &Node) {
    const SYSTEMD_V1: [&str; 7] = [
        "name=systemd",
        "cpu",
        "cpuacct",
        "blkio",
        "memory",
        "devices",
        "pids",
    ];
    if node.version == Version::V2 || SYSTEMD_V1.iter().any(|c| node.has(c)) {
        return;
    }
    let is_slice = |dir: &&Path| dir.extension().is_some_and(|e| e == "slice");
    for dir in node.dir.ancestors().skip(1).take_while(is_slice) {
        if files::rmdir(dir).is_err() {
            break;
        }
    }
}

/// Removes one cgroup and everything nested in it.
fn remove_tree(dir: &Path, end: Instant) -> Result<()> {
    let mut pause = Duration::from_micros(200);
    loop {
        match files::rmdir(dir) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::BUSY | Errno::NOTEMPTY) => {}
            Err(e) => return Err(Error::io("remove", dir, e)),
        }
        for name in files::children(dir)? {
            remove_tree(&dir.join(name), end)?;
        }
        match files::rmdir(dir) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::BUSY | Errno::NOTEMPTY) => {}
            Err(e) => return Err(Error::io("remove", dir, e)),
        }
        if Instant::now() >= end {
            return Err(Error::Busy {
                path: dir.to_owned(),
                waited_ms: REMOVE_TIMEOUT_MS,
                pids: pids_of(dir, true)?,
            });
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
