//! A process to run in a container: its program, user, rights and streams.
//!
//! The same settings serve a container's first process (through
//! [`super::ContainerBuilder`]) and one that joins later ([`super::Running::exec`]).
//! Setters never fail; the first mistake is kept until the process is made.

use super::Stdio;
use crate::error::Error;
use crate::options::{Console, ExecOptions};
use carrack_spec::runtime::{Capabilities, ConsoleSize, Process, Rlimit, User};
use carrack_spec::{capability, defaults};
use std::collections::BTreeSet;

/// A process to run in a container.
///
/// For an exec, what is not set here is as for the container's first process:
/// environment, working directory, user, capabilities, limits.
///
/// ```no_run
/// # use carrack_container::{Command, Running, Stdio};
/// # fn f(running: &Running) -> Result<(), carrack_container::Error> {
/// let output = running
///     .exec(Command::new(["cat", "/etc/hostname"]).stdout(Stdio::Piped))?
///     .wait_with_output()?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Command {
    args: Vec<String>,
    env: Vec<(String, String)>,
    cwd: Option<String>,
    user: Option<(u32, u32)>,
    groups: Option<Vec<u32>>,
    umask: Option<u32>,
    added: BTreeSet<String>,
    dropped: BTreeSet<String>,
    new_privileges: Option<bool>,
    rlimits: Vec<Rlimit>,
    oom_score: Option<i32>,
    terminal: Option<ConsoleSize>,
    group: Option<String>,
    pub(super) streams: [Stdio; 3],
    mistake: Option<(&'static str, String)>,
}

impl Command {
    /// A program and its arguments. A program without a slash is sought in the container's `PATH`.
    pub fn new<S: Into<String>>(args: impl IntoIterator<Item = S>) -> Self {
        Self::default().command(args)
    }

