//! Being told that a container ran out of memory.
//!
//! Run as root: `cargo run -p carrack-container --example oom [ROOTFS]`

mod support;

use carrack_container::{ContainerBuilder, OomEvent};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = support::stage()?;
    // Made first and started later: nothing can happen before somebody watches.
    let mut running = ContainerBuilder::new(&stage.root)
        .command(["sh", "-c", "a=x; while :; do a=$a$a; done"])
        .memory_limit("24MiB")
        .create(&stage.runtime, "oom")?
        .delete_on_drop();
    let mut watch = running.watch_oom()?;
    running.start()?;
    match watch.wait(None)? {
        Some(OomEvent::Killed(n)) => println!("out of memory: {n} process(es) killed"),
        Some(OomEvent::Ended) | None => println!("it ended without running out"),
    }
    println!("the container: {:?}", running.wait()?);
    Ok(())
}
