//! What one command cost, by `bench/measure.c`; medians, and figures beside their targets.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The cost of one command.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Wall time in milliseconds.
    pub wall_ms: f64,
    /// CPU time of the process tree in milliseconds.
    pub cpu_ms: f64,
    /// Peak resident set of the largest process in KiB.
    pub rss_kib: u64,
}

impl Sample {
    /// Reads what `measure` wrote.
    pub fn read(result: &Path) -> Result<Sample> {
        let text = fs::read_to_string(result).context("no result from measure")?;
        parse_sample(&text).with_context(|| format!("measure said {text:?}"))
    }
}

/// Runs `measure`; its output goes to files, as a container that stays may hold it open.
pub fn finish(command: &mut Command) -> Result<()> {
    let output = carrack_testkit::runtime::finish(command.stdin(Stdio::null()));
    if !output.status.success() {
        bail!("{}: {}", output.status, output.stderr.trim());
    }
    Ok(())
}

/// `wall_ns cpu_ns rss_kib status`.
fn parse_sample(text: &str) -> Option<Sample> {
    let mut numbers = text.split_whitespace().map(str::parse::<u64>);
    let mut next = || numbers.next()?.ok();
    let ms = |ns: u64| ns as f64 / 1e6;
    Some(Sample {
        wall_ms: ms(next()?),
        cpu_ms: ms(next()?),
        rss_kib: next()?,
    })
}

/// Middle and least of a list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The minimum.
    pub least: f64,
}

impl Spread {
    /// Over any order of values; none for an empty list.
    pub fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        let low = *values.get(values.len().checked_sub(1)? / 2)?;
        let high = *values.get(values.len() / 2)?;
        Some(Spread {
            median: (low + high) / 2.0,
            least: *values.first()?,
        })
    }
}

/// Prints a figure beside what it may be at most; true when it is within.
pub fn verdict(what: &str, max: f64, reached: f64) -> bool {
    let within = reached <= max;
    let word = if within { "" } else { "  MISSED" };
    println!("{what:<52} {max:>8.2} {reached:>8.2}{word}");
    within
}

#[cfg(test)]
mod tests {
    use super::{Spread, parse_sample};

    #[test]
    fn a_line_of_measure_is_parsed() {
        let sample = parse_sample("4400000 4600000 1240 0\n").unwrap();
        assert_eq!(
            (sample.wall_ms, sample.cpu_ms, sample.rss_kib),
            (4.4, 4.6, 1240)
        );
        assert!(parse_sample("1 x").is_none());
    }

    #[test]
    fn medians_of_odd_and_even_lists() {
        let spread = |values: &[f64]| Spread::of(values.to_vec());
        assert_eq!(spread(&[]), None);
        assert_eq!(
            spread(&[3.0, 1.0, 2.0]),
            Some(Spread {
                median: 2.0,
                least: 1.0
            })
        );
        assert_eq!(
            spread(&[4.0, 1.0, 2.0, 3.0]),
            Some(Spread {
                median: 2.5,
                least: 1.0
            })
        );
    }
}
