//! Limits as files of the v2 hierarchy, and passing controllers down to them.
//!
//! ```text
//! /sys/fs/cgroup      cgroup.subtree_control += all controllers the root offers
//!   └ machine.slice   cgroup.subtree_control += the same, as far as the parent passes on
//!       └ web-1       the limits; it holds the processes
//! ```
//!
//! A cgroup that holds processes cannot pass controllers on (except the root and
//! threaded ones), so a step may fail. That is not an error by itself: only a
//! limit that needs the controller turns it into one, which then names the cgroup
//! that refused and why. Source: the kernel's `cgroup-v2.rst`.

use crate::convert::{SwapMax, blkio_to_io_weight, bytes_or_max, shares_to_weight, swap_max};
use crate::error::{Error, Result};
use crate::files;
use crate::group::Node;
use crate::layout::Mode;
use crate::v1::{explain_absent, refuse_below_usage, throttles, write_idle};
use carrack_spec::runtime::{BlockIo, Cpu, Memory};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::path::Path;

/// Whether the root of the hierarchy has the controller to give.
pub(crate) fn offers(node: &Node, controller: &str) -> Result<bool> {
    let text = files::read(&node.mountpoint.join("cgroup.controllers"))?;
    Ok(text.split_ascii_whitespace().any(|c| c == controller))
}

/// Makes every controller of the root reach this new cgroup, from the top down.
pub(crate) fn enable_along(node: &Node) -> Result<()> {
    let offered = files::read(&node.mountpoint.join("cgroup.controllers"))?;
    let arrived = files::read(&node.file("cgroup.controllers"))?;
    let has = |c: &str| arrived.split_ascii_whitespace().any(|a| a == c);
    let missing: Vec<&str> = offered
        .split_ascii_whitespace()
        .filter(|c| !has(c))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    enable(node, &missing)
}

/// The same for a nested group: only what its parent has of its own.
pub(crate) fn enable_below(parents: &[Node], child: &Node) -> Result<()> {
    let Some(parent) = parents
        .iter()
        .find(|p| Some(p.dir.as_path()) == child.dir.parent())
    else {
        return Ok(());
    };
    let own = files::read(&parent.file("cgroup.controllers"))?;
    let wanted: Vec<&str> = own.split_ascii_whitespace().collect();
    enable_in(&parent.dir, &wanted)
}

/// Makes one controller reach this cgroup.
pub(crate) fn enable_one(node: &Node, controller: &str) -> Result<()> {
    let arrived = files::read(&node.file("cgroup.controllers"))?;
    if arrived.split_ascii_whitespace().any(|c| c == controller) {
        return Ok(());
    }
    enable(node, &[controller])
}

fn enable(node: &Node, controllers: &[&str]) -> Result<()> {
    let mut levels: Vec<&Path> = node
        .dir
        .ancestors()
        .skip(1)
        .take_while(|d| d.starts_with(&node.mountpoint))
        .collect();
    levels.reverse();
    let mut first = None;
    for dir in levels {
        // A level we may not write to may already pass on what we need further down.
        if let Err(e) = enable_in(dir, controllers) {
            first.get_or_insert(e);
        }
    }
    match first {
        None => Ok(()),
        Some(e) => {
            let arrived = files::read(&node.file("cgroup.controllers"))?;
            let has = |c: &&str| arrived.split_ascii_whitespace().any(|a| a == *c);
            if controllers.iter().all(has) {
                Ok(())
            } else {
                Err(e)
            }
        }
    }
}