    pub(super) fn command<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args = args.into_iter().map(Into::into).collect();
        self
    }

    fn wrong(&mut self, setting: &'static str, reason: String) {
        self.mistake.get_or_insert((setting, reason));
    }

    /// Sets one environment variable.
    pub fn env(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        let name = name.as_ref();
        if name.is_empty() || name.contains(['=', '\0']) {
            self.wrong("env", format!("{name:?} is no name of a variable"));
            return self;
        }
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// The working directory, absolute; made when it is missing.
    pub fn current_dir(mut self, path: impl Into<String>) -> Self {
        self.cwd = Some(path.into());
        self
    }

    /// User and group by number, as ids inside the container.
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.user = Some((uid, gid));
        self
    }

    /// Supplementary groups.
    pub fn groups(mut self, gids: impl IntoIterator<Item = u32>) -> Self {
        self.groups = Some(gids.into_iter().collect());
        self
    }

    /// The file mode creation mask.
    pub fn umask(mut self, mask: u32) -> Self {
        self.umask = Some(mask);
        self
    }

    /// Gives a capability, by name with or without `CAP_`; `ALL` gives every one.
    pub fn add_capability(mut self, name: &str) -> Self {
        for name in self.capability("add_capability", name) {
            self.added.insert(name);
        }
        self
    }

    /// Takes a capability away; `ALL` takes every one that is not added.
    pub fn drop_capability(mut self, name: &str) -> Self {
        for name in self.capability("drop_capability", name) {
            self.dropped.insert(name);
        }
        self
    }

    fn capability(&mut self, setting: &'static str, name: &str) -> Vec<String> {
        if name.eq_ignore_ascii_case("ALL") {
            return capability::NAMES.map(str::to_owned).to_vec();
        }
        if let Some(full) = capability::full_name(name) {
            return vec![full.to_owned()];
        }
        self.wrong(setting, format!("there is no capability {name:?}"));
        Vec::new()
    }

    /// Whether programs may gain privileges by being executed.
    pub fn allow_new_privileges(mut self, allow: bool) -> Self {
        self.new_privileges = Some(allow);
        self
    }

    /// A limit of setrlimit(2) by name (`NOFILE` or `RLIMIT_NOFILE`); `u64::MAX` is no limit.
    pub fn rlimit(mut self, name: &str, soft: u64, hard: u64) -> Self {
        let upper = name.to_ascii_uppercase();
        let kind = match upper.starts_with("RLIMIT_") {
            true => upper,
            false => format!("RLIMIT_{upper}"),
        };
        self.rlimits.retain(|limit| limit.kind != kind);
        self.rlimits.push(Rlimit { kind, hard, soft });
        self
    }

    /// How early the kernel kills the process when memory is short, -1000 (last) to 1000 (first).
    pub fn oom_score(mut self, value: i32) -> Self {
        self.oom_score = Some(value);
        self
    }

    /// Gives the process a terminal of this size as its streams.
    pub fn terminal(mut self, rows: u16, columns: u16) -> Self {
        self.terminal = Some(ConsoleSize {
            height: rows,
            width: columns,
        });
        self
    }

    /// Puts the process of an exec into this nested group of the container (made with
    /// [`super::Running::group`]) instead of the container's own.
    pub fn group(mut self, name: impl Into<String>) -> Self {
        self.group = Some(name.into());
        self
    }

    /// Standard input; inherited by default.
    pub fn stdin(mut self, stream: Stdio) -> Self {
        self.streams[0] = stream;
        self
    }

    /// Standard output; inherited by default.
    pub fn stdout(mut self, stream: Stdio) -> Self {
        self.streams[1] = stream;
        self
    }

    /// Standard error; inherited by default.
    pub fn stderr(mut self, stream: Stdio) -> Self {
        self.streams[2] = stream;
        self
    }

    /// Whether the process has a terminal.
    pub(super) fn has_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// The first process of a container.
    pub(super) fn first_process(&self) -> Result<Process, Error> {
        let base = Process {
            cwd: "/".into(),
            no_new_privileges: true,
            ..Process::default()
        };
        let mut process = self.over(base)?;
        if !self.env.iter().any(|(name, _)| name == "PATH") {
            process.env.insert(0, format!("PATH={}", defaults::PATH));
        }
        let defaults = defaults::CAPABILITIES.map(str::to_owned).into();
        process.capabilities = Some(self.capabilities(&defaults, process.user.uid));
        Ok(process)
    }

    /// What an exec asks of the runtime; `base` is the container's first process.
    pub(super) fn exec_options(&self, base: Process) -> Result<ExecOptions, Error> {
        let bounding: BTreeSet<String> = base
            .capabilities
            .iter()
            .flat_map(|caps| caps.bounding.iter().cloned())
            .collect();
        let own_rights = self.user.is_some() || !self.added.is_empty() || !self.dropped.is_empty();
        let mut process = self.over(base)?;
        if own_rights {
            process.capabilities = Some(self.capabilities(&bounding, process.user.uid));
        }
        Ok(ExecOptions {
            process,
            console: match self.terminal {
                Some(_) => Console::Master,
                None => Console::None,
            },
            cgroup: self.group.iter().cloned().collect(),
            ..ExecOptions::default()
        })
    }

    /// These settings over those of another process.
    fn over(&self, base: Process) -> Result<Process, Error> {
        if let Some((setting, reason)) = &self.mistake {
            return Err(Error::Setting {
                setting,
                reason: reason.clone(),
            });
        }
        if self.args.is_empty() {
            return Err(Error::Setting {
                setting: "command",
                reason: "there is no program to run".into(),
            });
        }
        let mut process = base;
        process.args.clone_from(&self.args);
        process.terminal = self.terminal.is_some();
        process.console_size = self.terminal;
        for (name, value) in &self.env {
            let prefix = format!("{name}=");
            process.env.retain(|known| !known.starts_with(&prefix));
            process.env.push(format!("{prefix}{value}"));
        }
        if let Some(cwd) = &self.cwd {
            process.cwd.clone_from(cwd);
        }
        if let Some((uid, gid)) = self.user {
            process.user = User {
                uid,
                gid,
                umask: process.user.umask,
                ..User::default()
            };
        }
        if let Some(groups) = &self.groups {
            process.user.additional_gids.clone_from(groups);
        }
        process.user.umask = self.umask.or(process.user.umask);
        if let Some(allow) = self.new_privileges {
            process.no_new_privileges = !allow;
        }
        for limit in &self.rlimits {
            process.rlimits.retain(|known| known.kind != limit.kind);
            process.rlimits.push(limit.clone());
        }
        process.oom_score_adj = self.oom_score.or(process.oom_score_adj);
        Ok(process)
    }

    /// The five sets. Root has all of the bounding set in force; for another user the kernel
    /// drops that at exec, so that only what was asked for by name is kept, as ambient.
    fn capabilities(&self, defaults: &BTreeSet<String>, uid: u32) -> Capabilities {
        let kept = defaults.difference(&self.dropped);
        let all: BTreeSet<&String> = kept.chain(&self.added).collect();
        let list = |set: BTreeSet<&String>| set.into_iter().cloned().collect::<Vec<_>>();
        let in_force = match uid {
            0 => list(all.clone()),
            _ => list(self.added.iter().collect()),
        };
        let ambient = match uid {
            0 => Vec::new(),
            _ => in_force.clone(),
        };
        Capabilities {
            bounding: list(all),
            effective: in_force.clone(),
            permitted: in_force,
            inheritable: ambient.clone(),
            ambient,
        }
    }
}
