//! Every limit written to the real host and read back through the kernel's own files. Runs as
//! root on v1, hybrid and v2; what the host lacks is skipped with the reason printed, and where a
//! controller is missing the error is checked instead.

mod common;

use carrack_cgroup::{Error, Limits};
use carrack_spec::runtime::Resources;
use carrack_testkit::{require, skip, wait_until};
use common::{Guard, Process, has_controller, host, host_with, on_v2};
use std::io::Read;
use std::process::Stdio;

fn from(json: &str) -> Resources {
    serde_json::from_str(json).unwrap()
}

const MIB: i64 = 1 << 20;

#[test]
fn memory_limits_are_lowered_and_raised_in_the_right_order() {
    let layout = require!(host_with("memory", "memory"));
    let group = Guard::new(&layout, "memory");
    let set = |limit: i64, swap: i64| {
        group
            .apply(&from(&format!(
                r#"{{"memory":{{"limit":{limit},"swap":{swap}}}}}"#
            )))
            .unwrap();
    };
    let check = |limit: i64, swap: i64| {
        if on_v2(&layout, "memory") {
            assert_eq!(group.read("memory", "memory.max"), limit.to_string());
            if group.file("memory", "memory.swap.max").exists() {
                assert_eq!(
                    group.read("memory", "memory.swap.max"),
                    (swap - limit).to_string()
                );
            }
        } else {
            assert_eq!(
                group.read("memory", "memory.limit_in_bytes"),
                limit.to_string()
            );
            assert_eq!(
                group.read("memory", "memory.memsw.limit_in_bytes"),
                swap.to_string()
            );
        }
    };
    for (limit, swap) in [
        (64, 96),
        (128, 256),
        (16, 16),
        (512, 512),
        (32, 600),
        (700, 800),
    ] {
        set(limit * MIB, swap * MIB);
        check(limit * MIB, swap * MIB);
    }
    set(-1, -1);
    let file = if on_v2(&layout, "memory") {
        "memory.max"
    } else {
        "memory.limit_in_bytes"
    };
    assert!(group.read("memory", file) == "max" || group.read("memory", file).len() > 18);
}