/// All at once, and one by one when one of them is refused.
///
/// Never in a domain that holds processes: the kernel would take some controllers there, which
/// makes the cgroup a threaded domain and its children unusable for processes.
fn enable_in(dir: &Path, controllers: &[&str]) -> Result<()> {
    if controllers.is_empty() {
        return Ok(());
    }
    let file = dir.join("cgroup.subtree_control");
    let passed = files::try_read(&file).unwrap_or_default();
    let missing: Vec<String> = controllers
        .iter()
        .filter(|c| !passed.split_ascii_whitespace().any(|p| p == **c))
        .map(|c| format!("+{c}"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let all = missing.join(" ");
    if is_populated_domain(dir) {
        return Err(files::write_error(&file, &all, Errno::BUSY));
    }
    match files::try_write(&file, &all) {
        Ok(()) => return Ok(()),
        Err(e @ Errno::BUSY) => return Err(files::write_error(&file, &all, e)),
        Err(_) => {}
    }
    let mut first = None;
    for one in &missing {
        if let Err(e) = files::write(&file, one) {
            first.get_or_insert(e);
        }
    }
    first.map_or(Ok(()), Err)
}

/// The root has no `cgroup.type` and may hold processes.
fn is_populated_domain(dir: &Path) -> bool {
    let read = |name: &str| files::try_read(&dir.join(name)).unwrap_or_default();
    read("cgroup.type").trim() == "domain" && !read("cgroup.procs").is_empty()
}

/// Writes one limit; a missing file is explained by its controller.
pub(crate) fn put(
    node: &Node,
    controller: &'static str,
    field: &str,
    file: &str,
    value: &str,
) -> Result<()> {
    let path = node.file(file);
    match files::try_write(&path, value) {
        Ok(()) => Ok(()),
        Err(Errno::NOENT | Errno::ACCESS) if !is_enabled(node, controller) => {
            if !offers(node, controller)? {
                return Err(missing(
                    controller,
                    field,
                    format!(
                        "{:?} does not list it (disabled at boot, or used by a v1 hierarchy)",
                        node.mountpoint.join("cgroup.controllers")
                    ),
                ));
            }
            // Tells who on the way refused, if somebody does.
            enable_one(node, controller)?;
            files::write(&path, value)
        }
        Err(e) => Err(files::write_error(&path, value, e)),
    }
}

fn is_enabled(node: &Node, controller: &str) -> bool {
    files::try_read(&node.file("cgroup.controllers"))
        .is_ok_and(|text| text.split_ascii_whitespace().any(|c| c == controller))
}

fn missing(controller: &'static str, field: &str, reason: String) -> Error {
    Error::MissingController {
        controller,
        field: format!("linux.resources.{field}"),
        reason,
    }
}

fn unsupported<T>(field: &str, reason: &'static str) -> Result<T> {
    Err(Error::Unsupported {
        field: format!("linux.resources.{field}"),
        reason,
    })
}

pub(crate) fn memory(node: &Node, m: &Memory) -> Result<()> {
    if matches!(m.swappiness, Some(0..=100)) {
        return unsupported(
            "memory.swappiness",
            "cgroup v2 has no swappiness of a group",
        );
    }
    if m.disable_oom_killer == Some(true) {
        return unsupported(
            "memory.disableOOMKiller",
            "cgroup v2 always kills on out-of-memory",
        );
    }
    if m.kernel_tcp.is_some_and(|k| k > 0) {
        return unsupported("memory.kernelTCP", "cgroup v2 counts TCP buffers as memory");
    }
    if m.use_hierarchy == Some(false) {
        return unsupported(
            "memory.useHierarchy",
            "cgroup v2 always counts nested groups",
        );
    }
    if m.kernel.is_some_and(|k| k > 0) {
        log::warn!(
            "linux.resources.memory.kernel is ignored: cgroup v2 counts kernel memory as memory"
        );
    }
    let limit = m.limit.filter(|l| *l != 0);
    if m.check_before_update == Some(true)
        && let Some(limit) = limit.and_then(|l| u64::try_from(l).ok())
    {
        refuse_below_usage(node, "memory.current", limit)?;
    }
    write_swap(node, swap_max(m.limit, m.swap)?)?;
    if let Some(limit) = limit {
        put(
            node,
            "memory",
            "memory.limit",
            "memory.max",
            &bytes_or_max(limit),
        )?;
    }
    if let Some(low) = m.reservation.filter(|r| *r != 0) {
        put(
            node,
            "memory",
            "memory.reservation",
            "memory.low",
            &bytes_or_max(low),
        )?;
    }
    Ok(())
}

fn write_swap(node: &Node, swap: SwapMax) -> Result<()> {
    let value = match swap {
        SwapMax::Keep => return Ok(()),
        SwapMax::Max => "max".to_owned(),
        SwapMax::Bytes(n) => n.to_string(),
    };
    match put(node, "memory", "memory.swap", "memory.swap.max", &value) {
        // A kernel without swap has no such file: then "no swap" and "any swap" hold anyway.
        Err(e) if e.raw_os_error() == Some(crate::error::libc_errno::ENOENT) => match swap {
            SwapMax::Max | SwapMax::Bytes(0) => Ok(()),
            _ => Err(missing(
                "memory",
                "memory.swap",
                "the kernel does not account swap".to_owned(),
            )),
        },
        other => other,
    }
}

pub(crate) fn cpu(node: &Node, c: &Cpu) -> Result<()> {
    if c.realtime_runtime.unwrap_or(0) != 0 || c.realtime_period.unwrap_or(0) != 0 {
        return unsupported(
            "cpu.realtimeRuntime",
            "cgroup v2 has no real-time bandwidth",
        );
    }
    let put = |field: &str, file: &str, value: &str| put(node, "cpu", field, file, value);
    // An idle cgroup takes no weight, so it must wake up first and fall asleep last.
    if c.idle == Some(0) {
        write_idle(node, "0")?;
    }
    if let Some(shares) = c.shares.filter(|s| *s != 0)
        && c.idle != Some(1)
    {
        put(
            "cpu.shares",
            "cpu.weight",
            &shares_to_weight(shares).to_string(),
        )?;
    }
    if c.idle == Some(1) {
        write_idle(node, "1")?;
    }
    let max = cpu_max(node, c);
    match (max, c.burst) {
        (Some(max), None) => put("cpu.quota", "cpu.max", &max),
        (None, Some(burst)) => put("cpu.burst", "cpu.max.burst", &burst.to_string()),
        (Some(max), Some(burst)) => {
            let burst = burst.to_string();
            // A burst above the quota is refused, so which one first depends on what stands there.
            if put("cpu.quota", "cpu.max", &max).is_ok() {
                return put("cpu.burst", "cpu.max.burst", &burst);
            }
            put("cpu.burst", "cpu.max.burst", &burst)?;
            put("cpu.quota", "cpu.max", &max)
        }
        (None, None) => Ok(()),
    }
}

/// `quota period`; a period alone keeps the quota that stands there.
fn cpu_max(node: &Node, c: &Cpu) -> Option<String> {
    let quota = c.quota.filter(|q| *q != 0);
    let period = c.period.filter(|p| *p != 0);
    let quota_text = |q: i64| bytes_or_max(q);
    match (quota, period) {
        (None, None) => None,
        (Some(quota), None) => Some(quota_text(quota)),
        (Some(quota), Some(period)) => Some(format!("{} {period}", quota_text(quota))),
        (None, Some(period)) => {
            let old = files::try_read(&node.file("cpu.max")).unwrap_or_default();
            let quota = old
                .split_ascii_whitespace()
                .next()
                .unwrap_or("max")
                .to_owned();
            Some(format!("{quota} {period}"))
        }
    }
}

pub(crate) fn cpuset(node: &Node, c: &Cpu) -> Result<()> {
    for (field, file, list) in [
        ("cpu.cpus", "cpuset.cpus", &c.cpus),
        ("cpu.mems", "cpuset.mems", &c.mems),
    ] {
        if !list.is_empty() {
            put(node, "cpuset", field, file, list)?;
        }
    }
    Ok(())
}

pub(crate) fn block_io(node: &Node, io: &BlockIo) -> Result<()> {
    if io.leaf_weight.unwrap_or(0) != 0
        || io
            .weight_device
            .iter()
            .any(|d| d.leaf_weight.unwrap_or(0) != 0)
    {
        return unsupported("blockIO.leafWeight", "cgroup v2 has no leaf weights");
    }
    if let Some(weight) = io.weight.filter(|w| *w != 0) {
        put_weight(node, "blockIO.weight", "default", weight)?;
    }
    for d in &io.weight_device {
        if let Some(weight) = d.weight.filter(|w| *w != 0) {
            put_weight(
                node,
                "blockIO.weightDevice",
                &format!("{}:{}", d.major, d.minor),
                weight,
            )?;
        }
    }
    for (key, devices) in throttles(io, ["rbps", "wbps", "riops", "wiops"]) {
        for d in devices {
            let rate = if d.rate == 0 {
                "max".to_owned()
            } else {
                d.rate.to_string()
            };
            let line = format!("{}:{} {key}={rate}", d.major, d.minor);
            put(node, "io", "blockIO.throttle", "io.max", &line)?;
        }
    }
    Ok(())
}

/// BFQ's own file has the range of the specification; `io.weight` (iocost) needs it converted.
fn put_weight(node: &Node, field: &str, device: &str, weight: u16) -> Result<()> {
    let bfq = node.file("io.bfq.weight");
    let line = format!("{device} {weight}");
    match files::try_write(&bfq, &line) {
        Ok(()) => return Ok(()),
        Err(Errno::NOENT) => {}
        Err(e) => return Err(files::write_error(&bfq, &line, e)),
    }
    let line = format!("{device} {}", blkio_to_io_weight(weight));
    put(node, "io", field, "io.weight", &line).map_err(|e| {
        explain_absent(
            e,
            "io",
            field,
            "neither io.bfq.weight nor io.weight exists (weights need BFQ or iocost)",
        )
    })
}

/// The files of `unified`, in order of their names; several lines are several writes.
pub(crate) fn unified(
    node: &Node,
    mode: Mode,
    files_and_values: &BTreeMap<String, String>,
) -> Result<()> {
    for (file, value) in files_and_values {
        let controller = file.split('.').next().unwrap_or_default();
        if mode != Mode::Unified && controller != "cgroup" {
            if !offers(node, controller)? {
                return Err(Error::Unsupported {
                    field: format!("linux.resources.unified[{file:?}]"),
                    reason: "the v2 hierarchy of this hybrid host does not have that controller (a v1 hierarchy does); use the specific field",
                });
            }
            enable_one(node, controller)?;
        }
        for line in value.lines() {
            put_unified(node, controller, file, line)?;
        }
    }
    Ok(())
}

fn put_unified(node: &Node, controller: &str, file: &str, value: &str) -> Result<()> {
    let path = node.file(file);
    match files::try_write(&path, value) {
        Ok(()) => Ok(()),
        Err(Errno::NOENT | Errno::ACCESS)
            if controller != "cgroup" && !is_enabled(node, controller) =>
        {
            if !offers(node, controller)? {
                return Err(Error::Unsupported {
                    field: format!("linux.resources.unified[{file:?}]"),
                    reason: "this host does not have that controller on cgroup v2",
                });
            }
            enable_one(node, controller)?;
            files::write(&path, value)
        }
        Err(e) => Err(files::write_error(&path, value, e)),
    }
}
