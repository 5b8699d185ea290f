//! A container that is checkpointed and restored, and what looks at it.

use carrack_container::{
    CheckpointOptions, Container, CreateOptions, Created, CriuOptions, Error, RestoreOptions,
    Runtime, RuntimeOptions,
};
use carrack_spec::ContainerId;
use carrack_testkit::{Bundle, Skip, TempDir, leaks, skip, unique, wait_for};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;

/// A world of one test: bundle, state root, images.
pub struct World {
    pub bundle: Bundle,
    pub dir: TempDir,
    pub id: ContainerId,
    /// Whether cgroups are made by systemd.
    pub systemd: bool,
}

impl World {
    pub fn new() -> Result<Self, Skip> {
        skip::root()?;
        let criu = skip::program("criu")?;
        skip::program("iptables-restore")?;
        let check = Command::new(criu).arg("check").output();
        let check = check.map_err(|e| Skip::new(format!("cannot run criu: {e}")))?;
        if !check.status.success() {
            let text = String::from_utf8_lossy(&check.stderr).into_owned();
            let first = text.lines().next().unwrap_or("no reason").to_owned();
            return Err(Skip::new(format!("criu check fails: {first}")));
        }
        Ok(Self {
            bundle: Bundle::busybox()?,
            dir: TempDir::new(),
            id: unique().parse().unwrap(),
            systemd: false,
        })
    }

    /// The container counts into `/count` of its root file system, a line each time. It forks no more
    /// once it counts: on cgroup v1 criu fails at a process that it meets while it exits.
    pub fn counting() -> Result<Self, Skip> {
        let mut world = Self::new()?;
        world.bundle.shell(
            "mkfifo /pause; exec 9<>/pause; sleep 1000 & \
             i=0; while true; do i=$((i+1)); echo $i >>/count; read -t 0.05 x <&9; done",
        );
        Ok(world)
    }

    pub fn runtime(&self) -> Runtime {
        let options = RuntimeOptions {
            systemd_cgroup: self.systemd,
            ..RuntimeOptions::default()
        };
        Runtime::new(self.dir.path().join("state"), options)
    }

    pub fn images(&self) -> PathBuf {
        self.dir.path().join("images")
    }

    pub fn run(&self, stdio: [OwnedFd; 3]) -> Created {
        self.bundle.write();
        let options = CreateOptions {
            bundle: self.bundle.path().to_owned(),
            stdio: Some(stdio),
            ..CreateOptions::default()
        };
        told(self.runtime().run(&self.id, options))
    }

    pub fn criu(&self) -> CriuOptions {
        CriuOptions {
            images: self.images(),
            ..CriuOptions::default()
        }
    }

    pub fn dump(&self) -> CheckpointOptions {
        CheckpointOptions {
            criu: self.criu(),
            ..CheckpointOptions::default()
        }
    }

    pub fn restore(&self, stdio: [OwnedFd; 3]) -> Created {
        told(
            self.runtime()
                .restore(&self.id, self.restore_options(stdio)),
        )
    }

    pub fn restore_options(&self, stdio: [OwnedFd; 3]) -> RestoreOptions {
        RestoreOptions {
            criu: self.criu(),
            bundle: self.bundle.path().to_owned(),
            stdio: Some(stdio),
            ..RestoreOptions::default()
        }
    }

    pub fn count(&self) -> u64 {
        let text = std::fs::read_to_string(self.bundle.rootfs().join("count"));
        let text = text.unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let last = whole.rsplit('\n').next();
        last.and_then(|line| line.parse().ok()).unwrap_or(0)
    }

    pub fn wait_past(&self, count: u64) -> u64 {
        wait_for(&format!("a count past {count}"), || {
            let now = self.count();
            (now > count).then_some(now)
        })
    }

    pub fn assert_nothing_left(&self) {
        let left = leaks::of(self.id.as_str(), self.bundle.path());
        assert!(left.is_empty(), "left behind: {left:?}");
        let state = self.dir.path().join("state").join(self.id.as_str());
        assert!(!state.exists(), "{} is left", state.display());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Ok(container) = self.runtime().load(&self.id) {
            let _ = container.delete(true);
        }
    }
}

/// The value, or the error with all its causes.
#[track_caller]
pub fn told<T>(result: Result<T, Error>) -> T {
    result.unwrap_or_else(|error| panic!("{}", tell(&error)))
}

pub fn tell(error: &dyn std::error::Error) -> String {
    match error.source() {
        None => error.to_string(),
        Some(source) => format!("{error}: {}", tell(source)),
    }
}

pub fn null() -> [OwnedFd; 3] {
    [(); 3].map(|()| {
        File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .unwrap()
            .into()
    })
}

pub fn reap(created: &Created) {
    let _ = carrack_sys::pidfd::wait(created.pidfd.as_fd(), true);
}

pub fn stop(container: Container) {
    told(container.delete(true));
}

/// The next line of it.
pub fn line(from: &mut impl Read) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while from.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}
