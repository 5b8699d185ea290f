//! `exec`: one more process in a container that runs.

use super::create::{
    CONSOLE_SOCKET, DETACH, PID_FILE, PIDFD_SOCKET, PRESERVE_FDS, console, preserve_fds, send_pidfd,
};
use crate::args::{Arity, Command, Flag, Matches};
use crate::context::Context;
use crate::failure::{CODE_EXEC, Failure};
use crate::foreground::{Foreground, host_size};
use carrack_container::{Container, Error, ExecOptions};
use carrack_spec::runtime::{CONFIG_BYTES_MAX, Process, parse_json};
use std::io::Read;
use std::os::fd::AsFd;
use std::path::PathBuf;

static CWD: Flag = Flag::text("cwd", "DIR", "working directory inside the container");
static ENV: Flag = Flag::list(
    "env",
    "NAME=VALUE",
    "add to the environment, which is that of the container's own process",
)
.short('e');
static TTY: Flag = Flag::switch("tty", "give the process a terminal").short('t');
static USER: Flag = Flag::text("user", "UID[:GID]", "user and group, as numbers").short('u');
static ADDITIONAL_GIDS: Flag =
    Flag::list("additional-gids", "GID", "add a supplementary group").short('g');
static PROCESS: Flag = Flag::text(
    "process",
    "FILE",
    "take the whole process from a JSON file in the form of config.json's process; the flags \
     that describe the process are then ignored",
)
.short('p');
static PROCESS_LABEL: Flag = Flag::text("process-label", "LABEL", "SELinux label of the process");
static APPARMOR: Flag = Flag::text("apparmor", "PROFILE", "AppArmor profile of the process");
static NO_NEW_PRIVS: Flag = Flag::switch(
    "no-new-privs",
    "let the process gain no rights by executing programs",
);
static CAP: Flag = Flag::list(
    "cap",
    "CAPABILITY",
    "add a capability to those of the container's own process, as in CAP_NET_RAW",
)
.short('c');
static CGROUP: Flag = Flag::list(
    "cgroup",
    "[CONTROLLER[,CONTROLLER]:]PATH",
    "start in this cgroup below the container's own, which must exist; controllers are named on \
     cgroup v1",
);
static IGNORE_PAUSED: Flag = Flag::switch(
    "ignore-paused",
    "do not refuse a paused container; the process starts when it is resumed",
);

/// The command.
pub static COMMAND: Command = Command {
    name: "exec",
    summary: "run one more process in a container",
    arguments: "CONTAINER PROGRAM [ARGUMENT ...]",
    description:
        "   The process has the rights, limits and environment of the container's own process unless
   flags or --process say otherwise. Stays until it ends and ends with its exit code (128 + n
   when signal n killed it, 255 when it could not be started), unless --detach is given.",
    flags: &[
        &CONSOLE_SOCKET,
        &PIDFD_SOCKET,
        &CWD,
        &ENV,
        &TTY,
        &USER,
        &ADDITIONAL_GIDS,
        &PROCESS,
        &DETACH,
        &PID_FILE,
        &PROCESS_LABEL,
        &APPARMOR,
        &NO_NEW_PRIVS,
        &CAP,
        &PRESERVE_FDS,
        &CGROUP,
        &IGNORE_PAUSED,
    ],
    arity: Arity::Trailing(1),
    hidden: false,
    run,
};

fn run(context: &Context) -> Result<u8, Failure> {
    exec(context).map_err(|failure| {
        let failure = match failure {
            Failure::Container(Error::NotRunning { .. }) => {
                Failure::State("cannot exec in a stopped container".into())
            }
            other => other,
        };
        failure.within("exec failed", CODE_EXEC)
    })
}

