//! Limits as files of the v1 hierarchies.
//!
//! File names and ranges: the kernel's `Documentation/admin-guide/cgroup-v1`.
//! A file the kernel lacks is told as the missing ability behind it, not as a
//! bare "no such file".

use crate::apply::write_in_any_order;
use crate::error::{Error, Result};
use crate::files;
use crate::group::{Group, Node};
use carrack_spec::runtime::{BlockIo, Cpu, HugepageLimit, Memory, Network, Rdma, ThrottleDevice};
use rustix::io::Errno;

pub(crate) fn memory(node: &Node, m: &Memory) -> Result<()> {
    if m.check_before_update == Some(true)
        && let Some(limit) = m
            .limit
            .and_then(|l| u64::try_from(l).ok())
            .filter(|l| *l > 0)
    {
        refuse_below_usage(node, "memory.usage_in_bytes", limit)?;
    }
    memory_and_swap(node, m)?;
    if let Some(reservation) = m.reservation
        && reservation != 0
    {
        files::write(
            &node.file("memory.soft_limit_in_bytes"),
            &reservation.to_string(),
        )?;
    }
    if m.kernel.is_some_and(|k| k > 0) {
        log::warn!("linux.resources.memory.kernel is ignored: the kernel no longer has that limit");
    }
    if let Some(tcp) = m.kernel_tcp
        && tcp != 0
    {
        files::write(
            &node.file("memory.kmem.tcp.limit_in_bytes"),
            &tcp.to_string(),
        )?;
    }
    if let Some(hierarchy) = m.use_hierarchy {
        files::write(
            &node.file("memory.use_hierarchy"),
            if hierarchy { "1" } else { "0" },
        )?;
    }
    if m.disable_oom_killer == Some(true) {
        files::write(&node.file("memory.oom_control"), "1")?;
    }
    if let Some(swappiness @ 0..=100) = m.swappiness {
        files::write(&node.file("memory.swappiness"), &swappiness.to_string())?;
    }
    Ok(())
}

/// The limit may never exceed memory+swap: lower the limit first, raise memory+swap first.
fn memory_and_swap(node: &Node, m: &Memory) -> Result<()> {
    let limit = m.limit.filter(|l| *l != 0);
    let mut swap = m.swap.filter(|s| *s != 0);
    let mut swap_is_implied = false;
    if limit == Some(-1) && swap.is_none() {
        // An unlimited memory under an old memory+swap limit would be refused.
        swap = Some(-1);
        swap_is_implied = true;
    }
    let swap_path = node.file("memory.memsw.limit_in_bytes");
    let mut writes = Vec::with_capacity(2);
    if let Some(limit) = limit {
        writes.push((node.file("memory.limit_in_bytes"), limit.to_string()));
    }
    if let Some(swap) = swap {
        let entry = (swap_path.clone(), swap.to_string());
        if swap == -1 {
            writes.insert(0, entry);
        } else {
            writes.push(entry);
        }
    }
    match write_in_any_order(writes) {
        Err(Error::Write { path, source, .. })
            if path == swap_path && source.kind() == std::io::ErrorKind::NotFound =>
        {
            if swap.is_some_and(|s| s > 0) && !swap_is_implied {
                return Err(Error::MissingController {
                    controller: "memory",
                    field: "linux.resources.memory.swap".to_owned(),
                    reason: "the kernel does not account swap (boot it with swapaccount=1)"
                        .to_owned(),
                });
            }
            // No swap accounting is no swap limit, which is what -1 asks for.
            match limit {
                Some(limit) => {
                    files::write(&node.file("memory.limit_in_bytes"), &limit.to_string())
                }
                None => Ok(()),
            }
        }
        other => other,
    }
}

pub(crate) fn refuse_below_usage(node: &Node, file: &str, limit: u64) -> Result<()> {
    let usage = files::read(&node.file(file))?
        .trim()
        .parse::<u64>()
        .unwrap_or(0);
    if usage > limit {
        return Err(Error::BelowUsage { limit, usage });
    }
    Ok(())
}

