//! `cargo xtask test-vm`: the tests on a host of the other kind.
//!
//! ```text
//! here    cargo test --no-run ── list of test programs (static, so they run anywhere)
//!         testvm/testvm.sh build, once: disk, kernel and initrd in TESTVM_DIR
//! guest   one boot per security module; the checkout is mounted read-only at the
//!         path it has here (test programs hold absolute paths of the programs they
//!         test); every test program runs as root, one after the other
//! here    counts per boot and together
//! ```
//!
//! The guest has systemd as process 1, pure cgroup v2 with every controller, and
//! AppArmor or SELinux (switched to enforcing before the first test). It runs under
//! software emulation: slow, and never good for timings.
//!
//! Arguments: `-l apparmor|selinux` boots one of them, `-p PACKAGE` (repeatable) runs
//! the tests of one package, what follows `--` goes to the test programs.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::counts::Counts;
use crate::debian;

/// Packages whose tests never ask the kernel for anything.
const PURE: [&str; 3] = ["xtask", "carrack-spec", "carrack-seccomp"];

/// Seconds that one boot with all tests may take.
const BOOT_SECONDS_MAX: &str = "3000";

/// Seconds that one test program may take in the guest.
const PROGRAM_SECONDS_MAX: u32 = 900;

/// Security modules, one boot each.
const MODULES: [&str; 2] = ["apparmor", "selinux"];

struct Options {
    modules: Vec<String>,
    packages: Vec<String>,
    test_args: Vec<String>,
}

/// A test program and the directory its tests expect to stand in.
struct TestProgram {
    package: String,
    file: PathBuf,
    dir: PathBuf,
}

/// Boots and tests; true when nothing failed.
pub fn run(root: &Path, args: &[String]) -> Result<bool> {
    let options = parse(args)?;
    debian::ensure(debian::VM)?;
    let programs = build_tests(root, &options)?;
    let disk = disk_dir();
    build_disk(root, &disk)?;
    let mut good = true;
    let mut summary = Vec::new();
    for module in &options.modules {
        let (counts, finished) = boot(root, &disk, module, &programs, &options)?;
        counts.print_lists();
        good &= finished && counts.failed == 0;
        let note = if finished {
            ""
        } else {
            " (the guest did not finish well)"
        };
        summary.push(format!("{module}: {counts}{note}"));
    }
    for line in summary {
        println!("{line}");
    }
    Ok(good)
}

fn parse(args: &[String]) -> Result<Options> {
    let mut options = Options {
        modules: Vec::new(),
        packages: Vec::new(),
        test_args: Vec::new(),
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "-l" => match args.next() {
                Some(module) if MODULES.contains(&module.as_str()) => {
                    options.modules.push(module.clone());
                }
                _ => bail!("-l needs apparmor or selinux"),
            },
            "-p" => options
                .packages
                .push(args.next().context("-p needs a package")?.clone()),
            "--" => options.test_args.extend(args.by_ref().cloned()),
            other => bail!("unknown argument {other}"),
        }
    }
    if options.modules.is_empty() {
        options.modules = MODULES.map(String::from).to_vec();
    }
    Ok(options)
}

/// Where disk, kernel and initrd are kept: outside of the checkout, as they are large.
fn disk_dir() -> PathBuf {
    std::env::var_os("TESTVM_DIR").map_or("/var/tmp/carrack-testvm".into(), PathBuf::from)
}

/// Makes the disk when it is missing or was made by another version of the script.
fn build_disk(root: &Path, disk: &Path) -> Result<()> {
    let script = root.join("testvm/testvm.sh");
    let stamp = disk.join("made-by");
    let text = fs::read_to_string(&script).context("testvm/testvm.sh")?;
    let current = fs::read_to_string(&stamp).is_ok_and(|made_by| made_by == text);
    if current && disk.join("root.img").exists() {
        return Ok(());
    }
    println!("making the test VM in {} (about a minute)", disk.display());
    let status = Command::new(&script)
        .arg("build")
        .env("TESTVM_DIR", disk)
        .status()
        .context("cannot run testvm/testvm.sh")?;
    if !status.success() {
        bail!("testvm/testvm.sh build: {status}");
    }
    fs::remove_dir_all(disk.join("tree")).context("cannot remove the unpacked tree")?;
    fs::write(&stamp, text).context("cannot write the stamp")
}

/// Builds all test programs and says where they are.
fn build_tests(root: &Path, options: &Options) -> Result<Vec<TestProgram>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root).args([
        "test",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ]);
    if options.packages.is_empty() {
        command.arg("--workspace");
        PURE.iter().for_each(|package| {
            command.args(["--exclude", package]);
        });
    }
    for package in &options.packages {
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
    let programs: Vec<TestProgram> = lines.lines().filter_map(parse_artifact).collect();
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

/// The test program of one of cargo's messages, if it is about one.
fn parse_artifact(line: &str) -> Option<TestProgram> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message.get("reason")? != "compiler-artifact" || message.get("profile")?.get("test")? != true
    {
        return None;
    }
    let file = PathBuf::from(message.get("executable")?.as_str()?);
    let manifest = Path::new(message.get("manifest_path")?.as_str()?);
    let package = message.get("target")?.get("name")?.as_str()?.to_string();
    Some(TestProgram {
        package,
        file,
        dir: manifest.parent()?.to_path_buf(),
    })
}

