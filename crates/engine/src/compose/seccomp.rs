//! The system calls that a container may use unless it asks otherwise.
//!
//! Three answers: calls of the tables are allowed, some only with a capability or an argument; calls
//! that are known and dangerous fail with EPERM; everything else, calls of later kernels among it, fails
//! with ENOSYS, so that libraries fall back to what they know.

use carrack_spec::runtime::{Seccomp, SeccompArg, SeccompRule};

const ALLOW: &str = "SCMP_ACT_ALLOW";
const REFUSE: &str = "SCMP_ACT_ERRNO";
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
/// CLONE_NEW… flags of namespaces but time: cgroup, uts, ipc, user, pid, net and mount.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;
/// Sockets between a virtual machine and its host.
const AF_VSOCK: u64 = 40;
/// PER_LINUX, PER_LINUX32, UNAME26, both, and the question for the current value.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Allowed to everyone, by what they are about.
#[rustfmt::skip]
const ALWAYS: [&[&str]; 9] = [
    // Files and directories by path and descriptor.
    &["access", "chdir", "chmod", "chown", "chown32", "close", "close_range", "creat", "dup", "dup2", "dup3",
      "faccessat", "faccessat2", "fchdir", "fchmod", "fchmodat", "fchmodat2", "fchown", "fchown32", "fchownat",
      "fcntl", "fcntl64", "flock", "fstat", "fstat64", "fstatat64", "fstatfs", "fstatfs64", "ftruncate",
      "ftruncate64", "futimesat", "getcwd", "getdents", "getdents64", "lchown", "lchown32", "link", "linkat",
      "lseek", "_llseek", "lstat", "lstat64", "mkdir", "mkdirat", "mknod", "mknodat", "name_to_handle_at",
      "newfstatat", "open", "openat", "openat2", "readlink", "readlinkat", "rename", "renameat", "renameat2",
      "rmdir", "stat", "stat64", "statfs", "statfs64", "statx", "symlink", "symlinkat", "truncate",
      "truncate64", "umask", "unlink", "unlinkat", "utime", "utimensat", "utimensat_time64", "utimes"],
    // Reading, writing, copying, flushing.
    &["copy_file_range", "fadvise64", "fadvise64_64", "fallocate", "fdatasync", "fsync", "pread64", "preadv",
      "preadv2", "pwrite64", "pwritev", "pwritev2", "read", "readahead", "readv", "sendfile", "sendfile64",
      "splice", "sync", "sync_file_range", "syncfs", "tee", "vmsplice", "write", "writev", "cachestat"],
    // Extended attributes and file events.
    &["fanotify_mark", "fgetxattr", "flistxattr", "fremovexattr", "fsetxattr", "getxattr", "getxattrat",
      "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch", "lgetxattr", "listxattr",
      "listxattrat", "llistxattr", "lremovexattr", "lsetxattr", "removexattr", "removexattrat", "setxattr",
      "setxattrat"],
    // Memory.
    &["brk", "get_mempolicy_home_node", "madvise", "map_shadow_stack", "membarrier", "memfd_create",
      "memfd_secret", "mincore", "mlock", "mlock2", "mlockall", "mmap", "mmap2", "mprotect", "mremap",
      "mseal", "msync", "munlock", "munlockall", "munmap", "pkey_alloc", "pkey_free", "pkey_mprotect",
      "process_mrelease", "remap_file_pages"],
    // Processes, threads and their rights.
    &["arch_prctl", "capget", "capset", "execve", "execveat", "exit", "exit_group", "fork", "getegid",
      "getegid32", "geteuid", "geteuid32", "getgid", "getgid32", "getgroups", "getgroups32", "getpgid",
      "getpgrp", "getpid", "getppid", "getpriority", "getresgid", "getresgid32", "getresuid", "getresuid32",
      "getrlimit", "getrusage", "getsid", "gettid", "getuid", "getuid32", "get_robust_list",
      "get_thread_area", "ioprio_get", "ioprio_set", "kill", "landlock_add_rule", "landlock_create_ruleset",
      "landlock_restrict_self", "modify_ldt", "pause", "pidfd_open", "pidfd_send_signal", "prctl",
      "prlimit64", "restart_syscall", "rseq", "seccomp", "set_robust_list", "set_thread_area",
      "set_tid_address", "setfsgid", "setfsgid32", "setfsuid", "setfsuid32", "setgid", "setgid32",
      "setgroups", "setgroups32", "setpgid", "setpriority", "setregid", "setregid32", "setresgid",
      "setresgid32", "setresuid", "setresuid32", "setreuid", "setreuid32", "setrlimit", "setsid", "setuid",
      "setuid32", "sysinfo", "tgkill", "tkill", "ugetrlimit", "uname", "vfork", "wait4", "waitid",
      "waitpid", "getcpu", "times"],
    // Scheduling, signals and time.
    &["alarm", "clock_getres", "clock_getres_time64", "clock_gettime", "clock_gettime64", "clock_nanosleep",
      "clock_nanosleep_time64", "getitimer", "gettimeofday", "nanosleep", "rt_sigaction", "rt_sigpending",
      "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait",
      "rt_sigtimedwait_time64", "rt_tgsigqueueinfo", "sched_get_priority_max", "sched_get_priority_min",
      "sched_getaffinity", "sched_getattr", "sched_getparam", "sched_getscheduler",
      "sched_rr_get_interval", "sched_rr_get_interval_time64", "sched_setaffinity", "sched_setattr",
      "sched_setparam", "sched_setscheduler", "sched_yield", "setitimer", "sigaltstack", "signalfd",
      "signalfd4", "sigprocmask", "sigreturn", "time", "timer_create", "timer_delete", "timer_getoverrun",
      "timer_gettime", "timer_gettime64", "timer_settime", "timer_settime64", "timerfd_create",
      "timerfd_gettime", "timerfd_gettime64", "timerfd_settime", "timerfd_settime64", "adjtimex",
      "clock_adjtime", "clock_adjtime64"],
    // Waiting for events, and asynchronous input and output (io_uring is not among it).
    &["_newselect", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait",
      "epoll_pwait2", "epoll_wait", "epoll_wait_old", "eventfd", "eventfd2", "futex", "futex_requeue",
      "futex_time64", "futex_wait", "futex_waitv", "futex_wake", "io_cancel", "io_destroy", "io_getevents",
      "io_pgetevents", "io_pgetevents_time64", "io_setup", "io_submit", "ioctl", "pipe", "pipe2", "poll",
      "ppoll", "ppoll_time64", "pselect6", "pselect6_time64", "select"],
    // Sockets.
    &["accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "recv",
      "recvfrom", "recvmmsg", "recvmmsg_time64", "recvmsg", "send", "sendmmsg", "sendmsg", "sendto",
      "setsockopt", "shutdown", "socketcall", "socketpair"],
    // System V and POSIX inter-process communication, and entropy.
    &["getrandom", "ipc", "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive",
      "mq_timedreceive_time64", "mq_timedsend", "mq_timedsend_time64", "mq_unlink", "msgctl", "msgget",
      "msgrcv", "msgsnd", "semctl", "semget", "semop", "semtimedop", "semtimedop_time64", "shmat", "shmctl",
      "shmdt", "shmget"],
];

