//! The audit after a test run: nothing may be left on the machine.
//!
//! What is looked at, and how a leak is told from somebody else's doings:
//!
//! | kind | leak when |
//! |---|---|
//! | process | it descends from us (we are its subreaper), or is new and names the run's `TMPDIR` on its command line or is in a cgroup of the tests, and lives on after [`SETTLE`] |
//! | temporary file | it is in the run's own `TMPDIR` |
//! | mount | its mount point is in the run's `TMPDIR`, or new and named after the project |
//! | directory in the tmpfs that v1 hierarchies are mounted in | it is new and nothing is mounted there: podman fills such a one with directories and files of its own |
//! | cgroup, network namespace, user, entry of a state root | it is new and its name holds the project's name, the run's tag or the tests' prefix |
//!
//! Leaks are reported and then removed as far as that is safe (processes killed,
//! mounts detached, empty cgroups and temporary files removed), so that one bad
//! run does not spoil the next.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use carrack_testkit::leaks;
use rustix::mount::{UnmountFlags, unmount};

/// Time that ends of processes and of cgroups may take after the last test.
const SETTLE: Duration = Duration::from_secs(5);

/// Prefix of the names that tests give to containers (see the test kit).
const TEST_PREFIX: &str = "ckt-";

/// What stood on the machine before the tests, and the run's own names.
pub struct Audit {
    tag: String,
    temp_dir: PathBuf,
    before: BTreeSet<String>,
}

impl Audit {
    /// Makes the run's temporary directory and notes what is there.
    pub fn begin() -> Result<Audit> {
        let tag = format!("ckt{}", std::process::id());
        // Short: paths of unix sockets hold 108 bytes.
        let temp_dir = std::env::temp_dir().join(&tag);
        fs::create_dir_all(&temp_dir)
            .with_context(|| format!("cannot create {}", temp_dir.display()))?;
        // As /tmp: ordinary users that tests create work in it too.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
        fs::set_permissions(&temp_dir, mode)
            .with_context(|| format!("cannot open up {}", temp_dir.display()))?;
        let before = machine(&temp_dir).into_iter().collect();
        Ok(Audit {
            tag,
            temp_dir,
            before,
        })
    }

    /// A name that is unique to this run; part of the names that tests give.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The directory for all temporary files of the run.
    pub fn temp_dir(&self) -> &Path {
        &self.temp_dir
    }

    /// Waits until nothing is left or the settling time is over; reports and removes the rest.
    pub fn finish(self) -> Vec<String> {
        let until = Instant::now() + SETTLE;
        let mut leaks = self.leaks();
        while !leaks.is_empty() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(200));
            leaks = self.leaks();
        }
        self.clean();
        leaks
    }

    fn leaks(&self) -> Vec<String> {
        let mut leaks: Vec<String> = descendants().iter().map(Process::line).collect();
        let mut now = machine(&self.temp_dir);
        now.retain(|found| !leaks.contains(found));
        leaks.extend(now.into_iter().filter(|found| !self.before.contains(found)));
        leaks.extend(
            names_in(&self.temp_dir)
                .into_iter()
                .map(|name| format!("temporary file {}", self.temp_dir.join(name).display())),
        );
        leaks
    }

    fn clean(&self) {
        for process in descendants() {
            super::watch::kill(process.pid);
        }
        for process in of_tests(&self.temp_dir) {
            if !self.before.contains(&process.line()) {
                super::watch::kill(process.pid);
            }
        }
        for point in mount_points().iter().rev() {
            if Path::new(point).starts_with(&self.temp_dir) {
                let _ = unmount(point.as_str(), UnmountFlags::DETACH);
            }
        }
        for found in machine(&self.temp_dir) {
            if self.before.contains(&found) {
                continue;
            }
            let cgroup = found.strip_prefix("cgroup ");
            if let Some(path) = cgroup.or_else(|| found.strip_prefix("plain directory ")) {
                leaks::remove_cgroup(Path::new(path));
            }
        }
        // Only when no mount is left inside: removal must never reach into one.
        let mounted = mount_points()
            .iter()
            .any(|p| Path::new(p).starts_with(&self.temp_dir));
        if !mounted {
            let _ = fs::remove_dir_all(&self.temp_dir);
        }
    }
}

/// A process under us.
pub struct Process {
    /// Its pid.
    pub pid: i32,
    /// Its name as the kernel has it (15 bytes).
    pub name: String,
}

impl Process {
    fn line(&self) -> String {
        format!("process {} ({})", self.pid, self.name)
    }
}

/// Processes whose command line names the run's directory, or whose cgroup has a test's name.
fn of_tests(temp_dir: &Path) -> Vec<Process> {
    let own = std::process::id().to_string();
    let place = temp_dir.display().to_string();
    let pids = names_in(Path::new("/proc")).into_iter();
    pids.filter(|pid| *pid != own)
        .filter_map(|pid| {
            let number = pid.parse().ok()?;
            let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let (_, name) = parse_stat(&String::from_utf8_lossy(&read("stat")))?;
            let holds =
                |file: &str, text: &str| String::from_utf8_lossy(&read(file)).contains(text);
            (holds("cmdline", &place) || holds("cgroup", TEST_PREFIX))
                .then_some(Process { pid: number, name })
        })
        .collect()
}

