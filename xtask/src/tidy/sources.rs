//! Rules over one file.
//!
//! - a Rust file begins with a `//!` head that is its contract;
//! - it holds at most [`LINES_MAX`] lines;
//! - `unsafe` stands in `crates/sys` alone;
//! - nothing unfinished or switched off: no `todo!`, `unimplemented!`, `#[ignore]`;
//! - no text file names a path of the machine it was written on.

use std::path::Path;

use super::scan::code_only;

/// Lines of a Rust file.
pub const LINES_MAX: usize = 800;

/// The one home of `unsafe`.
const UNSAFE_HOME: &str = "crates/sys/";

/// Findings over one file; `root` is the checkout, whose own path must not be written down.
pub fn check(path: &Path, text: &str, root: &Path) -> Vec<String> {
    let mut findings = machine_paths(path, text, root);
    if path.extension().is_some_and(|extension| extension == "rs") {
        findings.extend(check_rust(path, text));
    }
    findings
}

fn check_rust(path: &Path, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let shown = path.display();
    if !text.trim_start_matches("#![no_main]\n").starts_with("//!") {
        findings.push(format!(
            "{shown}:1: does not begin with a `//!` head that states its contract"
        ));
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        findings.push(format!(
            "{shown}: {lines} lines; split it (at most {LINES_MAX})"
        ));
    }
    let code = code_only(text);
    for (number, line) in code.lines().enumerate() {
        let number = number + 1;
        if has_word(line, "unsafe") && !path.starts_with(UNSAFE_HOME) {
            findings.push(format!("{shown}:{number}: `unsafe` outside {UNSAFE_HOME}"));
        }
        for unfinished in ["todo!", "unimplemented!"] {
            if has_word(line, unfinished) {
                findings.push(format!(
                    "{shown}:{number}: `{unfinished}`: finish it or refuse with an error"
                ));
            }
        }
        if line.replace(' ', "").starts_with("#[ignore") {
            findings.push(format!(
                "{shown}:{number}: a test that is switched off; let it skip with its reason"
            ));
        }
    }
    findings
}

/// Whether `word` stands in `line` by itself and not as part of a longer name.
fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).and_then(|s| s.chars().next_back());
        let after = line.get(at + word.len()..).and_then(|s| s.chars().next());
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

/// The checkout's own path and the home directory are facts of one machine.
fn machine_paths(path: &Path, text: &str, root: &Path) -> Vec<String> {
    let mut needles = vec![root.display().to_string()];
    if let Some(home) = std::env::home_dir()
        && home.components().count() > 2
    {
        needles.push(format!("{}/", home.display()));
    }
    let mut findings = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for needle in needles
            .iter()
            .filter(|needle| line.contains(needle.as_str()))
        {
            findings.push(format!(
                "{}:{}: a path of this machine: {needle}",
                path.display(),
                number + 1
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::{LINES_MAX, check};
    use std::path::Path;

    fn found(path: &str, text: &str) -> Vec<String> {
        check(Path::new(path), text, Path::new("/srv/build/checkout"))
    }

    #[test]
    fn a_good_file_has_no_findings() {
        let text = "//! Head. `unsafe` and todo! are words here.\nconst A: &str = \"unsafe todo!()\";\n#![forbid(unsafe_code)]\n";
        assert_eq!(found("crates/spec/src/a.rs", text), Vec::<String>::new());
    }

    #[test]
    fn each_rule_finds_its_case() {
        let cases = [
            ("fn main() {}", "does not begin"),
            ("//! h\nfn a() { unsafe { b() } }", "`unsafe` outside"),
            ("//! h\nfn a() { todo!() }", "`todo!`"),
            (
                "//! h\nfn a() { unimplemented!(\"x\") }",
                "`unimplemented!`",
            ),
            ("//! h\n#[ignore = \"slow\"]\nfn a() {}", "switched off"),
            ("//! see /srv/build/checkout/x\n", "path of this machine"),
        ];
        for (text, expected) in cases {
            let findings = found("crates/spec/src/a.rs", text);
            assert_eq!(findings.len(), 1, "{text}: {findings:?}");
            assert!(findings[0].contains(expected), "{text}: {findings:?}");
        }
    }

    #[test]
    fn unsafe_is_at_home_in_sys() {
        assert!(found("crates/sys/src/a.rs", "//! h\nfn a() { unsafe { b() } }").is_empty());
    }

    #[test]
    fn the_limit_of_lines_is_inclusive() {
        let mut text = "//! h\n".repeat(LINES_MAX);
        assert!(found("a.rs", &text).is_empty());
        text.push_str("//! h\n");
        assert_eq!(found("a.rs", &text).len(), 1);
    }

    #[test]
    fn machine_paths_are_found_in_any_text() {
        assert_eq!(found("README.md", "cd /srv/build/checkout\n").len(), 1);
    }
}
