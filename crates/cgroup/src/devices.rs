//! Device access: lines for the devices hierarchy on v1, an eBPF program on v2.
//!
//! The last rule that names a device and an access decides; what no rule names
//! is denied. On v1 the list is written from scratch (a denial of everything
//! in front when the rules do not start with a rule for everything). On v2 our
//! program, known by its name, is put in place of the one from before in one step
//! (`BPF_F_REPLACE`, Linux 5.6), so an update opens no window; programs of others
//! (systemd's) stay and must allow the access as well.
//!
//! A hybrid host uses v1 as long as that has the controller.

use crate::device_program::compile;
use crate::error::{Error, Result};
use crate::files;
use crate::group::{Group, Node};
use carrack_spec::runtime::DeviceRule;
use carrack_sys::bpf;
use carrack_sys::late::Batch;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};

/// The name our device programs are loaded under.
pub const DEVICE_PROGRAM_NAME: &str = "carrack_devices";

impl Group {
    /// Replaces the device rules of the group by these, in order.
    ///
    /// Needs CAP_SYS_ADMIN (v1) or CAP_BPF and CAP_NET_ADMIN (v2). A rootless group skips it, and so
    /// does everybody in a user namespace: no device nodes can be made there anyway.
    pub fn apply_devices(&self, rules: &[DeviceRule]) -> Result<()> {
        for rule in rules {
            check_rule(rule)?;
        }
        let read: Vec<DeviceRule>;
        let rules = if rules.iter().any(has_other_letters) {
            read = rules.iter().map(without_other_letters).collect();
            &read
        } else {
            rules
        };
        if let Some(scope) = &self.scope
            && crate::systemd::apply_devices(self, scope, rules)?
        {
            return Ok(());
        }
        self.write_devices(rules)
    }

    /// The same past checks and systemd.
    pub(crate) fn write_devices(&self, rules: &[DeviceRule]) -> Result<()> {
        if self.rootless || self.is_none() {
            return Ok(());
        }
        let written = if let Some(node) = self.v1("devices") {
            write_v1(node, rules)
        } else if let Some(node) = self.v2() {
            attach_v2(node, rules)
        } else {
            return Err(Error::MissingController {
                controller: "devices",
                field: "linux.resources.devices".to_owned(),
                reason: "no v1 hierarchy with it is mounted, and no v2 hierarchy that could do it by eBPF".to_owned(),
            });
        };
        match written {
            // Nobody in a user namespace may set rules, not even in a cgroup of his own. None of
            // its processes can make device nodes: as runc and crun, go on with the rules above.
            Err(error) if not_allowed(&error) && in_user_namespace() => {
                log::debug!("in a user namespace, going on without device rules: {error}");
                Ok(())
            }
            other => other,
        }
    }
}

/// What an access is made of: reading, writing, making a node.
const LETTERS: [char; 3] = ['r', 'w', 'm'];

fn has_other_letters(rule: &DeviceRule) -> bool {
    rule.access.contains(|c| !LETTERS.contains(&c))
}

/// The rule with r, w and m alone, as runc reads it, but never to more access: what the other
/// letters stand for is unknown, so a permission goes without it and a denial is one of everything.
fn without_other_letters(rule: &DeviceRule) -> DeviceRule {
    let mut read = rule.clone();
    if has_other_letters(rule) {
        read.access.retain(|c| LETTERS.contains(&c));
        if !rule.allow {
            read.access.clear();
        }
        log::warn!(
            "linux.resources.devices: the access {:?} is not made of r, w and m alone; read as {:?}",
            rule.access,
            if rule.allow { &read.access } else { "rwm" }
        );
    }
    read
}

fn not_allowed(error: &Error) -> bool {
    use crate::error::libc_errno::{EACCES, EPERM};
    matches!(error.raw_os_error(), Some(EACCES | EPERM))
}

/// Whether we are in another user namespace than the machine's first one, which has a fixed inode
/// (`PROC_USER_INIT_INO`).
fn in_user_namespace() -> bool {
    const FIRST: u64 = 0xeffffffd;
    rustix::fs::stat(c"/proc/self/ns/user").is_ok_and(|stat| stat.st_ino != FIRST)
}

pub(crate) fn check_rule(rule: &DeviceRule) -> Result<()> {
    let bad = |value: String, reason| {
        Err(Error::Invalid {
            field: "linux.resources.devices".to_owned(),
            value,
            reason,
        })
    };
    if !matches!(rule.kind.as_str(), "" | "a" | "b" | "c") {
        return bad(format!("{:?}", rule.kind), "the type is a, b or c");
    }
    if !rule.access.is_empty() && !rule.access.contains(LETTERS) {
        return bad(
            format!("{:?}", rule.access),
            "the access is made of r, w and m",
        );
    }
    for number in [rule.major, rule.minor].into_iter().flatten() {
        if number < -1 || u32::try_from(number.max(0)).is_err() {
            return bad(
                number.to_string(),
                "a device number is 0 to 4294967295, or -1 for all",
            );
        }
    }
    Ok(())
}

fn write_v1(node: &Node, rules: &[DeviceRule]) -> Result<()> {
    let allow = node.file("devices.allow");
    let deny = node.file("devices.deny");
    let files = Batch::from(vec![files::open_write(&allow)?, files::open_write(&deny)?]);
    let [allow_fd, deny_fd] = files.as_slice() else {
        return Ok(());
    };
    if !rules.first().is_some_and(DeviceRule::is_wildcard) {
        files::write_fd(deny_fd, b"a").map_err(|e| files::write_error(&deny, "a", e))?;
    }
    for (index, rule) in rules.iter().enumerate() {
        if is_repeated(rule, &rules[..index]) {
            continue;
        }
        let (path, fd) = if rule.allow {
            (&allow, allow_fd)
        } else {
            (&deny, deny_fd)
        };
        for line in v1_lines(rule) {
            files::write_fd(fd, line.as_bytes()).map_err(|e| files::write_error(path, &line, e))?;
        }
    }
    Ok(())
}

