//! Who is measured, and how each operation is typed.

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use carrack_testkit::{TempDir, unique};

use super::bundle::Bench;
use super::cost::{Sample, finish};

/// One measured command line, in the order of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `--version`.
    Version,
    /// `run` of `true` to its end.
    Run,
    /// `create`.
    Create,
    /// `state` of the created container.
    State,
    /// `start`.
    Start,
    /// `delete` of the stopped container.
    Delete,
    /// `exec` of `true` in a container that sleeps.
    Exec,
}

impl Operation {
    /// All of them, in the order of a round.
    pub const ALL: [Operation; 7] = [
        Operation::Version,
        Operation::Run,
        Operation::Create,
        Operation::State,
        Operation::Start,
        Operation::Delete,
        Operation::Exec,
    ];

    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Version => "--version",
            Operation::Run => "run",
            Operation::Create => "create",
            Operation::State => "state",
            Operation::Start => "start",
            Operation::Delete => "delete",
            Operation::Exec => "exec",
        }
    }
}

/// A program under measurement.
pub struct Contender<'a> {
    bench: &'a Bench,
    name: String,
    program: PathBuf,
    /// What makes the container that sleeps: the program itself, or ours for the floor.
    maker: PathBuf,
    without_unified: bool,
    floor: bool,
    prefix: String,
    state: TempDir,
    sleeper: String,
    /// The pid of that container's init, for the floor.
    sleeper_pid: OnceCell<String>,
}

/// Everyone that is installed.
pub fn all<'a>(bench: &'a Bench, ours: &Path) -> Vec<Contender<'a>> {
    let hybrid = Path::new("/sys/fs/cgroup/unified/cgroup.controllers").exists();
    let mut wanted = vec![
        ("carrack", ours.to_path_buf(), false),
        ("runc", "/usr/sbin/runc".into(), false),
        ("crun", "/usr/bin/crun".into(), hybrid),
        ("floor", bench.floor.clone(), false),
    ];
    if hybrid {
        wanted.insert(1, ("carrack", ours.to_path_buf(), true));
    }
    wanted.retain(|(name, program, _)| {
        let there = program.exists();
        if !there {
            println!("{name} is left out: no {}", program.display());
        }
        there
    });
    let wanted = wanted.into_iter();
    wanted
        .map(|(name, program, hide)| Contender::new(bench, name, program, ours, hide))
        .collect()
}

impl<'a> Contender<'a> {
    fn new(
        bench: &'a Bench,
        name: &str,
        program: PathBuf,
        ours: &Path,
        without_unified: bool,
    ) -> Self {
        let floor = name == "floor";
        let maker = if floor { ours } else { &program };
        let shown = if without_unified {
            format!("{name} -u")
        } else {
            name.to_string()
        };
        Contender {
            bench,
            name: shown,
            maker: maker.to_path_buf(),
            program,
            without_unified,
            floor,
            prefix: unique(),
            // Where state roots lie on a real host: /run is a tmpfs, as this is.
            state: TempDir::below(Path::new("/dev/shm")),
            sleeper: unique(),
            sleeper_pid: OnceCell::new(),
        }
    }

    /// As shown in tables.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The program's file.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The runtime's state directory.
    pub fn state(&self) -> &Path {
        self.state.path()
    }

    /// The id of the container that sleeps.
    pub fn sleeper(&self) -> &str {
        &self.sleeper
    }

    /// Whether the operation means anything here.
    pub fn can(&self, operation: Operation) -> bool {
        !self.floor || matches!(operation, Operation::Run | Operation::Exec)
    }

    /// The cost of one operation.
    pub fn measure(&self, operation: Operation, id: &str) -> Result<Sample> {
        self.measure_in(operation, id, &[])
    }

    /// The same with more flags for `measure`.
    pub fn measure_in(&self, operation: Operation, id: &str, flags: &[&str]) -> Result<Sample> {
        let result = self.state.path().join(".result");
        let mut command = self.wrapped(flags, &result);
        command.args(self.arguments(operation, id));
        finish(&mut command)?;
        Sample::read(&result)
    }

