//! Statistics under the field names of runc's `events`.
//!
//! What this runtime does not measure is left out rather than shown as zero;
//! readers of the format take an absent number for zero.

use carrack_cgroup::stats as cgroup;
use serde::Serialize;
use std::collections::BTreeMap;

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What readers of the format know as "no limit".
fn limit(limit: Option<u64>) -> u64 {
    limit.unwrap_or(u64::MAX)
}

/// The statistics of a container.
#[derive(Debug, Serialize)]
pub struct Stats {
    cpu: Cpu,
    cpuset: Cpuset,
    memory: Memory,
    pids: Pids,
    blkio: Blkio,
    hugetlb: BTreeMap<String, Hugetlb>,
    intel_rdt: IntelRdt,
    network_interfaces: Option<()>,
}

/// Filled by nothing yet: the containers of this runtime share what resctrl counts.
#[derive(Debug, Serialize)]
struct IntelRdt {}

#[derive(Debug, Serialize)]
struct Cpu {
    usage: CpuUsage,
    throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Debug, Serialize)]
struct CpuUsage {
    #[serde(skip_serializing_if = "is_zero")]
    total: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu_kernel: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu_user: Vec<u64>,
    kernel: u64,
    user: u64,
}

#[derive(Debug, Serialize)]
struct Throttling {
    #[serde(skip_serializing_if = "is_zero")]
    periods: u64,
    #[serde(rename = "throttledPeriods", skip_serializing_if = "is_zero")]
    throttled_periods: u64,
    #[serde(rename = "throttledTime", skip_serializing_if = "is_zero")]
    throttled_time: u64,
}

#[derive(Debug, Serialize)]
struct Psi {
    some: PsiLine,
    full: PsiLine,
}

#[derive(Debug, Serialize)]
struct PsiLine {
    avg10: f64,
    avg60: f64,
    avg300: f64,
    total: u64,
}

#[derive(Debug, Serialize)]
struct Cpuset {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cpus: Vec<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mems: Vec<u32>,
}

#[derive(Debug, Serialize)]
struct Memory {
    #[serde(skip_serializing_if = "is_zero")]
    cache: u64,
    usage: MemoryEntry,
    swap: MemoryEntry,
    kernel: MemoryEntry,
    #[serde(rename = "kernelTCP")]
    kernel_tcp: MemoryEntry,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Debug, Serialize)]
struct MemoryEntry {
    limit: u64,
    #[serde(skip_serializing_if = "is_zero")]
    usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max: u64,
    failcnt: u64,
}

#[derive(Debug, Serialize)]
struct Pids {
    #[serde(skip_serializing_if = "is_zero")]
    current: u64,
    /// Zero, and so absent, when there is no limit.
    #[serde(skip_serializing_if = "is_zero")]
    limit: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Blkio {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_bytes_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_serviced_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_queue_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_wait_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_merged_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sectors_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Debug, Serialize)]
struct BlkioEntry {
    #[serde(skip_serializing_if = "is_zero")]
    major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    minor: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    op: String,
    #[serde(skip_serializing_if = "is_zero")]
    value: u64,
}

#[derive(Debug, Serialize)]
struct Hugetlb {
    #[serde(skip_serializing_if = "is_zero")]
    usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max: u64,
    failcnt: u64,
}

impl From<cgroup::Stats> for Stats {
    fn from(stats: cgroup::Stats) -> Self {
        let hugetlb = stats.hugetlb.into_iter();
        Self {
            cpu: stats.cpu.into(),
            cpuset: Cpuset {
                cpus: stats.cpuset.cpus,
                mems: stats.cpuset.mems,
            },
            memory: stats.memory.into(),
            pids: Pids {
                current: stats.pids.current,
                limit: stats.pids.limit.unwrap_or(0),
            },
            blkio: stats.block_io.into(),
            hugetlb: hugetlb.map(|(size, pages)| (size, pages.into())).collect(),
            intel_rdt: IntelRdt {},
            network_interfaces: None,
        }
    }
}

