//! `cargo xtask test-vm`: the tests on a host of the other kind.
//!
//! ```text
//! here    cargo test --no-run ── list of test programs (static, so they run anywhere)
//!         testvm/testvm.sh build, once per suite: disk, kernel and initrd in TESTVM_DIR
//!         a second disk with the checkout and the programs ([`stage`])
//! guest   one boot per security module, and one for criu; every program runs as root, one after
//!         the other ([`guest`])
//! here    counts per boot and together
//! ```
//!
//! The guest has systemd as process 1, pure cgroup v2 with every controller, and
//! AppArmor or SELinux (switched to enforcing before the first test). It runs under
//! software emulation: slow, and never good for timings.

mod guest;
mod stage;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::counts::Counts;
use crate::debian;
use stage::Program;

/// Packages that are left out: nothing in them differs on another host.
const PURE: [&str; 4] = [
    "xtask",
    "carrack-spec",
    "carrack-seccomp",
    "carrack-registry",
];

/// Seconds that one boot with all tests may take.
const BOOT_SECONDS_MAX: &str = "7200";

/// Programs that get a boot of their own, with one processor emulated at a time: criu sets hardware
/// breakpoints, for which the kernel changes its own code, and that is what QEMU's processors that run
/// side by side see half done (`Oops: int3`).
const APART: [&str; 1] = ["checkpoint"];

/// Security modules, one boot each.
const MODULES: [&str; 2] = ["apparmor", "selinux"];

/// Layouts of cgroups.
const CGROUPS: [&str; 3] = ["v2", "v1", "hybrid"];

struct Options {
    modules: Vec<String>,
    /// The Debian release of the guest.
    suite: String,
    cgroup: String,
    packages: Vec<String>,
    /// Names of test programs; all when empty.
    tests: Vec<String>,
    /// The part of the test programs that is run, from 1, and the number of parts.
    part: (usize, usize),
    test_args: Vec<String>,
}

/// Boots and tests; true when nothing failed.
pub fn run(root: &Path, args: &[String]) -> Result<bool> {
    let options = parse(args)?;
    debian::ensure(debian::VM)?;
    let built = stage::build(root, &options.packages, &PURE)?;
    let programs = options.choose(&built);
    if programs.is_empty() {
        bail!("no test program is chosen");
    }
    let place = place(&options.suite);
    build_disk(root, &place, &options.suite)?;
    let checkout = stage::disk(root, &place, &built)?;
    let mut good = true;
    let mut summary = Vec::new();
    for module in &options.modules {
        let is_apart = |program: &&&Program| APART.contains(&program.name.as_str());
        let (apart, together): (Vec<_>, Vec<_>) = programs.iter().partition(is_apart);
        for (programs, apart) in [(together, false), (apart, true)] {
            if programs.is_empty() {
                continue;
            }
            println!("\n== {module}: {} test programs", programs.len());
            let script = guest::script(root, module, &programs, &options.test_args);
            let boot = Boot {
                place: &place,
                checkout: &checkout,
                module,
                cgroup: &options.cgroup,
                apart,
            };
            let (counts, finished) = boot.run(root, &script)?;
            counts.print_lists();
            good &= finished && counts.failed == 0;
            let what = if apart { " (apart)" } else { "" };
            let note = if finished {
                ""
            } else {
                " (the guest did not finish well)"
            };
            summary.push(format!("{module}{what}: {counts}{note}"));
        }
    }
    for line in summary {
        println!("{line}");
    }
    Ok(good)
}

fn parse(args: &[String]) -> Result<Options> {
    let mut options = Options {
        modules: Vec::new(),
        suite: std::env::var("TESTVM_SUITE").unwrap_or_else(|_| "trixie".into()),
        cgroup: "v2".into(),
        packages: Vec::new(),
        tests: Vec::new(),
        part: (1, 1),
        test_args: Vec::new(),
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = |what: &str| {
            let value = args.next().cloned();
            value.with_context(|| format!("{arg} needs {what}"))
        };
        match arg.as_str() {
            "-l" => options.modules.push(one_of(value("a module")?, &MODULES)?),
            "--cgroup" => options.cgroup = one_of(value("a layout")?, &CGROUPS)?,
            "--suite" => options.suite = value("a Debian release")?,
            "-p" => options.packages.push(value("a package")?),
            "--test" => options.tests.push(value("a test program")?),
            "--part" => options.part = parse_part(&value("N/M")?)?,
            "--" => options.test_args.extend(args.by_ref().cloned()),
            other => bail!("unknown argument {other}"),
        }
    }
    if options.modules.is_empty() {
        options.modules = MODULES.map(String::from).to_vec();
    }
    Ok(options)
}

fn one_of(value: String, known: &[&str]) -> Result<String> {
    if !known.contains(&value.as_str()) {
        bail!("{value} is none of {}", known.join(", "));
    }
    Ok(value)
}

fn parse_part(text: &str) -> Result<(usize, usize)> {
    let numbers = text.split_once('/');
    let numbers = numbers.and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)));
    match numbers {
        Some((part, of)) if (1..=of).contains(&part) => Ok((part, of)),
        _ => bail!("--part {text}: it is N/M, with N from 1 to M"),
    }
}

