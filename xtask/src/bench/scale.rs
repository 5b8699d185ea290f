//! Does the cost of `run` grow with what else is on the machine?
//!
//! The busy machine is a state directory with [`CONTAINERS`] more entries (copies of
//! a real one under other ids) and, in a private mount namespace, 5,000 more mounts.
//! Rounds on the empty and the busy machine alternate.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use carrack_testkit::TempDir;

use super::contender::{Contender, Operation};
use super::cost::Spread;

/// Entries added to the state directory.
const CONTAINERS: usize = 1000;

/// One contender on the empty and on the busy machine.
pub struct Growth {
    /// The contender.
    pub name: String,
    cpu: [Spread; 2],
    wall: [Spread; 2],
}

impl Growth {
    /// Busy over empty, CPU time.
    pub fn cpu_ratio(&self) -> f64 {
        self.cpu[1].median / self.cpu[0].median
    }

    /// Busy over empty, wall time.
    pub fn wall_ratio(&self) -> f64 {
        self.wall[1].median / self.wall[0].median
    }
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<11} run, empty to busy machine: CPU {:.2} to {:.2} ms ({:.2}), wall {:.2} to {:.2} ms ({:.2})",
            self.name,
            self.cpu[0].median,
            self.cpu[1].median,
            self.cpu_ratio(),
            self.wall[0].median,
            self.wall[1].median,
            self.wall_ratio()
        )
    }
}

/// Measures all contenders but those that hide the unified hierarchy.
pub fn measure(contenders: &[Contender<'_>], rounds: usize) -> Result<Vec<Growth>> {
    println!("\n{CONTAINERS} more containers in the state directory, 5,000 more mounts:");
    let mounts = TempDir::new();
    let flags = ["-m", &mounts.path().display().to_string()];
    let mut grown = Vec::new();
    for contender in contenders
        .iter()
        .filter(|contender| !contender.name().ends_with(" -u"))
    {
        let (mut cpu, mut wall) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        for round in 0..rounds {
            for (busy, flags) in [&[][..], &flags[..]].into_iter().enumerate() {
                // The copies come and go with the busy half of the round.
                let _crowd = (busy == 1).then(|| Crowd::make(contender)).transpose()?;
                let id = format!("s{round}-{busy}");
                let sample = contender.measure_in(Operation::Run, &id, flags)?;
                cpu[busy].push(sample.cpu_ms);
                wall[busy].push(sample.wall_ms);
            }
        }
        let spreads = |lists: [Vec<f64>; 2]| {
            let [empty, busy] = lists.map(Spread::of);
            Some([empty?, busy?])
        };
        let (cpu, wall) = (spreads(cpu), spreads(wall));
        let (cpu, wall) = cpu.zip(wall).context("no rounds")?;
        grown.push(Growth {
            name: contender.name().to_string(),
            cpu,
            wall,
        });
    }
    Ok(grown)
}

/// Copies of a real container's state, removed when dropped.
struct Crowd<'a>(&'a Path);

impl<'a> Crowd<'a> {
    fn make(contender: &'a Contender<'_>) -> Result<Crowd<'a>> {
        let crowd = Crowd(contender.state());
        let sleeper = contender.start_sleeper();
        let model = contender.state().join(contender.sleeper());
        for at in 0..CONTAINERS {
            let id = format!("crowd-{at}");
            copy_state(
                &model,
                &contender.state().join(&id),
                contender.sleeper(),
                &id,
            )?;
        }
        drop(sleeper);
        Ok(crowd)
    }
}

impl Drop for Crowd<'_> {
    fn drop(&mut self) {
        for at in 0..CONTAINERS {
            let _ = fs::remove_dir_all(self.0.join(format!("crowd-{at}")));
        }
    }
}

/// Copies the regular files of a state directory with another id in their text.
fn copy_state(from: &Path, to: &Path, old: &str, new: &str) -> Result<()> {
    if !from.is_dir() {
        return Ok(()); // the floor keeps no state
    }
    fs::create_dir_all(to).with_context(|| format!("{}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("{}", from.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            let text = fs::read(entry.path())?;
            let text = String::from_utf8_lossy(&text).replace(old, new);
            fs::write(to.join(entry.file_name()), text)?;
        }
    }
    Ok(())
}
