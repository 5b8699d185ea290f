//! A service with a budget, and two jobs inside it with budgets of their own: limits,
//! statistics, and a change while they run. No controller file is named anywhere.
//!
//! Run as root: `cargo run -p carrack-cgroup --example nested_groups`

use carrack_cgroup::{Group, Layout, Limits, Request};
use std::process::Command;
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let layout = Layout::detect()?;
    println!("this host's cgroups: {:?}", layout.mode());

    let name = format!("/carrack-example-{}", std::process::id());
    let service = Group::create(
        &layout,
        &Request {
            path: &name,
            ..Default::default()
        },
    )?;
    let outcome = run(&service);
    // Kills what is left, also in nested groups, and removes everything.
    service.destroy()?;
    outcome
}

fn run(service: &Group) -> Result<(), Box<dyn std::error::Error>> {
    service.limit(&Limits::new().memory_limit("512MiB").pids_max(100))?;

    let fast = service.child("fast")?;
    let slow = service.child("slow")?;
    fast.limit(&Limits::new().cpu_quota(0.5))?;
    slow.limit(&Limits::new().cpu_quota(0.1).memory_limit("64MiB"))?;

    // Each command runs inside its group from its first instruction.
    let busy = || {
        let mut command = Command::new("sh");
        command.args(["-c", "while :; do :; done"]);
        command
    };
    let mut children = [fast.spawn(&mut busy())?, slow.spawn(&mut busy())?];

    std::thread::sleep(Duration::from_secs(1));
    print("fast", &fast)?;
    print("slow", &slow)?;

    println!("slow may use as much as fast from now on");
    slow.limit(&Limits::new().cpu_quota(0.5))?;
    std::thread::sleep(Duration::from_secs(1));
    print("slow", &slow)?;
    print("both", service)?;

    service.kill(15)?;
    for child in &mut children {
        child.wait()?;
    }
    Ok(())
}

fn print(name: &str, group: &Group) -> Result<(), carrack_cgroup::Error> {
    let stats = group.stats()?;
    println!(
        "{name}: {} ms of processor time, throttled in {} of {} periods, {} KiB of memory, {} tasks",
        stats.cpu.usage_ns / 1_000_000,
        stats.cpu.throttled_periods,
        stats.cpu.periods,
        stats.memory.memory.usage >> 10,
        stats.pids.current,
    );
    Ok(())
}
