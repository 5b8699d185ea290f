//! The benchmark's bundle, the same for every runtime, and the helper programs.
//!
//! ```text
//! DIR/config.json            the kit's usual configuration, limits, a profile of ~370 names
//! DIR/rootfs/bin/busybox     static; `true` and `sleep` are links to it
//! DIR/floor_filter.h         the same profile as an array, for the floor program
//! DIR/measure, DIR/floor     built with `cc -O2 -static`
//! ```

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use carrack_testkit::Bundle;
use serde_json::{Value, json};

/// `clone` with a flag that makes a namespace, all but `CLONE_NEWCGROUP`.
const CLONE_NAMESPACES: u64 = 0x7E02_0000;

/// Personalities that a program may set.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x20000, 0x20008, 0xffff_ffff];

/// What stands ready before the first measurement.
pub struct Bench {
    /// The bundle; its directory goes away with this value.
    pub bundle: Bundle,
    /// The same with a program that sleeps, for `exec`.
    pub sleeper: Bundle,
    /// Runs a command and tells its cost.
    pub measure: PathBuf,
    /// The floor program.
    pub floor: PathBuf,
}

/// Makes the bundle and builds the helper programs.
pub fn prepare(root: &Path) -> Result<Bench> {
    let names =
        fs::read_to_string(root.join("bench/syscalls.txt")).context("bench/syscalls.txt")?;
    let names = syscall_names(&names);
    let bundle = make(&["/bin/true"], &names)?;
    let sleeper = make(&["/bin/sleep", "100000"], &names)?;
    let dir = bundle.path().to_path_buf();
    fs::write(dir.join("floor_filter.h"), filter_header(&names)).context("floor_filter.h")?;
    let measure = compile(root, &dir, "measure")?;
    let floor = compile(root, &dir, "floor")?;
    Ok(Bench {
        bundle,
        sleeper,
        measure,
        floor,
    })
}

fn make(args: &[&str], names: &[&str]) -> Result<Bundle> {
    let mut bundle = Bundle::busybox().map_err(|skip| anyhow::anyhow!("{}", skip.reason()))?;
    // The newest version that the peers of Debian's stable release accept.
    bundle.set("/ociVersion", json!("1.0.2"));
    bundle.set("/process/args", json!(args));
    bundle.set("/linux/resources", resources());
    bundle.set("/linux/seccomp", profile(names));
    bundle.set("/process/capabilities", capabilities());
    bundle.write();
    Ok(bundle)
}

/// Compiles a helper of `bench/` into `dir`.
pub fn compile(root: &Path, dir: &Path, name: &str) -> Result<PathBuf> {
    let program = dir.join(name);
    let source = root.join("bench").join(format!("{name}.c"));
    let status = Command::new("cc")
        .args(["-O2", "-static", "-s", "-Wall", "-Wextra", "-Werror", "-I"])
        .args([dir, Path::new("-o"), &program, &source])
        .status()
        .context("cannot run cc; install gcc and libc6-dev")?;
    if !status.success() {
        bail!("cannot compile {}", source.display());
    }
    Ok(program)
}

/// Words of the list without its comments.
fn syscall_names(text: &str) -> Vec<&str> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(str::split_whitespace)
        .collect()
}

/// Limits in the controllers that engines usually set.
fn resources() -> Value {
    let device = |kind: &str, major: i64, minor: i64, access: &str| json!({"allow": true, "type": kind, "major": major, "minor": minor, "access": access});
    json!({
        "memory": {"limit": 536_870_912},
        "cpu": {"shares": 512, "quota": 150_000, "period": 100_000},
        "pids": {"limit": 512},
        "devices": [
            {"allow": false, "access": "rwm"},
            device("c", 1, 3, "rwm"), device("c", 1, 5, "rwm"), device("c", 1, 7, "rwm"),
            device("c", 1, 8, "rwm"), device("c", 1, 9, "rwm"), device("c", 5, 0, "rwm"),
        ],
    })
}

/// The fourteen that engines usually leave to a container.
fn capabilities() -> Value {
    let names = [
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "SETGID",
        "SETUID",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "NET_RAW",
        "SYS_CHROOT",
        "MKNOD",
        "AUDIT_WRITE",
        "SETFCAP",
    ];
    let names: Vec<String> = names.iter().map(|name| format!("CAP_{name}")).collect();
    json!({"bounding": names, "effective": names, "permitted": names})
}

/// Errno by default, the list allowed, and the usual rules over arguments.
fn profile(names: &[&str]) -> Value {
    let allow = |names: Value, args: Value| json!({"names": names, "action": "SCMP_ACT_ALLOW", "args": args});
    let mut rules = vec![allow(json!(names), json!([]))];
    rules.extend(PERSONALITIES.iter().map(|value| {
        allow(
            json!(["personality"]),
            json!([{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]),
        )
    }));
    rules.push(allow(
        json!(["clone"]),
        json!([{"index": 0, "value": CLONE_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]),
    ));
    // Not vsock.
    rules.push(allow(
        json!(["socket"]),
        json!([{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]),
    ));
    rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    })
}

/// The profile as a C array: a list with one comparison for each name that the
/// headers know, once for x86_64 and once for x32 (the same numbers and a bit).
fn filter_header(names: &[&str]) -> String {
    let mut text = String::from(
        "/* Generated from bench/syscalls.txt. */\n\
         #define NR offsetof(struct seccomp_data, nr)\n\
         #define ARG0 offsetof(struct seccomp_data, args[0])\n\
         #define ONLY(n) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (n), 0, 1)\n\
         #define RET(a) BPF_STMT(BPF_RET | BPF_K, (a))\n\
         #define LOAD(at) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (at))\n\
         #define ALLOW(n) ONLY(n), RET(SECCOMP_RET_ALLOW),\n\
         static const struct sock_filter filter[] = {\n\
         LOAD(offsetof(struct seccomp_data, arch)),\n\
         BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),\n\
         RET(SECCOMP_RET_KILL_PROCESS),\nLOAD(NR),\n",
    );
    for bit in ["", " | 0x40000000"] {
        for name in names {
            let _ = writeln!(text, "#ifdef __NR_{name}\nALLOW(__NR_{name}{bit})\n#endif");
        }
    }
    for value in PERSONALITIES {
        let _ = writeln!(
            text,
            "BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_personality, 0, 4), LOAD(ARG0), \
             ONLY({value:#x}), RET(SECCOMP_RET_ALLOW), LOAD(NR),"
        );
    }
    let _ = writeln!(
        text,
        "BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_clone, 0, 4), LOAD(ARG0), \
         BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, {CLONE_NAMESPACES:#x}, 1, 0), \
         RET(SECCOMP_RET_ALLOW), LOAD(NR),\n\
         BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_socket, 0, 4), LOAD(ARG0), \
         BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 40, 1, 0), RET(SECCOMP_RET_ALLOW), LOAD(NR),\n\
         ONLY(__NR_clone3), RET(SECCOMP_RET_ERRNO | 38),\n\
         RET(SECCOMP_RET_ERRNO | 1),\n}};"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_no_names() {
        assert_eq!(
            syscall_names("# Files\nread write\nopen\n"),
            ["read", "write", "open"]
        );
    }

    #[test]
    fn profile_and_array_hold_the_same_names() {
        let profile = profile(&["read", "write"]);
        assert_eq!(profile["syscalls"][0]["names"], json!(["read", "write"]));
        let header = filter_header(&["read", "write"]);
        assert_eq!(header.matches("ALLOW(__NR_read").count(), 2);
        assert!(header.contains("#ifdef __NR_write\n"));
    }
}
