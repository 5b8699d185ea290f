//! Statistics of the v2 hierarchy. On a hybrid host it adds what v1 does not tell: pressure,
//! and controllers that only v2 has.

use super::parse::{block_v2, flat, id_list, limit, number, pressure};
use super::v1::{page_sizes, rdma};
use super::{HugetlbStats, MemoryCounter, Pressure, Stats};
use crate::error::Result;
use crate::files::read_optional;
use crate::group::Node;
use crate::layout::Mode;

pub(super) fn read(node: &Node, mode: Mode, stats: &mut Stats) -> Result<()> {
    stats.cpu.pressure = read_pressure(node, "cpu.pressure")?;
    stats.memory.pressure = read_pressure(node, "memory.pressure")?;
    stats.block_io.pressure = read_pressure(node, "io.pressure")?;
    if mode == Mode::Unified {
        cpu(node, stats)?; // the times are counted without the controller too
    }
    let controllers = text(node, "cgroup.controllers")?;
    for controller in controllers.split_ascii_whitespace() {
        match controller {
            "cpu" if mode != Mode::Unified => cpu(node, stats)?,
            "memory" => memory(node, stats)?,
            "cpuset" => {
                stats.cpuset.cpus = id_list(&text(node, "cpuset.cpus.effective")?);
                stats.cpuset.mems = id_list(&text(node, "cpuset.mems.effective")?);
            }
            "pids" => {
                stats.pids.current = number(&text(node, "pids.current")?);
                stats.pids.limit = limit(&text(node, "pids.max")?);
            }
            "io" => {
                let (bytes, operations) = block_v2(&text(node, "io.stat")?);
                stats.block_io.service_bytes = bytes;
                stats.block_io.serviced = operations;
            }
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

fn read_pressure(node: &Node, file: &str) -> Result<Option<Pressure>> {
    Ok(pressure(&text(node, file)?))
}

/// `cpu.stat` is there without the controller too, then without throttling.
fn cpu(node: &Node, stats: &mut Stats) -> Result<()> {
    let map = flat(&text(node, "cpu.stat")?);
    let get = |key: &str| map.get(key).copied().unwrap_or(0);
    let ns = |key: &str| get(key).saturating_mul(1000);
    stats.cpu.usage_ns = ns("usage_usec");
    stats.cpu.user_ns = ns("user_usec");
    stats.cpu.system_ns = ns("system_usec");
    stats.cpu.periods = get("nr_periods");
    stats.cpu.throttled_periods = get("nr_throttled");
    stats.cpu.throttled_ns = ns("throttled_usec");
    stats.cpu.bursts = get("nr_bursts");
    stats.cpu.burst_ns = ns("burst_usec");
    Ok(())
}

fn memory(node: &Node, stats: &mut Stats) -> Result<()> {
    let memory = &mut stats.memory;
    memory.use_hierarchy = true;
    memory.raw = flat(&text(node, "memory.stat")?);
    let events = flat(&text(node, "memory.events")?);
    let event = |key: &str| events.get(key).copied().unwrap_or(0);
    memory.memory = MemoryCounter {
        usage: number(&text(node, "memory.current")?),
        max_usage: number(&text(node, "memory.peak")?),
        failures: event("max"),
        limit: limit(&text(node, "memory.max")?),
    };
    let swap_events = flat(&text(node, "memory.swap.events")?);
    memory.swap = MemoryCounter {
        usage: number(&text(node, "memory.swap.current")?),
        max_usage: number(&text(node, "memory.swap.peak")?),
        failures: swap_events.get("max").copied().unwrap_or(0),
        limit: limit(&text(node, "memory.swap.max")?),
    };
    memory.memory_and_swap = MemoryCounter {
        usage: memory.memory.usage.saturating_add(memory.swap.usage),
        // The kernel keeps no peak of the sum; the sum of the peaks would overstate it.
        max_usage: memory.memory.max_usage,
        failures: memory.swap.failures,
        limit: match (memory.memory.limit, memory.swap.limit) {
            (Some(memory), Some(swap)) => Some(memory.saturating_add(swap)),
            _ => None,
        },
    };
    let raw = |key: &str| memory.raw.get(key).copied().unwrap_or(0);
    memory.cache = raw("file");
    memory.kernel.usage = raw("kernel");
    memory.kernel_tcp.usage = raw("sock");
    memory.working_set = memory.memory.usage.saturating_sub(raw("inactive_file"));
    memory.oom_kills = event("oom_kill");
    Ok(())
}

fn hugetlb(node: &Node, stats: &mut Stats) -> Result<()> {
    for size in page_sizes(node, ".current") {
        let file = |what: &str| text(node, &format!("hugetlb.{size}.{what}"));
        let one = HugetlbStats {
            usage: number(&file("current")?),
            max_usage: 0,
            failures: flat(&file("events")?).get("max").copied().unwrap_or(0),
            limit: limit(&file("max")?),
        };
        stats.hugetlb.insert(size, one);
    }
    Ok(())
}