/// Directories in the tmpfs of the v1 hierarchies where no hierarchy is mounted.
fn plain_directories(root: &Path) -> Vec<PathBuf> {
    if leaks::is_hierarchy(root) {
        return Vec::new();
    }
    let entries = names_in(root).into_iter().map(|name| root.join(name));
    let plain = |path: &PathBuf| {
        fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir()) && !leaks::is_hierarchy(path)
    };
    entries.filter(plain).collect()
}

/// Every live descendant of this process.
pub fn descendants() -> Vec<Process> {
    let mut family = BTreeSet::from([i32::try_from(std::process::id()).unwrap_or(0)]);
    let all: Vec<(i32, i32, String)> = names_in(Path::new("/proc"))
        .iter()
        .filter_map(|name| name.parse::<i32>().ok())
        .filter_map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let (parent, name) = parse_stat(&stat)?;
            Some((pid, parent, name))
        })
        .collect();
    let mut found = Vec::new();
    loop {
        let size = family.len();
        for (pid, parent, name) in &all {
            if family.contains(parent) && family.insert(*pid) {
                found.push(Process {
                    pid: *pid,
                    name: name.clone(),
                });
            }
        }
        if family.len() == size {
            return found;
        }
    }
}

/// Parent and name from `/proc/PID/stat`; none for a zombie.
fn parse_stat(stat: &str) -> Option<(i32, String)> {
    let (head, tail) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let mut fields = tail.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    Some((fields.next()?.parse().ok()?, name.to_string()))
}

/// Everything on the machine that looks like the project's, one line each.
fn machine(temp_dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for point in mount_points() {
        if Path::new(&point).starts_with(temp_dir) || ours(&point) {
            found.push(format!("mount {point}"));
        }
    }
    found.extend(of_tests(temp_dir).iter().map(Process::line));
    for directory in plain_directories(Path::new("/sys/fs/cgroup")) {
        found.push(format!("plain directory {}", directory.display()));
    }
    for hierarchy in names_in(Path::new("/sys/fs/cgroup")) {
        walk_cgroups(&Path::new("/sys/fs/cgroup").join(hierarchy), &mut found);
    }
    for name in names_in(Path::new("/run/netns")) {
        if ours(&name) {
            found.push(format!("network namespace {name}"));
        }
    }
    // A state root may stay, as any service's directory does, with the caches in it (`@…`).
    for root in names_in(Path::new("/run")).iter().filter(|name| ours(name)) {
        let entries = names_in(&Path::new("/run").join(root));
        for name in entries.iter().filter(|name| !name.starts_with('@')) {
            found.push(format!("state /run/{root}/{name}"));
        }
    }
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    for name in accounts.lines().filter_map(|line| line.split(':').next()) {
        if ours(name) {
            found.push(format!("user {name}"));
        }
    }
    found.sort();
    found.dedup();
    found
}

fn walk_cgroups(dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        if ours(&entry.file_name().to_string_lossy()) {
            found.push(format!("cgroup {}", path.display()));
        }
        walk_cgroups(&path, found);
    }
}

fn ours(name: &str) -> bool {
    name.contains("carrack") || name.contains(TEST_PREFIX)
}

fn mount_points() -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(String::from)
        .collect()
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{descendants, of_tests, ours, parse_stat, plain_directories};

    #[test]
    fn stat_lines_with_odd_names_are_parsed_and_zombies_left_out() {
        assert_eq!(
            parse_stat("12 (a) b) S 7 1 1"),
            Some((7, "a) b".to_string()))
        );
        assert_eq!(parse_stat("12 (gone) Z 7 1 1"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn directories_without_a_hierarchy_are_found() {
        let dir = std::env::temp_dir().join(format!("audit-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("hugetlb/ckt-1-1/conmon")).unwrap();
        std::fs::write(dir.join("file"), "").unwrap();
        assert_eq!(plain_directories(&dir), [dir.join("hugetlb")]);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_process_is_known_by_its_command_line() {
        let place = std::env::temp_dir().join(format!("audit-of-{}", std::process::id()));
        let mut child = std::process::Command::new("sh")
            .args(["-c", "read line"])
            .arg(&place)
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        // The kernel lets the maker go on a little before the command line can be read.
        carrack_testkit::wait_until("process with the name in its command line", || {
            of_tests(&place).iter().any(|process| process.pid == pid)
        });
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_child_is_a_descendant() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let found = descendants().iter().any(|process| process.pid == pid);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found);
    }

    #[test]
    fn names_of_the_project_are_known() {
        assert!(ours("/sys/fs/cgroup/pids/ckt-12-1"));
        assert!(ours("carrack-runtime"));
        assert!(!ours("docker"));
    }
}