#[test]
fn an_unlimited_memory_lifts_an_old_swap_limit() {
    let layout = require!(host_with("memory", "memory"));
    let group = Guard::new(&layout, "unlimit");
    group
        .apply(&from(r#"{"memory":{"limit":16777216,"swap":16777216}}"#))
        .unwrap();
    group.apply(&from(r#"{"memory":{"limit":-1}}"#)).unwrap();
    assert_eq!(group.stats().unwrap().memory.memory.limit, None);
}

#[test]
fn the_other_memory_fields_are_written_or_refused_by_name() {
    let layout = require!(host_with("memory", "memory"));
    let group = Guard::new(&layout, "memory2");
    group
        .apply(&from(r#"{"memory":{"reservation":33554432}}"#))
        .unwrap();
    let refused = |json: &str| group.apply(&from(json)).unwrap_err().to_string();
    if on_v2(&layout, "memory") {
        assert_eq!(group.read("memory", "memory.low"), "33554432");
        assert!(refused(r#"{"memory":{"swappiness":10}}"#).contains("swappiness"));
        assert!(refused(r#"{"memory":{"disableOOMKiller":true}}"#).contains("disableOOMKiller"));
        assert!(refused(r#"{"memory":{"kernelTCP":4096}}"#).contains("kernelTCP"));
        return;
    }
    assert_eq!(
        group.read("memory", "memory.soft_limit_in_bytes"),
        "33554432"
    );
    group
        .apply(&from(
            r#"{"memory":{"swappiness":10,"kernelTCP":1048576,"disableOOMKiller":true,"useHierarchy":true,"kernel":99}}"#,
        ))
        .unwrap();
    assert_eq!(group.read("memory", "memory.swappiness"), "10");
    assert_eq!(
        group.read("memory", "memory.kmem.tcp.limit_in_bytes"),
        "1048576"
    );
    assert!(
        group
            .read("memory", "memory.oom_control")
            .contains("oom_kill_disable 1")
    );
}

#[test]
fn a_limit_below_the_usage_says_the_usage() {
    let layout = require!(host_with("memory", "memory"));
    let group = Guard::new(&layout, "usage");
    // While the shell grows it holds its buffer twice at times; what counts is what it keeps.
    let script = "a=$(head -c 20000000 /dev/zero | tr '\\0' x); echo grown; read b";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = Process(group.spawn(&mut command).unwrap());
    let mut said = [0; 6];
    let stdout = child.0.stdout.as_mut().unwrap();
    stdout.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"grown\n");
    wait_until("memory of the shell", || {
        group.stats().unwrap().memory.memory.usage > 18_000_000
    });
    let update = from(r#"{"memory":{"limit":1048576,"checkBeforeUpdate":true}}"#);
    match group.apply(&update).unwrap_err() {
        Error::BelowUsage { limit, usage } => assert!(limit == 1 << 20 && usage > 18_000_000),
        e => panic!("{e}"),
    }
    if !on_v2(&layout, "memory") {
        // Without the check v1 refuses by itself where there is no swap to push to.
        if let Err(e) = group.apply(&from(r#"{"memory":{"limit":1048576,"swap":1048576}}"#)) {
            assert!(e.to_string().contains("in use"), "{e}");
        }
    }
}

#[test]
fn cpu_shares_quota_period_burst_and_idle_reach_the_kernel() {
    let layout = require!(host_with("cpu", "cpu"));
    let group = Guard::new(&layout, "cpu");
    group
        .apply(&from(
            r#"{"cpu":{"shares":2048,"quota":50000,"period":100000,"burst":10000}}"#,
        ))
        .unwrap();
    if on_v2(&layout, "cpu") {
        assert_eq!(group.read("cpu", "cpu.max"), "50000 100000");
        assert_eq!(group.read("cpu", "cpu.max.burst"), "10000");
        let weight: u64 = group.read("cpu", "cpu.weight").parse().unwrap();
        assert_eq!(weight, carrack_cgroup::convert::shares_to_weight(2048));
    } else {
        assert_eq!(group.read("cpu", "cpu.shares"), "2048");
        assert_eq!(group.read("cpu", "cpu.cfs_quota_us"), "50000");
        assert_eq!(group.read("cpu", "cpu.cfs_period_us"), "100000");
        assert_eq!(group.read("cpu", "cpu.cfs_burst_us"), "10000");
    }
    // Down below the burst, up again, and off: each order works.
    group
        .apply(&from(r#"{"cpu":{"quota":5000,"burst":1000}}"#))
        .unwrap();
    group
        .apply(&from(r#"{"cpu":{"quota":900000,"burst":800000}}"#))
        .unwrap();
    group.apply(&from(r#"{"cpu":{"period":50000}}"#)).unwrap();
    group
        .apply(&from(r#"{"cpu":{"quota":-1,"burst":0}}"#))
        .unwrap();
    if group.file("cpu", "cpu.idle").exists() {
        group
            .apply(&from(r#"{"cpu":{"idle":1,"shares":512}}"#))
            .unwrap();
        assert_eq!(group.read("cpu", "cpu.idle"), "1");
        group
            .apply(&from(r#"{"cpu":{"idle":0,"shares":512}}"#))
            .unwrap();
        assert_eq!(group.read("cpu", "cpu.idle"), "0");
    }
}

#[test]
fn real_time_bandwidth_is_written_or_refused_by_name() {
    let layout = require!(host_with("cpu", "cpu"));
    let group = Guard::new(&layout, "rt");
    match group.apply(&from(
        r#"{"cpu":{"realtimePeriod":1000000,"realtimeRuntime":1000}}"#,
    )) {
        Ok(()) => assert_eq!(group.read("cpu", "cpu.rt_runtime_us"), "1000"),
        Err(e) => assert!(e.to_string().contains("realtimeRuntime"), "{e}"),
    }
}

#[test]
fn cpusets_are_inherited_and_narrowed() {
    let layout = require!(host_with("cpuset", "cpuset"));
    let group = Guard::new(&layout, "cpuset");
    group
        .apply(&from(r#"{"cpu":{"cpus":"0","mems":"0"}}"#))
        .unwrap();
    assert_eq!(group.read("cpuset", "cpuset.cpus"), "0");
    assert_eq!(group.read("cpuset", "cpuset.mems"), "0");
    // A deep path: the levels between have the parent's set, so that a process may enter.
    let name = common::unique("deep");
    let deep = Guard(common::create(&layout, &format!("/{name}/a/b")).unwrap());
    let sleeper = Process(
        deep.spawn(std::process::Command::new("sleep").arg("1000"))
            .unwrap(),
    );
    assert_eq!(deep.pids(false).unwrap(), [sleeper.pid()]);
    deep.destroy().unwrap();
    drop(common::create(&layout, &format!("/{name}")).map(Guard));
    let error = group
        .apply(&from(r#"{"cpu":{"cpus":"4000"}}"#))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("cpuset.cpus") && error.contains("4000"),
        "{error}"
    );
}

#[test]
fn pids_are_limited() {
    let layout = require!(host_with("pids", "pids"));
    let group = Guard::new(&layout, "pids");
    group.apply(&from(r#"{"pids":{"limit":17}}"#)).unwrap();
    assert_eq!(group.read("pids", "pids.max"), "17");
    assert_eq!(group.stats().unwrap().pids.limit, Some(17));
    group.apply(&from(r#"{"pids":{"limit":-1}}"#)).unwrap();
    assert_eq!(group.read("pids", "pids.max"), "max");
}

/// Some disk or loop device that throttles can be set on.
fn block_device() -> Option<(u32, u32)> {
    std::fs::read_dir("/sys/block").ok()?.find_map(|entry| {
        let text = std::fs::read_to_string(entry.ok()?.path().join("dev")).ok()?;
        let (major, minor) = text.trim().split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    })
}

#[test]
fn block_throttles_reach_the_kernel() {
    let layout = require!(host_with("blkio", "io"));
    let Some((major, minor)) = block_device() else {
        skip!("no block device");
    };
    let group = Guard::new(&layout, "io");
    let json = format!(
        r#"{{"blockIO":{{"throttleReadBpsDevice":[{{"major":{major},"minor":{minor},"rate":1048576}}],
            "throttleWriteBpsDevice":[{{"major":{major},"minor":{minor},"rate":2097152}}],
            "throttleReadIOPSDevice":[{{"major":{major},"minor":{minor},"rate":100}}],
            "throttleWriteIOPSDevice":[{{"major":{major},"minor":{minor},"rate":200}}]}}}}"#
    );
    group.apply(&from(&json)).unwrap();
    if on_v2(&layout, "blkio") {
        let text = group.read("io", "io.max");
        for part in ["rbps=1048576", "wbps=2097152", "riops=100", "wiops=200"] {
            assert!(text.contains(part), "{text}");
        }
    } else {
        let device = format!("{major}:{minor}");
        for (file, rate) in [
            ("blkio.throttle.read_bps_device", "1048576"),
            ("blkio.throttle.write_bps_device", "2097152"),
            ("blkio.throttle.read_iops_device", "100"),
            ("blkio.throttle.write_iops_device", "200"),
        ] {
            assert_eq!(group.read("blkio", file), format!("{device} {rate}"));
        }
    }
    let error = group
        .apply(&from(
            r#"{"blockIO":{"throttleReadBpsDevice":[{"major":4095,"minor":4095,"rate":1}]}}"#,
        ))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("4095:4095") && error.contains("no such block device"),
        "{error}"
    );
}

#[test]
fn block_weights_reach_the_kernel_or_name_the_missing_scheduler() {
    let layout = require!(host_with("blkio", "io"));
    let group = Guard::new(&layout, "weight");
    match group.apply(&from(r#"{"blockIO":{"weight":500}}"#)) {
        Ok(()) => {
            let names = [
                "blkio.weight",
                "blkio.bfq.weight",
                "io.bfq.weight",
                "io.weight",
            ];
            let file = names
                .iter()
                .find(|n| group.file("blkio", n).exists())
                .unwrap();
            let text = group.read("blkio", file);
            let expect = if *file == "io.weight" { "4950" } else { "500" };
            assert!(text.contains(expect), "{file}: {text}");
        }
        Err(e) => assert!(e.to_string().contains("BFQ"), "{e}"),
    }
}

#[test]
fn huge_pages_are_limited_also_by_the_v2_side_of_a_hybrid_host() {
    let layout = require!(host_with("hugetlb", "hugetlb"));
    let group = Guard::new(&layout, "huge");
    let result = group.apply(&from(
        r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#,
    ));
    if !std::path::Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB").exists() {
        assert!(result.unwrap_err().to_string().contains("hugepageLimits"));
        return;
    }
    result.unwrap();
    assert_eq!(group.stats().unwrap().hugetlb["2MB"].limit, Some(4 << 20));
    let error = group
        .apply(&from(
            r#"{"hugepageLimits":[{"pageSize":"3MB","limit":0}]}"#,
        ))
        .unwrap_err()
        .to_string();
    assert!(error.contains("3MB"), "{error}");
}

#[test]
fn network_limits_are_written_and_a_missing_controller_is_named_with_its_field() {
    let layout = require!(host());
    let group = Guard::new(&layout, "missing");
    for (controller, json, field) in [
        ("net_cls", r#"{"network":{"classID":1}}"#, "network.classID"),
        (
            "net_prio",
            r#"{"network":{"priorities":[{"name":"lo","priority":1}]}}"#,
            "network.priorities",
        ),
        ("rdma", r#"{"rdma":{"mlx5_0":{"hcaHandles":1}}}"#, "rdma"),
    ] {
        if has_controller(&layout, controller, controller) {
            match controller {
                "rdma" => println!("skipped: the host has rdma, but maybe no device"),
                _ => group.apply(&from(json)).unwrap(),
            }
            continue;
        }
        let error = group.apply(&from(json)).unwrap_err().to_string();
        assert!(
            error.contains(controller) && error.contains(field),
            "{error}"
        );
    }
}

#[test]
fn unified_files_are_written_on_v2_and_explained_elsewhere() {
    let layout = require!(host());
    let group = Guard::new(&layout, "unified");
    let result = group.apply(&from(r#"{"unified":{"memory.high":"104857600"}}"#));
    if layout.v2().is_some() && has_controller(&layout, "", "memory") {
        result.unwrap();
        assert_eq!(group.read("", "memory.high"), "104857600");
        let error = group
            .apply(&from(r#"{"unified":{"memory.nonsense":"1"}}"#))
            .unwrap_err();
        assert!(error.to_string().contains("memory.nonsense"), "{error}");
    } else {
        assert!(result.unwrap_err().to_string().contains("unified"));
    }
    if layout.v2().is_some() {
        group
            .apply(&from(r#"{"unified":{"cgroup.max.depth":"3"}}"#))
            .unwrap();
        assert_eq!(
            std::fs::read_to_string(format!("{}/cgroup.max.depth", group.paths()[""])).unwrap(),
            "3\n"
        );
    }
    assert!(
        group
            .apply(&from(r#"{"unified":{"../memory.high":"1"}}"#))
            .is_err()
    );
}

#[test]
fn the_typed_limits_of_nested_groups_hold_and_change_at_run_time() {
    let layout = require!(host_with("memory", "memory"));
    let outer = Guard::new(&layout, "nest");
    outer
        .limit(&Limits::new().memory_limit("256MiB").pids_max(50))
        .unwrap();
    let inner = outer.child("job").unwrap();
    inner
        .limit(&Limits::new().memory_limit("64MiB").cpu_quota(0.5))
        .unwrap();
    let _busy = Process(
        inner
            .spawn(std::process::Command::new("sleep").arg("1000"))
            .unwrap(),
    );
    inner.limit(&Limits::new().memory_limit("32MiB")).unwrap();
    assert_eq!(inner.stats().unwrap().memory.memory.limit, Some(32 << 20));
    assert_eq!(outer.stats().unwrap().memory.memory.limit, Some(256 << 20));
    if has_controller(&layout, "pids", "pids") {
        assert!(
            outer.stats().unwrap().pids.current >= 1,
            "nested tasks count"
        );
    }
}