impl From<cgroup::CpuStats> for Cpu {
    fn from(cpu: cgroup::CpuStats) -> Self {
        Self {
            usage: CpuUsage {
                total: cpu.usage_ns,
                percpu: cpu.per_cpu_ns,
                percpu_kernel: cpu.per_cpu_system_ns,
                percpu_user: cpu.per_cpu_user_ns,
                kernel: cpu.system_ns,
                user: cpu.user_ns,
            },
            throttling: Throttling {
                periods: cpu.periods,
                throttled_periods: cpu.throttled_periods,
                throttled_time: cpu.throttled_ns,
            },
            psi: cpu.pressure.map(Into::into),
        }
    }
}

impl From<cgroup::Pressure> for Psi {
    fn from(pressure: cgroup::Pressure) -> Self {
        let line = |line: cgroup::PressureLine| PsiLine {
            avg10: line.avg10,
            avg60: line.avg60,
            avg300: line.avg300,
            total: line.total_us,
        };
        Self {
            some: line(pressure.some),
            full: line(pressure.full),
        }
    }
}

impl From<cgroup::MemoryCounter> for MemoryEntry {
    fn from(counter: cgroup::MemoryCounter) -> Self {
        Self {
            limit: limit(counter.limit),
            usage: counter.usage,
            max: counter.max_usage,
            failcnt: counter.failures,
        }
    }
}

impl From<cgroup::MemoryStats> for Memory {
    fn from(memory: cgroup::MemoryStats) -> Self {
        Self {
            cache: memory.cache,
            usage: memory.memory.into(),
            // The format means memory and swap together, as v1 counts them.
            swap: memory.memory_and_swap.into(),
            kernel: memory.kernel.into(),
            kernel_tcp: memory.kernel_tcp.into(),
            raw: memory.raw,
            psi: memory.pressure.map(Into::into),
        }
    }
}

impl From<cgroup::BlockIoStats> for Blkio {
    fn from(io: cgroup::BlockIoStats) -> Self {
        let list = |entries: Vec<cgroup::BlockIoEntry>| {
            let entries = entries.into_iter().map(|entry| BlkioEntry {
                major: entry.major,
                minor: entry.minor,
                op: entry.operation,
                value: entry.value,
            });
            entries.collect()
        };
        Self {
            io_service_bytes_recursive: list(io.service_bytes),
            io_serviced_recursive: list(io.serviced),
            io_queue_recursive: list(io.queued),
            io_service_time_recursive: list(io.service_time),
            io_wait_time_recursive: list(io.wait_time),
            io_merged_recursive: list(io.merged),
            io_time_recursive: list(io.time),
            sectors_recursive: list(io.sectors),
            psi: io.pressure.map(Into::into),
        }
    }
}

impl From<cgroup::HugetlbStats> for Hugetlb {
    fn from(pages: cgroup::HugetlbStats) -> Self {
        Self {
            usage: pages.usage,
            max: pages.max_usage,
            failcnt: pages.failures,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_limit_is_the_largest_number_for_memory_and_none_for_tasks() {
        let stats: Stats = cgroup::Stats::default().into();
        let json = serde_json::to_value(&stats).unwrap();
        assert_eq!(json["memory"]["usage"]["limit"], u64::MAX);
        assert_eq!(json["pids"], serde_json::json!({}));
        assert_eq!(
            json["cpu"]["usage"],
            serde_json::json!({"kernel": 0, "user": 0})
        );
        assert_eq!(json["network_interfaces"], serde_json::Value::Null);
    }

    #[test]
    fn swap_counts_memory_too() {
        let mut stats = cgroup::Stats::default();
        stats.memory.memory_and_swap.usage = 9;
        stats.memory.swap.usage = 4;
        let json = serde_json::to_value(Stats::from(stats)).unwrap();
        assert_eq!(json["memory"]["swap"]["usage"], 9);
    }
}