/// Whether the rule allows what one before it allows already, with no denial in between.
fn is_repeated(rule: &DeviceRule, before: &[DeviceRule]) -> bool {
    let allowed = before.iter().rev().take_while(|earlier| earlier.allow);
    rule.allow && allowed.into_iter().any(|earlier| earlier == rule)
}

/// One rule as the kernel reads it; `a` with numbers or fewer letters is two rules, as the kernel
/// ignores what follows an `a`.
fn v1_lines(rule: &DeviceRule) -> Vec<String> {
    if rule.is_wildcard() {
        return vec!["a".to_owned()];
    }
    let number = |n: Option<i64>| match n {
        Some(n @ 0..) => n.to_string(),
        _ => "*".to_owned(),
    };
    let access = if rule.access.is_empty() {
        "rwm"
    } else {
        &rule.access
    };
    let kinds: &[&str] = match rule.kind.as_str() {
        "b" => &["b"],
        "c" => &["c"],
        _ => &["b", "c"],
    };
    kinds
        .iter()
        .map(|kind| {
            format!(
                "{kind} {}:{} {access}",
                number(rule.major),
                number(rule.minor)
            )
        })
        .collect()
}

fn attach_v2(node: &Node, rules: &[DeviceRule]) -> Result<()> {
    let failed = |op: &'static str| move |e: Errno| Error::io(op, &node.dir, e);
    let cgroup =
        files::open(&node.dir, OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed("open"))?;
    let program = bpf::load_device_filter(&compile(rules), DEVICE_PROGRAM_NAME)
        .map_err(failed("load the device program of"))?;
    let old = our_programs(&cgroup).map_err(failed("list the device programs of"))?;
    let attach = |replace: Option<&OwnedFd>| {
        bpf::attach_device_filter(cgroup.as_fd(), program.as_fd(), replace.map(AsFd::as_fd))
    };
    let mut rest = old.iter();
    match attach(rest.next()) {
        Ok(()) => {}
        // Before Linux 5.6 nothing can be replaced: both are in force for a moment, which only denies more.
        Err(Errno::INVAL) if !old.is_empty() => {
            rest = old.iter();
            attach(None).map_err(failed("attach the device program to"))?;
        }
        Err(e) => return Err(failed("attach the device program to")(e)),
    }
    for stale in rest {
        bpf::detach_device_filter(cgroup.as_fd(), stale.as_fd())
            .map_err(failed("detach the old device program of"))?;
    }
    Ok(())
}

/// The programs on this cgroup that carry our name.
fn our_programs(cgroup: &OwnedFd) -> Result<Vec<OwnedFd>, Errno> {
    let mut ours = Vec::new();
    for id in bpf::device_filters(cgroup.as_fd())? {
        let program = match bpf::program_by_id(id) {
            Ok(program) => program,
            Err(Errno::NOENT) => continue,
            Err(e) => return Err(e),
        };
        if bpf::program_name(program.as_fd())? == DEVICE_PROGRAM_NAME {
            ours.push(program);
        }
    }
    Ok(ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(kind: &str, major: Option<i64>, minor: Option<i64>, access: &str) -> DeviceRule {
        DeviceRule {
            allow: true,
            kind: kind.into(),
            major,
            minor,
            access: access.into(),
        }
    }

    #[test]
    fn v1_lines_follow_the_kernels_grammar() {
        assert_eq!(v1_lines(&rule("", None, Some(-1), "")), ["a"]);
        assert_eq!(v1_lines(&rule("c", Some(1), Some(3), "rw")), ["c 1:3 rw"]);
        assert_eq!(
            v1_lines(&rule("a", Some(7), None, "m")),
            ["b 7:* m", "c 7:* m"]
        );
    }

    #[test]
    fn an_unknown_access_never_gives_more() {
        let allowed = without_other_letters(&rule("c", Some(1), Some(3), "rwa"));
        assert_eq!(v1_lines(&allowed), ["c 1:3 rw"]);
        let denied = without_other_letters(&DeviceRule {
            allow: false,
            ..rule("c", Some(1), Some(3), "ra")
        });
        assert_eq!(v1_lines(&denied), ["c 1:3 rwm"]);
        assert!(!has_other_letters(&rule("c", None, None, "mrw")));
    }

    #[test]
    fn what_is_allowed_already_is_not_written_again() {
        let null = rule("c", Some(1), Some(3), "rwm");
        let mut denial = rule("c", Some(1), None, "w");
        denial.allow = false;
        let zero = rule("c", Some(1), Some(5), "rwm");
        assert!(is_repeated(&null, &[null.clone(), zero.clone()]));
        assert!(!is_repeated(&null, &[null.clone(), denial.clone()]));
        assert!(!is_repeated(&denial, &[denial.clone()]));
        assert!(!is_repeated(&null, &[zero]));
    }

    #[test]
    fn odd_rules_are_refused() {
        assert!(check_rule(&rule("u", None, None, "")).is_err());
        assert!(check_rule(&rule("c", None, None, "x")).is_err());
        assert!(check_rule(&rule("c", Some(-2), None, "r")).is_err());
        assert!(check_rule(&rule("c", Some(1 << 40), None, "r")).is_err());
        assert!(
            carrack_spec::defaults::device_rules()
                .iter()
                .all(|r| check_rule(r).is_ok())
        );
    }
}
