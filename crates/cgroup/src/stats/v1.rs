//! Statistics of v1 hierarchies.

use super::parse::{block_v1, flat, id_list, limit, nested, number, numbers};
use super::{BlockIoEntry, HugetlbStats, MemoryCounter, RdmaStats, Stats};
use crate::error::Result;
use crate::files::read_optional;
use crate::group::Node;

/// Nanoseconds of one clock tick as user space sees it (`USER_HZ` is 100 on every architecture).
const TICK_NS: u64 = 10_000_000;

pub(super) fn read(node: &Node, stats: &mut Stats) -> Result<()> {
    for controller in &node.controllers {
        match controller.as_str() {
            "cpu" => cpu(node, stats)?,
            "cpuacct" => cpuacct(node, stats)?,
            "cpuset" => cpuset(node, stats)?,
            "memory" => memory(node, stats)?,
            "pids" => pids(node, stats)?,
            "blkio" => block_io(node, stats)?,
            "hugetlb" => hugetlb(node, stats)?,
            "rdma" => rdma(node, stats)?,
            _ => {}
        }
    }
    Ok(())
}

fn text(node: &Node, file: &str) -> Result<String> {
    Ok(read_optional(&node.file(file))?.unwrap_or_default())
}

fn cpu(node: &Node, stats: &mut Stats) -> Result<()> {
    let map = flat(&text(node, "cpu.stat")?);
    let get = |key: &str| map.get(key).copied().unwrap_or(0);
    stats.cpu.periods = get("nr_periods");
    stats.cpu.throttled_periods = get("nr_throttled");
    stats.cpu.throttled_ns = get("throttled_time");
    stats.cpu.bursts = get("nr_bursts");
    stats.cpu.burst_ns = get("burst_time");
    Ok(())
}

fn cpuacct(node: &Node, stats: &mut Stats) -> Result<()> {
    let cpu = &mut stats.cpu;
    cpu.usage_ns = number(&text(node, "cpuacct.usage")?);
    cpu.per_cpu_ns = numbers(&text(node, "cpuacct.usage_percpu")?);
    let map = flat(&text(node, "cpuacct.stat")?);
    let ticks = |key: &str| map.get(key).copied().unwrap_or(0).saturating_mul(TICK_NS);
    cpu.user_ns = ticks("user");
    cpu.system_ns = ticks("system");
    // `cpu user system`, one line a processor.
    for line in text(node, "cpuacct.usage_all")?.lines().skip(1) {
        if let [_, user, system] = numbers(line)[..] {
            cpu.per_cpu_user_ns.push(user);
            cpu.per_cpu_system_ns.push(system);
        }
    }
    Ok(())
}

fn cpuset(node: &Node, stats: &mut Stats) -> Result<()> {
    stats.cpuset.cpus = id_list(&text(node, "cpuset.cpus")?);
    stats.cpuset.mems = id_list(&text(node, "cpuset.mems")?);
    Ok(())
}

fn counter(node: &Node, prefix: &str) -> Result<MemoryCounter> {
    Ok(MemoryCounter {
        usage: number(&text(node, &format!("{prefix}.usage_in_bytes"))?),
        max_usage: number(&text(node, &format!("{prefix}.max_usage_in_bytes"))?),
        failures: number(&text(node, &format!("{prefix}.failcnt"))?),
        limit: limit(&text(node, &format!("{prefix}.limit_in_bytes"))?),
    })
}