    /// System calls of one `run`, all processes together.
    pub fn count_syscalls(&self) -> Result<u64> {
        let counts = self.state.path().join(".strace");
        let mut command = self.wrapped(&[], &self.state.path().join(".result"));
        command.args(["strace", "-f", "-c", "-o"]).arg(&counts);
        command.args(self.arguments(Operation::Run, "strace"));
        finish(&mut command)?;
        let text = fs::read_to_string(&counts).context("no counts from strace")?;
        total_calls(&text).context("no total in the counts of strace")
    }

    /// Starts the container that `exec` enters; it is deleted when the value is dropped.
    pub fn start_sleeper(&self) -> Sleeper<'_> {
        let bundle = self.bench.sleeper.path().display().to_string();
        let mut command = self.of_maker(&["run", "--detach", "--bundle", &bundle, &self.sleeper]);
        if let Err(error) = finish(&mut command) {
            println!("{}: no container for exec: {error:#}", self.name);
        }
        if self.floor {
            let record = self.state.path().join(&self.sleeper).join("state.json");
            let text = fs::read_to_string(record).unwrap_or_default();
            let record: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            let _ = self.sleeper_pid.set(record["init_process_pid"].to_string());
        }
        Sleeper(self)
    }

    /// A command of what makes the container that sleeps.
    fn of_maker(&self, args: &[&str]) -> Command {
        let mut command = self.wrapped(&[], &self.state.path().join(".result"));
        command
            .arg(&self.maker)
            .arg("--root")
            .arg(self.state.path());
        command.args(args);
        command
    }

    fn wrapped(&self, flags: &[&str], result: &Path) -> Command {
        let mut command = Command::new(&self.bench.measure);
        if self.without_unified {
            command.arg("-u");
        }
        command.args(flags).arg(result);
        command
    }

    fn arguments(&self, operation: Operation, id: &str) -> Vec<String> {
        let program = self.program.display().to_string();
        let id = format!("{}-{id}", self.prefix);
        if self.floor && operation == Operation::Exec {
            let pid = self.sleeper_pid.get().cloned().unwrap_or_default();
            return vec![program, "-e".into(), pid, "/bin/true".into()];
        }
        if self.floor {
            let rootfs = self.bench.bundle.rootfs().display().to_string();
            return vec![program, rootfs, id, "/bin/true".into()];
        }
        let bundle = self.bench.bundle.path().display().to_string();
        let mut args = vec![
            program,
            "--root".into(),
            self.state.path().display().to_string(),
        ];
        let rest: Vec<&str> = match operation {
            Operation::Version => vec!["--version"],
            Operation::Run | Operation::Create => vec![operation.name(), "--bundle", &bundle, &id],
            Operation::State | Operation::Start | Operation::Delete => vec![operation.name(), &id],
            Operation::Exec => vec!["exec", &self.sleeper, "/bin/true"],
        };
        args.extend(rest.into_iter().map(String::from));
        args
    }
}

/// Deletes the sleeping container when dropped.
pub struct Sleeper<'a>(&'a Contender<'a>);

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        let _ = finish(&mut self.0.of_maker(&["delete", "--force", &self.0.sleeper]));
    }
}

/// The calls in the last line of strace's summary.
fn total_calls(text: &str) -> Option<u64> {
    let line = text.lines().rev().find(|line| line.ends_with(" total"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::total_calls;

    #[test]
    fn the_total_of_strace_is_found() {
        let text = "% time     seconds  usecs/call     calls    errors syscall\n\
                    ------ ----------- ----------- --------- --------- ----------------\n \
                    50.00    0.000100          10        10           read\n\
                    100.00    0.001200           4       258        12 total\n";
        assert_eq!(total_calls(text), Some(258));
    }
}
