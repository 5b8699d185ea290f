//! `checkpoint` and `restore`: process state to files and back, with CRIU.

use super::create::{
    BUNDLE, CONSOLE_SOCKET, DETACH, NO_PIVOT, NO_SUBREAPER, PID_FILE, attend, console,
};
use crate::args::{Arity, Command, Flag, Matches};
use crate::context::Context;
use crate::failure::{CODE_FAILURE, Failure};
use crate::foreground::Foreground;
use crate::notify::NotifyDirectory;
use carrack_container::{CgroupsMode, CheckpointOptions, CriuOptions, RestoreOptions};
use carrack_spec::ContainerId;
use carrack_sys::pidfd;
use rustix::fs::OFlags;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

static IMAGE_PATH: Flag = Flag::text(
    "image-path",
    "DIR",
    "directory of the checkpoint (default: checkpoint in the current directory)",
);
static WORK_PATH: Flag = Flag::text("work-path", "DIR", "directory of criu's log and work files");
static PARENT_PATH: Flag = Flag::text(
    "parent-path",
    "DIR",
    "earlier checkpoint to store the difference to, relative to --image-path",
);
static LEAVE_RUNNING: Flag = Flag::switch("leave-running", "let the container run on afterwards");
static TCP_ESTABLISHED: Flag = Flag::switch(
    "tcp-established",
    "keep open TCP connections instead of refusing them",
);
static TCP_SKIP_IN_FLIGHT: Flag = Flag::switch(
    "tcp-skip-in-flight",
    "leave out TCP connections that are not accepted yet",
);
static LINK_REMAP: Flag = Flag::switch(
    "link-remap",
    "give files that were deleted while open a temporary name",
);
static EXT_UNIX_SK: Flag = Flag::switch(
    "ext-unix-sk",
    "allow unix sockets with a peer outside of the container",
);
static SHELL_JOB: Flag = Flag::switch("shell-job", "allow a terminal of the outside");
static LAZY_PAGES: Flag = Flag::switch("lazy-pages", "bring memory over when it is touched");
static STATUS_FD: Flag = Flag::integer(
    "status-fd",
    "FD",
    "descriptor to which criu writes one zero byte once --lazy-pages can be served",
);
static PAGE_SERVER: Flag = Flag::text(
    "page-server",
    "ADDRESS:PORT",
    "page server that takes the memory",
);
static FILE_LOCKS: Flag = Flag::switch("file-locks", "keep file locks instead of refusing them");
static PRE_DUMP: Flag = Flag::switch(
    "pre-dump",
    "store the memory only and let the container run on",
);
static MANAGE_CGROUPS_MODE: Flag = Flag::text(
    "manage-cgroups-mode",
    "MODE",
    "what criu does with cgroup properties: soft (the default), full, strict or ignore",
);
static EMPTY_NS: Flag = Flag::list(
    "empty-ns",
    "NAMESPACE",
    "make this namespace (network) without restoring what was in it",
);
static AUTO_DEDUP: Flag = Flag::switch("auto-dedup", "free memory images as they are read");
static LSM_PROFILE: Flag = Flag::text(
    "lsm-profile",
    "TYPE:NAME",
    "security profile to restore with, as in selinux:LABEL or apparmor:PROFILE",
);
static LSM_MOUNT_CONTEXT: Flag = Flag::text(
    "lsm-mount-context",
    "CONTEXT",
    "SELinux context of the restored mounts",
);

/// `checkpoint`.
pub static CHECKPOINT: Command = Command {
    name: "checkpoint",
    summary: "store a running container's processes in files",
    arguments: "CONTAINER",
    description:
        "   Stores the processes with criu(8), which must be installed, and deletes the container
   unless it is to run on.",
    flags: &[
        &IMAGE_PATH,
        &WORK_PATH,
        &PARENT_PATH,
        &LEAVE_RUNNING,
        &TCP_ESTABLISHED,
        &TCP_SKIP_IN_FLIGHT,
        &LINK_REMAP,
        &EXT_UNIX_SK,
        &SHELL_JOB,
        &LAZY_PAGES,
        &STATUS_FD,
        &PAGE_SERVER,
        &FILE_LOCKS,
        &PRE_DUMP,
        &MANAGE_CGROUPS_MODE,
        &EMPTY_NS,
        &AUTO_DEDUP,
    ],
    arity: Arity::Exactly(1),
    hidden: false,
    run: checkpoint,
};

