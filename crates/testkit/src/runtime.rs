//! Runs of an OCI runtime's command line, each with a private state directory.
//!
//! Output goes to files and not to pipes: a detached container may hold its end
//! open for ever. A command that does not end within [`COMMAND_MAX`] is killed
//! and fails the test with what it printed so far.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;

use crate::bundle::Bundle;
use crate::leaks;
use crate::temp::{TempDir, unique};
use crate::wait::wait_until;

/// How long one command may take.
pub const COMMAND_MAX: Duration = Duration::from_secs(60);

/// A runtime program with its own `--root`.
#[derive(Debug)]
pub struct Runtime {
    program: PathBuf,
    root: TempDir,
    global: Vec<String>,
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output, lossily as text.
    pub stdout: String,
    /// Standard error, lossily as text.
    pub stderr: String,
}

impl Runtime {
    /// The runtime at `program`, usually `env!("CARGO_BIN_EXE_carrack-runtime")`.
    pub fn new(program: impl Into<PathBuf>) -> Runtime {
        Runtime {
            program: program.into(),
            root: TempDir::new(),
            global: Vec::new(),
        }
    }

    /// Adds a global flag to every command.
    pub fn flag(mut self, flag: &str) -> Runtime {
        self.global.push(flag.to_string());
        self
    }

    /// The state directory.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// A command with the global flags in place; for [`finish`] or to be spawned by the test.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--root")
            .arg(self.root())
            .args(&self.global)
            .args(args);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn call<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        finish(&mut self.command(args))
    }

    /// A container with a name of its own over `bundle`, deleted by force when dropped.
    pub fn container<'a>(&'a self, bundle: &'a Bundle) -> Container<'a> {
        self.container_named(&unique(), bundle)
    }

    /// The same with a name that the test chose; it must be unique on the machine.
    pub fn container_named<'a>(&'a self, id: &str, bundle: &'a Bundle) -> Container<'a> {
        let used = RefCell::new(false);
        Container {
            runtime: self,
            bundle,
            id: id.to_string(),
            used,
        }
    }
}

/// One container of a test.
#[derive(Debug)]
pub struct Container<'a> {
    runtime: &'a Runtime,
    bundle: &'a Bundle,
    id: String,
    used: RefCell<bool>,
}

impl Container<'_> {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Writes the bundle and runs it in the foreground to its end.
    pub fn run(&self) -> Output {
        self.run_with(&[])
    }

    /// The same with flags of `run`.
    pub fn run_with(&self, flags: &[&str]) -> Output {
        finish(&mut self.bundle_command("run", flags))
    }

    /// Writes the bundle and creates the container.
    pub fn create(&self) -> Output {
        self.create_with(&[])
    }

    /// The same with flags of `create`.
    pub fn create_with(&self, flags: &[&str]) -> Output {
        finish(&mut self.bundle_command("create", flags))
    }

    /// Runs it detached, without a word on its output.
    pub fn run_detached(&self) -> Output {
        self.run_with(&["--detach"])
    }

    /// `run` or `create` as a command that the test spawns itself.
    pub fn bundle_command(&self, verb: &str, flags: &[&str]) -> Command {
        self.bundle.write();
        *self.used.borrow_mut() = true;
        let mut command = self.runtime.command([verb, "--bundle"]);
        command.arg(self.bundle.path()).args(flags).arg(&self.id);
        command
    }

    /// A verb with flags before the id: `call("kill", &[], &["KILL"])` is `kill ID KILL`.
    pub fn call(&self, verb: &str, flags: &[&str], after: &[&str]) -> Output {
        let mut args = vec![verb];
        args.extend(flags);
        args.push(&self.id);
        args.extend(after);
        self.runtime.call(args)
    }

    /// `start`.
    pub fn start(&self) -> Output {
        self.call("start", &[], &[])
    }

    /// `exec ID ARGS..`.
    pub fn exec(&self, args: &[&str]) -> Output {
        self.call("exec", &[], args)
    }

    /// `kill ID SIGNAL`.
    pub fn kill(&self, signal: &str) -> Output {
        self.call("kill", &[], &[signal])
    }

    /// `delete`, with `--force` when asked.
    pub fn delete(&self, force: bool) -> Output {
        self.call("delete", if force { &["--force"] } else { &[] }, &[])
    }

    /// `state` as JSON.
    pub fn state(&self) -> Value {
        let output = self.call("state", &[], &[]).ok();
        serde_json::from_str(&output.stdout)
            .unwrap_or_else(|error| panic!("state is not JSON ({error}): {}", output.stdout))
    }

    /// The `status` of `state`.
    pub fn status(&self) -> String {
        self.state()["status"]
            .as_str()
            .unwrap_or_default()
            .to_string()
    }

    /// The host pid of the container's init.
    pub fn pid(&self) -> i32 {
        let pid = self.state()["pid"].as_i64().unwrap_or(0);
        i32::try_from(pid).unwrap_or(0)
    }

    /// Waits until `state` shows this status.
    pub fn wait_status(&self, status: &str) {
        wait_until(&format!("status {status} of {}", self.id), || {
            self.status() == status
        });
    }

    /// Fails the test when the container left a mount, cgroup, process or state behind.
    pub fn assert_nothing_left(&self) {
        let mut left = leaks::of(&self.id, self.bundle.path());
        let state = self.runtime.root().join(&self.id);
        if fs::symlink_metadata(&state).is_ok() {
            left.push(format!("state {}", state.display()));
        }
        assert!(left.is_empty(), "{} left behind: {left:?}", self.id);
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let state = self.runtime.root().join(&self.id);
        if *self.used.borrow() && (state.exists() || !leaks::processes(&self.id).is_empty()) {
            let _ = self
                .runtime
                .command(["delete", "--force", &self.id])
                .output();
        }
    }
}

