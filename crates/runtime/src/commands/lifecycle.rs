//! `start`, `kill`, `delete`, `pause` and `resume`.

use crate::args::{Arity, Command, Flag};
use crate::context::Context;
use crate::failure::Failure;
use crate::notify::{Notify, NotifyDirectory};
use crate::units;
use carrack_container::Error;
use carrack_spec::ContainerId;
use std::os::fd::AsFd;

/// `start`.
pub static START: Command = Command {
    name: "start",
    summary: "run the program of a created container",
    arguments: "CONTAINER",
    description: "   Lets a container that create made run its program.",
    flags: &[],
    arity: Arity::Exactly(1),
    hidden: false,
    run: start,
};

static ALL: Flag = Flag::switch(
    "all",
    "every process of the container, and no error when it has none",
)
.short('a');

/// `kill`.
pub static KILL: Command = Command {
    name: "kill",
    summary: "send a signal to a container's init process",
    arguments: "CONTAINER [SIGNAL]",
    description:
        "   SIGNAL is a number or a name with or without SIG, as in 9, KILL, SIGUSR1, RTMIN+3; it is
   TERM when left out.",
    flags: &[&ALL],
    arity: Arity::Between(1, 2),
    hidden: false,
    run: kill,
};

static FORCE: Flag = Flag::switch(
    "force",
    "kill what still runs; no error when the container does not exist",
)
.short('f');

/// `delete`.
pub static DELETE: Command = Command {
    name: "delete",
    summary: "remove a container that has stopped",
    arguments: "CONTAINER",
    description:
        "   Removes the cgroups and the state of a container that is stopped, or created and not
   started, and runs its poststop hooks. The bundle is left alone.",
    flags: &[&FORCE],
    arity: Arity::Exactly(1),
    hidden: false,
    run: delete,
};

/// `pause`.
pub static PAUSE: Command = Command {
    name: "pause",
    summary: "freeze every process of a container",
    arguments: "CONTAINER",
    description: "   The processes keep their memory and get no processor time until resume.",
    flags: &[],
    arity: Arity::Exactly(1),
    hidden: false,
    run: pause,
};

/// `resume`.
pub static RESUME: Command = Command {
    name: "resume",
    summary: "let the processes of a paused container go on",
    arguments: "CONTAINER",
    description: "   Undoes pause.",
    flags: &[],
    arity: Arity::Exactly(1),
    hidden: false,
    run: resume,
};

fn start(context: &Context) -> Result<u8, Failure> {
    let mut container = context.container()?;
    let Some(manager) = Notify::manager() else {
        container.start()?;
        return Ok(0);
    };
    // Opened before the program begins, so that it cannot be another process.
    let pid = container.record().init_process_pid;
    let process = carrack_sys::pidfd::open(pid);
    let process = process.map_err(|error| Failure::system("open the init process", error))?;
    let notify = NotifyDirectory::of(&context.root(), container.id()).bind(&manager)?;
    container.start()?;
    if let Some(mut notify) = notify {
        notify.forward_until_ready(pid, process.as_fd())?;
    }
    Ok(0)
}

fn kill(context: &Context) -> Result<u8, Failure> {
    let given = match context.arg(1)? {
        "" => "TERM",
        given => given,
    };
    let signal = units::signal(given).ok_or_else(|| Failure::Value {
        what: "unknown signal",
        reason: format!("{given:?}; give a number from 1 to 64 or a name such as TERM"),
    })?;
    let all = context.matches.on(&ALL);
    context.container()?.kill(signal, all)?;
    Ok(0)
}

fn delete(context: &Context) -> Result<u8, Failure> {
    let force = context.matches.on(&FORCE);
    match context.container() {
        Ok(container) => {
            let notify = NotifyDirectory::of(&context.root(), container.id());
            container.delete(force)?;
            notify.remove();
        }
        Err(Failure::Container(Error::NotFound { .. })) if force => {
            let id: ContainerId = context.arg(0)?.parse()?;
            context.runtime().remove_remains(&id)?;
        }
        Err(failure) => return Err(failure),
    }
    Ok(0)
}

fn pause(context: &Context) -> Result<u8, Failure> {
    context.container()?.pause()?;
    Ok(0)
}

fn resume(context: &Context) -> Result<u8, Failure> {
    context.container()?.resume()?;
    Ok(0)
}