pub(crate) fn wants_cpu(c: &Cpu) -> bool {
    c.shares.unwrap_or(0) != 0
        || c.quota.unwrap_or(0) != 0
        || c.period.unwrap_or(0) != 0
        || c.burst.is_some()
        || c.realtime_runtime.unwrap_or(0) != 0
        || c.realtime_period.unwrap_or(0) != 0
        || c.idle.is_some()
}

pub(crate) fn cpu(node: &Node, c: &Cpu) -> Result<()> {
    let mut realtime = Vec::new();
    if let Some(period) = c.realtime_period.filter(|p| *p != 0) {
        realtime.push((node.file("cpu.rt_period_us"), period.to_string()));
    }
    if let Some(runtime) = c.realtime_runtime.filter(|r| *r != 0) {
        realtime.push((node.file("cpu.rt_runtime_us"), runtime.to_string()));
    }
    write_in_any_order(realtime).map_err(|e| {
        explain_absent(
            e,
            "cpu",
            "cpu.realtimeRuntime",
            "the kernel has no real-time group scheduling",
        )
    })?;
    // An idle cgroup takes no shares, so it must wake up first and fall asleep last.
    if c.idle == Some(0) {
        write_idle(node, "0")?;
    }
    if let Some(shares) = c.shares.filter(|s| *s != 0)
        && c.idle != Some(1)
    {
        files::write(&node.file("cpu.shares"), &shares.to_string())?;
    }
    if c.idle == Some(1) {
        write_idle(node, "1")?;
    }
    let mut bandwidth = Vec::new();
    if let Some(period) = c.period.filter(|p| *p != 0) {
        bandwidth.push((node.file("cpu.cfs_period_us"), period.to_string()));
    }
    if let Some(quota) = c.quota.filter(|q| *q != 0) {
        bandwidth.push((node.file("cpu.cfs_quota_us"), quota.max(-1).to_string()));
    }
    if let Some(burst) = c.burst {
        bandwidth.push((node.file("cpu.cfs_burst_us"), burst.to_string()));
    }
    write_in_any_order(bandwidth).map_err(|e| {
        explain_absent(
            e,
            "cpu",
            "cpu.quota or cpu.burst",
            "the kernel has no CPU bandwidth control (bursts: Linux 5.14)",
        )
    })
}

pub(crate) fn write_idle(node: &Node, value: &str) -> Result<()> {
    files::write(&node.file("cpu.idle"), value)
        .map_err(|e| explain_absent(e, "cpu", "cpu.idle", "the kernel is older than Linux 5.15"))
}

/// Turns "no such file" into the ability the kernel lacks.
pub(crate) fn explain_absent(
    error: Error,
    controller: &'static str,
    field: &str,
    reason: &str,
) -> Error {
    if error.raw_os_error() != Some(crate::error::libc_errno::ENOENT) {
        return error;
    }
    Error::MissingController {
        controller,
        field: format!("linux.resources.{field}"),
        reason: reason.to_owned(),
    }
}

pub(crate) fn cpuset(node: &Node, c: &Cpu) -> Result<()> {
    for (file, list) in [("cpuset.cpus", &c.cpus), ("cpuset.mems", &c.mems)] {
        if !list.is_empty() {
            files::write(&node.file(file), list)?;
        }
    }
    Ok(())
}

pub(crate) fn block_io(node: &Node, io: &BlockIo) -> Result<()> {
    if let Some(weight) = io.weight.filter(|w| *w != 0) {
        weight_file(
            node,
            &["blkio.weight", "blkio.bfq.weight"],
            "weight",
            &weight.to_string(),
        )?;
    }
    if let Some(weight) = io.leaf_weight.filter(|w| *w != 0) {
        weight_file(
            node,
            &["blkio.leaf_weight"],
            "leafWeight",
            &weight.to_string(),
        )?;
    }
    for d in &io.weight_device {
        if let Some(weight) = d.weight.filter(|w| *w != 0) {
            let line = format!("{}:{} {weight}", d.major, d.minor);
            let names = ["blkio.weight_device", "blkio.bfq.weight_device"];
            weight_file(node, &names, "weightDevice", &line)?;
        }
        if let Some(weight) = d.leaf_weight.filter(|w| *w != 0) {
            let line = format!("{}:{} {weight}", d.major, d.minor);
            weight_file(
                node,
                &["blkio.leaf_weight_device"],
                "weightDevice.leafWeight",
                &line,
            )?;
        }
    }
    for (file, devices) in throttles(io, V1_THROTTLES) {
        for d in devices {
            files::write(
                &node.file(file),
                &format!("{}:{} {}", d.major, d.minor, d.rate),
            )?;
        }
    }
    Ok(())
}

