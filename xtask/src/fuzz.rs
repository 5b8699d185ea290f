//! `cargo xtask fuzz`: every target of `fuzz/` for a bounded time.
//!
//! Needs a nightly toolchain (the sanitizer's flags) and a C++ compiler; installs
//! `cargo-fuzz` when it is missing. Inputs that were found stay in `fuzz/corpus`,
//! crashes in `fuzz/artifacts`; neither is committed. Seeds are in `fuzz/seeds`.
//! `FUZZ_SECONDS` is the time for each target; arguments name targets.
//!
//! `cargo xtask fuzz --check` compiles the targets with the ordinary toolchain and runs none, so that a
//! change elsewhere that breaks one is seen.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Seconds for each target unless `FUZZ_SECONDS` says otherwise.
const SECONDS: u64 = 60;

/// Runs the targets, or only checks them; true when nothing was found.
pub fn run(root: &Path, wanted: &[String]) -> Result<bool> {
    if wanted == ["--check"] {
        return Ok(check(root));
    }
    if !succeeds(Command::new("cargo").args(["+nightly", "--version"])) {
        bail!("fuzzing needs a nightly toolchain: rustup toolchain install nightly");
    }
    if !succeeds(Command::new("cargo").args(["+nightly", "fuzz", "--version"])) {
        println!("installing cargo-fuzz");
        if !succeeds(Command::new("cargo").args(["install", "--locked", "cargo-fuzz"])) {
            bail!("cannot install cargo-fuzz");
        }
    }
    let targets = targets(root)?;
    if let Some(unknown) = wanted.iter().find(|name| !targets.contains(name)) {
        bail!(
            "no fuzz target {unknown}; there are: {}",
            targets.join(", ")
        );
    }
    let seconds = std::env::var("FUZZ_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let seconds = seconds.unwrap_or(SECONDS);
    let mut failed = Vec::new();
    for target in targets
        .iter()
        .filter(|name| wanted.is_empty() || wanted.contains(name))
    {
        println!("\n== {target}, {seconds} s");
        if !fuzz(root, target, seconds)? {
            failed.push(target.as_str());
        }
    }
    let word = if failed.is_empty() {
        "nothing found".to_string()
    } else {
        failed.join(", ")
    };
    println!("\nfuzz: {} targets, {word}", targets.len());
    Ok(failed.is_empty())
}

/// Compiles without linking: the engine, which needs a C++ compiler, is named and not built.
fn check(root: &Path) -> bool {
    let target = root.join("target/fuzz-check");
    succeeds(
        Command::new("cargo")
            .args(["clippy", "--quiet", "--locked", "--manifest-path"])
            .arg(root.join("fuzz/Cargo.toml"))
            .arg("--target-dir")
            .arg(&target)
            .args(["--", "-D", "warnings"])
            .env("CUSTOM_LIBFUZZER_PATH", target.join("libfuzzer.a"))
            .env("RUSTFLAGS", "--cfg fuzzing"),
    )
}

fn fuzz(root: &Path, target: &str, seconds: u64) -> Result<bool> {
    let corpus = root.join("fuzz/corpus").join(target);
    fs::create_dir_all(&corpus).with_context(|| format!("{}", corpus.display()))?;
    let status = Command::new("cargo")
        .env_remove("RUSTUP_TOOLCHAIN")
        .current_dir(root)
        .args(["+nightly", "fuzz", "run", target])
        .arg(corpus)
        .arg(root.join("fuzz/seeds").join(target))
        .args([
            "--",
            "-timeout=10",
            "-rss_limit_mb=2048",
            "-print_final_stats=1",
        ])
        .arg(format!("-max_total_time={seconds}"))
        .status()
        .context("cannot run cargo fuzz")?;
    Ok(status.success())
}

/// Names of all targets, sorted.
fn targets(root: &Path) -> Result<Vec<String>> {
    let dir = root.join("fuzz/fuzz_targets");
    let entries = fs::read_dir(&dir).with_context(|| format!("{}", dir.display()))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| Some(entry.path().file_stem()?.to_string_lossy().into_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// Runs a command of the other toolchain; the one that runs us must not be inherited.
fn succeeds(command: &mut Command) -> bool {
    command
        .env_remove("RUSTUP_TOOLCHAIN")
        .status()
        .is_ok_and(|status| status.success())
}
