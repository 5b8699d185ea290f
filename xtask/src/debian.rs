//! Programs that tests, benchmarks and the test VM take from Debian.
//!
//! As root on a Debian machine what is missing is installed with apt-get (no
//! service is started by that); otherwise it is named with the command to type,
//! and the tests that need it skip with that reason.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Result;

/// A Debian package, a file that shows it is there, and who needs it.
pub struct Package {
    name: &'static str,
    file: &'static str,
    why: &'static str,
}

const fn package(name: &'static str, file: &'static str, why: &'static str) -> Package {
    Package { name, file, why }
}

/// What `make test` uses.
pub const TESTS: &[Package] = &[
    package(
        "busybox-static",
        "/usr/bin/busybox",
        "the root file system of most tests",
    ),
    package(
        "libarchive-tools",
        "/usr/bin/bsdtar",
        "layers as bsdtar writes them",
    ),
    package(
        "gcc",
        "/usr/bin/cc",
        "small C programs of tests and benchmarks",
    ),
    package("libc6-dev", "/usr/include/stdio.h", "the same"),
    package(
        "libseccomp-dev",
        "/usr/include/seccomp.h",
        "the oracle for compiled filters",
    ),
    package(
        "uidmap",
        "/usr/bin/newuidmap",
        "rootless containers with id ranges",
    ),
    package(
        "iproute2",
        "/usr/sbin/ip",
        "network devices and bridges of hooks",
    ),
    package(
        "util-linux",
        "/usr/bin/unshare",
        "private namespaces around tests",
    ),
    package("jq", "/usr/bin/jq", "editing a bundle as people do"),
    package(
        "skopeo",
        "/usr/bin/skopeo",
        "copying an image into a bundle",
    ),
    package(
        "umoci",
        "/usr/bin/umoci",
        "unpacking an image into a bundle",
    ),
    package(
        "erofs-utils",
        "/usr/bin/fsck.erofs",
        "the oracle for EROFS images",
    ),
    package(
        "fuse-overlayfs",
        "/usr/bin/fuse-overlayfs",
        "a store where the kernel mounts no overlay",
    ),
    package("podman", "/usr/bin/podman", "a real client of the runtime"),
    package(
        "containerd",
        "/usr/bin/containerd",
        "a real client of the runtime",
    ),
    package(
        "docker.io",
        "/usr/sbin/dockerd",
        "a real client of the runtime",
    ),
    package(
        "buildah",
        "/usr/bin/buildah",
        "a real client of the runtime",
    ),
    package(
        "conmon",
        "/usr/bin/conmon",
        "what podman and buildah run containers with",
    ),
    package(
        "runc",
        "/usr/sbin/runc",
        "output formats are compared with it",
    ),
    package("criu", "/usr/sbin/criu", "checkpoint and restore"),
    package(
        "iptables",
        "/usr/sbin/iptables-restore",
        "what criu holds the network with",
    ),
    package(
        "strace",
        "/usr/bin/strace",
        "kills at every system call of a kind",
    ),
    package(
        "e2fsprogs",
        "/usr/sbin/mkfs.ext4",
        "small disks that fill up, and fs-verity",
    ),
    package("attr", "/usr/bin/setfattr", "extended attributes in layers"),
    package(
        "libcap2-bin",
        "/usr/sbin/setcap",
        "file capabilities in layers",
    ),
    package(
        "docker-registry",
        "/usr/bin/docker-registry",
        "what images are pulled from and pushed to",
    ),
];

/// What `make bench-runtime` uses besides the compiler.
pub const BENCH: &[Package] = &[
    package(
        "busybox-static",
        "/usr/bin/busybox",
        "the program that is run",
    ),
    package("gcc", "/usr/bin/cc", "the floor program"),
    package("libc6-dev", "/usr/include/stdio.h", "the same"),
    package("runc", "/usr/sbin/runc", "a peer"),
    package("crun", "/usr/bin/crun", "a peer"),
    package("strace", "/usr/bin/strace", "the count of system calls"),
];

/// What `make bench-images` uses besides the compiler.
pub const BENCH_IMAGES: &[Package] = &[
    package("gcc", "/usr/bin/cc", "the program that measures"),
    package("libc6-dev", "/usr/include/stdio.h", "the same"),
    package(
        "docker-registry",
        "/usr/bin/docker-registry",
        "what images are pulled from",
    ),
    package("podman", "/usr/bin/podman", "a peer"),
    package("e2fsprogs", "/usr/sbin/mkfs.ext4", "fresh file systems"),
];

/// What `make test-vm` uses.
pub const VM: &[Package] = &[
    package(
        "qemu-system-x86",
        "/usr/bin/qemu-system-x86_64",
        "the machine",
    ),
    package("mmdebstrap", "/usr/bin/mmdebstrap", "the machine's disk"),
    package("e2fsprogs", "/usr/sbin/mkfs.ext4", "the machine's disk"),
    package("python3", "/usr/bin/python3", "the line to the machine"),
];

/// Installs what is missing, or says what is. Never an error: tests skip what they cannot do.
pub fn ensure(wanted: &[Package]) -> Result<()> {
    let missing: Vec<&Package> = wanted
        .iter()
        .filter(|package| !Path::new(package.file).exists())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("missing from this machine:");
    for package in &missing {
        println!("  {} ({})", package.name, package.why);
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    let root = rustix::process::geteuid().is_root();
    if root && Path::new("/usr/bin/apt-get").exists() {
        install(&names);
    } else {
        println!(
            "to install them: sudo apt-get install --no-install-recommends {}",
            names.join(" ")
        );
    }
    Ok(())
}

fn install(names: &[&str]) {
    let apt = |args: &[&str]| {
        Command::new("apt-get")
            .args(args)
            // Run level 1: the packages' own scripts start no daemon.
            .envs([("DEBIAN_FRONTEND", "noninteractive"), ("RUNLEVEL", "1")])
            .stdin(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    let install = || {
        let mut args = vec!["install", "-y", "-q", "--no-install-recommends"];
        args.extend(names);
        apt(&args)
    };
    let done = install() || (apt(&["update", "-q"]) && install());
    if !done {
        // One package that cannot be had must not keep the others away.
        for name in names {
            if !apt(&["install", "-y", "-q", "--no-install-recommends", name]) {
                println!("could not install {name}: the tests that need it will skip");
            }
        }
    }
}
