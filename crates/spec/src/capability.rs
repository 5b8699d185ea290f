//! Capabilities by name and number.

/// Names by number, `linux/capability.h` of Linux 6.18.
pub const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The number of a capability by its full name, in capitals or not.
pub fn number(name: &str) -> Option<u32> {
    let found = NAMES
        .iter()
        .position(|known| name.eq_ignore_ascii_case(known))?;
    u32::try_from(found).ok()
}

/// The full name of a capability that a person named with or without `CAP_`.
pub fn full_name(name: &str) -> Option<&'static str> {
    NAMES.into_iter().find(|known| {
        let bare = known.strip_prefix("CAP_").unwrap_or(known);
        name.eq_ignore_ascii_case(known) || name.eq_ignore_ascii_case(bare)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        assert_eq!(number("CAP_SYS_ADMIN"), Some(21));
        assert_eq!(number("cap_checkpoint_restore"), Some(40));
        assert_eq!(number("SYS_ADMIN"), None);
    }

    #[test]
    fn people_leave_the_prefix_out() {
        for name in ["CAP_SYS_ADMIN", "sys_admin", "Cap_Sys_Admin"] {
            assert_eq!(full_name(name), Some("CAP_SYS_ADMIN"));
        }
        for name in ["", "CAP_", "CAP_CAP_KILL", "ALL", "é_kill"] {
            assert_eq!(full_name(name), None);
        }
    }
}
