//! Device access rules, on v1 as lines for the devices hierarchy.
//!
//! The last rule that names a device decides. Without any rule for a device
//! access is denied, so a list that does not start with a rule for all devices
//! gets a denial in front.

use crate::error::{Error, Result};
use crate::files;
use crate::group::{Group, Node};
use carrack_spec::runtime::DeviceRule;

impl Group {
    /// Replaces the device rules of the group by these, in order.
    ///
    /// Needs CAP_SYS_ADMIN (v1) or CAP_BPF and CAP_NET_ADMIN (v2). A rootless group skips it:
    /// an unprivileged user namespace cannot make device nodes anyway.
    pub fn apply_devices(&self, rules: &[DeviceRule]) -> Result<()> {
        if self.rootless || self.is_none() {
            return Ok(());
        }
        for rule in rules {
            check_rule(rule)?;
        }
        match self.v1("devices") {
            Some(node) => write_v1(node, rules),
            None => Ok(()),
        }
    }
}

fn check_rule(rule: &DeviceRule) -> Result<()> {
    let bad = |value: &str, reason| {
        Err(Error::Invalid {
            field: "linux.resources.devices".to_owned(),
            value: format!("{value:?}"),
            reason,
        })
    };
    if !matches!(rule.kind.as_str(), "" | "a" | "b" | "c") {
        return bad(&rule.kind, "the type is a, b or c");
    }
    if !rule.access.chars().all(|c| "rwm".contains(c)) {
        return bad(&rule.access, "the access holds r, w and m only");
    }
    Ok(())
}

fn write_v1(node: &Node, rules: &[DeviceRule]) -> Result<()> {
    let allow = node.file("devices.allow");
    let deny = node.file("devices.deny");
    let (allow_fd, deny_fd) = (files::open_write(&allow)?, files::open_write(&deny)?);
    if !rules.first().is_some_and(DeviceRule::is_wildcard) {
        files::write_fd(&deny_fd, b"a").map_err(|e| files::write_error(&deny, "a", e))?;
    }
    for rule in rules {
        let (path, fd) = if rule.allow {
            (&allow, &allow_fd)
        } else {
            (&deny, &deny_fd)
        };
        for line in v1_lines(rule) {
            files::write_fd(fd, line.as_bytes()).map_err(|e| files::write_error(path, &line, e))?;
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_lines_follow_the_kernels_grammar() {
        let rule = |kind: &str, major, minor, access: &str| DeviceRule {
            allow: true,
            kind: kind.into(),
            major,
            minor,
            access: access.into(),
        };
        assert_eq!(v1_lines(&rule("", None, Some(-1), "")), ["a"]);
        assert_eq!(v1_lines(&rule("c", Some(1), Some(3), "rw")), ["c 1:3 rw"]);
        assert_eq!(
            v1_lines(&rule("a", Some(7), None, "m")),
            ["b 7:* m", "c 7:* m"]
        );
    }
}