fn memory(node: &Node, stats: &mut Stats) -> Result<()> {
    let memory = &mut stats.memory;
    memory.memory = counter(node, "memory")?;
    memory.memory_and_swap = counter(node, "memory.memsw")?;
    memory.kernel = counter(node, "memory.kmem")?;
    memory.kernel_tcp = counter(node, "memory.kmem.tcp")?;
    memory.raw = flat(&text(node, "memory.stat")?);
    let raw = |key: &str| memory.raw.get(key).copied().unwrap_or(0);
    memory.cache = raw("cache");
    memory.swap.usage = raw("total_swap").max(raw("swap"));
    memory.swap.limit = match (memory.memory_and_swap.limit, memory.memory.limit) {
        (Some(both), Some(memory)) => Some(both.saturating_sub(memory)),
        _ => None,
    };
    memory.working_set = memory
        .memory
        .usage
        .saturating_sub(raw("total_inactive_file"));
    memory.oom_kills = flat(&text(node, "memory.oom_control")?)
        .get("oom_kill")
        .copied()
        .unwrap_or(0);
    memory.use_hierarchy = number(&text(node, "memory.use_hierarchy")?) == 1;
    Ok(())
}

fn pids(node: &Node, stats: &mut Stats) -> Result<()> {
    stats.pids.current = number(&text(node, "pids.current")?);
    stats.pids.limit = limit(&text(node, "pids.max")?);
    Ok(())
}

/// Schedulers count under names of their own; the throttling layer counts for all.
fn block_io(node: &Node, stats: &mut Stats) -> Result<()> {
    let io = &mut stats.block_io;
    let first = |names: &[&str]| -> Result<Vec<BlockIoEntry>> {
        for name in names {
            let entries = block_v1(&text(node, name)?);
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
        Ok(Vec::new())
    };
    io.service_bytes = first(&[
        "blkio.bfq.io_service_bytes_recursive",
        "blkio.io_service_bytes_recursive",
        "blkio.throttle.io_service_bytes_recursive",
        "blkio.throttle.io_service_bytes",
    ])?;
    io.serviced = first(&[
        "blkio.bfq.io_serviced_recursive",
        "blkio.io_serviced_recursive",
        "blkio.throttle.io_serviced_recursive",
        "blkio.throttle.io_serviced",
    ])?;
    let pair = |name: &str| first(&[&format!("blkio.bfq.{name}"), &format!("blkio.{name}")]);
    io.queued = pair("io_queued_recursive")?;
    io.service_time = pair("io_service_time_recursive")?;
    io.wait_time = pair("io_wait_time_recursive")?;
    io.merged = pair("io_merged_recursive")?;
    io.time = pair("time_recursive")?;
    io.sectors = pair("sectors_recursive")?;
    Ok(())
}

fn hugetlb(node: &Node, stats: &mut Stats) -> Result<()> {
    for size in page_sizes(node, ".usage_in_bytes") {
        let file = |what: &str| text(node, &format!("hugetlb.{size}.{what}"));
        let one = HugetlbStats {
            usage: number(&file("usage_in_bytes")?),
            max_usage: number(&file("max_usage_in_bytes")?),
            failures: number(&file("failcnt")?),
            limit: limit(&file("limit_in_bytes")?),
        };
        stats.hugetlb.insert(size, one);
    }
    Ok(())
}

/// The page sizes of this kernel, from the names of the files; empty when the group is gone.
pub(super) fn page_sizes(node: &Node, suffix: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(&node.dir) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            let size = name.strip_prefix("hugetlb.")?.strip_suffix(suffix)?;
            (!size.contains('.')).then(|| size.to_owned())
        })
        .collect()
}

/// The files have the same shape on v1 and v2.
pub(super) fn rdma(node: &Node, stats: &mut Stats) -> Result<()> {
    let limits = nested(&text(node, "rdma.max")?);
    for (name, now) in nested(&text(node, "rdma.current")?) {
        let get = |key: &str| now.get(key).copied().flatten().unwrap_or(0);
        let limit = |key: &str| {
            limits
                .get(&name)
                .and_then(|l| l.get(key))
                .copied()
                .flatten()
        };
        let one = RdmaStats {
            handles: get("hca_handle"),
            handles_limit: limit("hca_handle"),
            objects: get("hca_object"),
            objects_limit: limit("hca_object"),
        };
        stats.rdma.insert(name, one);
    }
    Ok(())
}
