//! `linux.resources` carried out: check, choose the hierarchy, write.
//!
//! Each section goes to the v1 hierarchy of its controller, or to v2 where that
//! has it; a controller that neither has is an error naming controller and
//! field. Nothing is read before a value is written, on create as on update;
//! where the kernel wants an order (memory before memory+swap when lowering,
//! the other way round when raising) the order is found by trying. A failure
//! in the middle leaves the limits written so far: the caller removes the group
//! (create) or reports (update).
//!
//! Device rules are not part of it: see [`Group::apply_devices`].

use crate::check;
use crate::error::{Error, Result};
use crate::files;
use crate::group::{Group, Node};
use crate::layout::Mode;
use crate::{v1, v2};
use carrack_spec::runtime::Resources;
use rustix::io::Errno;
use std::path::PathBuf;

/// The hierarchy that carries out a section.
pub(crate) enum Target<'a> {
    V1(&'a Node),
    V2(&'a Node),
}

impl Group {
    /// Checks and writes every limit but the device rules; for a new group as for an update.
    ///
    /// A field that is absent (or zero where zero means so) is left alone. On a planned systemd
    /// scope the limits are kept until [`Group::attach`] starts it. Needs write access to the cgroup.
    pub fn apply(&self, resources: &Resources) -> Result<()> {
        check::resources(resources)?;
        if let Some(scope) = &self.scope
            && crate::systemd::apply(self, scope, resources)?
        {
            return Ok(());
        }
        self.write_limits(resources)
    }

    /// Writes the files, past checks and systemd.
    pub(crate) fn write_limits(&self, r: &Resources) -> Result<()> {
        let _together = files::close_together();
        if self.is_none() {
            return match check::first_limit(r) {
                None => Ok(()),
                Some(field) => Err(Error::NoRights { field }),
            };
        }
        if let Some(pids) = r.pids.as_ref().and_then(|p| p.limit) {
            let value =
                check::pids_max(pids).map_or_else(|| "max".to_owned(), |max| max.to_string());
            match self.target("pids", "pids", "pids.limit")? {
                Target::V1(node) => files::write(&node.file("pids.max"), &value)?,
                Target::V2(node) => v2::put(node, "pids", "pids.limit", "pids.max", &value)?,
            }
        }
        if let Some(memory) = &r.memory
            && !memory.is_empty()
        {
            match self.target("memory", "memory", "memory")? {
                Target::V1(node) => v1::memory(node, memory)?,
                Target::V2(node) => v2::memory(node, memory)?,
            }
        }
        self.write_cpu(r)?;
        if let Some(io) = &r.block_io
            && *io != Default::default()
        {
            match self.target("blkio", "io", "blockIO")? {
                Target::V1(node) => v1::block_io(node, io)?,
                Target::V2(node) => v2::block_io(node, io)?,
            }
        }
        self.write_rare(r)
    }

    fn write_cpu(&self, r: &Resources) -> Result<()> {
        let Some(cpu) = &r.cpu else { return Ok(()) };
        if !cpu.cpus.is_empty() || !cpu.mems.is_empty() {
            match self.target("cpuset", "cpuset", "cpu.cpus")? {
                Target::V1(node) => v1::cpuset(node, cpu)?,
                Target::V2(node) => v2::cpuset(node, cpu)?,
            }
        }
        if v1::wants_cpu(cpu) {
            match self.target("cpu", "cpu", "cpu")? {
                Target::V1(node) => v1::cpu(node, cpu)?,
                Target::V2(node) => v2::cpu(node, cpu)?,
            }
        }
        Ok(())
    }

    fn write_rare(&self, r: &Resources) -> Result<()> {
        if !r.hugepage_limits.is_empty() {
            let (node, suffix, on_v2) = match self.target("hugetlb", "hugetlb", "hugepageLimits")? {
                Target::V1(node) => (node, "limit_in_bytes", false),
                Target::V2(node) => (node, "max", true),
            };
            v1::hugepages(node, &r.hugepage_limits, suffix, on_v2)?;
        }
        if let Some(network) = &r.network {
            v1::network(self, network)?;
        }
        for (name, limit) in &r.rdma {
            let line = v1::rdma_line(name, limit);
            match self.target("rdma", "rdma", "rdma")? {
                Target::V1(node) => files::write(&node.file("rdma.max"), &line)?,
                Target::V2(node) => v2::put(node, "rdma", "rdma", "rdma.max", &line)?,
            }
        }
        if !r.unified.is_empty() {
            let Some(node) = self.v2() else {
                return Err(Error::Unsupported {
                    field: "linux.resources.unified".to_owned(),
                    reason: "it names cgroup v2 files, and this host has v1 hierarchies only",
                });
            };
            v2::unified(node, self.mode, &r.unified)?;
        }
        Ok(())
    }

    /// Where a controller lives on this host, by its v1 and v2 names.
    pub(crate) fn target(
        &self,
        v1_name: &'static str,
        v2_name: &'static str,
        field: &str,
    ) -> Result<Target<'_>> {
        if let Some(node) = self.v1(v1_name) {
            return Ok(Target::V1(node));
        }
        let node = self.v2();
        if let Some(node) = node {
            // Pure v2 finds out by writing, which costs nothing when all is well.
            if self.mode == Mode::Unified {
                return Ok(Target::V2(node));
            }
            if v2::offers(node, v2_name)? {
                v2::enable_one(node, v2_name)?;
                return Ok(Target::V2(node));
            }
        }
        Err(Error::MissingController {
            controller: if self.mode == Mode::Unified {
                v2_name
            } else {
                v1_name
            },
            field: format!("linux.resources.{field}"),
            reason: match (self.mode, node) {
                (_, None) if self.rootless => {
                    "no cgroup of that hierarchy is delegated to this user, or it is not mounted"
                        .to_owned()
                }
                (Mode::Hybrid, Some(_)) => format!(
                    "no v1 hierarchy has it below {}, and the v2 hierarchy does not either",
                    crate::layout::CGROUP_ROOT
                ),
                _ => format!(
                    "no hierarchy with it is mounted below {}",
                    crate::layout::CGROUP_ROOT
                ),
            },
        })
    }
}

/// Writes values whose order matters to the kernel: what is refused with EINVAL or EBUSY is
/// tried again after the others, as long as that makes progress.
pub(crate) fn write_in_any_order(mut pending: Vec<(PathBuf, String)>) -> Result<()> {
    loop {
        let mut refused = Vec::new();
        let mut reason: Option<Error> = None;
        let tried = pending.len();
        for (path, value) in pending {
            match files::try_write(&path, &value) {
                Ok(()) => {}
                Err(e @ (Errno::INVAL | Errno::BUSY)) => {
                    // Busy says more than invalid, which may only follow from it.
                    if reason.is_none() || e == Errno::BUSY {
                        reason = Some(files::write_error(&path, &value, e));
                    }
                    refused.push((path, value));
                }
                Err(e) => return Err(files::write_error(&path, &value, e)),
            }
        }
        match reason {
            None => return Ok(()),
            Some(reason) if refused.len() == tried => return Err(reason),
            Some(_) => pending = refused,
        }
    }
}