const V1_THROTTLES: [&str; 4] = [
    "blkio.throttle.read_bps_device",
    "blkio.throttle.write_bps_device",
    "blkio.throttle.read_iops_device",
    "blkio.throttle.write_iops_device",
];

/// The four throttle lists beside their names, in the order read/write bytes, read/write operations.
pub(crate) fn throttles<'a>(
    io: &'a BlockIo,
    names: [&'static str; 4],
) -> impl Iterator<Item = (&'static str, &'a [ThrottleDevice])> {
    names.into_iter().zip([
        io.throttle_read_bps_device.as_slice(),
        io.throttle_write_bps_device.as_slice(),
        io.throttle_read_iops_device.as_slice(),
        io.throttle_write_iops_device.as_slice(),
    ])
}

/// Writes to the first of the names that exists: schedulers name their weights differently.
fn weight_file(node: &Node, names: &[&str], field: &str, value: &str) -> Result<()> {
    for name in names {
        let path = node.file(name);
        match files::try_write(&path, value) {
            Ok(()) => return Ok(()),
            Err(Errno::NOENT) => {}
            Err(e) => return Err(files::write_error(&path, value, e)),
        }
    }
    Err(Error::MissingController {
        controller: "blkio",
        field: format!("linux.resources.blockIO.{field}"),
        reason: format!("none of {names:?} exists (weights need the BFQ or CFQ scheduler)"),
    })
}

pub(crate) fn hugepages(
    node: &Node,
    limits: &[HugepageLimit],
    suffix: &str,
    on_v2: bool,
) -> Result<()> {
    for limit in limits {
        let value = limit.limit.to_string();
        let file = format!("hugetlb.{}.{suffix}", limit.page_size);
        let absent = |e| {
            explain_absent(
                e,
                "hugetlb",
                "hugepageLimits.pageSize",
                &format!(
                    "the kernel has no huge pages of {} (no {file})",
                    limit.page_size
                ),
            )
        };
        if on_v2 {
            crate::v2::put(node, "hugetlb", "hugepageLimits", &file, &value).map_err(absent)?;
        } else {
            files::write(&node.file(&file), &value).map_err(absent)?;
        }
        // Reservations count separately since Linux 5.7; older kernels have no such file.
        let reserved = node.file(&format!("hugetlb.{}.rsvd.{suffix}", limit.page_size));
        match files::try_write(&reserved, &value) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(files::write_error(&reserved, &value, e)),
        }
    }
    Ok(())
}

pub(crate) fn network(group: &Group, network: &Network) -> Result<()> {
    let find = |controller, field: &str| {
        match group.v1(controller) {
        Some(node) => Ok(node),
        None => Err(Error::MissingController {
            controller,
            field: format!("linux.resources.network.{field}"),
            reason: "it exists on cgroup v1 only, and no such hierarchy is mounted (on v2 use nftables or eBPF)".to_owned(),
        }),
    }
    };
    if let Some(class) = network.class_id.filter(|c| *c != 0) {
        let node = find("net_cls", "classID")?;
        files::write(&node.file("net_cls.classid"), &class.to_string())?;
    }
    for priority in &network.priorities {
        let node = find("net_prio", "priorities")?;
        let line = format!("{} {}", priority.name, priority.priority);
        files::write(&node.file("net_prio.ifpriomap"), &line)?;
    }
    Ok(())
}

/// `mlx5_0 hca_handle=2 hca_object=max`
pub(crate) fn rdma_line(name: &str, limit: &Rdma) -> String {
    let value = |n: Option<u32>| n.map_or_else(|| "max".to_owned(), |n| n.to_string());
    format!(
        "{name} hca_handle={} hca_object={}",
        value(limit.hca_handles),
        value(limit.hca_objects)
    )
}
