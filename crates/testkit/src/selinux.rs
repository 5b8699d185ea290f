//! Labels of SELinux for tests: types of `testvm/policy.cil`.

use crate::{Skip, skip};
use std::fs;

/// The label of this process with another type, the policy of the test VM being in force.
pub fn label(kind: &str) -> Result<String, Skip> {
    skip::root()?;
    let enforcing = fs::read_to_string("/sys/fs/selinux/enforce");
    if enforcing.map_err(|_| Skip::new("SELinux is off here"))? != "1" {
        return Err(Skip::new("SELinux is not enforcing here"));
    }
    let current = fs::read_to_string("/proc/self/attr/current");
    let current =
        current.map_err(|error| Skip::new(format!("no label of this process: {error}")))?;
    let current = current.trim_end_matches(['\0', '\n']);
    let mut parts: Vec<&str> = current.splitn(4, ':').collect();
    match parts.get_mut(2) {
        Some(part) => *part = kind,
        None => return Err(Skip::new(format!("no type in {current}"))),
    }
    let label = parts.join(":");
    match fs::write("/sys/fs/selinux/context", &label) {
        Ok(()) => Ok(label),
        Err(_) => Err(Skip::new(format!("the policy does not know {label}"))),
    }
}

/// The label of a file of this type.
pub fn file_label(kind: &str) -> String {
    format!("system_u:object_r:{kind}:s0")
}
