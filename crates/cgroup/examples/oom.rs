//! Being told that a process was killed for want of memory.
//!
//! Run as root: `cargo run -p carrack-cgroup --example oom`

use carrack_cgroup::{Group, Layout, Limits, OomEvent, Request};
use std::process::Command;

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
    group.limit(&Limits::new().memory_limit("16MiB").swap_limit(0u64))?;
    let mut watch = group.watch_oom()?;

    let mut hungry = Command::new("sh");
    hungry.args(["-c", "a=x; while :; do a=$a$a; done"]);
    let mut child = group.spawn(&mut hungry)?;

    // The descriptor `watch.fd()` could stand in any poll loop; here we just wait.
    match watch.wait(None)? {
        Some(OomEvent::Killed(n)) => println!("out of memory: {n} process(es) killed"),
        Some(OomEvent::Ended) | None => println!("the group ended without running out"),
    }
    println!("the child: {}", child.wait()?);
    let memory = group.stats()?.memory;
    println!("it had used {} KiB at most", memory.memory.max_usage >> 10);
    Ok(())
}
