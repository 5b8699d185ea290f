//! Hooks of the runtime namespace, and the preparation of those that init runs.

use crate::error::Error;
use crate::plan::HookPlan;
use carrack_spec::runtime::{Hook, State};
use carrack_sys::exec::CVec;
use carrack_sys::pidfd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// How much of a hook's output an error quotes, in bytes.
const QUOTE_BYTES_MAX: u64 = 4096;
/// Longest timeout that is told apart from none, in seconds.
const TIMEOUT_SECONDS_MAX: i64 = 1 << 31;

/// Runs hooks in order with the state on their standard input. The first that
/// fails ends it.
pub fn run(kind: &'static str, hooks: &[Hook], state: &State) -> Result<(), Error> {
    if hooks.is_empty() {
        return Ok(());
    }
    let failed = |e: std::io::Error| Error::system("cannot pass the state to hooks", e);
    let input = state_file(state).map_err(failed)?;
    for (index, hook) in hooks.iter().enumerate() {
        let output = File::from(memory_file().map_err(failed)?);
        run_one(hook, &input, &output).map_err(|reason| Error::Hook {
            kind,
            index,
            path: hook.path.clone(),
            reason: match quote(&output) {
                quoted if quoted.is_empty() => reason,
                quoted => format!("{reason}; it printed: {quoted}"),
            },
        })?;
    }
    Ok(())
}

fn run_one(hook: &Hook, input: &OwnedFd, output: &File) -> Result<(), String> {
    let text = |e: std::io::Error| e.to_string();
    let mut stdin = File::from(input.try_clone().map_err(text)?);
    stdin.seek(SeekFrom::Start(0)).map_err(text)?;
    let mut command = Command::new(&hook.path);
    if let Some((name, rest)) = hook.args.split_first() {
        command.arg0(name).args(rest);
    }
    command.env_clear().envs(
        hook.env
            .iter()
            .filter_map(|variable| variable.split_once('=')),
    );
    command.stdin(Stdio::from(stdin));
    command.stdout(Stdio::from(output.try_clone().map_err(text)?));
    command.stderr(Stdio::from(output.try_clone().map_err(text)?));
    let mut child = command.spawn().map_err(|e| format!("cannot run it: {e}"))?;
    if let Some(seconds) = hook.timeout {
        let pidfd = pidfd::open(child.id() as i32).map_err(|e| e.to_string())?;
        let timeout = Timespec {
            tv_sec: seconds.min(TIMEOUT_SECONDS_MAX),
            tv_nsec: 0,
        };
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        let ended = rustix::io::retry_on_intr(|| poll(&mut fds, Some(&timeout)));
        if ended == Ok(0) {
            child.kill().map_err(text)?;
            child.wait().map_err(text)?;
            return Err(format!(
                "it ran longer than its timeout of {seconds} s and was killed"
            ));
        }
    }
    let status = child.wait().map_err(text)?;
    if status.success() {
        Ok(())
    } else {
        Err(status.to_string())
    }
}

/// The state as a file to read from its start.
pub fn state_file(state: &State) -> std::io::Result<OwnedFd> {
    let mut file = File::from(memory_file()?);
    file.write_all(&serde_json::to_vec(state)?)?;
    Ok(file.into())
}

/// An empty file in memory.
pub fn memory_file() -> std::io::Result<OwnedFd> {
    Ok(rustix::fs::memfd_create(
        c"carrack-hook",
        rustix::fs::MemfdFlags::CLOEXEC,
    )?)
}

/// What hooks printed into the file.
pub fn quote(output: &File) -> String {
    let Ok(mut file) = output.try_clone() else {
        return String::new();
    };
    let mut bytes = Vec::new();
    let _ = file.seek(SeekFrom::Start(0));
    let _ = file.take(QUOTE_BYTES_MAX).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

/// Plans hooks that init runs. Those that say nothing about their environment get `env`.
pub fn plan(hooks: &[Hook], field: &str, env: &[CString]) -> Result<Vec<HookPlan>, Error> {
    let strings = |list: &[String]| {
        list.iter()
            .map(|text| crate::plan::c_string(text, field))
            .collect::<Result<Vec<_>, _>>()
    };
    hooks
        .iter()
        .map(|hook| {
            let path = crate::plan::c_string(&hook.path, field)?;
            let args = if hook.args.is_empty() {
                vec![path.clone()]
            } else {
                strings(&hook.args)?
            };
            Ok(HookPlan {
                path,
                argv: CVec::new(args),
                envp: CVec::new(match hook.env.as_slice() {
                    [] => env.to_vec(),
                    list => strings(list)?,
                }),
                timeout_ms: hook
                    .timeout
                    .map(|seconds| seconds.min(TIMEOUT_SECONDS_MAX) * 1000),
            })
        })
        .collect()
}
