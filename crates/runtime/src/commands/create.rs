//! `create` and `run`: from a bundle to a container.

use crate::activation;
use crate::args::{Arity, Command, Flag, Matches};
use crate::context::Context;
use crate::failure::{CODE_FAILURE, Failure};
use crate::foreground::{Foreground, host_size};
use crate::notify::{Notify, NotifyDirectory};
use carrack_container::{Console, CreateOptions, Created, Error};
use carrack_spec::ContainerId;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// Most descriptors of `--preserve-fds`.
const PRESERVE_FDS_MAX: u32 = 65_536;

pub(super) static BUNDLE: Flag = Flag::text(
    "bundle",
    "DIR",
    "the bundle: the directory with config.json (default: the current directory)",
)
.short('b');
pub(super) static CONSOLE_SOCKET: Flag = Flag::text(
    "console-socket",
    "SOCKET",
    "unix socket that receives the master of the container's terminal",
);
pub(super) static PIDFD_SOCKET: Flag = Flag::text(
    "pidfd-socket",
    "SOCKET",
    "unix socket that receives a descriptor of the process (pidfd)",
);
pub(super) static PID_FILE: Flag =
    Flag::text("pid-file", "FILE", "write the process id to this file");
pub(super) static DETACH: Flag = Flag::switch(
    "detach",
    "return as soon as the process runs instead of staying with it",
)
.short('d');
pub(super) static NO_SUBREAPER: Flag = Flag::switch(
    "no-subreaper",
    "do not adopt the container's orphaned processes",
);
pub(super) static NO_PIVOT: Flag = Flag::switch(
    "no-pivot",
    "change the root without pivot_root(2), for a root file system on an initramfs",
);
pub(super) static PRESERVE_FDS: Flag = Flag::integer(
    "preserve-fds",
    "N",
    "pass N more descriptors on, those behind the standard streams and $LISTEN_FDS",
);
static KEEP: Flag = Flag::switch("keep", "do not delete the container when it ends");
static NO_NEW_KEYRING: Flag = Flag::switch(
    "no-new-keyring",
    "share the caller's session keyring instead of giving the container its own",
);

/// `create`.
pub static CREATE: Command = Command {
    name: "create",
    summary: "make a container that waits for start",
    arguments: "CONTAINER",
    description:
        "   Makes everything that config.json of the bundle describes, up to the point where the
   container's program would begin; start lets it begin. CONTAINER is a name of the caller's
   choice, unique below --root.",
    flags: &[
        &BUNDLE,
        &CONSOLE_SOCKET,
        &PIDFD_SOCKET,
        &PID_FILE,
        &NO_PIVOT,
        &NO_NEW_KEYRING,
        &PRESERVE_FDS,
    ],
    arity: Arity::Exactly(1),
    hidden: false,
    run: create,
};

/// `run`.
pub static RUN: Command = Command {
    name: "run",
    summary: "make a container and run its program",
    arguments: "CONTAINER",
    description: "   Does what create and start do, stays until the program ends, deletes the container and ends
   with the exit code of the program (128 + n when signal n killed it). Signals go to the
   program. CONTAINER is a name of the caller's choice, unique below --root.",
    flags: &[
        &BUNDLE,
        &CONSOLE_SOCKET,
        &PIDFD_SOCKET,
        &PID_FILE,
        &DETACH,
        &KEEP,
        &NO_SUBREAPER,
        &NO_PIVOT,
        &NO_NEW_KEYRING,
        &PRESERVE_FDS,
    ],
    arity: Arity::Exactly(1),
    hidden: false,
    run,
};

fn create(context: &Context) -> Result<u8, Failure> {
    let id: ContainerId = context.arg(0)?.parse()?;
    let outcome = options(context, &id, true).and_then(|options| {
        let created = context.runtime().create(&id, options)?;
        or_delete(created, |created| {
            send_pidfd(&context.matches, created.pidfd.as_fd())
        })
    });
    finish(context, &id, "create", outcome.map(|_| 0))
}

fn run(context: &Context) -> Result<u8, Failure> {
    let id: ContainerId = context.arg(0)?.parse()?;
    let detach = context.matches.on(&DETACH);
    let outcome = options(context, &id, detach).and_then(|options| match detach {
        true => run_detached(context, &id, options),
        false => run_attached(context, &id, options),
    });
    finish(context, &id, "run", outcome)
}

/// The words and the clean-up of a failure.
fn finish(
    context: &Context,
    id: &ContainerId,
    verb: &str,
    outcome: Result<u8, Failure>,
) -> Result<u8, Failure> {
    outcome.map_err(|failure| {
        let exists = matches!(&failure, Failure::Container(Error::Exists { .. }));
        if Notify::manager().is_some() && !exists {
            NotifyDirectory::of(&context.root(), id).remove();
        }
        failure.within(format!("{} {verb} failed", context.program), CODE_FAILURE)
    })
}

/// Our end of the container's notify socket, when a service manager wants to hear of it.
fn notify(context: &Context, id: &ContainerId) -> Result<Option<Notify>, Failure> {
    match Notify::manager() {
        Some(manager) => NotifyDirectory::of(&context.root(), id).bind(&manager),
        None => Ok(None),
    }
}

