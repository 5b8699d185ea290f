//! Repository checks and tools: `cargo xtask COMMAND`.
//!
//! Contract: every command runs from any directory of the checkout, prints what
//! it does, and exits non-zero when something is wrong. Nothing here is linked
//! into the programs that are shipped.

mod bench;
mod counts;
mod debian;
mod fuzz;
mod hot;
mod testrun;
mod testvm;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask COMMAND

  tidy            the layout rules: dependency edges, unsafe, module heads, file size
  test [ARGS..]   every test with counts and an audit for leaks; ARGS go to `cargo test`
  bench-runtime   carrack-runtime beside runc, crun and the floor
                  [--rounds N] [--no-scale] [--check] [--runtime PATH]
  bench-images    pulls beside podman and the floor, and what else is done with images
                  [--rounds N] [--on tmpfs|ext4] [--shapes A,B] [--part pulls|rest] [--no-podman] [--check]
                  [--carrack PATH] [--floor PATH]
  hot             find out which code every operation runs, for crates/runtime/hot.ld
  test-vm         the tests in a VM with systemd and pure cgroup v2
                  [-l apparmor|selinux] [--suite NAME] [--cgroup v2|v1|hybrid]
                  [-p PACKAGE].. [--test PROGRAM].. [--part N/M] [-- ARGS for the test programs]
  fuzz [TARGET..] each fuzz target for FUZZ_SECONDS seconds
";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    let outcome = match command.as_str() {
        "tidy" => tidy::run(&root()),
        "bench-runtime" => bench::run(&root(), &rest),
        "bench-images" => bench::images::run(&root(), &rest),
        "hot" => hot::run(&root()),
        "test" => testrun::run(&root(), &rest),
        "test-vm" => testvm::run(&root(), &rest),
        "fuzz" => fuzz::run(&root(), &rest),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask {command}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The top of the checkout.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}
