//! `cargo xtask tidy`: the rules of the layout, as a test.
//!
//! | module | rule |
//! |---|---|
//! | [`edges`] | which crate may use which, and what must not be in the trees of the lean ones |
//! | [`sources`] | what may stand in a file: heads, size, `unsafe`, unfinished code, paths of one machine |
//! | [`packages`] | licence, lints and a runnable example of each crate |
//! | [`proofs`] | tests that the documentation names are there |
//!
//! Every rule is a pure function from text to findings and is tested by itself; this
//! module does the reading. A finding names the file, the line and what to do.

mod edges;
mod packages;
mod proofs;
mod scan;
mod sources;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Directories that hold nothing of ours.
const SKIPPED_DIRS: [&str; 5] = ["target", ".git", ".bench", "corpus", "artifacts"];

/// Checks all rules over the checkout; true when nothing was found.
pub fn run(root: &Path) -> Result<bool> {
    let mut findings = Vec::new();
    let files = files(root)?;
    let mut functions = BTreeSet::new();
    let mut documents = Vec::new();
    for path in &files {
        let Ok(text) = fs::read_to_string(root.join(path)) else {
            continue;
        };
        findings.extend(sources::check(path, &text, root));
        match path.extension().and_then(|end| end.to_str()) {
            Some("rs") => functions.extend(proofs::functions(&text).map(str::to_owned)),
            Some("md") => documents.push((path, text)),
            _ => {}
        }
    }
    for (path, text) in documents {
        findings.extend(proofs::check(path, &text, &functions));
    }
    let metadata = metadata(root)?;
    findings.extend(edges::check(&metadata)?);
    findings.extend(packages::check(root, &files, &metadata)?);
    for finding in &findings {
        println!("{finding}");
    }
    println!("tidy: {} files, {} findings", files.len(), findings.len());
    Ok(findings.is_empty())
}

/// Every file of the checkout that is not build output, relative to `root`, sorted.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(dir) = pending.pop() {
        let here = root.join(&dir);
        let entries =
            fs::read_dir(&here).with_context(|| format!("cannot read {}", here.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot read {}", here.display()))?;
            let name = entry.file_name();
            let kind = entry.file_type().context("file type")?;
            if kind.is_dir() && !SKIPPED_DIRS.iter().any(|skipped| name == *skipped) {
                pending.push(dir.join(&name));
            } else if kind.is_file() && name != ".git" {
                found.push(dir.join(&name));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// `cargo metadata` of the workspace for the platform it is built for.
fn metadata(root: &Path) -> Result<serde_json::Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(cargo)
        .current_dir(root)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--filter-platform",
            &platform,
        ])
        .output()
        .context("cannot run cargo metadata")?;
    if !output.status.success() {
        bail!(
            "cargo metadata failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    serde_json::from_slice(&output.stdout).context("cargo metadata is not JSON")
}

#[cfg(test)]
mod tests {
    use super::files;

    #[test]
    fn build_output_is_left_out_and_hidden_directories_are_not() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["target/x.rs", ".ci/run", "src/a.rs", "fuzz/target/y"] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let found: Vec<String> = files(dir.path())
            .unwrap()
            .iter()
            .map(|p| p.display().to_string())
            .collect();
        assert_eq!(found, [".ci/run", "src/a.rs"]);
    }
}