fn run_detached(
    context: &Context,
    id: &ContainerId,
    options: CreateOptions,
) -> Result<u8, Failure> {
    let notify = notify(context, id)?;
    let created = context.runtime().run(id, options)?;
    or_delete(created, |created| {
        send_pidfd(&context.matches, created.pidfd.as_fd())?;
        if let Some(mut notify) = notify {
            let pid = created.container.record().init_process_pid;
            notify.forward_until_ready(pid, created.pidfd.as_fd())?;
        }
        Ok(())
    })?;
    Ok(0)
}

fn run_attached(
    context: &Context,
    id: &ContainerId,
    options: CreateOptions,
) -> Result<u8, Failure> {
    let mut foreground = Foreground::prepare(!context.matches.on(&NO_SUBREAPER))?;
    foreground.notify = notify(context, id)?;
    let created = context.runtime().run(id, options)?;
    let created = or_delete(created, |created| {
        send_pidfd(&context.matches, created.pidfd.as_fd())
    })?;
    let keep = context.matches.on(&KEEP);
    let code = attend(foreground, created, keep)?;
    if !keep && Notify::manager().is_some() {
        NotifyDirectory::of(&context.root(), id).remove();
    }
    Ok(code)
}

/// Stays with the container until its init ends, and deletes it then unless it is to be kept.
pub(super) fn attend(
    foreground: Foreground,
    mut created: Created,
    keep: bool,
) -> Result<u8, Failure> {
    let console = created.console.take();
    let mut code = 0;
    let ended = or_delete(created, |created| {
        let pid = created.container.record().init_process_pid;
        code = foreground.stay(pid, created.pidfd.as_fd(), console)?;
        Ok(())
    })?;
    if !keep && let Err(error) = ended.container.delete(true) {
        // The program's own exit code matters more to the caller than this.
        log::warn!("delete the container: {}", Failure::from(error).message());
    }
    Ok(code)
}

/// Carries `step` out; a container for which it fails is deleted.
fn or_delete(
    created: Created,
    step: impl FnOnce(&Created) -> Result<(), Failure>,
) -> Result<Created, Failure> {
    match step(&created) {
        Ok(()) => Ok(created),
        Err(failure) => {
            if let Err(error) = created.container.delete(true) {
                log::warn!("delete the container: {}", Failure::from(error).message());
            }
            Err(failure)
        }
    }
}

/// The flags of both commands as the library takes them.
fn options(context: &Context, id: &ContainerId, detach: bool) -> Result<CreateOptions, Failure> {
    let matches = &context.matches;
    let path = |flag| matches.text(flag).map(PathBuf::from);
    let sockets = activation::descriptors();
    let mut extra_env = Vec::new();
    if sockets > 0 {
        extra_env.push(format!("LISTEN_FDS={sockets}"));
        extra_env.push("LISTEN_PID=1".to_owned());
    }
    let mut options = CreateOptions {
        bundle: path(&BUNDLE).unwrap_or_else(|| ".".into()),
        console: console(matches, detach)?,
        preserve_fds: sockets + preserve_fds(matches, sockets)?,
        no_pivot: matches.on(&NO_PIVOT),
        no_new_keyring: matches.on(&NO_NEW_KEYRING),
        pid_file: path(&PID_FILE),
        extra_env,
        console_size: (!detach).then_some(host_size),
        ..CreateOptions::default()
    };
    if Notify::manager().is_some() {
        NotifyDirectory::of(&context.root(), id).make(&mut options)?;
    }
    Ok(options)
}

/// Where the master of a terminal goes, should the process have one.
pub(super) fn console(matches: &Matches, detach: bool) -> Result<Console, Failure> {
    match (matches.text(&CONSOLE_SOCKET), detach) {
        (Some(socket), true) => Ok(Console::Socket(socket.into())),
        (None, true) => Ok(Console::None),
        (None, false) => Ok(Console::PlainMaster),
        (Some(_), false) => Err(Failure::State(
            "cannot use console socket if the runtime will not detach; leave --console-socket out \
             or add --detach"
                .into(),
        )),
    }
}

/// The number of `--preserve-fds`; all of them, which follow the activation sockets, must be there.
pub(super) fn preserve_fds(matches: &Matches, sockets: u32) -> Result<u32, Failure> {
    let given = matches.integer(&PRESERVE_FDS).unwrap_or(0);
    let wrong = |reason| Failure::Value {
        what: "--preserve-fds",
        reason,
    };
    let count = u32::try_from(given)
        .ok()
        .filter(|count| *count <= PRESERVE_FDS_MAX)
        .ok_or_else(|| {
            wrong(format!(
                "{given} is out of range; use 0 to {PRESERVE_FDS_MAX}"
            ))
        })?;
    let first = 3 + sockets;
    match (first..first + count).find(|&number| !carrack_sys::exec::is_inherited(number)) {
        Some(number) => Err(wrong(format!(
            "{count} descriptors from {first} on shall be passed on, but {number} is not open"
        ))),
        None => Ok(count),
    }
}

/// Sends the descriptor of the process where `--pidfd-socket` says.
pub(super) fn send_pidfd(matches: &Matches, pidfd: BorrowedFd<'_>) -> Result<(), Failure> {
    let Some(path) = matches.text(&PIDFD_SOCKET) else {
        return Ok(());
    };
    let failed = |error| Failure::file("send the pidfd to", path, error);
    let socket = UnixStream::connect(path).map_err(failed)?;
    carrack_sys::fdpass::send(socket.as_fd(), b"pidfd", &[pidfd])
        .map_err(|error| failed(error.into()))?;
    Ok(())
}
