//! Limits that change while the container runs, and what it uses.
//!
//! Run as root: `cargo run -p carrack-container --example limits [ROOTFS]`

mod support;

use carrack_container::{ContainerBuilder, Limits, Running};
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = support::stage()?;
    let mut running = ContainerBuilder::new(&stage.root)
        .command(["sh", "-c", "while :; do :; done"])
        .memory_limit("64MiB")
        .cpu_quota(0.25)
        .pids_limit(16)
        .spawn(&stage.runtime, "limits")?
        .delete_on_drop();
    watch("a quarter of a processor", &running)?;
    running.limit(&Limits::new().cpu_quota(1.0))?;
    watch("a whole one", &running)?;
    running.pause()?;
    watch("none, as it is paused", &running)?;
    running.resume()?;
    println!("stopped: {:?}", running.stop(Duration::from_millis(200))?);
    Ok(())
}

/// Looks at it for a second.
fn watch(what: &str, running: &Running) -> Result<(), carrack_container::Error> {
    let before = running.statistics()?.cpu.usage_ns;
    std::thread::sleep(Duration::from_secs(1));
    let stats = running.statistics()?;
    println!(
        "{what}: {} ms of processor time a second, {} KiB of memory, {} task(s)",
        (stats.cpu.usage_ns - before) / 1_000_000,
        stats.memory.memory.usage >> 10,
        stats.pids.current,
    );
    Ok(())
}
