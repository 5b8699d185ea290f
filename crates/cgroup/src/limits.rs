//! Limits for people who never opened a controller file.
//!
//! ```
//! use carrack_cgroup::Limits;
//!
//! let limits = Limits::new().memory_limit("512MiB").cpu_quota(1.5).pids_max(100);
//! assert_eq!(limits.build().unwrap().memory.unwrap().limit, Some(512 << 20));
//! ```
//!
//! The builder takes sizes as numbers or text and keeps the first mistake for
//! [`Limits::build`], so that a chain reads without a `?` on each line. Nothing
//! here does I/O but [`Device::of`]; [`Group::limit`] carries the result out on
//! whichever hierarchy the host has.

use crate::error::{Error, Result};
use crate::group::Group;
use carrack_spec::parse_size;
use carrack_spec::runtime::{
    BlockIo, Cpu, HugepageLimit, Memory, Pids, Resources, ThrottleDevice, WeightDevice,
};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command};

/// Length of the period CPU quotas are counted in, in microseconds.
const CPU_PERIOD_US: u64 = 100_000;
/// Shortest quota the kernel takes, in microseconds.
const CPU_QUOTA_US_MIN: f64 = 1_000.0;

/// A size: a number of bytes, or text such as `512MiB`, `1.5G`, `64k`, `1000`.
///
/// `K`, `KB` and `KiB` are all 1024 bytes, as container tools read them.
pub trait Size: sealed::Sealed {
    /// The number of bytes, or `None` when the text is no size.
    fn bytes(&self) -> Option<u64>;
    /// As given, for messages.
    fn text(&self) -> String;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for u64 {}
    impl Sealed for &str {}
    impl Sealed for String {}
}

impl Size for u64 {
    fn bytes(&self) -> Option<u64> {
        Some(*self)
    }
    fn text(&self) -> String {
        self.to_string()
    }
}

impl Size for &str {
    fn bytes(&self) -> Option<u64> {
        parse_size(self)
    }
    fn text(&self) -> String {
        (*self).to_owned()
    }
}

impl Size for String {
    fn bytes(&self) -> Option<u64> {
        parse_size(self)
    }
    fn text(&self) -> String {
        self.clone()
    }
}

/// A block device by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl Device {
    /// The device behind a node such as `/dev/sda`.
    pub fn of(path: impl AsRef<Path>) -> Result<Device> {
        let path = path.as_ref();
        let stat = rustix::fs::stat(path).map_err(|e| Error::io("look at", path, e))?;
        Ok(Device {
            major: rustix::fs::major(stat.st_rdev),
            minor: rustix::fs::minor(stat.st_rdev),
        })
    }
}

/// Limits to be carried out together. What is not named is left as it is.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    resources: Resources,
    swap: Option<u64>,
    mistake: Option<(&'static str, String, &'static str)>,
}

impl Limits {
    /// No limits.
    pub fn new() -> Self {
        Limits::default()
    }

    fn size(&mut self, field: &'static str, size: impl Size) -> Option<u64> {
        let bytes = size.bytes().filter(|b| i64::try_from(*b).is_ok());
        if bytes.is_none() {
            self.wrong(
                field,
                size.text(),
                "a size is a number of bytes, or text such as 512MiB",
            );
        }
        bytes
    }

    fn signed_size(&mut self, field: &'static str, size: impl Size) -> Option<i64> {
        self.size(field, size).and_then(|b| i64::try_from(b).ok())
    }

    fn wrong(&mut self, field: &'static str, value: String, reason: &'static str) {
        self.mistake.get_or_insert((field, value, reason));
    }

    fn memory(&mut self) -> &mut Memory {
        self.resources.memory.get_or_insert_default()
    }

    fn cpu(&mut self) -> &mut Cpu {
        self.resources.cpu.get_or_insert_default()
    }

    fn io(&mut self) -> &mut BlockIo {
        self.resources.block_io.get_or_insert_default()
    }

    /// The most memory; beyond it pages are reclaimed, then processes are killed.
    pub fn memory_limit(mut self, size: impl Size) -> Self {
        let bytes = self.signed_size("memory_limit", size);
        if bytes == Some(0) {
            self.wrong(
                "memory_limit",
                "0".into(),
                "a group without memory cannot run",
            );
        }
        self.memory().limit = bytes;
        self
    }

