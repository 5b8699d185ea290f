//! Who is measured, and how commands are typed.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::Bench;
use crate::bench::cost::{Sample, finish};

/// The peer.
pub const PODMAN: &str = "/usr/bin/podman";

/// A program with its way of keeping images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contender {
    /// `carrack` with its usual driver.
    Overlay,
    /// `carrack` with EROFS images over a pool of files.
    Pool,
    /// podman.
    Podman,
    /// The floor program.
    Floor,
}

impl Contender {
    /// Ours.
    pub const DRIVERS: [Contender; 2] = [Contender::Overlay, Contender::Pool];

    /// As in tables.
    pub fn name(self) -> &'static str {
        match self {
            Contender::Overlay => "overlay",
            Contender::Pool => "pool",
            Contender::Podman => "podman",
            Contender::Floor => "floor",
        }
    }
}

impl Bench {
    /// Everyone who can pull.
    pub fn contenders(&self) -> Vec<Contender> {
        let mut all = vec![Contender::Overlay, Contender::Pool, Contender::Floor];
        if self.podman {
            all.push(Contender::Podman);
        }
        all
    }

    /// The cost of a pull into a store below `at`.
    pub fn pull(&self, contender: Contender, at: &Path, shape: &str) -> Result<Sample> {
        let name = self.name(shape);
        match contender {
            Contender::Floor => {
                let mut command = Command::new(&self.floor);
                // What a store keeps is durable; in memory there is nothing to flush.
                command.arg("--flush");
                command.arg(name.trim_end_matches(":latest")).arg(at);
                self.measure(&command)
            }
            _ => self.cost(contender, at, &["pull", "--tls-verify=false", &name]),
        }
        .with_context(|| format!("{} pull {shape}", contender.name()))
    }

    /// The cost of a command of a contender with a store below `at`.
    pub fn cost(&self, contender: Contender, at: &Path, args: &[&str]) -> Result<Sample> {
        self.measure(&self.command(contender, at, args))
            .with_context(|| format!("{} {}", contender.name(), args.join(" ")))
    }

    /// Runs a command that is not measured.
    pub fn quietly(&self, contender: Contender, at: &Path, args: &[&str]) -> Result<()> {
        finish(&mut self.command(contender, at, args))
            .with_context(|| format!("{} {}", contender.name(), args.join(" ")))
    }

    /// The cost of any command.
    pub fn measure(&self, what: &Command) -> Result<Sample> {
        let result = self.scratch.path().join("result");
        let mut command = Command::new(&self.measure);
        command.arg(&result).arg(what.get_program());
        command.args(what.get_args());
        finish(&mut command)?;
        Sample::read(&result)
    }

    /// How a command of a contender with a store below `at` is typed.
    pub fn command(&self, contender: Contender, at: &Path, args: &[&str]) -> Command {
        let (program, runroot) = match contender {
            Contender::Podman => (Path::new(PODMAN), "--runroot"),
            _ => (self.carrack.as_path(), "--runroot"),
        };
        let mut command = Command::new(program);
        command.arg("--root").arg(at.join("store"));
        command.arg(runroot).arg(at.join("run"));
        match contender {
            Contender::Podman => {
                command.arg("--tmpdir").arg(at.join("tmp"));
                command.args(["--storage-driver", "overlay"]);
            }
            driver => {
                command.args(["--storage-driver", driver.name()]);
            }
        }
        command.args(args);
        command
    }
}
