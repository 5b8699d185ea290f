//! How this machine mounts its cgroups, found out with a few system calls.
//!
//! ```text
//! unified   /sys/fs/cgroup                      is cgroup2
//! legacy    /sys/fs/cgroup                      is a tmpfs, one v1 mount a controller set
//! hybrid    the same, and /sys/fs/cgroup/unified is cgroup2
//! ```
//!
//! The v1 controllers and the caller's own cgroups come from
//! `/proc/self/cgroup`; the mount points are derived from it
//! (`/sys/fs/cgroup/<controllers>`). [`Layout::detect`] believes that, as who makes
//! a cgroup there finds out anyway; [`Layout::checked`] looks at each by file
//! system magic, and reads `/proc/self/mountinfo`, whose size grows with the host's
//! mounts, when one is missing or is no cgroup file system. It is also read when
//! the caller's own cgroup is not visible below it (a container without a
//! cgroup namespace). Nothing is cached beyond the value.

use crate::error::{Error, Result};
use crate::files;
use rustix::io::Errno;
use std::path::{Path, PathBuf};

/// Where every distribution mounts cgroups.
pub const CGROUP_ROOT: &str = "/sys/fs/cgroup";

const CGROUP_SUPER_MAGIC: i64 = 0x0027_e0eb;
const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;

/// The kind of set-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One v2 hierarchy with every controller.
    Unified,
    /// v1 hierarchies only.
    Legacy,
    /// v1 hierarchies, and a v2 hierarchy beside them.
    Hybrid,
}

/// Version of one hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A v1 hierarchy.
    V1,
    /// The v2 hierarchy.
    V2,
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// v1 or v2.
    pub version: Version,
    /// v1: what is attached, `["cpu", "cpuacct"]` or `["name=systemd"]`. v2: empty, as that is asked when needed.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// The caller's own cgroup in it, as `/proc/self/cgroup` says.
    pub own: String,
}

impl Hierarchy {
    /// The controllers joined as the kernel prints them, `cpu,cpuacct`; empty on v2.
    pub fn label(&self) -> String {
        self.controllers.join(",")
    }
}

/// The machine's hierarchies, v1 ones first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    mode: Mode,
    hierarchies: Vec<Hierarchy>,
    checked: bool,
}

impl Layout {
    /// Looks at `/sys/fs/cgroup` and `/proc/self/cgroup`; takes v1 hierarchies to be mounted where
    /// everybody mounts them.
    ///
    /// Fails when nothing is mounted at the usual place, or procfs cannot be read.
    pub fn detect() -> Result<Layout> {
        let own = files::read_single(Path::new("/proc/self/cgroup"))?;
        Layout::detect_at(Path::new(CGROUP_ROOT), &own, false)
    }

    /// The same, with a look at each v1 hierarchy: those that are mounted nowhere are left out.
    ///
    /// Fails when no cgroup file system is mounted, or procfs cannot be read.
    pub fn checked() -> Result<Layout> {
        let own = files::read_single(Path::new("/proc/self/cgroup"))?;
        Layout::detect_at(Path::new(CGROUP_ROOT), &own, true)
    }

    /// Whether each hierarchy was looked at.
    pub(crate) fn is_checked(&self) -> bool {
        self.checked || self.mode == Mode::Unified
    }

