//! `monitor`: the process that owns the containers of one sandbox, see `carrack-supervisor`.
//!
//! An engine starts it, nobody types it. Standard input is the connected socket to the engine, standard
//! output the locked descriptor of the monitor's `lock` file; both are moved away at once, and standard
//! streams become `/dev/null`, so that nothing the monitor starts can inherit them.

use crate::args::{Arity, Command, Flag};
use crate::context::Context;
use crate::failure::Failure;
use carrack_container::{Runtime, RuntimeOptions};
use carrack_supervisor::{Library, Options, serve};
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

static DIRECTORY: Flag = Flag::text("dir", "DIR", "directory of the monitor's files");

/// The table entry.
pub static COMMAND: Command = Command {
    name: "monitor",
    summary: "serve the containers of one sandbox to an engine (started by carrack)",
    arguments: "",
    description: "   Standard input is a connected socket to the engine, standard output the locked descriptor of
   DIR/lock. Ends when no connection and no container is left.",
    flags: &[&DIRECTORY],
    arity: Arity::Exactly(0),
    hidden: true,
    run,
};

fn run(context: &Context) -> Result<u8, Failure> {
    let Some(directory) = context.matches.text(&DIRECTORY) else {
        return Err(Failure::Value {
            what: "--dir",
            reason: "name the monitor's directory".into(),
        });
    };
    let failed = |action| move |source: std::io::Error| Failure::System { action, source };
    let socket = aside(std::io::stdin().as_fd()).map_err(failed("take the socket"))?;
    let lock = aside(std::io::stdout().as_fd()).map_err(failed("take the lock"))?;
    close_streams().map_err(failed("open /dev/null"))?;
    let global = &context.global;
    let runtime = Runtime::new(
        global.root.clone().unwrap_or_else(Runtime::default_root),
        RuntimeOptions {
            systemd_cgroup: global.systemd_cgroup,
            rootless: global.rootless,
            strict: global.strict,
        },
    );
    let options = Options {
        directory: PathBuf::from(directory),
        socket,
        lock: Some(lock),
    };
    serve(options, Library::new(runtime))
        .map(|()| 0)
        .map_err(|error| Failure::State(chain(&error)))
}

/// A copy above the standard streams that no other program inherits.
fn aside(fd: BorrowedFd<'_>) -> std::io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?)
}

fn close_streams() -> std::io::Result<()> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(rustix::stdio::dup2_stderr(&null)?)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