/// Allowed to who has one of the capabilities.
#[rustfmt::skip]
const WITH_CAPABILITY: [(&[&str], &[&str]); 11] = [
    (&["CAP_DAC_READ_SEARCH"], &["open_by_handle_at"]),
    (&["CAP_SYS_ADMIN"],
     &["clone", "clone3", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick", "listmount",
       "lookup_dcookie", "mount", "mount_setattr", "move_mount", "open_tree", "open_tree_attr",
       "quotactl", "quotactl_fd", "setdomainname", "sethostname", "setns", "statmount", "umount",
       "umount2", "unshare"]),
    (&["CAP_SYS_ADMIN", "CAP_BPF"], &["bpf"]),
    (&["CAP_SYS_ADMIN", "CAP_PERFMON"], &["perf_event_open"]),
    (&["CAP_SYS_ADMIN", "CAP_SYSLOG"], &["syslog"]),
    (&["CAP_SYS_BOOT"], &["reboot"]),
    (&["CAP_SYS_CHROOT"], &["chroot"]),
    (&["CAP_SYS_MODULE"], &["delete_module", "finit_module", "init_module"]),
    (&["CAP_SYS_PACCT"], &["acct"]),
    (&["CAP_SYS_NICE"], &["get_mempolicy", "mbind", "migrate_pages", "move_pages", "set_mempolicy",
                          "set_mempolicy_home_node"]),
    (&["CAP_SYS_TIME"], &["clock_settime", "clock_settime64", "settimeofday", "stime"]),
];

/// Allowed with `CAP_SYS_PTRACE`, and to everyone since Linux 4.8 closed the way past seccomp.
const PTRACE: [&str; 6] = [
    "kcmp",
    "pidfd_getfd",
    "process_madvise",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
];
/// Allowed with `CAP_SYS_RAWIO` on x86.
const RAW_IO: [&str; 2] = ["ioperm", "iopl"];
/// Allowed with `CAP_SYS_TTY_CONFIG`.
const TTY: [&str; 1] = ["vhangup"];