    fn detect_at(root: &Path, own: &str, check: bool) -> Result<Layout> {
        let lines = parse_proc_cgroup(own);
        let v2_own = lines
            .iter()
            .find(|l| l.controllers.is_empty())
            .map(|l| l.path.to_owned());
        match magic(root) {
            Ok(CGROUP2_SUPER_MAGIC) => return Ok(Layout::unified(root, v2_own)),
            Ok(_) => {}
            Err(_) => {
                return Err(Error::NotMounted {
                    path: root.to_owned(),
                });
            }
        }
        let mut mounts = None; // mountinfo, read once and only when needed
        let mut hierarchies = Vec::with_capacity(lines.len());
        for line in lines.iter().filter(|l| !l.controllers.is_empty()) {
            let derived = root.join(directory_of(&line.controllers));
            let mountpoint = if !check || magic(&derived) == Ok(CGROUP_SUPER_MAGIC) {
                Some(derived)
            } else {
                find_v1(&mut mounts, &line.controllers)?.map(|m| m.mountpoint.into())
            };
            // A hierarchy that exists but is mounted nowhere here cannot be used.
            let Some(mountpoint) = mountpoint else {
                continue;
            };
            hierarchies.push(Hierarchy {
                version: Version::V1,
                controllers: line.controllers.iter().map(|c| (*c).to_owned()).collect(),
                mountpoint,
                own: line.path.to_owned(),
            });
        }
        let unified = root.join("unified");
        let mut mode = Mode::Legacy;
        if let Some(own) = v2_own
            && magic(&unified) == Ok(CGROUP2_SUPER_MAGIC)
        {
            mode = Mode::Hybrid;
            hierarchies.push(Hierarchy {
                version: Version::V2,
                controllers: Vec::new(),
                mountpoint: unified,
                own,
            });
        }
        if hierarchies.is_empty() {
            return Err(Error::NotMounted {
                path: root.to_owned(),
            });
        }
        Ok(Layout {
            mode,
            hierarchies,
            checked: check,
        })
    }

    fn unified(root: &Path, own: Option<String>) -> Layout {
        Layout {
            mode: Mode::Unified,
            hierarchies: vec![Hierarchy {
                version: Version::V2,
                controllers: Vec::new(),
                mountpoint: root.to_owned(),
                own: own.unwrap_or_else(|| "/".to_owned()),
            }],
            checked: true,
        }
    }

    /// The kind of set-up.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The hierarchies, v1 ones first, the v2 one last.
    pub fn hierarchies(&self) -> &[Hierarchy] {
        &self.hierarchies
    }

    /// The v2 hierarchy, when there is one.
    pub fn v2(&self) -> Option<&Hierarchy> {
        self.hierarchies.last().filter(|h| h.version == Version::V2)
    }
}

impl Hierarchy {
    /// The directory of the caller's own cgroup.
    ///
    /// Where the mount shows only part of the hierarchy (a container without a
    /// cgroup namespace), the part is found in `/proc/self/mountinfo`.
    pub(crate) fn own_directory(&self) -> Result<PathBuf> {
        let direct = crate::path::below(&self.mountpoint, &self.own);
        if self.own == "/" || rustix::fs::access(&direct, rustix::fs::Access::EXISTS).is_ok() {
            return Ok(direct);
        }
        let text = files::read(Path::new("/proc/self/mountinfo"))?;
        let mount = text
            .lines()
            .filter_map(parse_mountinfo_line)
            .rfind(|m| Path::new(&m.mountpoint) == self.mountpoint);
        let Some(mount) = mount else {
            return Ok(direct);
        };
        Ok(match Path::new(&self.own).strip_prefix(&mount.root) {
            Ok(rest) => self.mountpoint.join(rest),
            // Our cgroup lies outside the mounted part: its root is the best parent there is.
            Err(_) => self.mountpoint.clone(),
        })
    }
}

/// One line of `/proc/PID/cgroup`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OwnCgroup<'a> {
    /// Empty on the v2 line.
    pub controllers: Vec<&'a str>,
    pub path: &'a str,
}

/// Parses `/proc/PID/cgroup`; lines of another shape are skipped.
pub(crate) fn parse_proc_cgroup(text: &str) -> Vec<OwnCgroup<'_>> {
    text.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            Some(OwnCgroup {
                controllers: controllers.split(',').filter(|c| !c.is_empty()).collect(),
                path,
            })
        })
        .collect()
}

/// The directory distributions use for a controller set below the root.
fn directory_of(controllers: &[&str]) -> String {
    let joined = controllers.join(",");
    match joined.strip_prefix("name=") {
        Some(name) => name.to_owned(),
        None => joined,
    }
}

fn magic(path: &Path) -> Result<i64, Errno> {
    // The type of f_type differs by architecture.
    #[allow(clippy::unnecessary_cast)]
    rustix::fs::statfs(path).map(|s| s.f_type as i64)
}