/// `restore`.
pub static RESTORE: Command = Command {
    name: "restore",
    summary: "bring a checkpointed container back",
    arguments: "CONTAINER",
    description: "   Makes a container from the bundle whose processes go on where checkpoint stored them. Stays
   until they end, unless --detach is given.",
    flags: &[
        &CONSOLE_SOCKET,
        &IMAGE_PATH,
        &WORK_PATH,
        &TCP_ESTABLISHED,
        &EXT_UNIX_SK,
        &SHELL_JOB,
        &FILE_LOCKS,
        &MANAGE_CGROUPS_MODE,
        &BUNDLE,
        &DETACH,
        &PID_FILE,
        &NO_SUBREAPER,
        &NO_PIVOT,
        &EMPTY_NS,
        &AUTO_DEDUP,
        &LAZY_PAGES,
        &LSM_PROFILE,
        &LSM_MOUNT_CONTEXT,
    ],
    arity: Arity::Exactly(1),
    hidden: false,
    run: restore,
};

fn checkpoint(context: &Context) -> Result<u8, Failure> {
    let options = checkpoint_options(&context.matches)?;
    let container = context.container()?;
    let stays = options.leave_running || options.pre_dump;
    container.checkpoint(options)?;
    if !stays {
        let notify = NotifyDirectory::of(&context.root(), container.id());
        container.delete(true)?;
        notify.remove();
    }
    Ok(0)
}

fn restore(context: &Context) -> Result<u8, Failure> {
    carrack_container::shield()?;
    let id: ContainerId = context.arg(0)?.parse()?;
    let detach = context.matches.on(&DETACH);
    let outcome = restore_options(&context.matches, detach).and_then(|options| {
        if detach {
            context.runtime().restore(&id, options)?;
            return Ok(0);
        }
        let foreground = Foreground::prepare(!context.matches.on(&NO_SUBREAPER))?;
        let created = context.runtime().restore(&id, options)?;
        attend(foreground, created, false)
    });
    outcome.map_err(|failure| {
        failure.within(format!("{} restore failed", context.program), CODE_FAILURE)
    })
}

/// What both commands have in common.
fn criu_options(matches: &Matches) -> Result<CriuOptions, Failure> {
    let path = |flag| matches.text(flag).map(PathBuf::from);
    for namespace in matches.list(&EMPTY_NS)? {
        // The network is never stored: it is made anew by whoever restores.
        if namespace != "network" {
            return Err(Failure::Value {
                what: "--empty-ns",
                reason: format!("namespace {namespace:?} is not supported; network is"),
            });
        }
    }
    Ok(CriuOptions {
        images: path(&IMAGE_PATH).unwrap_or_else(|| "checkpoint".into()),
        work: path(&WORK_PATH),
        tcp_established: matches.on(&TCP_ESTABLISHED),
        external_unix_sockets: matches.on(&EXT_UNIX_SK),
        shell_job: matches.on(&SHELL_JOB),
        file_locks: matches.on(&FILE_LOCKS),
        auto_dedup: matches.on(&AUTO_DEDUP),
        lazy_pages: matches.on(&LAZY_PAGES),
        cgroups: cgroups_mode(matches)?,
    })
}

fn cgroups_mode(matches: &Matches) -> Result<CgroupsMode, Failure> {
    let name = matches.utf8(&MANAGE_CGROUPS_MODE)?.unwrap_or_default();
    CgroupsMode::named(name).ok_or_else(|| Failure::Value {
        what: "--manage-cgroups-mode",
        reason: format!("{name:?} is unknown; use soft, full, strict or ignore"),
    })
}

fn checkpoint_options(matches: &Matches) -> Result<CheckpointOptions, Failure> {
    let parent = matches.text(&PARENT_PATH).map(PathBuf::from);
    if parent.as_ref().is_some_and(|path| path.is_absolute()) {
        return Err(Failure::Value {
            what: "--parent-path",
            reason: "must be relative to --image-path".into(),
        });
    }
    Ok(CheckpointOptions {
        criu: criu_options(matches)?,
        parent,
        leave_running: matches.on(&LEAVE_RUNNING),
        pre_dump: matches.on(&PRE_DUMP),
        tcp_skip_in_flight: matches.on(&TCP_SKIP_IN_FLIGHT),
        link_remap: matches.on(&LINK_REMAP),
        page_server: page_server(matches.utf8(&PAGE_SERVER)?)?,
        status: status_fd(matches.integer(&STATUS_FD))?,
    })
}