/// Known, dangerous or obsolete: EPERM rather than "not there".
#[rustfmt::skip]
const REFUSED: [&str; 18] = [
    "add_key", "create_module", "get_kernel_syms", "io_uring_enter", "io_uring_register",
    "io_uring_setup", "kexec_file_load", "kexec_load", "keyctl", "nfsservctl", "pivot_root",
    "query_module", "request_key", "swapoff", "swapon", "sysfs", "userfaultfd", "ustat",
];

/// The profile for a container with these capabilities (`CAP_…`).
pub fn profile(capabilities: &[String]) -> Seccomp {
    let has = |wanted: &[&str]| wanted.iter().any(|w| capabilities.iter().any(|c| c == w));
    let mut allowed: Vec<&str> = ALWAYS.concat();
    let mut refused: Vec<&str> = REFUSED.to_vec();
    allowed.extend(PTRACE);
    let by_capability = WITH_CAPABILITY.iter().copied().chain([
        (["CAP_SYS_RAWIO"].as_slice(), RAW_IO.as_slice()),
        (&["CAP_SYS_TTY_CONFIG"], &TTY),
    ]);
    for (wanted, names) in by_capability {
        match has(wanted) {
            true => allowed.extend(names),
            false => refused.extend(names.iter().filter(|n| !matches!(**n, "clone" | "clone3"))),
        }
    }
    let mut rules = vec![rule(&allowed, ALLOW, None, Vec::new())];
    if !has(&["CAP_SYS_ADMIN"]) {
        let plain = arg(0, CLONE_NAMESPACES, 0, "SCMP_CMP_MASKED_EQ");
        rules.push(rule(&["clone"], ALLOW, None, vec![plain]));
        // Its flags are in memory, where a filter cannot look; libraries fall back to clone.
        rules.push(rule(&["clone3"], REFUSE, Some(ENOSYS), Vec::new()));
    }
    for value in PERSONALITIES {
        rules.push(rule(
            &["personality"],
            ALLOW,
            None,
            vec![arg(0, value, 0, "SCMP_CMP_EQ")],
        ));
    }
    rules.push(rule(
        &["socket"],
        ALLOW,
        None,
        vec![arg(0, AF_VSOCK, 0, "SCMP_CMP_NE")],
    ));
    rules.push(rule(&refused, REFUSE, Some(EPERM), Vec::new()));
    Seccomp {
        default_action: REFUSE.to_owned(),
        default_errno_ret: Some(ENOSYS),
        architectures: architectures().iter().map(|a| (*a).to_owned()).collect(),
        syscalls: rules,
        ..Seccomp::default()
    }
}

/// The native architecture and those whose programs its kernels run too.
fn architectures() -> &'static [&'static str] {
    match std::env::consts::ARCH {
        "x86_64" => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "aarch64" => &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        _ => &[],
    }
}

fn rule(names: &[&str], action: &str, errno: Option<u32>, args: Vec<SeccompArg>) -> SeccompRule {
    SeccompRule {
        names: names.iter().map(|n| (*n).to_owned()).collect(),
        action: action.to_owned(),
        errno_ret: errno,
        args,
    }
}

fn arg(index: u32, value: u64, value_two: u64, op: &str) -> SeccompArg {
    SeccompArg {
        index,
        value,
        value_two,
        op: op.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(profile: &Seccomp, name: &str) -> bool {
        profile
            .syscalls
            .iter()
            .any(|r| r.action == ALLOW && r.args.is_empty() && r.names.iter().any(|n| n == name))
    }

    #[test]
    fn a_call_has_one_unconditional_answer() {
        let every: Vec<String> = carrack_spec::capability::NAMES.map(str::to_owned).to_vec();
        for capabilities in [Vec::new(), every] {
            let profile = profile(&capabilities);
            let mut seen = std::collections::BTreeSet::new();
            for rule in profile.syscalls.iter().filter(|r| r.args.is_empty()) {
                for name in &rule.names {
                    assert!(seen.insert(name), "{name} twice");
                }
            }
        }
    }

    #[test]
    fn capabilities_open_their_calls_only() {
        let none = profile(&[]);
        let chroot = profile(&["CAP_SYS_CHROOT".into()]);
        let admin = profile(&["CAP_SYS_ADMIN".into()]);
        for name in [
            "mount",
            "chroot",
            "bpf",
            "clone3",
            "reboot",
            "io_uring_setup",
            "keyctl",
        ] {
            assert!(!allows(&none, name), "{name}");
        }
        assert!(allows(&chroot, "chroot") && !allows(&chroot, "mount"));
        assert!(allows(&admin, "mount") && allows(&admin, "clone") && allows(&admin, "clone3"));
        assert!(!allows(&admin, "reboot"));
        assert!(allows(&none, "execve") && allows(&none, "ptrace"));
    }
}
