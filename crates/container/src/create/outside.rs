//! What init cannot do for itself: the parent does it from outside, while the
//! child waits for GO.

use super::Undo;
use crate::error::Error;
use crate::plan::ProcessPlan;
use crate::record::Record;
use crate::userns::{self, Mapping};
use crate::{netdev, procfs, rdt, validate};
use carrack_spec::runtime::{Linux, NamespaceKind};
use rustix::process::Rlimit;
use std::os::fd::BorrowedFd;

/// A child that waits.
pub struct Outside<'a> {
    pub linux: &'a Linux,
    pub mapping: Mapping,
    pub closid: Option<&'a rdt::Closid<'a>>,
    pub process: &'a ProcessPlan,
    pub proc: BorrowedFd<'a>,
    pub pid: i32,
}

impl Outside<'_> {
    /// Does everything, and notes what was made.
    pub fn prepare(&self, record: &mut Record, undo: &mut Undo) -> Result<(), Error> {
        if validate::makes(self.linux, NamespaceKind::User) {
            userns::write_maps(
                self.proc,
                self.pid,
                &self.linux.uid_mappings,
                &self.linux.gid_mappings,
                self.mapping,
            )?;
            apply_from_outside(self.process, self.proc, self.pid)?;
        }
        if let Some(group) = undo.group.as_ref().filter(|group| group.needs_attach()) {
            group.attach(self.pid)?;
            record.cgroup_paths = group.paths();
        }
        netdev::move_devices(self.linux, self.proc, self.pid, &mut undo.devices)?;
        if let Some(closid) = self.closid {
            undo.enter_rdt(closid, self.pid, record)?;
        }
        Ok(())
    }
}

/// Limits that a process in a new user namespace may not raise itself. They are raised
/// only: a low limit, say of open files, could stop what init has to do before it
/// takes on the exact limits itself.
fn apply_from_outside(process: &ProcessPlan, proc: BorrowedFd<'_>, pid: i32) -> Result<(), Error> {
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
