//! Tables of the documentation whose last column is `test` name tests that there are.

use std::collections::BTreeSet;
use std::path::Path;

/// Names of the functions that a source file defines.
pub fn functions(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let line = line.trim_start();
        let rest = line.strip_prefix("pub ").unwrap_or(line);
        rest.strip_prefix("fn ")?.split(['(', '<']).next()
    })
}

/// Findings over one document.
pub fn check(path: &Path, text: &str, functions: &BTreeSet<String>) -> Vec<String> {
    let mut findings = Vec::new();
    let mut proves = false;
    for (number, line) in text.lines().enumerate() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').collect();
        let last = cells.last().map_or("", |cell| cell.trim());
        if !line.starts_with('|') {
            proves = false;
        } else if last == "test" {
            proves = true;
        } else if proves {
            let words = last.split('`').skip(1).step_by(2);
            let is_name = |word: &&str| {
                let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
                word.contains('_') && word.bytes().all(fits)
            };
            for name in words.filter(is_name).filter(|n| !functions.contains(*n)) {
                let at = path.display();
                findings.push(format!("{at}:{}: no test {name}", number + 1));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_that_are_named_must_be_there() {
        let source = "    fn it_works() {}\npub fn it_is<T>() {}\n";
        let known: BTreeSet<String> = functions(source).map(str::to_owned).collect();
        let table =
            |cell: &str| format!("| case | test |\n|---|---|\n| `x_y` | {cell} |\n\n| `a_b` | c |");
        let check = |cell: &str| check(Path::new("d.md"), &table(cell), &known);
        assert!(check("`it_works`, `it_is` (`some/path_to`)").is_empty());
        assert_eq!(check("`it_works_not`"), ["d.md:3: no test it_works_not"]);
    }
}
