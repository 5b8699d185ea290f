//! Checks of `linux.resources` that need no cgroup: ranges and shapes. Pure.
//!
//! What passes here may still be refused by the kernel (a device that does not
//! exist, a parent's smaller limit); what fails here would be clamped or
//! misread silently, or would write to a file nobody meant.

use crate::error::{Error, Result};
use crate::path::is_control_file;
use carrack_spec::runtime::{BlockIo, Cpu, HugepageLimit, Memory, Network, Rdma, Resources};
use std::collections::BTreeMap;

pub(crate) fn resources(r: &Resources) -> Result<()> {
    if let Some(memory) = &r.memory {
        check_memory(memory)?;
    }
    if let Some(cpu) = &r.cpu {
        check_cpu(cpu)?;
    }
    if let Some(io) = &r.block_io {
        check_block_io(io)?;
    }
    check_hugepages(&r.hugepage_limits)?;
    if let Some(network) = &r.network {
        check_network(network)?;
    }
    check_rdma(&r.rdma)?;
    check_unified(&r.unified)
}

fn invalid<T>(field: &str, value: impl ToString, reason: &'static str) -> Result<T> {
    Err(Error::Invalid {
        field: format!("linux.resources.{field}"),
        value: value.to_string(),
        reason,
    })
}

fn check_memory(m: &Memory) -> Result<()> {
    for (field, value) in [
        ("memory.limit", m.limit),
        ("memory.reservation", m.reservation),
        ("memory.swap", m.swap),
        ("memory.kernelTCP", m.kernel_tcp),
    ] {
        if let Some(value @ ..-1) = value {
            return invalid(field, value, "bytes, or -1 for no limit");
        }
    }
    if let (Some(limit @ 1..), Some(swap @ 1..)) = (m.limit, m.swap)
        && swap < limit
    {
        return invalid(
            "memory.swap",
            swap,
            "it counts memory and swap together, so it may not be below memory.limit",
        );
    }
    match m.swappiness {
        // -1 as an unsigned number is how older callers write "not set".
        None | Some(0..=100 | u64::MAX) => Ok(()),
        Some(value) => invalid("memory.swappiness", value, "0 to 100"),
    }
}

fn check_cpu(c: &Cpu) -> Result<()> {
    if let Some(shares) = c.shares
        && shares != 0
        && !(2..=262_144).contains(&shares)
    {
        let reason = if shares < 2 {
            "the minimum allowed cpu-shares is 2"
        } else {
            "the maximum allowed cpu-shares is 262144"
        };
        return invalid("cpu.shares", shares, reason);
    }
    if let Some(idle) = c.idle
        && !(0..=1).contains(&idle)
    {
        return invalid("cpu.idle", idle, "0 or 1");
    }
    for (field, list) in [("cpu.cpus", &c.cpus), ("cpu.mems", &c.mems)] {
        if !list
            .bytes()
            .all(|b| b.is_ascii_digit() || matches!(b, b',' | b'-' | b':' | b'/' | b' '))
        {
            return invalid(field, list, "a list like 0-3,7");
        }
    }
    Ok(())
}

fn check_block_io(io: &BlockIo) -> Result<()> {
    let weight = |field, weight: Option<u16>| match weight {
        None | Some(0 | 10..=1000) => Ok(()),
        Some(w) => invalid(field, w, "10 to 1000"),
    };
    weight("blockIO.weight", io.weight)?;
    weight("blockIO.leafWeight", io.leaf_weight)?;
    for device in &io.weight_device {
        weight("blockIO.weightDevice.weight", device.weight)?;
        weight("blockIO.weightDevice.leafWeight", device.leaf_weight)?;
        check_device_number("blockIO.weightDevice", device.major, device.minor)?;
    }
    for (field, devices) in [
        (
            "blockIO.throttleReadBpsDevice",
            &io.throttle_read_bps_device,
        ),
        (
            "blockIO.throttleWriteBpsDevice",
            &io.throttle_write_bps_device,
        ),
        (
            "blockIO.throttleReadIOPSDevice",
            &io.throttle_read_iops_device,
        ),
        (
            "blockIO.throttleWriteIOPSDevice",
            &io.throttle_write_iops_device,
        ),
    ] {
        for device in devices {
            check_device_number(field, device.major, device.minor)?;
        }
    }
    Ok(())
}

fn check_device_number(field: &str, major: i64, minor: i64) -> Result<()> {
    if major < 0 || minor < 0 {
        return invalid(
            field,
            format!("{major}:{minor}"),
            "device numbers are not negative",
        );
    }
    Ok(())
}

fn check_hugepages(limits: &[HugepageLimit]) -> Result<()> {
    for limit in limits {
        let digits = limit
            .page_size
            .trim_end_matches(|c: char| c.is_ascii_uppercase());
        let unit = limit.page_size.strip_prefix(digits).unwrap_or("");
        let number = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.is_empty();
        if !number || !matches!(unit, "KB" | "MB" | "GB") {
            return invalid(
                "hugepageLimits.pageSize",
                &limit.page_size,
                "a number and KB, MB or GB, as in 2MB",
            );
        }
    }
    Ok(())
}

fn check_network(network: &Network) -> Result<()> {
    for priority in &network.priorities {
        check_word("network.priorities.name", &priority.name)?;
    }
    Ok(())
}

fn check_rdma(rdma: &BTreeMap<String, Rdma>) -> Result<()> {
    rdma.keys().try_for_each(|name| check_word("rdma", name))
}

/// A name that stands in a line of blank-separated words.
fn check_word(field: &str, name: &str) -> Result<()> {
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return invalid(field, format!("{name:?}"), "a name without blanks");
    }
    Ok(())
}

