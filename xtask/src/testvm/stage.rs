//! What the guest gets: a disk with the checkout's files and the built programs, at
//! the paths below the checkout that they have here (test programs hold absolute paths
//! of the programs they test).
//!
//! The programs are stripped of debug information, a fifth of the size, and the disk
//! is a copy: the guest reads it as fast as its own, and a build meanwhile harms nothing.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Size of the disk; the file is sparse, and tests may write below the checkout's target.
const DISK_BYTES: u64 = 2 << 30;

/// A program that cargo built.
#[derive(Debug, PartialEq, Eq)]
pub struct Program {
    /// The name of its target.
    pub name: String,
    /// Where it is, below the checkout.
    pub file: PathBuf,
    /// Its package's directory, in which its tests expect to stand.
    pub dir: PathBuf,
    /// Whether it is a test program, and not one that is tested.
    pub tests: bool,
}

/// Builds all test programs, and those that they test.
pub fn build(root: &Path, packages: &[String], excluded: &[&str]) -> Result<Vec<Program>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root).args([
        "test",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ]);
    if packages.is_empty() {
        command.arg("--workspace");
        excluded.iter().for_each(|package| {
            command.args(["--exclude", package]);
        });
    }
    for package in packages {
        command.args(["-p", package]);
    }
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("the tests do not build");
    }
    let lines = String::from_utf8_lossy(&output.stdout);
    let programs: Vec<Program> = lines.lines().filter_map(parse_artifact).collect();
    for program in &programs {
        if !program.file.starts_with(root) {
            bail!(
                "{} is outside of the checkout; unset CARGO_TARGET_DIR: the guest sees the checkout alone",
                program.file.display()
            );
        }
    }
    Ok(programs)
}

/// The program of one of cargo's messages, if it is about one.
fn parse_artifact(line: &str) -> Option<Program> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message.get("reason")? != "compiler-artifact" {
        return None;
    }
    let manifest = Path::new(message.get("manifest_path")?.as_str()?);
    Some(Program {
        name: message.get("target")?.get("name")?.as_str()?.to_string(),
        file: PathBuf::from(message.get("executable")?.as_str()?),
        dir: manifest.parent()?.to_path_buf(),
        tests: message.get("profile")?.get("test")? == true,
    })
}

/// Makes the disk anew in `place` and says where it is.
pub fn disk(root: &Path, place: &Path, programs: &[Program]) -> Result<PathBuf> {
    let tree = place.join("checkout");
    if tree.exists() {
        fs::remove_dir_all(&tree).context("cannot remove the last copy of the checkout")?;
    }
    for file in checkout_files(root)? {
        copy(&root.join(&file), &tree.join(&file))?;
    }
    for program in programs {
        let inside = program.file.strip_prefix(root)?;
        strip(&program.file, &tree.join(inside))?;
    }
    let image = place.join("checkout.img");
    let file = fs::File::create(&image).context("cannot make the checkout's disk")?;
    file.set_len(DISK_BYTES)
        .context("cannot make the checkout's disk")?;
    let status = Command::new("mkfs.ext4")
        .args(["-q", "-F", "-O", "^has_journal"])
        .args(["-E", "lazy_itable_init=1,root_owner=0:0", "-d"])
        .args([&tree, &image])
        .status()
        .context("cannot run mkfs.ext4")?;
    if !status.success() {
        bail!("mkfs.ext4: {status}");
    }
    fs::remove_dir_all(&tree).context("cannot remove the copy of the checkout")?;
    Ok(image)
}

/// Files that git has or would take.
fn checkout_files(root: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .current_dir(root)
        .args(["ls-files", "-z", "--cached", "--others"])
        .arg("--exclude-standard")
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run git")?;
    if !output.status.success() {
        bail!("git ls-files: {}", output.status);
    }
    let names = output.stdout.split(|byte| *byte == 0);
    let files = names.map(|name| PathBuf::from(std::ffi::OsStr::from_bytes(name)));
    // A file removed from the checkout is listed until that is committed.
    Ok(files.filter(|file| root.join(file).is_file()).collect())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let above = to.parent().unwrap_or(to);
    fs::create_dir_all(above)
        .and_then(|()| fs::copy(from, to))
        .map(drop)
        .with_context(|| format!("cannot copy {}", from.display()))
}

/// Copies a program without debug information, or whole where there is no strip.
fn strip(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().unwrap_or(to))?;
    let stripped = Command::new("strip")
        .args(["--strip-debug", "-o"])
        .args([to, from])
        .status();
    match stripped {
        Ok(status) if status.success() => Ok(()),
        _ => copy(from, to),
    }
}

#[cfg(test)]
mod tests {
    use super::parse_artifact;
    use std::path::Path;

    #[test]
    fn programs_are_taken_from_cargos_messages() {
        let line = r#"{"reason":"compiler-artifact","manifest_path":"/c/crates/a/Cargo.toml",
            "target":{"name":"a"},"profile":{"test":true},"executable":"/c/target/a-1"}"#;
        let program = parse_artifact(line).unwrap();
        assert_eq!(program.file, Path::new("/c/target/a-1"));
        assert_eq!(program.dir, Path::new("/c/crates/a"));
        assert!(program.tests);
        assert!(
            !parse_artifact(&line.replace("true", "false"))
                .unwrap()
                .tests
        );
        assert!(parse_artifact(&line.replace("\"/c/target/a-1\"", "null")).is_none());
        assert!(parse_artifact("warning").is_none());
    }
}
