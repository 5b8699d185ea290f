//! `cargo xtask test`: all tests, counted, in a world that is looked over afterwards.
//!
//! ```text
//! packages ── install what is missing (root) or name it
//! audit    ── look at the machine: cgroups, network namespaces, state directories
//! cargo test --workspace --no-fail-fast -- --show-output
//! audit    ── descendants still alive, files and mounts under the run's TMPDIR, new names
//! counts   ── "N passed, N failed, N skipped", always the last line
//! ```
//!
//! A test that cannot run here prints `SKIP <test>: <reason>` and returns; libtest
//! calls that passed, so a skip is taken off the passed and counted by itself.
//! The audit and a cargo that fails without a failed test (a build error, a killed
//! test program) count as one failure each, so the last line never hides either.

mod audit;
mod watch;

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::counts::Counts;
use crate::debian;

/// Minutes after which a run that hangs is ended, unless `CARRACK_TEST_MINUTES` says otherwise.
const RUN_MINUTES_MAX: u64 = 45;

/// Runs the tests; true when nothing failed.
pub fn run(root: &Path, args: &[String]) -> Result<bool> {
    debian::ensure(debian::TESTS)?;
    let audit = audit::Audit::begin()?;
    let mut counts = Counts::default();
    let finished = cargo_test(root, args, &audit, &mut counts)?;
    if !finished && counts.failed == 0 {
        println!("cargo test failed without a failed test: see the messages above");
        counts.failed += 1;
    }
    println!("\naudit: what the tests left behind");
    let leaks = audit.finish();
    for leak in &leaks {
        println!("  LEAK {leak}");
    }
    if leaks.is_empty() {
        println!("  nothing");
        counts.passed += 1;
    } else {
        counts.failed += 1;
    }
    counts.print_lists();
    println!("{counts}");
    std::io::stdout().flush()?;
    Ok(counts.failed == 0)
}

/// One `cargo test` over the workspace, its output passed on and counted. True on success.
fn cargo_test(
    root: &Path,
    args: &[String],
    audit: &audit::Audit,
    counts: &mut Counts,
) -> Result<bool> {
    let (before, after) = split_args(args);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root).arg("test");
    if before.is_empty() {
        command.args(["--workspace", "--no-fail-fast"]);
    }
    command
        .args(before)
        .arg("--")
        .arg("--show-output")
        .args(after);
    command
        .env("TMPDIR", audit.temp_dir())
        .env("CARRACK_TEST_TAG", audit.tag());
    let status = watch::run(command, run_limit(), |line| {
        println!("{line}");
        counts.take(line);
    })?;
    Ok(status == Some(0))
}

/// Splits the arguments at the first `--`: those for cargo and those for the test programs.
fn split_args(args: &[String]) -> (&[String], &[String]) {
    match args.iter().position(|arg| arg == "--") {
        Some(at) => (
            args.get(..at).unwrap_or_default(),
            args.get(at + 1..).unwrap_or_default(),
        ),
        None => (args, &[]),
    }
}

fn run_limit() -> Duration {
    let minutes = std::env::var("CARRACK_TEST_MINUTES")
        .ok()
        .and_then(|text| text.parse().ok());
    Duration::from_secs(60 * minutes.unwrap_or(RUN_MINUTES_MAX))
}

#[cfg(test)]
mod tests {
    use super::split_args;

    #[test]
    fn arguments_after_the_dashes_go_to_the_test_programs() {
        let args: Vec<String> = ["-p", "x", "--", "name"].map(String::from).to_vec();
        let (cargo, tests) = split_args(&args);
        assert_eq!(cargo, ["-p", "x"]);
        assert_eq!(tests, ["name"]);
        assert!(split_args(&[]).1.is_empty());
    }
}
