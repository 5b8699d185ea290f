//! Being told that processes wait for each other: more busy loops than processors.
//!
//! Run as root: `cargo run -p carrack-cgroup --example pressure`

use carrack_cgroup::{Group, Layout, Request, Resource, Threshold};
use std::process::Command;
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let layout = Layout::detect()?;
    let name = format!("/carrack-example-{}", std::process::id());
    let group = Group::create(
        &layout,
        &Request {
            path: &name,
            ..Default::default()
        },
    )?;
    let outcome = run(&group);
    group.destroy()?;
    outcome
}

fn run(group: &Group) -> Result<(), Box<dyn std::error::Error>> {
    // Speak up when some task waited 100 ms for a processor within 2 s.
    let mut watch = group.watch_pressure(
        Resource::Cpu,
        Threshold {
            all_tasks: false,
            stall: Duration::from_millis(100),
            window: Duration::from_secs(2),
        },
    )?;
    let processors = std::thread::available_parallelism()?.get();
    let mut children = Vec::new();
    for _ in 0..processors * 2 {
        let mut busy = Command::new("sh");
        busy.args(["-c", "while :; do :; done"]);
        children.push(group.spawn(&mut busy)?);
    }
    if watch.wait(Some(Duration::from_secs(20)))? {
        let pressure = group.stats()?.cpu.pressure.unwrap_or_default();
        println!(
            "under pressure: {} ms waited in all",
            pressure.some.total_us / 1000
        );
    } else {
        println!("no pressure within 20 s");
    }
    group.kill(9)?;
    for mut child in children {
        child.wait()?;
    }
    Ok(())
}
