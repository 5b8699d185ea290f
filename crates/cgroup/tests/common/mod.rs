//! Shared by the integration tests: a unique group on the real host, removed when dropped,
//! and a process to put into it.
#![allow(dead_code)] // each test binary uses its part

use carrack_cgroup::{Driver, Group, Layout, Mode, Request};
use carrack_testkit::{Skip, skip};
use std::path::PathBuf;
use std::process::{Child, Command};

/// A name that no other test, here or in another process, uses.
pub fn unique(what: &str) -> String {
    format!("{}-{what}", carrack_testkit::unique())
}

/// The host's layout when tests can make cgroups here.
pub fn host() -> Result<Layout, Skip> {
    skip::root()?;
    Layout::detect().map_err(|e| Skip::new(e.to_string()))
}

/// The same where a controller is there, by its names on v1 and v2.
pub fn host_with(v1: &str, v2: &str) -> Result<Layout, Skip> {
    let layout = host()?;
    match has_controller(&layout, v1, v2) {
        true => Ok(layout),
        false => Err(Skip::new(format!("the host has no {v1} controller"))),
    }
}

/// A group of its own, destroyed when dropped.
pub struct Guard(pub Group);

impl Guard {
    /// Makes a group at the root of the hierarchies.
    pub fn new(layout: &Layout, what: &str) -> Guard {
        let id = unique(what);
        Guard(create(layout, &format!("/{id}")).unwrap())
    }

    /// A sleeping process that was born in the group.
    pub fn sleeper(&self) -> Process {
        Process(self.0.spawn(Command::new("sleep").arg("1000")).unwrap())
    }

    /// A shell command that was born in the group.
    pub fn shell(&self, script: &str) -> Process {
        Process(
            self.0
                .spawn(Command::new("sh").args(["-c", script]))
                .unwrap(),
        )
    }

    /// The file of a v1 controller, or of the v2 group on a host without v1.
    pub fn file(&self, controller: &str, name: &str) -> PathBuf {
        let paths = self.0.paths();
        let dir = paths.get(controller).or_else(|| paths.get("")).unwrap();
        PathBuf::from(dir).join(name)
    }

    /// The file's text without the last newline.
    pub fn read(&self, controller: &str, name: &str) -> String {
        let path = self.file(controller, name);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        text.trim_end().to_owned()
    }
}

impl std::ops::Deref for Guard {
    type Target = Group;
    fn deref(&self) -> &Group {
        &self.0
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Err(e) = self.0.destroy() {
            eprintln!("cleaning up: {e}");
        }
    }
}

/// A group at an exact path.
pub fn create(layout: &Layout, path: &str) -> carrack_cgroup::Result<Group> {
    Group::create(
        layout,
        &Request {
            id: "unused",
            path,
            driver: Driver::Cgroupfs,
            ..Default::default()
        },
    )
}

/// A child process that is killed and reaped when dropped.
pub struct Process(pub Child);

impl Process {
    /// Sleeps.
    pub fn sleeper() -> Process {
        Process(Command::new("sleep").arg("1000").spawn().unwrap())
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.0.id().try_into().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// True on a host whose only hierarchy is v2.
pub fn pure_v2(layout: &Layout) -> bool {
    layout.mode() == Mode::Unified
}

/// True when the v2 root offers the controller (or v1 has it).
pub fn has_controller(layout: &Layout, v1: &str, v2: &str) -> bool {
    layout.hierarchies().iter().any(|h| {
        h.controllers.iter().any(|c| c == v1)
            || (h.controllers.is_empty()
                && std::fs::read_to_string(h.mountpoint.join("cgroup.controllers"))
                    .is_ok_and(|t| t.split_whitespace().any(|c| c == v2)))
    })
}

/// True when this controller's limits are v2 files here (pure v2, or a hybrid host that gave it to v2).
pub fn on_v2(layout: &Layout, v1: &str) -> bool {
    !layout
        .hierarchies()
        .iter()
        .any(|h| h.controllers.iter().any(|c| c == v1))
}
