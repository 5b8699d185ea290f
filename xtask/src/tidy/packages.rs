//! Rules over each package: the licence, the shared lints, and for a library
//! something a reader can run (a doctest or a file in `examples/`).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

/// The SPDX expression of every package.
const LICENSE: &str = "Apache-2.0";

/// The crate that holds `unsafe` and so sets its own lints.
const OWN_LINTS: &str = "carrack-sys";

/// Lines from which on a library must have something runnable.
const LINES_OF_A_LIBRARY: usize = 100;

/// Findings over all members of the workspace.
pub fn check(root: &Path, files: &[PathBuf], metadata: &Value) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    let license = fs::read_to_string(root.join("LICENSE")).unwrap_or_default();
    if !license.contains("Apache License") || !license.contains("Version 2.0") {
        findings.push(format!("LICENSE: not the text of {LICENSE}"));
    }
    let members = metadata.get("workspace_members").and_then(Value::as_array);
    let members = members.context("cargo metadata names no members")?;
    let packages = metadata.get("packages").and_then(Value::as_array);
    for package in packages.context("cargo metadata names no packages")? {
        if package.get("id").is_some_and(|id| members.contains(id)) {
            findings.extend(check_member(root, files, package));
        }
    }
    Ok(findings)
}

fn check_member(root: &Path, files: &[PathBuf], package: &Value) -> Vec<String> {
    let text = |key: &str| package.get(key).and_then(Value::as_str).unwrap_or_default();
    let name = text("name");
    let mut findings = Vec::new();
    if text("license") != LICENSE {
        findings.push(format!(
            "{name}: licence is not {LICENSE}; use `license.workspace = true`"
        ));
    }
    let manifest = Path::new(text("manifest_path"));
    let manifest_text = fs::read_to_string(manifest).unwrap_or_default();
    if name != OWN_LINTS && !inherits_lints(&manifest_text) {
        findings.push(format!("{name}: needs `[lints] workspace = true`"));
    }
    let Some(dir) = manifest
        .parent()
        .and_then(|dir| dir.strip_prefix(root).ok())
    else {
        return findings;
    };
    if is_library(package) {
        let sources: Vec<String> = files
            .iter()
            .filter(|file| file.starts_with(dir.join("src")))
            .filter_map(|file| fs::read_to_string(root.join(file)).ok())
            .collect();
        let lines: usize = sources.iter().map(|source| source.lines().count()).sum();
        let examples = files
            .iter()
            .any(|file| file.starts_with(dir.join("examples")));
        let runnable = examples || sources.iter().any(|source| has_doctest(source));
        if lines >= LINES_OF_A_LIBRARY && !runnable {
            findings.push(format!("{name}: a library without a doctest or an example"));
        }
    }
    findings
}

fn inherits_lints(manifest: &str) -> bool {
    let mut lines = manifest
        .lines()
        .map(str::trim)
        .skip_while(|line| *line != "[lints]");
    lines
        .nth(1)
        .is_some_and(|line| line.replace(' ', "") == "workspace=true")
}

fn is_library(package: &Value) -> bool {
    let targets = package
        .get("targets")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    targets
        .filter_map(|target| target.get("kind").and_then(Value::as_array))
        .flatten()
        .any(|kind| kind.as_str() == Some("lib"))
}

/// Whether a doc comment opens a code block that is compiled as Rust.
fn has_doctest(source: &str) -> bool {
    let fences = source.lines().map(str::trim_start).filter_map(|line| {
        let doc = line
            .strip_prefix("//!")
            .or_else(|| line.strip_prefix("///"))?;
        doc.trim().strip_prefix("```")
    });
    // Fences come in pairs; the language stands on the first of each.
    fences
        .step_by(2)
        .any(|language| ["", "rust", "no_run", "should_panic", "compile_fail"].contains(&language))
}

#[cfg(test)]
mod tests {
    use super::{has_doctest, inherits_lints, is_library};
    use serde_json::json;

    #[test]
    fn doctests_are_told_from_drawings() {
        assert!(has_doctest("//! ```\n//! let a = 1;\n//! ```\n"));
        assert!(has_doctest(
            "/// ```text\n/// a -> b\n/// ```\n/// ```no_run\n/// x();\n/// ```\n"
        ));
        assert!(!has_doctest("//! ```text\n//! a -> b\n//! ```\n"));
        assert!(!has_doctest("let s = \"```\";\n"));
    }

    #[test]
    fn shared_lints_are_recognised() {
        assert!(inherits_lints(
            "[package]\nname = \"a\"\n\n[lints]\nworkspace = true\n"
        ));
        assert!(!inherits_lints("[package]\nname = \"a\"\n"));
    }

    #[test]
    fn libraries_are_recognised() {
        assert!(is_library(&json!({"targets": [{"kind": ["lib"]}]})));
        assert!(!is_library(
            &json!({"targets": [{"kind": ["bin"]}, {"kind": ["test"]}]})
        ));
    }
}
