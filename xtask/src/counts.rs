//! The runner's counts out of the lines that cargo and libtest print.
//!
//! Lines read: `test result: ok. 3 passed; 0 failed; 0 ignored; …`, `SKIP name: reason`
//! (once per name), `skipped: reason` under the header `---- name stdout ----` that
//! `--show-output` prints, and `test name ... FAILED`. Displayed as the run's last line:
//! `N passed, N failed, N skipped`.

use std::collections::BTreeMap;
use std::fmt;

/// Sums over all test programs of one run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tests that ran and passed.
    pub passed: u64,
    /// Tests, and steps of the run, that failed.
    pub failed: u64,
    ignored: u64,
    skips: BTreeMap<String, String>,
    failures: Vec<String>,
    /// The test whose output is being shown.
    shown: String,
}

impl Counts {
    /// Looks at one line of output.
    pub fn take(&mut self, line: &str) {
        let line = line.trim();
        if let Some(result) = line.strip_prefix("test result: ") {
            self.take_result(result);
        } else if let Some((name, reason)) = line
            .strip_prefix("SKIP ")
            .and_then(|skip| skip.split_once(": "))
        {
            self.skips.insert(name.to_string(), reason.to_string());
        } else if let Some(reason) = line.strip_prefix("skipped: ") {
            self.skips.insert(self.shown.clone(), reason.to_string());
        } else if let Some(name) = between(line, "---- ", " stdout ----") {
            self.shown = name.to_string();
        } else if let Some(name) = between(line, "test ", " ... FAILED") {
            self.failures.push(name.to_string());
        }
    }

    fn take_result(&mut self, result: &str) {
        let Some((_, numbers)) = result.split_once(". ") else {
            return;
        };
        for part in numbers.split(';') {
            let mut words = part.split_whitespace();
            let count = words
                .next()
                .and_then(|word| word.parse::<u64>().ok())
                .unwrap_or(0);
            match words.next() {
                Some("passed") => self.passed += count,
                Some("failed") => self.failed += count,
                Some("ignored") => self.ignored += count,
                _ => {}
            }
        }
    }

    /// Tests that could not run here.
    pub fn skipped(&self) -> u64 {
        self.ignored + self.skips.len() as u64
    }

    /// Prints each skip with its reason and each failure by name.
    pub fn print_lists(&self) {
        if !self.skips.is_empty() {
            println!("\nskipped:");
        }
        for (name, reason) in &self.skips {
            println!("  {name}: {reason}");
        }
        if !self.failures.is_empty() {
            println!("\nfailed:");
        }
        for name in &self.failures {
            println!("  {name}");
        }
        println!();
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // libtest counts a test that printed SKIP as passed.
        let passed = self.passed.saturating_sub(self.skips.len() as u64);
        write!(
            f,
            "{passed} passed, {} failed, {} skipped",
            self.failed,
            self.skipped()
        )
    }
}

fn between<'a>(line: &'a str, start: &str, end: &str) -> Option<&'a str> {
    line.strip_prefix(start)?.strip_suffix(end)
}

#[cfg(test)]
mod tests {
    use super::Counts;

    fn count(text: &str) -> Counts {
        let mut counts = Counts::default();
        text.lines().for_each(|line| counts.take(line));
        counts
    }

    #[test]
    fn results_of_all_programs_are_summed() {
        let counts = count(
            "test a ... ok\ntest result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
             test b::c ... FAILED\ntest result: FAILED. 1 passed; 2 failed; 1 ignored; 0 measured; 7 filtered out",
        );
        assert_eq!(counts.to_string(), "4 passed, 2 failed, 1 skipped");
        assert_eq!(counts.failures, ["b::c"]);
    }

    #[test]
    fn a_printed_skip_is_not_a_pass_and_counts_once() {
        let counts = count(
            "SKIP cgroup_v2_limits: no unified controllers\nSKIP cgroup_v2_limits: no unified controllers\n\
             test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
        );
        assert_eq!(counts.to_string(), "2 passed, 0 failed, 1 skipped");
    }

    #[test]
    fn a_plain_skip_is_counted_under_the_test_that_printed_it() {
        let counts = count(
            "---- load::whole stdout ----\nskipped: needs root\n---- load::part stdout ----\nskipped: needs root\n\
             test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
        );
        assert_eq!(counts.to_string(), "1 passed, 0 failed, 2 skipped");
    }

    #[test]
    fn other_lines_change_nothing() {
        assert_eq!(
            count("SKIP\ntest result: \nrunning 3 tests\n"),
            Counts::default()
        );
    }
}
