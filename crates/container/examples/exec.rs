//! More processes in a running container: with pipes, as a user, in a group of their own.
//!
//! Run as root: `cargo run -p carrack-container --example exec [ROOTFS]`

mod support;

use carrack_container::{Command, ContainerBuilder, Limits, Stdio};
use std::io::Write;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stage = support::stage()?;
    let running = ContainerBuilder::new(&stage.root)
        .command(["sleep", "60"])
        .spawn(&stage.runtime, "exec")?
        .delete_on_drop();

    let mut count = running.exec(
        Command::new(["wc", "-w"])
            .stdin(Stdio::Piped)
            .stdout(Stdio::Piped),
    )?;
    if let Some(stdin) = &mut count.stdin {
        stdin.write_all(b"five words in a pipe\n")?;
    }
    let output = count.wait_with_output()?;
    print!("words: {}", String::from_utf8_lossy(&output.stdout));

    let mut user = running.exec(Command::new(["id"]).user(1000, 1000))?;
    println!("as a user: {:?}", user.wait()?);

    // Where the host has pure cgroup v2, a group that holds processes lends no limits to
    // groups below it; `limit` then says so.
    let group = running.group("side")?;
    if let Err(error) = group.limit(&Limits::new().pids_max(8)) {
        println!("no limits for the nested group: {error}");
    }
    let mut side = running.exec(Command::new(["cat", "/proc/self/cgroup"]).group("side"))?;
    println!("in a nested group: {:?}", side.wait()?);
    Ok(())
}
