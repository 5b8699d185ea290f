//! A container in a few lines, and what it sees of the world.
//!
//! Run as root: `cargo run -p carrack-container --example hello [ROOTFS]`

mod support;

use carrack_container::ContainerBuilder;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = support::stage()?;
    let script = "echo hello from $(hostname), process $$, user $(id -u); ls /; ps";
    let mut running = ContainerBuilder::new(&stage.root)
        .command(["sh", "-c", script])
        .hostname("hello")
        .tmpfs("/tmp", "16MiB")
        .spawn(&stage.runtime, "hello")?;
    let exit = running.wait()?;
    running.delete()?;
    std::process::exit(exit.shell_code());
}