/// One boot: runs everything in the guest and counts what came back.
fn boot(
    root: &Path,
    disk: &Path,
    module: &str,
    programs: &[TestProgram],
    options: &Options,
) -> Result<(Counts, bool)> {
    println!("\n== {module}: {} test programs", programs.len());
    let mut child = Command::new(root.join("testvm/testvm.sh"))
        .args([
            "run",
            "-l",
            module,
            "-m",
            "4096",
            "-t",
            BOOT_SECONDS_MAX,
            "-s",
        ])
        .arg(root)
        .arg("--")
        .arg(guest_script(root, module, programs, &options.test_args))
        .env("TESTVM_DIR", disk)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run testvm/testvm.sh")?;
    let stdout = child.stdout.take().context("no output from testvm.sh")?;
    let mut counts = Counts::default();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.context("cannot read from testvm.sh")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        counts.take(&line);
    }
    let status = child.wait().context("cannot wait for testvm.sh")?;
    if !status.success() && counts.failed == 0 {
        counts.failed += 1;
    }
    Ok((counts, status.success()))
}

/// What the guest's shell runs: the checkout at its own path, then each program; its status is
/// the number of programs that failed, at most 100.
fn guest_script(root: &Path, module: &str, programs: &[TestProgram], args: &[String]) -> String {
    let root = quote(&root.display().to_string());
    let args: Vec<String> = args.iter().map(|arg| quote(arg)).collect();
    let mut script = format!(
        "failed=0; export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root\n\
         mkdir -p {root} && mount --bind /host {root} && cd {root} || exit 101\n\
         uname -sr; systemctl is-system-running --wait; cat /sys/kernel/security/lsm; echo\n"
    );
    if module == "selinux" {
        script.push_str("setenforce 1; echo \"SELinux: $(getenforce)\"\n");
    } else {
        script.push_str("echo \"AppArmor: $(cat /sys/module/apparmor/parameters/enabled)\"\n");
    }
    for program in programs {
        let dir = quote(&program.dir.display().to_string());
        let file = quote(&program.file.display().to_string());
        script.push_str(&format!(
            "printf '\\n-- %s\\n' {}; cd {dir}; CARGO_MANIFEST_DIR={dir} timeout {PROGRAM_SECONDS_MAX} {file} --show-output {} || {{ code=$?; failed=$((failed+1)); echo \"-- {} ended with $code\"; }}\n",
            quote(&program.package),
            args.join(" "),
            program.package,
        ));
    }
    script.push_str(
        "cd /; left=$(find /sys/fs/cgroup -type d \\( -name '*ckt-*' -o -name '*carrack*' \\); \
         grep -o ' [^ ]*/ckt-[^ ]*' /proc/self/mountinfo)\n\
         [ -z \"$left\" ] || { echo \"left behind: $left\"; failed=$((failed+1)); }\n\
         exit $((failed > 100 ? 100 : failed))\n",
    );
    script
}

/// A word for the shell.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::{guest_script, parse, parse_artifact, quote};
    use std::path::Path;

    #[test]
    fn words_are_quoted_for_the_shell() {
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("it's"), r"'it'\''s'");
    }

    #[test]
    fn only_test_programs_are_taken_from_cargos_messages() {
        let line = r#"{"reason":"compiler-artifact","manifest_path":"/c/crates/a/Cargo.toml",
            "target":{"name":"a"},"profile":{"test":true},"executable":"/c/target/a-1"}"#;
        let program = parse_artifact(line).unwrap();
        assert_eq!(program.file, Path::new("/c/target/a-1"));
        assert_eq!(program.dir, Path::new("/c/crates/a"));
        assert!(parse_artifact(&line.replace("true", "false")).is_none());
        assert!(parse_artifact("warning").is_none());
    }

    #[test]
    fn the_guest_mounts_the_checkout_where_it_is_here() {
        let script = guest_script(Path::new("/a/b c"), "selinux", &[], &[]);
        assert!(script.contains("mount --bind /host '/a/b c'"));
        assert!(script.contains("setenforce 1"));
    }

    #[test]
    fn both_modules_unless_one_is_asked_for() {
        assert_eq!(parse(&[]).unwrap().modules.len(), 2);
        let args = ["-l", "selinux"].map(String::from);
        assert_eq!(parse(&args).unwrap().modules, ["selinux"]);
        assert!(parse(&["-l".to_string(), "x".to_string()]).is_err());
    }
}