fn exec(context: &Context) -> Result<u8, Failure> {
    let matches = &context.matches;
    let container = context.container()?;
    let detach = matches.on(&DETACH);
    let mut process = process(context, &container)?;
    if process.terminal && !detach {
        process.console_size = host_size().or(process.console_size);
    }
    check_terminal(process.terminal, detach, matches)?;
    let options = ExecOptions {
        console: console(matches, detach)?,
        process,
        preserve_fds: preserve_fds(matches, 0)?,
        cgroup: matches.list(&CGROUP)?,
        pid_file: matches.text(&PID_FILE).map(PathBuf::from),
        ignore_paused: matches.on(&IGNORE_PAUSED),
        ..ExecOptions::default()
    };
    if detach {
        let executed = container.exec(options)?;
        send_pidfd(matches, executed.pidfd.as_fd())?;
        return Ok(0);
    }
    let foreground = Foreground::prepare(false)?;
    let executed = container.exec(options)?;
    send_pidfd(matches, executed.pidfd.as_fd())?;
    let outcome = foreground.stay(executed.pid, executed.pidfd.as_fd(), executed.console);
    if outcome.is_err() {
        // Without us nobody would see the process or its end.
        let _ = carrack_sys::pidfd::send_signal(executed.pidfd.as_fd(), 9);
    }
    outcome
}

/// A detached terminal must go somewhere, and only a terminal can.
fn check_terminal(terminal: bool, detach: bool, matches: &Matches) -> Result<(), Failure> {
    let socket = matches.text(&CONSOLE_SOCKET).is_some();
    let problem = if terminal && detach && !socket {
        "cannot allocate tty if the runtime will detach without setting console socket"
    } else if !terminal && socket {
        "cannot use console socket if the process gets no terminal; add --tty"
    } else {
        return Ok(());
    };
    Err(Failure::State(problem.into()))
}

/// The process that the file or the flags describe.
fn process(context: &Context, container: &Container) -> Result<Process, Failure> {
    if let Some(file) = context.matches.text(&PROCESS) {
        let mut bytes = Vec::new();
        let limit = CONFIG_BYTES_MAX as u64 + 1;
        std::fs::File::open(file)
            .and_then(|opened| opened.take(limit).read_to_end(&mut bytes))
            .map_err(|error| Failure::file("read", file, error))?;
        return parse_json(&bytes, CONFIG_BYTES_MAX).map_err(|source| Failure::Parse {
            path: file.into(),
            source,
        });
    }
    let count = context.matches.args.len();
    if count < 2 {
        return Err(Failure::Value {
            what: "exec args cannot be empty",
            reason: "name a program behind the container, or use --process".into(),
        });
    }
    let args: Result<Vec<_>, _> = (1..count)
        .map(|i| context.arg(i).map(str::to_owned))
        .collect();
    changed(container.exec_process()?, args?, &context.matches)
}

/// `process`, running `args`, with what the flags change.
fn changed(mut process: Process, args: Vec<String>, matches: &Matches) -> Result<Process, Failure> {
    process.args = args;
    process.terminal = matches.on(&TTY);
    let replace = |flag, value: &mut String| -> Result<(), Failure> {
        if let Some(text) = matches.utf8(flag)? {
            text.clone_into(value);
        }
        Ok(())
    };
    replace(&CWD, &mut process.cwd)?;
    replace(&APPARMOR, &mut process.apparmor_profile)?;
    replace(&PROCESS_LABEL, &mut process.selinux_label)?;
    if matches.given(&NO_NEW_PRIVS) {
        process.no_new_privileges = matches.on(&NO_NEW_PRIVS);
    }
    for variable in matches.list(&ENV)? {
        process.env.push(assignment(variable)?);
    }
    if let Some(user) = matches.utf8(&USER)? {
        let (uid, gid) = user
            .split_once(':')
            .map_or((user, None), |(u, g)| (u, Some(g)));
        process.user.uid = id("bad uid", uid)?;
        if let Some(gid) = gid {
            process.user.gid = id("bad gid", gid)?;
        }
    }
    for gid in matches.list(&ADDITIONAL_GIDS)? {
        process
            .user
            .additional_gids
            .push(id("bad additional gid", &gid)?);
    }
    add_capabilities(&mut process, matches.list(&CAP)?);
    Ok(process)
}