    /// Takes the memory and swap limits away.
    pub fn memory_unlimited(mut self) -> Self {
        let memory = self.memory();
        (memory.limit, memory.swap) = (Some(-1), Some(-1));
        self
    }

    /// Memory the kernel should leave to the group when memory is short.
    pub fn memory_reservation(mut self, size: impl Size) -> Self {
        self.memory().reservation = None;
        let bytes = self.signed_size("memory_reservation", size);
        self.memory().reservation = bytes;
        self
    }

    /// The most swap beside the memory; needs [`Limits::memory_limit`]. Zero forbids swapping.
    pub fn swap_limit(mut self, size: impl Size) -> Self {
        self.swap = self.size("swap_limit", size);
        self
    }

    /// How many processors' time the group may use, `1.5` for one and a half. At least 0.01.
    pub fn cpu_quota(mut self, processors: f64) -> Self {
        let quota = processors * CPU_PERIOD_US as f64;
        if !quota.is_finite() || !(CPU_QUOTA_US_MIN..1e12).contains(&quota) {
            self.wrong(
                "cpu_quota",
                processors.to_string(),
                "a number of processors, at least 0.01",
            );
            return self;
        }
        let cpu = self.cpu();
        cpu.period = Some(CPU_PERIOD_US);
        cpu.quota = Some(quota as i64);
        self
    }

    /// Takes the quota away.
    pub fn cpu_unlimited(mut self) -> Self {
        self.cpu().quota = Some(-1);
        self
    }

    /// The share of a contended processor relative to a group without setting: `1.0` is the same,
    /// `2.0` twice as much. 0.002 to 256.
    pub fn cpu_weight(mut self, relative: f64) -> Self {
        let shares = (relative * 1024.0).round();
        if !(2.0..=262_144.0).contains(&shares) {
            self.wrong(
                "cpu_weight",
                relative.to_string(),
                "0.002 to 256, where 1 is the default",
            );
            return self;
        }
        self.cpu().shares = Some(shares as u64);
        self
    }

    /// Runs only when no other group wants the processor.
    pub fn cpu_idle(mut self, idle: bool) -> Self {
        self.cpu().idle = Some(idle.into());
        self
    }

    /// The processors the group may run on.
    pub fn cpus(mut self, ids: &[u32]) -> Self {
        self.cpu().cpus = list(ids);
        self
    }

    /// The memory nodes the group may allocate from.
    pub fn memory_nodes(mut self, ids: &[u32]) -> Self {
        self.cpu().mems = list(ids);
        self
    }

    /// The most tasks (processes and threads).
    pub fn pids_max(mut self, tasks: u32) -> Self {
        if tasks == 0 {
            self.wrong("pids_max", "0".into(), "a group without tasks cannot run");
            return self;
        }
        self.resources.pids = Some(Pids {
            limit: Some(tasks.into()),
        });
        self
    }

    /// The share of a contended disk, 10 to 1000.
    pub fn io_weight(mut self, weight: u16) -> Self {
        self.io().weight = Some(weight);
        self
    }

    /// The same for one device.
    pub fn io_weight_of(mut self, device: Device, weight: u16) -> Self {
        self.io().weight_device.push(WeightDevice {
            major: device.major.into(),
            minor: device.minor.into(),
            weight: Some(weight),
            leaf_weight: None,
        });
        self
    }

    /// The most bytes read from a device a second.
    pub fn io_read_bytes(mut self, device: Device, a_second: impl Size) -> Self {
        if let Some(rate) = self.size("io_read_bytes", a_second) {
            self.io()
                .throttle_read_bps_device
                .push(throttle(device, rate));
        }
        self
    }

    /// The most bytes written to a device a second.
    pub fn io_write_bytes(mut self, device: Device, a_second: impl Size) -> Self {
        if let Some(rate) = self.size("io_write_bytes", a_second) {
            self.io()
                .throttle_write_bps_device
                .push(throttle(device, rate));
        }
        self
    }

    /// The most reads from a device a second.
    pub fn io_read_operations(mut self, device: Device, a_second: u64) -> Self {
        self.io()
            .throttle_read_iops_device
            .push(throttle(device, a_second));
        self
    }

    /// The most writes to a device a second.
    pub fn io_write_operations(mut self, device: Device, a_second: u64) -> Self {
        self.io()
            .throttle_write_iops_device
            .push(throttle(device, a_second));
        self
    }

