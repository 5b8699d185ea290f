//! Shared by the integration tests: a bundle that is run by the library on the real
//! kernel, with what it printed, how it ended, and whether it left anything behind.
#![allow(dead_code)] // each test program uses its part

use carrack_container::{
    Console, Container, CreateOptions, Created, Error, Exit, Runtime, RuntimeOptions,
};
use carrack_spec::ContainerId;
use carrack_testkit::{Bundle, Skip, TempDir, leaks, skip, unique, wait_for};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// How long a container of a test may run.
const RUN_MAX: Duration = Duration::from_secs(30);

/// A bundle, and a state root of its own.
pub struct World {
    pub bundle: Bundle,
    pub runtime: Runtime,
    pub id: ContainerId,
    state: TempDir,
}

/// How a container ended.
pub struct Ran {
    pub exit: Exit,
    pub output: String,
}

impl World {
    /// Root, a kernel and busybox, or a skip.
    pub fn new() -> Result<World, Skip> {
        World::with(RuntimeOptions::default())
    }

    /// The same in strict mode or with other choices.
    pub fn with(options: RuntimeOptions) -> Result<World, Skip> {
        skip::root()?;
        let state = TempDir::new();
        Ok(World {
            bundle: Bundle::busybox()?,
            runtime: Runtime::new(state.path().join("state"), options),
            id: unique().parse().expect("the name is an id"),
            state,
        })
    }

    /// A directory for the test's own files.
    pub fn dir(&self) -> &Path {
        self.state.path()
    }

    pub fn options(&self) -> CreateOptions {
        self.bundle.write();
        CreateOptions {
            bundle: self.bundle.path().to_owned(),
            ..CreateOptions::default()
        }
    }

    /// Runs the bundle to its end; what it printed on both streams.
    pub fn try_run(&self) -> Result<Ran, Error> {
        self.try_run_with(|_| {})
    }

    pub fn try_run_with(&self, adjust: impl FnOnce(&mut CreateOptions)) -> Result<Ran, Error> {
        let mut output = tempfile::tempfile().expect("a temporary file");
        let mut options = self.options();
        options.stdio = Some(streams(&output));
        adjust(&mut options);
        let created = self.runtime.run(&self.id, options);
        let created = match created {
            Ok(created) => created,
            Err(error) => {
                self.assert_nothing_left();
                return Err(error);
            }
        };
        let exit = wait(&created.pidfd);
        created.container.delete(true).expect("delete");
        self.assert_nothing_left();
        let mut text = String::new();
        output.rewind().expect("rewind");
        output.read_to_string(&mut text).expect("UTF-8");
        Ok(Ran { exit, output: text })
    }

    /// Runs the bundle, which must succeed; its output.
    pub fn run(&self) -> String {
        let ran = self
            .try_run()
            .unwrap_or_else(|error| panic!("{}", chain(&error)));
        assert_eq!(ran.exit, Exit::Code(0), "it printed: {}", ran.output);
        ran.output
    }

    /// Runs a shell script in the bundle; its output.
    pub fn sh(&mut self, script: &str) -> String {
        self.bundle.shell(script);
        self.run()
    }

    /// The error of a bundle that cannot be run, with its causes.
    pub fn error(&self) -> String {
        match self.try_run() {
            Err(error) => chain(&error),
            Ok(ran) => panic!("it ran, {:?}: {}", ran.exit, ran.output),
        }
    }

    /// Makes the container; it waits for start, and runs `sleep` then.
    pub fn create(&self) -> Live<'_> {
        self.made(false, |_| {})
    }

    /// Makes and starts the container in the background.
    pub fn start(&self) -> Live<'_> {
        self.made(true, |_| {})
    }

    pub fn made(&self, start: bool, adjust: impl FnOnce(&mut CreateOptions)) -> Live<'_> {
        let output = tempfile::tempfile().expect("a temporary file");
        let mut options = self.options();
        options.stdio = Some(streams(&output));
        adjust(&mut options);
        let created = match start {
            true => self.runtime.run(&self.id, options),
            false => self.runtime.create(&self.id, options),
        };
        let created = created.unwrap_or_else(|error| panic!("{}", chain(&error)));
        Live {
            world: self,
            created: Some(created),
            output,
        }
    }

    pub fn assert_nothing_left(&self) {
        let left = leaks::of(self.id.as_str(), self.bundle.path());
        assert!(left.is_empty(), "left behind: {left:?}");
        let state = self.runtime.root().join(self.id.as_str());
        assert!(!state.exists(), "left behind: {}", state.display());
    }
}

/// A container that lives, deleted when dropped.
pub struct Live<'a> {
    world: &'a World,
    created: Option<Created>,
    output: File,
}

