//! `cargo xtask hot`: which functions every operation of `carrack-runtime` runs, as a linker script.
//!
//! A page fault maps the pages around it too, so a program whose everyday code is
//! strewn over its text has nearly all of that text in its peak memory. The
//! script `crates/runtime/hot.ld` puts what is listed there in front of the rest. It names
//! functions without their hashes, so it outlives compilers and changes; a function that is
//! missing from it costs pages, nothing else. `cargo xtask bench-runtime --check` says when it is
//! time to make it again.
//!
//! ```text
//! build without strip ─▶ bench/steps.c runs each operation step by step ─▶ addresses
//!                     └▶ nm ─▶ symbols ─▶ patterns of sections (Rust) and members (libc.a)
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::bench::bundle::{self, Bench};

/// What every program runs before and after `main`, none of it in a section of its own: the entry
/// points, the unwinder's registration, the choice of mathematical functions by processor.
const START: [&str; 5] = [
    "*crt*.o(.text .text.*)",
    "*.rcgu.o(.text)",
    "*(.text.main)",
    "*libgcc_eh.a:unwind-dw2-fde-dip.o(.text .text.*)",
    "*libm-*.a:*(.text .text.*)",
];

/// A function of the program.
struct Symbol {
    begin: u64,
    end: u64,
    name: String,
}

/// Makes `crates/runtime/hot.ld`.
pub fn run(root: &Path) -> Result<bool> {
    let program = build(root)?;
    let bench = bundle::prepare(root)?;
    let steps = bundle::compile(root, bench.bundle.path(), "steps")?;
    let mut addresses = BTreeSet::new();
    trace(&bench, &steps, &program, &mut addresses)?;
    let symbols = symbols(&program)?;
    let members = libc_members()?;
    let script = script(&hot(&symbols, &addresses), &members);
    let path = root.join("crates/runtime/hot.ld");
    fs::write(&path, script).with_context(|| path.display().to_string())?;
    println!("{}: {} addresses", path.display(), addresses.len());
    Ok(true)
}

fn build(root: &Path) -> Result<PathBuf> {
    let target = root.join("target/hot");
    let status = Command::new("cargo")
        .current_dir(root)
        .args(["build", "--release", "--package", "carrack-runtime"])
        .args(["--config", "profile.release.strip=false", "--target-dir"])
        .arg(&target)
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("cannot build the runtime");
    }
    let tuple = text(Command::new("rustc").args(["--print", "host-tuple"]))?;
    Ok(target.join(tuple.trim()).join("release/carrack-runtime"))
}

/// Runs the operations in the order of a container's life.
fn trace(bench: &Bench, steps: &Path, program: &Path, addresses: &mut BTreeSet<u64>) -> Result<()> {
    let state = carrack_testkit::TempDir::new();
    let result = state.path().join(".addresses");
    let root = state.path().display().to_string();
    let bundle = bench.bundle.path().display().to_string();
    let sleeper = bench.sleeper.path().display().to_string();
    let operations: [&[&str]; 9] = [
        &["--version"],
        &["run", "--bundle", &bundle, "hot-run"],
        &["create", "--bundle", &bundle, "hot"],
        &["state", "hot"],
        &["start", "hot"],
        &["delete", "--force", "hot"],
        &["run", "--detach", "--bundle", &sleeper, "hot-sleeper"],
        &["exec", "hot-sleeper", "/bin/true"],
        &["delete", "--force", "hot-sleeper"],
    ];
    for operation in operations {
        println!("{}", operation.join(" "));
        let mut command = Command::new(steps);
        command.arg(&result).arg(program).args(["--root", &root]);
        command.args(operation);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let status = command.status().context("cannot run steps")?;
        if !status.success() {
            bail!("{}: {status}", operation.join(" "));
        }
        let lines = fs::read_to_string(&result).context("no result from steps")?;
        let parsed = lines.lines().map(|line| u64::from_str_radix(line, 16));
        addresses.extend(parsed.collect::<Result<Vec<_>, _>>()?);
    }
    Ok(())
}

fn text(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {:?}", command.get_program()))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The functions of the program by address.
fn symbols(program: &Path) -> Result<Vec<Symbol>> {
    let lines = text(Command::new("nm").args(["-n", "-S"]).arg(program))?;
    let symbols: Vec<Symbol> = lines.lines().filter_map(symbol).collect();
    if symbols.is_empty() {
        bail!("{} has no symbols", program.display());
    }
    Ok(symbols)
}

/// A line of `nm -n -S`: begin, size, kind, name.
fn symbol(line: &str) -> Option<Symbol> {
    let mut words = line.split_whitespace();
    let begin = u64::from_str_radix(words.next()?, 16).ok()?;
    let size = u64::from_str_radix(words.next()?, 16).ok()?;
    let kind = words.next()?;
    let name = words.next()?.to_owned();
    matches!(kind, "t" | "T" | "i" | "w" | "W").then_some(Symbol {
        begin,
        end: begin + size,
        name,
    })
}

/// The names of the functions, aliases included, that hold one of the addresses.
fn hot<'a>(symbols: &'a [Symbol], addresses: &BTreeSet<u64>) -> BTreeSet<&'a str> {
    let used = |symbol: &&Symbol| addresses.range(symbol.begin..symbol.end).next().is_some();
    let used = symbols.iter().filter(used);
    used.map(|symbol| symbol.name.as_str()).collect()
}

