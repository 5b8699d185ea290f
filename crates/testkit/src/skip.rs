//! Tests that cannot run here say so and are counted.
//!
//! A skip is one line on standard output, `SKIP <crate>::<test>: <reason>`, which the
//! test runner takes off the passed and counts as skipped.

use std::path::{Path, PathBuf};

/// Why a test cannot run on this machine.
#[derive(Debug)]
pub struct Skip(String);

impl Skip {
    /// A skip with its reason: what is missing, and where one could get it.
    pub fn new(reason: impl Into<String>) -> Skip {
        Skip(reason.into())
    }

    /// The reason.
    pub fn reason(&self) -> &str {
        &self.0
    }
}

/// Prints why the current test is skipped and returns from it.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)*) => {{
        $crate::skip::print(module_path!(), &format!($($reason)*));
        return;
    }};
}

/// The value of a `Result<T, Skip>`, or skips the current test.
#[macro_export]
macro_rules! require {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(skip) => $crate::skip!("{}", $crate::Skip::reason(&skip)),
        }
    };
}

/// Prints the line that the test runner counts.
pub fn print(module: &str, reason: &str) {
    let krate = module.split("::").next().unwrap_or(module);
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("test");
    println!("SKIP {krate}::{name}: {}", reason.replace('\n', " "));
}

/// The test needs root.
pub fn root() -> Result<(), Skip> {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        Err(Skip::new("needs root"))
    }
}

/// The test needs a program; its path.
pub fn program(name: &str) -> Result<PathBuf, Skip> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| Skip::new(format!("{name} is not installed")))
}

/// The test needs strace, and leave to trace.
pub fn strace() -> Result<(), Skip> {
    let works = std::process::Command::new(program("strace")?)
        .args(["-qq", "-e", "trace=none", "true"])
        .output();
    match works {
        Ok(output) if output.status.success() => Ok(()),
        _ => Err(Skip::new("strace cannot trace here")),
    }
}

/// The test needs a file or directory of the kernel or the system.
pub fn exists(path: impl AsRef<Path>) -> Result<(), Skip> {
    let path = path.as_ref();
    if path.exists() {
        Ok(())
    } else {
        Err(Skip::new(format!("no {} here", path.display())))
    }
}

/// The test needs a capability (its number in `linux/capability.h`) in the effective set.
pub fn capability(name: &str, number: u32) -> Result<(), Skip> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .unwrap_or(0);
    if effective & (1 << number) != 0 {
        Ok(())
    } else {
        Err(Skip::new(format!("no {name} here")))
    }
}

/// The test needs a pure cgroup v2 host.
pub fn unified_cgroups() -> Result<(), Skip> {
    exists("/sys/fs/cgroup/cgroup.controllers").map_err(|_| Skip::new("not a pure cgroup v2 host"))
}

/// The test needs a cgroup v2 hierarchy, be it beside those of v1.
pub fn some_unified_cgroups() -> Result<(), Skip> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    match mounts.contains(" cgroup2 ") {
        true => Ok(()),
        false => Err(Skip::new("no cgroup v2 hierarchy is mounted")),
    }
}

/// The test needs this version of the kernel.
pub fn kernel(wanted: (u32, u32)) -> Result<(), Skip> {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    match found >= wanted {
        true => Ok(()),
        false => Err(Skip::new(format!(
            "needs Linux {}.{}, this is {release}",
            wanted.0, wanted.1
        ))),
    }
}

/// The test needs systemd as process 1.
pub fn systemd() -> Result<(), Skip> {
    exists("/run/systemd/system").map_err(|_| Skip::new("systemd does not run here"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_becomes_the_reason() {
        assert_eq!(
            program("no-such-program").unwrap_err().reason(),
            "no-such-program is not installed"
        );
        assert_eq!(exists("/no/such").unwrap_err().reason(), "no /no/such here");
        assert!(program("sh").is_ok());
        assert!(kernel((2, 6)).is_ok());
        let reason = kernel((1000, 0)).unwrap_err();
        assert!(reason.reason().starts_with("needs Linux 1000.0, this is "));
    }
}