impl Live<'_> {
    pub fn container(&mut self) -> &mut Container {
        &mut self.created.as_mut().expect("it lives").container
    }

    pub fn pid(&self) -> i32 {
        let created = self.created.as_ref().expect("it lives");
        created.container.record().init_process_pid
    }

    pub fn console(&mut self) -> OwnedFd {
        let created = self.created.as_mut().expect("it lives");
        created.console.take().expect("a terminal")
    }

    /// Sends init a signal.
    pub fn kill(&self, signal: i32) {
        let created = self.created.as_ref().expect("it lives");
        created.container.kill(signal, false).expect("a signal");
    }

    pub fn wait(&self) -> Exit {
        wait(&self.created.as_ref().expect("it lives").pidfd)
    }

    /// What it printed so far.
    pub fn output(&mut self) -> String {
        let mut text = String::new();
        self.output.rewind().expect("rewind");
        self.output.read_to_string(&mut text).expect("UTF-8");
        text
    }

    /// Waits until it printed the text; all it printed so far.
    pub fn expect(&mut self, text: &str) -> String {
        wait_for(&format!("{text:?} in the output"), || {
            Some(self.output()).filter(|output| output.contains(text))
        })
    }

    /// Runs a script in the container; what it printed.
    pub fn exec(&mut self, script: &str) -> String {
        self.exec_with(script, |_| {})
    }

    pub fn exec_with(
        &mut self,
        script: &str,
        adjust: impl FnOnce(&mut carrack_container::ExecOptions),
    ) -> String {
        let (exit, output) = self
            .try_exec(script, adjust)
            .unwrap_or_else(|error| panic!("{}", chain(&error)));
        assert_eq!(exit, Exit::Code(0), "it printed: {output}");
        output
    }

    pub fn try_exec(
        &mut self,
        script: &str,
        adjust: impl FnOnce(&mut carrack_container::ExecOptions),
    ) -> Result<(Exit, String), Error> {
        let mut output = tempfile::tempfile().expect("a temporary file");
        let container = self.container();
        let mut process = container.exec_process()?;
        process.args = ["sh", "-c", script].map(str::to_owned).into();
        let mut options = carrack_container::ExecOptions {
            process,
            stdio: Some(streams(&output)),
            ..Default::default()
        };
        adjust(&mut options);
        let executed = container.exec(options)?;
        let exit = wait(&executed.pidfd);
        let mut text = String::new();
        output.rewind().expect("rewind");
        output.read_to_string(&mut text).expect("UTF-8");
        Ok((exit, text))
    }

    pub fn delete(mut self) {
        self.end();
        self.world.assert_nothing_left();
    }

    fn end(&mut self) {
        if let Some(created) = self.created.take() {
            let result = created.container.delete(true);
            if !std::thread::panicking() {
                result.expect("delete");
            }
        }
    }
}

impl Drop for Live<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

/// No input, and one file for both outputs, written at its end.
pub fn streams(output: &File) -> [OwnedFd; 3] {
    rustix::fs::fcntl_setfl(output, rustix::fs::OFlags::APPEND).expect("append");
    let copy = || OwnedFd::from(output.try_clone().expect("a copy"));
    let null = File::open("/dev/null").expect("/dev/null");
    [null.into(), copy(), copy()]
}

/// The test calls mount(8) or ip(8) of the host, which a policy may confine.
pub fn tools_are_free() -> Result<(), Skip> {
    match std::fs::read_to_string("/sys/fs/selinux/enforce") {
        Ok(text) if text.trim() == "1" => {
            Err(Skip::new("SELinux confines the host's mount and ip here"))
        }
        _ => Ok(()),
    }
}

/// Waits for a child, which is killed when it takes too long.
pub fn wait(process: &OwnedFd) -> Exit {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let timeout = Timespec::try_from(RUN_MAX).expect("a short time");
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    if poll(&mut fds, Some(&timeout)) == Ok(0) {
        let _ = carrack_sys::pidfd::send_signal(process.as_fd(), 9);
    }
    carrack_sys::pidfd::wait(process.as_fd(), true)
        .expect("wait")
        .expect("an end")
}

/// An error and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

/// A terminal for the caller.
pub fn to_caller(options: &mut CreateOptions) {
    options.console = Console::Master;
    options.stdio = None;
}

/// The `key:` line of a `/proc/PID/status` text.
pub fn status_line<'a>(text: &'a str, key: &str) -> &'a str {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
        .unwrap_or_else(|| panic!("no {key} in {text}"))
        .trim()
}

/// Users and groups from 200000 on, and a root file system that is theirs.
pub fn user_namespace(world: &mut World) {
    let map = serde_json::json!([{"containerID": 0, "hostID": 200_000, "size": 65_536}]);
    world
        .bundle
        .push("/linux/namespaces", serde_json::json!({"type": "user"}));
    world.bundle.set("/linux/uidMappings", map.clone());
    world.bundle.set("/linux/gidMappings", map);
    world.bundle.chown(200_000, 200_000);
}
