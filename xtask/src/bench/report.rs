//! Samples, the table over them, and the targets.

use std::fs;

use anyhow::Result;

use super::contender::{Contender, Operation};
use super::cost::{Sample, Spread, verdict};
use super::scale::Growth;

/// Names of the contenders that targets speak of.
const OURS: &str = "carrack";

/// Everything measured so far.
pub struct Report {
    rows: Vec<Row>,
}

struct Row {
    name: String,
    bytes: u64,
    syscalls: Option<u64>,
    samples: Vec<(Operation, Sample)>,
}

impl Report {
    /// An empty report.
    pub fn new(contenders: &[Contender<'_>]) -> Report {
        let row = |contender: &Contender<'_>| Row {
            name: contender.name().to_string(),
            bytes: 0,
            syscalls: None,
            samples: Vec::new(),
        };
        Report {
            rows: contenders.iter().map(row).collect(),
        }
    }

    /// Adds a sample of the contender at this index.
    pub fn add(&mut self, at: usize, operation: Operation, sample: Sample) {
        if let Some(row) = self.rows.get_mut(at) {
            row.samples.push((operation, sample));
        }
    }

    /// Takes the size of the contender's program.
    pub fn size(&mut self, contender: &Contender<'_>) {
        let bytes = fs::metadata(contender.program()).map_or(0, |metadata| metadata.len());
        if let Some(row) = self.row_mut(contender.name()) {
            row.bytes = bytes;
        }
    }

    /// Counts the system calls of one `run`.
    pub fn syscalls(&mut self, contender: &Contender<'_>) -> Result<()> {
        let counted = contender.count_syscalls();
        if let Err(error) = &counted {
            println!("{}: system calls not counted: {error:#}", contender.name());
        }
        if let Some(row) = self.row_mut(contender.name()) {
            row.syscalls = counted.ok();
        }
        Ok(())
    }

    fn row_mut(&mut self, name: &str) -> Option<&mut Row> {
        self.rows.iter_mut().find(|row| row.name == name)
    }

    fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// The peer's row and ours under the same conditions: beside `crun -u` that is `carrack -u`.
    fn pair(&self, peer: &str) -> Option<(&Row, &Row)> {
        let hidden = format!("{peer} -u");
        match (self.row(&hidden), self.row(&format!("{OURS} -u"))) {
            (Some(peer), Some(ours)) => Some((ours, peer)),
            _ => Some((
                self.row(OURS)?,
                self.row(peer).or_else(|| self.row(&hidden))?,
            )),
        }
    }

    /// Prints medians and minima of each operation.
    pub fn print_table(&self) {
        println!(
            "\n{:<10} {:<11} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "", "", "CPU ms", "CPU ms", "wall ms", "wall ms", "peak RSS"
        );
        println!(
            "{:<10} {:<11} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "", "", "median", "least", "median", "least", "KiB"
        );
        for operation in Operation::ALL {
            for row in &self.rows {
                let (Some(cpu), Some(wall)) = (row.cpu(operation), row.wall(operation)) else {
                    continue;
                };
                println!(
                    "{:<10} {:<11} {:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>9}",
                    operation.name(),
                    row.name,
                    cpu.median,
                    cpu.least,
                    wall.median,
                    wall.least,
                    row.rss(operation)
                );
            }
        }
        println!(
            "\n{:<11} {:>14} {:>18}",
            "", "program bytes", "system calls, run"
        );
        for row in &self.rows {
            let calls = row
                .syscalls
                .map_or("?".to_string(), |calls| calls.to_string());
            println!("{:<11} {:>14} {:>18}", row.name, row.bytes, calls);
        }
    }

    /// Prints each target with the figure reached. True when those are reached that do not
    /// depend on time.
    pub fn print_targets(&self, growth: &[Growth]) -> bool {
        for grown in growth {
            println!("{grown}");
        }
        let Some(ours) = self.row(OURS) else {
            println!("\nno targets: {OURS} was not measured");
            return false;
        };
        println!("\n{:<52} {:>8} {:>8}", "target", "at most", "reached");
        self.print_ratios();
        let rss = Operation::ALL
            .iter()
            .map(|operation| ours.rss(*operation))
            .max()
            .unwrap_or(0);
        let mut reached = verdict("peak RSS of any process, KiB", 2048.0, rss as f64);
        reached &= verdict("program, MiB", 3.0, ours.bytes as f64 / f64::from(1 << 20));
        if let Some(calls) = ours.syscalls {
            reached &= verdict("system calls of run", 350.0, calls as f64);
        }
        for grown in growth.iter().filter(|grown| grown.name == OURS) {
            verdict(
                "run beside 1,000 containers and 5,000 mounts: CPU",
                1.3,
                grown.cpu_ratio(),
            );
            verdict(
                "run beside 1,000 containers and 5,000 mounts: wall",
                1.3,
                grown.wall_ratio(),
            );
        }
        reached
    }

    fn print_ratios(&self) {
        let third = 1.0 / 3.0;
        let mut targets = vec![
            ("floor", Operation::Run, Some(1.2), None),
            ("runc", Operation::Run, Some(0.16), None),
            ("crun", Operation::Run, Some(0.30), Some(0.40)),
            ("crun", Operation::Exec, Some(0.5), Some(0.25)),
        ];
        targets.extend(
            [
                Operation::Create,
                Operation::Start,
                Operation::State,
                Operation::Delete,
                Operation::Version,
            ]
            .map(|operation| ("crun", operation, Some(third), Some(third))),
        );
        for (peer, operation, cpu_max, wall_max) in targets {
            let Some((ours, theirs)) = self.pair(peer) else {
                continue;
            };
            let name = operation.name();
            if let (Some(max), Some(a), Some(b)) =
                (cpu_max, ours.cpu(operation), theirs.cpu(operation))
            {
                verdict(
                    &format!("{name}: CPU / {}", theirs.name),
                    max,
                    a.median / b.median,
                );
            }
            if let (Some(max), Some(a), Some(b)) =
                (wall_max, ours.wall(operation), theirs.wall(operation))
            {
                verdict(
                    &format!("{name}: wall / {}", theirs.name),
                    max,
                    a.median / b.median,
                );
            }
        }
    }
}

impl Row {
    fn of(&self, operation: Operation) -> impl Iterator<Item = &Sample> {
        self.samples
            .iter()
            .filter(move |(of, _)| *of == operation)
            .map(|(_, sample)| sample)
    }

    fn cpu(&self, operation: Operation) -> Option<Spread> {
        Spread::of(self.of(operation).map(|sample| sample.cpu_ms).collect())
    }

    fn wall(&self, operation: Operation) -> Option<Spread> {
        Spread::of(self.of(operation).map(|sample| sample.wall_ms).collect())
    }

    fn rss(&self, operation: Operation) -> u64 {
        self.of(operation)
            .map(|sample| sample.rss_kib)
            .max()
            .unwrap_or(0)
    }
}