impl Output {
    /// The exit code; `128 + signal` when a signal ended it, as a shell counts.
    pub fn code(&self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        self.status
            .code()
            .or(self.status.signal().map(|signal| 128 + signal))
            .unwrap_or(-1)
    }

    /// Fails the test unless the command succeeded.
    #[track_caller]
    pub fn ok(self) -> Output {
        self.code_is(0)
    }

    /// Fails the test unless the command ended with this code.
    #[track_caller]
    pub fn code_is(self, code: i32) -> Output {
        assert_eq!(self.code(), code, "{self}");
        self
    }

    /// Fails the test unless the command failed and said this on standard error.
    #[track_caller]
    pub fn fails_with(self, text: &str) -> Output {
        assert_ne!(self.code(), 0, "{self}");
        assert!(self.stderr.contains(text), "no {text:?} in: {self}");
        self
    }

    /// Fails the test unless standard output is exactly this.
    #[track_caller]
    pub fn stdout_is(self, text: &str) -> Output {
        assert_eq!(self.stdout, text, "{self}");
        self
    }

    /// Fails the test unless standard output holds this.
    #[track_caller]
    pub fn stdout_has(self, text: &str) -> Output {
        assert!(self.stdout.contains(text), "no {text:?} in: {self}");
        self
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Output {
            command,
            status,
            stdout,
            stderr,
        } = self;
        write!(
            f,
            "{command}\n{status}\n-- stdout\n{stdout}\n-- stderr\n{stderr}"
        )
    }
}

/// Runs a command to its end with its output in files; see the module's head.
pub fn finish(command: &mut Command) -> Output {
    let dir = TempDir::new();
    let shown = format!("{command:?}");
    let file = |name: &str| {
        File::create(dir.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    command.stdout(file("stdout")).stderr(file("stderr"));
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {shown}: {error}"));
    let in_time = wait_exit(child.id(), COMMAND_MAX);
    if !in_time {
        let _ = child.kill();
    }
    let status = child
        .wait()
        .unwrap_or_else(|error| panic!("cannot wait for {shown}: {error}"));
    let text = |name: &str| {
        let bytes = fs::read(dir.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let (stdout, stderr) = (text("stdout"), text("stderr"));
    let output = Output {
        command: shown,
        status,
        stdout,
        stderr,
    };
    assert!(in_time, "no end after {COMMAND_MAX:?}: {output}");
    output
}

/// Waits for the exit of a child without reaping it; false when `limit` is over.
fn wait_exit(pid: u32, limit: Duration) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let Some(pidfd) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
        return true;
    };
    let Ok(timeout) = Timespec::try_from(limit) else {
        return true;
    };
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    poll(&mut fds, Some(&timeout)) != Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_code_of_a_command_are_taken() {
        let output = finish(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]));
        output.code_is(3).stdout_is("out\n").fails_with("err");
    }

    #[test]
    fn a_signal_counts_as_in_a_shell() {
        assert_eq!(
            finish(Command::new("sh").args(["-c", "kill -9 $$"])).code(),
            137
        );
    }
}
