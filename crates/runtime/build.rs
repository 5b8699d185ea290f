//! Puts the commit that is built into `CARRACK_COMMIT`; nothing when the
//! sources are not a git checkout and the environment does not name one.
//!
//! Optimised programs for x86_64 start at `carrack_sys::prestart`.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=CARRACK_COMMIT");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    if is("PROFILE", "release") && is("CARGO_CFG_TARGET_ARCH", "x86_64") {
        println!("cargo::rustc-link-arg-bins=-Wl,-e,carrack_entry");
        // At a fixed address nothing is relocated at start, and the pages that would be written stay
        // shared with the file: a sixth of the time and a third of the memory of a short command.
        println!("cargo::rustc-link-arg-bins=-no-pie");
        println!("cargo::rustc-link-arg-bins=-static");
        // What every operation runs lies together, so that few pages of the rest are mapped.
        let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo::rerun-if-changed=hot.ld");
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{here}/hot.ld");
    }
    let given = std::env::var("CARRACK_COMMIT").ok();
    if let Some(commit) = given.or_else(|| git(&["rev-parse", "HEAD"])) {
        println!("cargo::rustc-env=CARRACK_COMMIT={commit}");
    }
    // The log of HEAD changes with every commit and checkout, HEAD itself only with the branch.
    for file in ["logs/HEAD", "HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", file]) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}