/// A cgroup mount of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Which cgroup of the hierarchy is mounted.
    root: String,
    mountpoint: String,
    /// `cgroup` or `cgroup2`.
    kind: String,
    /// Super block options, among them the controllers.
    options: Vec<String>,
}

fn find_v1(mounts: &mut Option<Vec<Mount>>, controllers: &[&str]) -> Result<Option<Mount>> {
    if mounts.is_none() {
        let text = files::read(Path::new("/proc/self/mountinfo"))?;
        *mounts = Some(text.lines().filter_map(parse_mountinfo_line).collect());
    }
    let found = mounts.iter().flatten().rfind(|m| {
        m.kind == "cgroup" && controllers.iter().all(|c| m.options.iter().any(|o| o == c))
    });
    Ok(found.cloned())
}

/// A cgroup line of mountinfo (proc(5)); `None` for every other file system.
pub(crate) fn parse_mountinfo_line(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut right = right.split(' ');
    let kind = right
        .next()
        .filter(|k| matches!(*k, "cgroup" | "cgroup2"))?;
    let options = right.nth(1)?;
    let mut left = left.split(' ').skip(3);
    Some(Mount {
        root: unescape(left.next()?),
        mountpoint: unescape(left.next()?),
        kind: kind.to_owned(),
        options: options.split(',').map(str::to_owned).collect(),
    })
}

/// Undoes mountinfo's octal escapes of blank, tab, newline and backslash.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let code = after.get(..3).and_then(|d| u8::from_str_radix(d, 8).ok());
        match (code, after.get(3..)) {
            (Some(code), Some(after)) if code.is_ascii() => {
                out.push(code as char);
                rest = after;
            }
            _ => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_cgroups_are_parsed_and_odd_lines_skipped() {
        let text = "9:name=systemd:/\n2:cpu,cpuacct:/a:b\nrubbish\n0::/user.slice\n";
        let lines = parse_proc_cgroup(text);
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[1].controllers, ["cpu", "cpuacct"]);
        assert_eq!(lines[1].path, "/a:b");
        assert!(lines[2].controllers.is_empty());
    }

    #[test]
    fn directories_follow_the_controllers() {
        assert_eq!(directory_of(&["cpu", "cpuacct"]), "cpu,cpuacct");
        assert_eq!(directory_of(&["name=systemd"]), "systemd");
    }

    #[test]
    fn mountinfo_lines_of_cgroups_are_understood() {
        let line = "40 31 0:37 /docker/x /odd\\040place rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct";
        let mount = parse_mountinfo_line(line).unwrap();
        assert_eq!(mount.root, "/docker/x");
        assert_eq!(mount.mountpoint, "/odd place");
        assert!(mount.options.contains(&"cpuacct".to_owned()));
        assert_eq!(
            parse_mountinfo_line("1 2 0:3 / /x rw - tmpfs tmpfs rw"),
            None
        );
        assert_eq!(parse_mountinfo_line("cut - cgroup"), None);
    }

    #[test]
    fn octal_escapes_are_undone_and_broken_ones_kept() {
        assert_eq!(unescape("a\\040b\\134"), "a b\\");
        assert_eq!(unescape("a\\04"), "a\\04");
        assert_eq!(unescape("\\"), "\\");
    }

    #[test]
    fn a_missing_root_is_a_clear_error() {
        let error = Layout::detect_at(Path::new("/nonexistent-cgroup"), "0::/", true).unwrap_err();
        assert!(error.to_string().contains("/nonexistent-cgroup"));
    }

    #[test]
    fn this_machine_has_a_layout() {
        match Layout::checked() {
            Ok(layout) => assert!(!layout.hierarchies().is_empty()),
            Err(e) => println!("skipped: {e}"),
        }
    }

    #[test]
    fn a_v1_hierarchy_that_is_not_mounted_is_believed_until_it_is_checked() {
        let root = std::env::temp_dir();
        let own = "2:no-such-controller:/a\n";
        let believed = Layout::detect_at(&root, own, false).unwrap();
        assert_eq!(believed.hierarchies().len(), 1);
        assert!(!believed.is_checked());
        assert!(Layout::detect_at(&root, own, true).is_err());
    }
}
