//! What a group uses, typed, the same whichever hierarchy tells it.
//!
//! Units are bytes, nanoseconds and counts. A number the kernel does not tell
//! (an old version, a controller that is not there) is zero or `None`, never an
//! error; only a control file that cannot be read at all fails the call. A group
//! that is gone gives zeros.

mod parse;
mod v1;
mod v2;

use crate::error::Result;
use crate::group::Group;
use crate::layout::Version;
use std::collections::BTreeMap;

/// Everything at once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// Processor time.
    pub cpu: CpuStats,
    /// Processor and memory placement.
    pub cpuset: CpusetStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Tasks.
    pub pids: PidsStats,
    /// Block devices.
    pub block_io: BlockIoStats,
    /// Huge pages by page size (`2MB`).
    pub hugetlb: BTreeMap<String, HugetlbStats>,
    /// RDMA by device.
    pub rdma: BTreeMap<String, RdmaStats>,
}

/// Processor time, in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CpuStats {
    /// All of it.
    pub usage_ns: u64,
    /// In user space.
    pub user_ns: u64,
    /// In the kernel.
    pub system_ns: u64,
    /// By processor (v1 only).
    pub per_cpu_ns: Vec<u64>,
    /// By processor, in user space (v1 only).
    pub per_cpu_user_ns: Vec<u64>,
    /// By processor, in the kernel (v1 only).
    pub per_cpu_system_ns: Vec<u64>,
    /// Enforcement periods that passed.
    pub periods: u64,
    /// Periods in which the group was throttled.
    pub throttled_periods: u64,
    /// Time it waited for the next period.
    pub throttled_ns: u64,
    /// Periods in which saved-up time was used.
    pub bursts: u64,
    /// Time used above the quota.
    pub burst_ns: u64,
    /// Stalls for want of a processor.
    pub pressure: Option<Pressure>,
}

/// Placement, as lists of ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpusetStats {
    /// Processors the group may use.
    pub cpus: Vec<u32>,
    /// Memory nodes the group may use.
    pub mems: Vec<u32>,
}

/// One memory counter, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryCounter {
    /// Used now.
    pub usage: u64,
    /// The most ever used.
    pub max_usage: u64,
    /// How often the limit was hit.
    pub failures: u64,
    /// The limit; `None` is no limit.
    pub limit: Option<u64>,
}

/// Memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MemoryStats {
    /// Memory without swap.
    pub memory: MemoryCounter,
    /// Memory and swap together.
    pub memory_and_swap: MemoryCounter,
    /// Swap alone.
    pub swap: MemoryCounter,
    /// Kernel memory (no limit on v2).
    pub kernel: MemoryCounter,
    /// TCP buffers (no limit on v2).
    pub kernel_tcp: MemoryCounter,
    /// Page cache.
    pub cache: u64,
    /// Memory that cannot be given back easily: usage less the inactive page cache.
    pub working_set: u64,
    /// Processes killed for want of memory.
    pub oom_kills: u64,
    /// Whether nested groups are counted.
    pub use_hierarchy: bool,
    /// Every line of `memory.stat`, under the kernel's names.
    pub raw: BTreeMap<String, u64>,
    /// Stalls for want of memory.
    pub pressure: Option<Pressure>,
}

/// Tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PidsStats {
    /// Tasks now.
    pub current: u64,
    /// The limit; `None` is no limit.
    pub limit: Option<u64>,
}

/// One counter of one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockIoEntry {
    /// Major number.
    pub major: u64,
    /// Minor number.
    pub minor: u64,
    /// `Read`, `Write`, `Discard`, …; empty for a counter without kinds.
    pub operation: String,
    /// Bytes, operations or nanoseconds, by the list it stands in.
    pub value: u64,
}

/// Block devices. Lists the kernel has no file for are empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BlockIoStats {
    /// Bytes moved.
    pub service_bytes: Vec<BlockIoEntry>,
    /// Operations done.
    pub serviced: Vec<BlockIoEntry>,
    /// Operations waiting (v1 with CFQ or BFQ).
    pub queued: Vec<BlockIoEntry>,
    /// Time in the device (v1 with CFQ or BFQ).
    pub service_time: Vec<BlockIoEntry>,
    /// Time waiting (v1 with CFQ or BFQ).
    pub wait_time: Vec<BlockIoEntry>,
    /// Operations merged (v1 with CFQ or BFQ).
    pub merged: Vec<BlockIoEntry>,
    /// Time allotted (v1 with CFQ or BFQ).
    pub time: Vec<BlockIoEntry>,
    /// Sectors moved (v1 with CFQ or BFQ).
    pub sectors: Vec<BlockIoEntry>,
    /// Stalls for want of I/O.
    pub pressure: Option<Pressure>,
}

/// One huge page size, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HugetlbStats {
    /// Used now.
    pub usage: u64,
    /// The most ever used (v1).
    pub max_usage: u64,
    /// How often the limit was hit.
    pub failures: u64,
    /// The limit; `None` is no limit.
    pub limit: Option<u64>,
}

/// One RDMA device; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RdmaStats {
    /// Handles now.
    pub handles: u64,
    /// Most handles.
    pub handles_limit: Option<u64>,
    /// Objects now.
    pub objects: u64,
    /// Most objects.
    pub objects_limit: Option<u64>,
}

/// Pressure stall information of one resource.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// At least one task waited.
    pub some: PressureLine,
    /// All tasks waited.
    pub full: PressureLine,
}

/// Shares of time, in percent, and the sum.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PressureLine {
    /// Over the last 10 seconds, in percent.
    pub avg10: f64,
    /// Over the last minute, in percent.
    pub avg60: f64,
    /// Over the last 5 minutes, in percent.
    pub avg300: f64,
    /// All of it, in microseconds.
    pub total_us: u64,
}

impl Group {
    /// Reads what the group and its nested groups use.
    pub fn stats(&self) -> Result<Stats> {
        let mut stats = Stats::default();
        for node in &self.nodes {
            match node.version {
                Version::V1 => v1::read(node, &mut stats)?,
                Version::V2 => v2::read(node, self.mode, &mut stats)?,
            }
        }
        Ok(stats)
    }
}

/// Reads a text as each of the kernel's files, for `fuzz/`.
#[cfg(fuzzing)]
pub(crate) fn parse_each(text: &str) {
    parse::flat(text);
    parse::number(text);
    parse::limit(text);
    parse::numbers(text);
    parse::id_list(text);
    parse::block_v1(text);
    parse::block_v2(text);
    parse::nested(text);
    parse::pressure(text);
}