fn check_unified(unified: &BTreeMap<String, String>) -> Result<()> {
    for name in unified.keys() {
        if !is_control_file(name) {
            return invalid(
                "unified",
                format!("{name:?}"),
                "the name of one control file, as in memory.high (no slashes)",
            );
        }
        if matches!(
            name.as_str(),
            "cgroup.procs" | "cgroup.threads" | "cgroup.kill" | "cgroup.freeze" | "cgroup.type"
        ) {
            return invalid(
                "unified",
                name,
                "this file acts on processes; it is not a limit",
            );
        }
    }
    Ok(())
}

/// The name of the first limit that is set, or `None` when nothing is asked for.
pub(crate) fn first_limit(r: &Resources) -> Option<String> {
    let memory = r.memory.as_ref().is_some_and(|m| {
        [m.limit, m.reservation, m.swap, m.kernel_tcp]
            .iter()
            .flatten()
            .any(|v| *v > 0)
            || m.disable_oom_killer == Some(true)
            || matches!(m.swappiness, Some(0..=100))
    });
    let cpu = r.cpu.as_ref().is_some_and(|c| {
        c.shares.unwrap_or(0) > 0
            || c.quota.unwrap_or(0) > 0
            || c.period.unwrap_or(0) > 0
            || c.realtime_runtime.unwrap_or(0) > 0
            || c.idle.unwrap_or(0) > 0
            || !c.cpus.is_empty()
            || !c.mems.is_empty()
    });
    let pids = r
        .pids
        .as_ref()
        .is_some_and(|p| p.limit.is_some_and(|limit| limit >= 0));
    let io = r
        .block_io
        .as_ref()
        .is_some_and(|io| *io != BlockIo::default());
    let network = r
        .network
        .as_ref()
        .is_some_and(|n| n.class_id.unwrap_or(0) > 0 || !n.priorities.is_empty());
    [
        (memory, "memory"),
        (cpu, "cpu"),
        (pids, "pids"),
        (io, "blockIO"),
        (!r.hugepage_limits.is_empty(), "hugepageLimits"),
        (network, "network"),
        (!r.rdma.is_empty(), "rdma"),
        (!r.unified.is_empty(), "unified"),
    ]
    .into_iter()
    .find(|(set, _)| *set)
    .map(|(_, name)| format!("linux.resources.{name}"))
}

/// `pids.limit` as the kernel's limit; below zero is none. Zero is a limit since 1.3.0 of the
/// specification; the process that is there counts, and systemd has no zero: so one.
pub(crate) fn pids_max(limit: i64) -> Option<u64> {
    u64::try_from(limit).ok().map(|limit| limit.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use carrack_spec::runtime::{Pids, ThrottleDevice};

    fn from(json: &str) -> Resources {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn values_no_kernel_takes_are_refused_with_the_field() {
        for (json, field) in [
            (r#"{"memory":{"limit":-2}}"#, "memory.limit"),
            (r#"{"memory":{"limit":10,"swap":5}}"#, "memory.swap"),
            (r#"{"memory":{"swappiness":101}}"#, "memory.swappiness"),
            (r#"{"cpu":{"shares":1}}"#, "cpu.shares"),
            (r#"{"cpu":{"shares":262145}}"#, "cpu.shares"),
            (r#"{"cpu":{"idle":2}}"#, "cpu.idle"),
            (r#"{"cpu":{"cpus":"0\n1"}}"#, "cpu.cpus"),
            (r#"{"blockIO":{"weight":9}}"#, "blockIO.weight"),
            (
                r#"{"hugepageLimits":[{"pageSize":"../2MB","limit":1}]}"#,
                "hugepageLimits",
            ),
            (
                r#"{"hugepageLimits":[{"pageSize":"MB","limit":1}]}"#,
                "hugepageLimits",
            ),
            (
                r#"{"network":{"priorities":[{"name":"a b","priority":1}]}}"#,
                "network",
            ),
            (r#"{"rdma":{"":{}}}"#, "rdma"),
            (r#"{"unified":{"a/b.c":"1"}}"#, "unified"),
            (r#"{"unified":{"cgroup.procs":"1"}}"#, "unified"),
        ] {
            let error = resources(&from(json)).unwrap_err().to_string();
            assert!(error.contains(field), "{json}: {error}");
        }
    }

    #[test]
    fn ordinary_values_pass() {
        resources(&from(
            r#"{"memory":{"limit":-1,"swap":-1,"swappiness":60},"cpu":{"shares":1024,"cpus":"0-1,3"},
                "blockIO":{"weight":500},"hugepageLimits":[{"pageSize":"2MB","limit":0}],
                "rdma":{"mlx5_0":{"hcaHandles":3}},"unified":{"memory.high":"max"}}"#,
        ))
        .unwrap();
    }

    #[test]
    fn no_tasks_means_one() {
        assert_eq!(
            [-1, 0, 1, 7].map(pids_max),
            [None, Some(1), Some(1), Some(7)]
        );
    }

    #[test]
    fn the_first_limit_is_named_and_defaults_are_none() {
        assert_eq!(first_limit(&Resources::default()), None);
        assert_eq!(
            first_limit(&from(
                r#"{"memory":{"limit":-1},"cpu":{"shares":0},"pids":{"limit":-1}}"#
            )),
            None
        );
        let mut r = Resources {
            pids: Some(Pids { limit: Some(5) }),
            ..Default::default()
        };
        assert!(first_limit(&r).unwrap().ends_with("pids"));
        r.pids = None;
        r.block_io = Some(BlockIo {
            throttle_read_bps_device: vec![ThrottleDevice::default()],
            ..Default::default()
        });
        assert!(first_limit(&r).unwrap().ends_with("blockIO"));
    }
}