fn page_server(given: Option<&str>) -> Result<Option<(String, u16)>, Failure> {
    let Some(given) = given else {
        return Ok(None);
    };
    let parts = given.rsplit_once(':').and_then(|(address, port)| {
        let address = address.trim_start_matches('[').trim_end_matches(']');
        Some((address, port.parse().ok()?)).filter(|(address, _)| !address.is_empty())
    });
    match parts {
        Some((address, port)) => Ok(Some((address.to_owned(), port))),
        None => Err(Failure::Value {
            what: "--page-server",
            reason: format!("{given:?} is not ADDRESS:PORT"),
        }),
    }
}

/// A copy of the caller's descriptor; -1 is none.
fn status_fd(number: Option<i64>) -> Result<Option<OwnedFd>, Failure> {
    let number = match number {
        None | Some(-1) => return Ok(None),
        Some(number) => i32::try_from(number).unwrap_or(-1),
    };
    let me = rustix::process::getpid().as_raw_nonzero().get();
    let refused = |reason: String| Failure::Value {
        what: "--status-fd",
        reason: format!("descriptor {number} cannot be used: {reason}"),
    };
    let copy = pidfd::open(me)
        .and_then(|me| pidfd::get_fd(me.as_fd(), number))
        .and_then(|copy| Ok((rustix::fs::fcntl_getfl(&copy)?, copy)));
    match copy.map_err(|error| refused(error.to_string()))? {
        (flags, _) if flags & OFlags::RWMODE == OFlags::RDONLY => {
            Err(refused("it is not open for writing".into()))
        }
        (_, copy) => Ok(Some(copy)),
    }
}

fn restore_options(matches: &Matches, detach: bool) -> Result<RestoreOptions, Failure> {
    let text = |flag| matches.utf8(flag).map(|text| text.map(str::to_owned));
    Ok(RestoreOptions {
        criu: criu_options(matches)?,
        bundle: matches.text(&BUNDLE).unwrap_or(".".as_ref()).into(),
        console: console(matches, detach)?,
        stdio: None,
        pid_file: matches.text(&PID_FILE).map(PathBuf::from),
        lsm_profile: text(&LSM_PROFILE)?,
        lsm_mount_context: text(&LSM_MOUNT_CONTEXT)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::parse;
    use std::os::fd::AsRawFd;

    fn options(line: &str) -> Result<CheckpointOptions, Failure> {
        let words = line.split_whitespace().map(Into::into);
        checkpoint_options(&parse(CHECKPOINT.flags, words, false)?)
    }

    #[test]
    fn flags_become_options() {
        let all = options("id --image-path /i --parent-path ../p --pre-dump --page-server [::1]:9 --manage-cgroups-mode full --empty-ns network").unwrap();
        assert_eq!(all.criu.images, PathBuf::from("/i"));
        assert_eq!(all.parent, Some(PathBuf::from("../p")));
        assert!(all.pre_dump && !all.leave_running);
        assert_eq!(all.page_server, Some(("::1".to_owned(), 9)));
        assert!(matches!(all.criu.cgroups, CgroupsMode::Full));
        assert_eq!(
            options("id").unwrap().criu.images,
            PathBuf::from("checkpoint")
        );
    }

    #[test]
    fn wrong_values_are_refused() {
        for line in [
            "id --parent-path /abs",
            "id --page-server 9",
            "id --page-server :9",
            "id --page-server host:port",
            "id --manage-cgroups-mode hard",
            "id --empty-ns pid",
            "id --status-fd 9999",
        ] {
            assert!(options(line).is_err(), "{line}");
        }
        assert!(options("id --status-fd -1").unwrap().status.is_none());
        let readable = std::fs::File::open("/dev/null").unwrap();
        let line = format!("id --status-fd {}", readable.as_raw_fd());
        assert!(options(&line).is_err());
    }
}