    /// The most memory in huge pages of one size (`2MB`, `1GB`).
    pub fn hugepages(mut self, page_size: &str, size: impl Size) -> Self {
        if let Some(limit) = self.size("hugepages", size) {
            self.resources.hugepage_limits.push(HugepageLimit {
                page_size: page_size.to_owned(),
                limit,
            });
        }
        self
    }

    /// The limits as the runtime specification writes them, or the first mistake made above.
    pub fn build(&self) -> Result<Resources> {
        let invalid = |field: &str, value: String, reason| Error::Invalid {
            field: field.to_owned(),
            value,
            reason,
        };
        if let Some((field, value, reason)) = &self.mistake {
            return Err(invalid(field, value.clone(), reason));
        }
        let mut resources = self.resources.clone();
        if let Some(swap) = self.swap {
            let memory = resources.memory.get_or_insert_default();
            let limit = memory.limit.filter(|l| *l > 0);
            let sum = limit.and_then(|l| l.checked_add(i64::try_from(swap).ok()?));
            let Some(sum) = sum else {
                return Err(invalid(
                    "swap_limit",
                    swap.to_string(),
                    "it needs a memory_limit beside it",
                ));
            };
            memory.swap = Some(sum);
        }
        Ok(resources)
    }
}

fn throttle(device: Device, rate: u64) -> ThrottleDevice {
    ThrottleDevice {
        major: device.major.into(),
        minor: device.minor.into(),
        rate,
    }
}

fn list(ids: &[u32]) -> String {
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    ids.join(",")
}

impl Group {
    /// Carries out the limits, at once and also on what runs already.
    pub fn limit(&self, limits: &Limits) -> Result<()> {
        self.apply(&limits.build()?)
    }

    /// Starts a command inside the group: its first instruction runs there already.
    ///
    /// A planned systemd scope is started with the process, which then is moved in right after
    /// its start.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        let failed = |source| Error::Spawn { source };
        if self.needs_attach() {
            let mut child = command.spawn().map_err(failed)?;
            let pid = i32::try_from(child.id()).unwrap_or(i32::MAX);
            if let Err(e) = self.attach(pid) {
                // Outside its limits it must not go on; both calls fail only if it ended by itself.
                let _ = child.kill();
                let _ = child.wait();
                return Err(e);
            }
            return Ok(child);
        }
        carrack_sys::spawn::enter_before_exec(command, self.entry_files()?);
        command.spawn().map_err(failed)
    }

    /// The files a process writes `0` to, one a hierarchy.
    fn entry_files(&self) -> Result<Vec<OwnedFd>> {
        self.nodes
            .iter()
            .map(|node| {
                let name = match node.version {
                    crate::layout::Version::V1 => "tasks",
                    crate::layout::Version::V2 => "cgroup.procs",
                };
                crate::files::open_write(&node.file(name))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builder_speaks_the_specification() {
        let device = Device { major: 8, minor: 0 };
        let r = Limits::new()
            .memory_limit("1GiB")
            .swap_limit("512MiB")
            .cpu_quota(1.5)
            .cpu_weight(2.0)
            .cpus(&[0, 2])
            .pids_max(10)
            .io_read_bytes(device, "1MiB")
            .build()
            .unwrap();
        let memory = r.memory.unwrap();
        assert_eq!((memory.limit, memory.swap), (Some(1 << 30), Some(3 << 29)));
        let cpu = r.cpu.unwrap();
        assert_eq!(
            (cpu.quota, cpu.period, cpu.shares),
            (Some(150_000), Some(100_000), Some(2048))
        );
        assert_eq!(cpu.cpus, "0,2");
        assert_eq!(
            r.block_io.unwrap().throttle_read_bps_device[0].rate,
            1 << 20
        );
    }

    #[test]
    fn the_first_mistake_is_told_with_its_name() {
        for (limits, name) in [
            (Limits::new().memory_limit("lots"), "memory_limit"),
            (Limits::new().memory_limit(u64::MAX), "memory_limit"),
            (Limits::new().swap_limit("1G"), "swap_limit"),
            (Limits::new().cpu_quota(0.0), "cpu_quota"),
            (Limits::new().cpu_quota(f64::NAN), "cpu_quota"),
            (Limits::new().cpu_weight(1000.0), "cpu_weight"),
            (Limits::new().pids_max(0).memory_limit("x"), "pids_max"),
        ] {
            let error = limits.build().unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
