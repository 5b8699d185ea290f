//! Out-of-memory, pressure and statistics of real processes. Runs as root; what the host lacks
//! is skipped with the reason printed.

mod common;

use carrack_cgroup::{Limits, OomEvent, Resource, Threshold};
use carrack_testkit::{require, skip, wait_for, wait_until};
use common::{Guard, has_controller, host, host_with, on_v2};
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

const LONG: Option<Duration> = Some(Duration::from_secs(60));
/// Grows until it is killed.
const EATER: &str = "a=x; while :; do a=$a$a; done";

#[test]
fn an_out_of_memory_kill_is_told_and_counted() {
    let layout = require!(host_with("memory", "memory"));
    let group = Guard::new(&layout, "oom");
    group
        .limit(&Limits::new().memory_limit("16MiB").swap_limit(0u64))
        .unwrap();
    let mut watch = group.watch_oom().unwrap();
    assert_eq!(watch.next_event().unwrap(), None);
    let mut eater = group.shell(EATER);
    assert_eq!(watch.wait(LONG).unwrap(), Some(OomEvent::Killed(1)));
    assert_eq!(eater.0.wait().unwrap().signal(), Some(9));
    let stats = group.stats().unwrap().memory;
    assert!(stats.oom_kills >= 1, "{stats:?}");
    assert!(stats.memory.max_usage > 8 << 20, "{stats:?}");
    group.destroy().unwrap();
    assert_eq!(watch.wait(LONG).unwrap(), Some(OomEvent::Ended));
}

#[test]
fn an_oom_watch_ends_with_its_group() {
    let layout = require!(host_with("memory", "memory"));
    let group = Guard::new(&layout, "oomend");
    let mut sleeper = group.sleeper();
    let mut watch = group.watch_oom().unwrap();
    assert_eq!(watch.wait(Some(Duration::from_millis(50))).unwrap(), None);
    group.kill(9).unwrap();
    sleeper.0.wait().unwrap();
    group.remove().unwrap();
    assert_eq!(watch.wait(LONG).unwrap(), Some(OomEvent::Ended));
}

#[test]
fn pressure_is_told_when_the_threshold_is_crossed() {
    let layout = require!(host());
    if layout.v2().is_none() {
        skip!("no v2 hierarchy, so no pressure stall information");
    }
    let group = Guard::new(&layout, "psi");
    let threshold = Threshold {
        all_tasks: false,
        stall: Duration::from_millis(50),
        window: Duration::from_secs(2),
    };
    let mut watch = match group.watch_pressure(Resource::Cpu, threshold) {
        Ok(watch) => watch,
        Err(e) => skip!("{e}: {:?}", std::error::Error::source(&e)),
    };
    // More busy processes than processors have to wait for each other.
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    let _busy: Vec<_> = (0..processors * 2 + 1)
        .map(|_| group.shell("while :; do :; done"))
        .collect();
    assert!(watch.wait(LONG).unwrap());
    let pressure = group.stats().unwrap().cpu.pressure.unwrap();
    assert!(pressure.some.total_us > 0);
}

#[test]
fn v1_memory_levels_can_be_watched_or_the_reason_is_told() {
    let layout = require!(host());
    let group = Guard::new(&layout, "level");
    let threshold = Threshold {
        all_tasks: true,
        stall: Duration::from_millis(100),
        window: Duration::from_secs(2),
    };
    let v1_only = group
        .paths()
        .into_iter()
        .filter(|(k, _)| !k.is_empty())
        .collect();
    let v1 = carrack_cgroup::Group::open(&layout, &v1_only, Default::default());
    if on_v2(&layout, "memory") {
        assert!(v1.watch_pressure(Resource::Memory, threshold).is_err());
        return;
    }
    let mut watch = v1.watch_pressure(Resource::Memory, threshold).unwrap();
    assert!(!watch.wait(Some(Duration::from_millis(20))).unwrap());
    assert!(v1.watch_pressure(Resource::Cpu, threshold).is_err());
}

#[test]
fn statistics_follow_what_processes_do() {
    let layout = require!(host());
    let group = Guard::new(&layout, "stats");
    let _busy = group.shell("while :; do :; done");
    let stats = wait_for("processor time", || {
        let stats = group.stats().unwrap();
        (stats.cpu.usage_ns > 50_000_000 && stats.cpu.user_ns > 0).then_some(stats)
    });
    if has_controller(&layout, "pids", "pids") {
        assert_eq!(stats.pids.current, 1);
        assert_eq!(stats.pids.limit, None);
    }
    if has_controller(&layout, "memory", "memory") {
        assert!(stats.memory.memory.usage > 0 && !stats.memory.raw.is_empty());
        assert_eq!(stats.memory.memory.limit, None);
    }
    if has_controller(&layout, "cpuset", "cpuset") {
        assert!(stats.cpuset.cpus.contains(&0));
    }
    if !on_v2(&layout, "cpuacct") {
        assert!(stats.cpu.per_cpu_ns.iter().sum::<u64>() > 0);
        assert_eq!(stats.cpu.per_cpu_user_ns.len(), stats.cpu.per_cpu_ns.len());
    }
}

#[test]
fn throttling_is_counted() {
    let layout = require!(host_with("cpu", "cpu"));
    let group = Guard::new(&layout, "throttle");
    group.limit(&Limits::new().cpu_quota(0.05)).unwrap();
    let _busy = group.shell("while :; do :; done");
    // The kernel counts time when it lets a group go on, which may be before a period ends.
    wait_until("throttled time and periods", || {
        let cpu = group.stats().unwrap().cpu;
        cpu.throttled_ns > 0 && cpu.throttled_periods > 0
    });
}

#[test]
fn the_statistics_of_a_removed_group_are_zero() {
    let layout = require!(host());
    let group = Guard::new(&layout, "gone");
    group.remove().unwrap();
    assert_eq!(group.stats().unwrap().memory.memory.usage, 0);
}