/// A variable as it is given to the process. One without a value is not taken from our own environment:
/// that is the engine's.
fn assignment(variable: String) -> Result<String, Failure> {
    match variable.split_once('=') {
        Some((name, _)) if !name.is_empty() => Ok(variable),
        _ => Err(Failure::Value {
            what: "bad --env",
            reason: format!("{variable:?} is not of the form NAME=VALUE"),
        }),
    }
}

fn id(what: &'static str, text: &str) -> Result<u32, Failure> {
    text.parse().map_err(|_| Failure::Value {
        what,
        reason: format!("{text:?} is not a number from 0 to {}", u32::MAX),
    })
}

/// Ambient capabilities must be inheritable, which `--cap` does not make them:
/// they are added only where the container's own process has inheritable ones.
fn add_capabilities(process: &mut Process, names: Vec<String>) {
    if names.is_empty() {
        return;
    }
    let sets = process.capabilities.get_or_insert_default();
    if !sets.inheritable.is_empty() {
        sets.ambient.extend(names.iter().cloned());
    }
    sets.bounding.extend(names.iter().cloned());
    sets.effective.extend(names.iter().cloned());
    sets.permitted.extend(names);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::parse;
    use carrack_spec::runtime::Capabilities;

    fn exec_of(line: &str) -> Result<Process, Failure> {
        let base = Process {
            terminal: true,
            cwd: "/".into(),
            env: vec!["A=1".into()],
            no_new_privileges: true,
            capabilities: Some(Capabilities {
                bounding: vec!["CAP_KILL".into()],
                ..Capabilities::default()
            }),
            ..Process::default()
        };
        let matches = parse(COMMAND.flags, line.split_whitespace().map(Into::into), true)?;
        let args = matches.args.iter().skip(1);
        let args = args.map(|arg| arg.to_string_lossy().into_owned()).collect();
        changed(base, args, &matches)
    }

    #[test]
    fn flags_change_what_they_name() {
        let process = exec_of("-e B=2 -u 5:6 -g 7 -g 8 --cwd /tmp -c CAP_CHOWN id ls -t").unwrap();
        assert_eq!(process.args, ["ls", "-t"]);
        assert_eq!(process.env, ["A=1", "B=2"]);
        assert_eq!((process.user.uid, process.user.gid), (5, 6));
        assert_eq!(process.user.additional_gids, [7, 8]);
        assert_eq!(process.cwd, "/tmp");
        assert!(!process.terminal && process.no_new_privileges);
        let sets = process.capabilities.unwrap();
        assert_eq!(sets.bounding, ["CAP_KILL", "CAP_CHOWN"]);
        assert_eq!(sets.effective, ["CAP_CHOWN"]);
        assert!(sets.ambient.is_empty() && sets.inheritable.is_empty());
    }

    #[test]
    fn a_variable_without_a_value_names_the_flag() {
        for bad in ["FOO", "=x"] {
            let error = exec_of(&format!("-e {bad} id ls")).unwrap_err().to_string();
            assert!(
                error.contains("--env") && error.contains("NAME=VALUE"),
                "{error}"
            );
        }
        let process = exec_of("-e EMPTY= id ls").unwrap();
        assert_eq!(process.env, ["A=1", "EMPTY="]);
    }

    #[test]
    fn privileges_can_be_given_back() {
        assert!(
            !exec_of("--no-new-privs=false id ls")
                .unwrap()
                .no_new_privileges
        );
        assert!(exec_of("-t id ls").unwrap().terminal);
    }

    #[test]
    fn users_are_numbers() {
        for user in ["root", "-1", "1:x", ":", "4294967296", "1:"] {
            assert!(exec_of(&format!("-u {user} id ls")).is_err(), "{user}");
        }
    }
}
