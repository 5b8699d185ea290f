//! All samples, by operation and contender.

use crate::bench::cost::{Sample, Spread};

/// Rows in the order in which they came.
#[derive(Default)]
pub struct Table {
    rows: Vec<Row>,
}

struct Row {
    operation: String,
    contender: String,
    samples: Vec<Sample>,
}

impl Table {
    /// Adds a sample.
    pub fn add(&mut self, operation: &str, contender: &str, sample: Sample) {
        let row = self.rows.iter_mut();
        let mut row = row.filter(|r| r.operation == operation && r.contender == contender);
        match row.next() {
            Some(row) => row.samples.push(sample),
            None => self.rows.push(Row {
                operation: operation.to_owned(),
                contender: contender.to_owned(),
                samples: vec![sample],
            }),
        }
    }

    fn samples(&self, operation: &str, contender: &str) -> Option<&[Sample]> {
        let mut rows = self.rows.iter();
        let row = rows.find(|r| r.operation == operation && r.contender == contender)?;
        Some(&row.samples)
    }

    /// Median wall time in milliseconds.
    pub fn wall(&self, operation: &str, contender: &str) -> Option<f64> {
        let samples = self.samples(operation, contender)?;
        Some(Spread::of(samples.iter().map(|s| s.wall_ms).collect())?.median)
    }

    /// Median CPU time in milliseconds.
    pub fn cpu(&self, operation: &str, contender: &str) -> Option<f64> {
        let samples = self.samples(operation, contender)?;
        Some(Spread::of(samples.iter().map(|s| s.cpu_ms).collect())?.median)
    }

    /// Greatest resident set of a contender in MiB, over all operations.
    pub fn peak_mib(&self, contender: &str) -> f64 {
        let rows = self.rows.iter().filter(|row| row.contender == contender);
        let kib = rows.flat_map(|row| &row.samples).map(|s| s.rss_kib).max();
        kib.unwrap_or(0) as f64 / 1024.0
    }

    /// Prints medians and minima.
    pub fn print(&self) {
        println!(
            "\n{:<18} {:<9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>6}",
            "", "", "wall ms", "wall ms", "CPU ms", "CPU ms", "peak RSS", ""
        );
        println!(
            "{:<18} {:<9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>6}",
            "", "", "median", "least", "median", "least", "MiB", "times"
        );
        for row in &self.rows {
            let spread = |of: fn(&Sample) -> f64| Spread::of(row.samples.iter().map(of).collect());
            let (Some(wall), Some(cpu)) = (spread(|s| s.wall_ms), spread(|s| s.cpu_ms)) else {
                continue;
            };
            let rss = row.samples.iter().map(|s| s.rss_kib).max().unwrap_or(0);
            println!(
                "{:<18} {:<9} {:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>9.1} {:>6}",
                row.operation,
                row.contender,
                wall.median,
                wall.least,
                cpu.median,
                cpu.least,
                rss as f64 / 1024.0,
                row.samples.len()
            );
        }
    }
}