/// Which member of the C library's archive defines a symbol.
fn libc_members() -> Result<BTreeMap<String, String>> {
    let archive = text(Command::new("cc").arg("-print-file-name=libc.a"))?;
    let lines = text(Command::new("nm").args(["-A", "--defined-only", archive.trim()]))?;
    let member = |line: &str| {
        let name = line.split_whitespace().last()?;
        let member = line.split(':').nth(1)?;
        Some((name.to_owned(), member.to_owned()))
    };
    Ok(lines.lines().filter_map(member).collect())
}

/// The linker script over the functions.
fn script(hot: &BTreeSet<&str>, members: &BTreeMap<String, String>) -> String {
    let mut patterns = BTreeSet::new();
    for name in hot {
        let plain = name.split('.').next().unwrap_or(name);
        if name.starts_with("_ZN") || name.starts_with("_R") {
            let name = without_hashes(name);
            // Functions that are marked as cold have sections of another name.
            patterns.insert(format!("*(.text.{name} .text.unlikely.{name})"));
        } else if let Some(member) = members.get(*name).or_else(|| members.get(plain)) {
            patterns.insert(format!("*libc.a:{member}(.text .text.*)"));
        }
    }
    let mut script = String::from(
        "/* What every operation runs, in front of the rest. Made by `cargo xtask hot`. */\n\
         SECTIONS\n{\n  .text.hot_first : ALIGN(4096)\n  {\n",
    );
    for pattern in START {
        let _ = writeln!(script, "    {pattern}");
    }
    for pattern in patterns {
        let _ = writeln!(script, "    {pattern}");
    }
    // In front of the read-only data: the kernel then sees two areas of code, and what it maps around
    // a fault in one ends where that ends.
    script.push_str("  }\n}\nINSERT BEFORE .rodata;\n");
    script
}

/// A mangled name as a pattern that fits it under other compilers too: hashes and what depends
/// on their lengths are left open, and so is what a script could not spell.
fn without_hashes(name: &str) -> String {
    let name = name.replace('$', "?");
    match name.strip_prefix("_ZN") {
        Some(_) => match name.rfind("17h") {
            Some(at) => format!("{}*", name.get(..at).unwrap_or(&name)),
            None => name,
        },
        // The number behind a dot is the optimiser's and changes with every build.
        None => format!(
            "{}*",
            without_references(name.split('.').next().unwrap_or(&name))
        ),
    }
}

/// A v0 name with its crate hashes (`Cs…_`) and back references (`B…_`) left open.
fn without_references(name: &str) -> String {
    let mut out = String::new();
    let mut rest = name;
    while let Some(at) = rest.find(['B', 'C']) {
        let (before, found) = rest.split_at(at);
        let mark = if found.starts_with("Cs") {
            "Cs"
        } else if found.starts_with('B') {
            "B"
        } else {
            out.push_str(before);
            out.push('C');
            rest = found.get(1..).unwrap_or_default();
            continue;
        };
        let tail = found.get(mark.len()..).unwrap_or_default();
        let digits = tail.bytes().take_while(u8::is_ascii_alphanumeric).count();
        out.push_str(before);
        out.push_str(mark);
        // A reference is a short number; what is longer is part of an identifier.
        let short = mark == "Cs" || digits <= 3;
        match tail
            .get(digits..)
            .filter(|tail| short && tail.starts_with('_'))
        {
            Some(tail) => {
                out.push('*');
                rest = tail;
            }
            None => rest = tail,
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_left_open() {
        let legacy = "_ZN17carrack_container4plan6inside17h0123456789abcdefE";
        assert_eq!(
            without_hashes(legacy),
            "_ZN17carrack_container4plan6inside*"
        );
        let v0 = "_RNvMsF_NtCsjrHSEGnQ3l9_3std2fsNtB5_10DirBuilder7__create.63";
        assert_eq!(
            without_hashes(v0),
            "_RNvMsF_NtCs*_3std2fsNtB*_10DirBuilder7__create*"
        );
        assert_eq!(without_hashes("_ZN4a$LT$b17hffE"), "_ZN4a?LT?b*");
    }

    #[test]
    fn functions_are_found_by_the_addresses_in_them() {
        let lines = ["10 8 t a", "18 8 T b", "20 8 d c", "28 t d"];
        let symbols: Vec<Symbol> = lines.iter().filter_map(|line| symbol(line)).collect();
        assert_eq!(symbols.len(), 2);
        let hot = hot(&symbols, &BTreeSet::from([0x1f, 0x20]));
        assert_eq!(hot, BTreeSet::from(["b"]));
    }

    #[test]
    fn the_script_names_sections_and_members() {
        let members = BTreeMap::from([("memcpy".to_owned(), "memmove.o".to_owned())]);
        let script = script(
            &BTreeSet::from(["_ZN1a17hE", "memcpy", "unknown"]),
            &members,
        );
        assert!(script.contains(
            "    *(.text._ZN1a* .text.unlikely._ZN1a*)\n    *libc.a:memmove.o(.text .text.*)\n"
        ));
        assert!(!script.contains("unknown"));
    }
}