impl Options {
    /// The test programs that are run.
    fn choose<'a>(&self, built: &'a [Program]) -> Vec<&'a Program> {
        let (part, of) = self.part;
        built
            .iter()
            .filter(|program| program.tests)
            .filter(|program| self.tests.is_empty() || self.tests.contains(&program.name))
            .skip(part - 1)
            .step_by(of)
            .collect()
    }
}

/// Where disks, kernel and initrd are kept: outside of the checkout, as they are large.
fn place(suite: &str) -> PathBuf {
    let place = std::env::var_os("TESTVM_DIR");
    let place: PathBuf = place.map_or("/var/tmp/carrack-testvm".into(), PathBuf::from);
    place.join(suite)
}

/// Makes the disk when it is missing or was made by another version of script and policy.
fn build_disk(root: &Path, place: &Path, suite: &str) -> Result<()> {
    let script = root.join("testvm/testvm.sh");
    let stamp = place.join("made-by");
    let read = |path: &Path| fs::read_to_string(path).context(path.display().to_string());
    let text = read(&script)? + &read(&root.join("testvm/policy.cil"))?;
    let current = fs::read_to_string(&stamp).is_ok_and(|made_by| made_by == text);
    if current && place.join("root.img").exists() {
        return Ok(());
    }
    println!("making the test VM in {} (about a minute)", place.display());
    let status = Command::new(&script)
        .arg("build")
        .env("TESTVM_DIR", place)
        .env("TESTVM_SUITE", suite)
        .status()
        .context("cannot run testvm/testvm.sh")?;
    if !status.success() {
        bail!("testvm/testvm.sh build: {status}");
    }
    fs::remove_dir_all(place.join("tree")).context("cannot remove the unpacked tree")?;
    fs::write(&stamp, text).context("cannot write the stamp")
}

/// A boot of the guest.
struct Boot<'a> {
    place: &'a Path,
    checkout: &'a Path,
    module: &'a str,
    cgroup: &'a str,
    /// One processor at a time.
    apart: bool,
}

impl Boot<'_> {
    /// Runs everything in the guest and counts what came back. A guest that dies before its first
    /// program, as an emulated one does now and then on a busy machine, is booted once more.
    fn run(&self, root: &Path, script: &str) -> Result<(Counts, bool)> {
        let (counts, finished, begun) = self.run_once(root, script)?;
        if finished || begun {
            return Ok((counts, finished));
        }
        println!("the guest did not get to its first test program; booting it once more");
        let (counts, finished, _) = self.run_once(root, script)?;
        Ok((counts, finished))
    }

    /// The counts, whether the guest finished well, and whether it began with a program.
    fn run_once(&self, root: &Path, script: &str) -> Result<(Counts, bool, bool)> {
        let mut command = Command::new(root.join("testvm/testvm.sh"));
        if self.apart && std::env::var_os("TESTVM_ACCEL").is_none() {
            command.env("TESTVM_ACCEL", "tcg,thread=single");
        }
        let mut child = command
            .args(["run", "-m", "4096", "-t", BOOT_SECONDS_MAX])
            .args(["-l", self.module, "-g", self.cgroup, "-d"])
            .arg(self.checkout)
            .arg("--")
            .arg(script)
            .env("TESTVM_DIR", self.place)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run testvm/testvm.sh")?;
        let stdout = child.stdout.take().context("no output from testvm.sh")?;
        let mut counts = Counts::default();
        let mut begun = false;
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.context("cannot read from testvm.sh")?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            counts.take(&line);
            begun |= line.starts_with(guest::PROGRAM);
        }
        let status = child.wait().context("cannot wait for testvm.sh")?;
        if !status.success() && counts.failed == 0 {
            counts.failed += 1;
        }
        Ok((counts, status.success(), begun))
    }
}

#[cfg(test)]
mod tests {
    use super::{Program, parse};

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(String::from).collect()
    }

    #[test]
    fn both_modules_unless_one_is_asked_for() {
        assert_eq!(parse(&[]).unwrap().modules.len(), 2);
        assert_eq!(parse(&words("-l selinux")).unwrap().modules, ["selinux"]);
        for line in [
            "-l x",
            "-l",
            "--cgroup v3",
            "--part 0/2",
            "--part 3/2",
            "-x",
        ] {
            assert!(parse(&words(line)).is_err(), "{line}");
        }
    }

    #[test]
    fn parts_make_a_whole() {
        let program = |name: &str, tests| Program {
            name: name.into(),
            file: "/f".into(),
            dir: "/".into(),
            tests,
        };
        let built = [
            program("a", true),
            program("tool", false),
            program("b", true),
            program("c", true),
        ];
        let names = |line: &str| -> Vec<&str> {
            let chosen = parse(&words(line)).unwrap().choose(&built);
            chosen.iter().map(|program| program.name.as_str()).collect()
        };
        assert_eq!(names("--part 1/2"), ["a", "c"]);
        assert_eq!(names("--part 2/2"), ["b"]);
        assert_eq!(names("--test b"), ["b"]);
    }
}
