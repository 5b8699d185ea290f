//! Mounts, devices and protection of the root file system on the real kernel, seen from inside.

mod common;

use carrack_testkit::{require, skip};
use common::World;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use serde_json::{Value, json};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

fn bind(source: impl AsRef<Path>, destination: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "source": source.as_ref(), "type": "bind", "options": options})
}

/// A directory of the host with a tmpfs below it, each with a file.
fn tree(world: &World) -> PathBuf {
    let top = world.dir().join("tree");
    std::fs::create_dir_all(top.join("below")).unwrap();
    std::fs::write(top.join("file"), "top\n").unwrap();
    mount(
        "tmpfs",
        top.join("below"),
        "tmpfs",
        MountFlags::empty(),
        None,
    )
    .unwrap();
    std::fs::write(top.join("below/file"), "below\n").unwrap();
    top
}

#[test]
fn binds_take_what_is_below_only_when_recursive() {
    let mut world = require!(World::new());
    let top = tree(&world);
    world.bundle.push("/mounts", bind(&top, "/flat", &["bind"]));
    world
        .bundle
        .push("/mounts", bind(&top, "/deep", &["rbind"]));
    let text = world.sh("cat /flat/file; ls /flat/below | wc -l; cat /deep/below/file");
    assert_eq!(text, "top\n0\nbelow\n");
}

#[test]
fn read_only_is_for_the_top_and_rro_for_all() {
    let mut world = require!(World::new());
    let top = tree(&world);
    world
        .bundle
        .push("/mounts", bind(&top, "/ro", &["rbind", "ro"]));
    world
        .bundle
        .push("/mounts", bind(&top, "/rro", &["rbind", "rro"]));
    let text = world.sh("touch /ro/x 2>&1; touch /ro/below/x 2>&1 && echo wrote; \
         touch /rro/x 2>&1; touch /rro/below/x 2>&1; :");
    assert_eq!(text.matches("Read-only file system").count(), 3, "{text}");
    assert!(text.contains("wrote"), "{text}");
    assert!(top.join("below/x").exists());
}

#[test]
fn recursive_attributes_of_access_times_can_be_cleared() {
    let mut world = require!(World::new());
    let top = tree(&world);
    for (index, option) in ["ratime", "rnostrictatime", "rnorelatime", "rrelatime"]
        .iter()
        .enumerate()
    {
        let place = format!("/all-{index}");
        world
            .bundle
            .push("/mounts", bind(&top, &place, &["rbind", option]));
    }
    let text = world.sh("grep ' /all-' /proc/self/mountinfo");
    assert_eq!(text.lines().count(), 8, "{text}");
    assert!(text.lines().all(|line| line.contains("relatime")), "{text}");
}

#[test]
fn recursive_attributes_reach_every_mount() {
    let mut world = require!(World::new());
    let top = tree(&world);
    let options = [
        "rbind",
        "rnosuid",
        "rnodev",
        "rnoexec",
        "rnoatime",
        "rnosymfollow",
    ];
    world.bundle.push("/mounts", bind(&top, "/all", &options));
    let text = world.sh("grep ' /all' /proc/self/mountinfo");
    assert_eq!(text.lines().count(), 2, "{text}");
    for line in text.lines() {
        for flag in ["nosuid", "nodev", "noexec", "noatime", "nosymfollow"] {
            assert!(line.contains(flag), "{flag}: {line}");
        }
    }
}

#[test]
fn options_of_a_bind_add_to_and_clear_what_the_source_has() {
    let mut world = require!(World::new());
    let dir = world.dir().join("strict");
    std::fs::create_dir(&dir).unwrap();
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("tmpfs", &dir, "tmpfs", flags, None).unwrap();
    world
        .bundle
        .push("/mounts", bind(&dir, "/kept", &["bind", "ro"]));
    world.bundle.push(
        "/mounts",
        bind(&dir, "/loose", &["bind", "exec", "suid", "dev"]),
    );
    let text = world.sh("grep -E ' /(kept|loose) ' /proc/self/mountinfo");
    let line = |name: &str| text.lines().find(|l| l.contains(name)).unwrap().to_owned();
    assert!(line("/kept").contains("ro,nosuid,nodev,noexec"), "{text}");
    assert!(!line("/loose").contains("noexec"), "{text}");
    assert!(!line("/loose").contains("nosuid"), "{text}");
}

#[test]
fn files_bind_over_missing_files_and_relative_sources_are_in_the_bundle() {
    let mut world = require!(World::new());
    std::fs::write(world.bundle.path().join("hosts"), "1.2.3.4 there\n").unwrap();
    world
        .bundle
        .push("/mounts", bind("hosts", "/etc/new/hosts", &["bind", "ro"]))
        // Values of file systems mean nothing here.
        .push(
            "/mounts",
            bind("hosts", "/etc/second", &["bind", "mode=755", "size=1k"]),
        );
    assert_eq!(world.sh("cat /etc/new/hosts"), "1.2.3.4 there\n");
    assert_eq!(world.sh("cat /etc/second"), "1.2.3.4 there\n");
}

#[test]
fn destinations_are_resolved_inside_the_root() {
    let mut world = require!(World::new());
    let top = world.dir().join("data");
    std::fs::create_dir(&top).unwrap();
    std::fs::write(top.join("file"), "data\n").unwrap();
    let root = world.bundle.rootfs();
    symlink("/etc", root.join("absolute")).unwrap();
    symlink("../../../..", root.join("up")).unwrap();
    symlink(
        "../run/systemd/resolve/stub.conf",
        root.join("etc/resolv.conf"),
    )
    .unwrap();
    world
        .bundle
        .push("/mounts", bind(&top, "/absolute/data", &["bind"]));
    world
        .bundle
        .push("/mounts", bind(&top, "/up/climbed", &["bind"]));
    world
        .bundle
        .push("/mounts", bind(&top, "relative/data", &["bind"]));
    world
        .bundle
        .push("/mounts", bind(&top, "/a/../b//./c", &["bind"]));
    world.bundle.push(
        "/mounts",
        bind(top.join("file"), "/etc/resolv.conf", &["bind"]),
    );
    let text = world.sh(
        "cat /etc/data/file /climbed/file /relative/data/file /b/c/file \
         /run/systemd/resolve/stub.conf /etc/resolv.conf",
    );
    assert_eq!(text, "data\n".repeat(6));
    assert!(!Path::new("/climbed").exists());
}

#[test]
fn a_link_loop_and_a_missing_source_are_errors_that_name_the_mount() {
    let mut world = require!(World::new());
    symlink("b", world.bundle.rootfs().join("a")).unwrap();
    symlink("a", world.bundle.rootfs().join("b")).unwrap();
    world
        .bundle
        .push("/mounts", bind("/tmp", "/a/x", &["bind"]))
        .args(["true"]);
    let error = world.error();
    assert!(error.contains("/a/x"), "{error}");
    world
        .bundle
        .set("/mounts/7", bind("/no/such/source", "/x", &["bind"]));
    let error = world.error();
    assert!(error.contains("/no/such/source"), "{error}");
}

#[test]
fn proc_is_not_covered_by_binds_nor_reached_through_links() {
    let mut world = require!(World::new());
    symlink("/proc/self", world.bundle.rootfs().join("door")).unwrap();
    world
        .bundle
        .push("/mounts", bind("/tmp", "/door/attr", &["bind"]))
        .args(["true"]);
    let error = world.error();
    assert!(error.contains("/door/attr"), "{error}");
    world
        .bundle
        .set("/mounts/7", bind("/tmp", "/proc/sys", &["bind"]));
    assert!(world.error().contains("/proc"));
    let memory = world.dir().join("meminfo");
    std::fs::write(&memory, "MemTotal: 1 kB\n").unwrap();
    world
        .bundle
        .set("/mounts/7", bind(&memory, "/proc/meminfo", &["bind"]));
    assert_eq!(world.sh("cat /proc/meminfo"), "MemTotal: 1 kB\n");
}

#[test]
fn tmpfs_has_size_and_mode_and_copies_up_when_asked() {
    let mut world = require!(World::new());
    let etc = world.bundle.rootfs().join("etc");
    std::fs::create_dir(etc.join("deep")).unwrap();
    std::fs::write(etc.join("deep/file"), "kept\n").unwrap();
    symlink("deep/file", etc.join("link")).unwrap();
    std::os::unix::fs::chown(etc.join("deep"), Some(12), Some(34)).unwrap();
    world.bundle.push(
        "/mounts",
        json!({"destination": "/etc", "type": "tmpfs", "source": "tmpfs",
            "options": ["tmpcopyup", "size=1m", "mode=0711"]}),
    );
    world.bundle.push(
        "/mounts",
        json!({"destination": "/empty", "type": "tmpfs", "source": "tmpfs", "options": ["ro", "size=64k"]}),
    );
    let text = world.sh(
        "cat /etc/link; stat -c %u:%g /etc/deep; stat -c %a /etc; touch /etc/new; \
         touch /empty/x 2>&1; ls /empty | wc -l",
    );
    assert!(text.starts_with("kept\n12:34\n711\n"), "{text}");
    assert!(text.contains("Read-only file system"), "{text}");
    assert!(!etc.join("new").exists());
}

#[test]
fn a_tmpfs_without_a_mode_takes_that_of_the_directory_below() {
    let mut world = require!(World::new());
    let tmpfs = |at: &str| json!({"destination": at, "type": "tmpfs", "source": "tmpfs"});
    for at in ["/root", "/tmp", "/fresh"] {
        world.bundle.push("/mounts", tmpfs(at));
    }
    let text = world.sh(
        "chmod 700 /fresh/. && stat -c %a /root /tmp; grep -c 'tmpfs /root.*mode=755' /proc/mounts",
    );
    assert_eq!(text, "755\n1777\n1\n");
}

#[test]
fn overlays_and_mqueue_mount() {
    let mut world = require!(World::new());
    let dir = world.dir().join("layers");
    for name in ["lower", "upper", "work"] {
        std::fs::create_dir_all(dir.join(name)).unwrap();
    }
    // The temporary directory may itself be on an overlay, which takes no upper layer.
    mount("tmpfs", &dir, "tmpfs", MountFlags::empty(), None).unwrap();
    for name in ["lower", "upper", "work"] {
        std::fs::create_dir_all(dir.join(name)).unwrap();
    }
    std::fs::write(dir.join("lower/file"), "low\n").unwrap();
    let option = |name: &str, part: &str| format!("{name}={}", dir.join(part).display());
    world.bundle.push(
        "/mounts",
        json!({"destination": "/layered", "type": "overlay", "source": "overlay", "options": [
            option("lowerdir", "lower"), option("upperdir", "upper"), option("workdir", "work")]}),
    );
    let text = world.sh("cat /layered/file; echo up > /layered/new; ls /dev/mqueue | wc -l");
    assert_eq!(text, "low\n0\n");
    assert_eq!(
        std::fs::read_to_string(dir.join("upper/new")).unwrap(),
        "up\n"
    );
}

#[test]
fn id_mapped_mounts_have_maps_of_their_own() {
    // A tmpfs is among what is mapped.
    require!(skip::kernel((6, 3)));
    let mut world = require!(World::new());
    let top = tree(&world);
    let map = json!([{"containerID": 0, "hostID": 5000, "size": 1000}]);
    for (at, option) in [("/one", "idmap"), ("/all", "ridmap")] {
        let mut mapped = bind(&top, at, &["rbind", option]);
        mapped["uidMappings"] = map.clone();
        mapped["gidMappings"] = map.clone();
        world.bundle.push("/mounts", mapped);
    }
    let text = world.sh("stat -c %u /one/file /one/below/file /all/file /all/below/file");
    assert_eq!(text, "5000\n0\n5000\n5000\n");
}

#[test]
fn an_id_mapped_mount_takes_the_maps_of_a_user_namespace_that_is_joined() {
    let mut world = require!(World::new());
    world
        .bundle
        .push("/linux/namespaces", json!({"type": "user"}));
    let maps = json!([{"containerID": 0, "hostID": 0, "size": 1}, {"containerID": 1, "hostID": 5000, "size": 1000}]);
    world.bundle.set("/linux/uidMappings", maps.clone());
    world.bundle.set("/linux/gidMappings", maps);
    world.bundle.args(["sleep", "100"]);
    let first = world.start();
    let path = format!("/proc/{}/ns/user", first.pid());

    let mut world = require!(World::new());
    let top = tree(&world);
    std::os::unix::fs::chown(top.join("file"), Some(7), Some(7)).unwrap();
    world
        .bundle
        .push("/linux/namespaces", json!({"type": "user", "path": path}));
    world
        .bundle
        .push("/mounts", bind(&top, "/mapped", &["rbind", "idmap"]));
    assert_eq!(world.sh("stat -c %u /mapped/file"), "7\n");
    first.delete();
}

#[test]
fn a_source_below_the_root_shows_what_earlier_mounts_put_there() {
    let mut world = require!(World::new());
    let top = tree(&world);
    let rootfs = world.bundle.rootfs();
    for (source, destination) in [
        (top.join("below"), "/first"),
        (rootfs.join("first"), "/second"),
        (rootfs.join("first/file"), "/third/file"),
    ] {
        world
            .bundle
            .push("/mounts", bind(source, destination, &["rbind"]));
    }
    // A link of the image does not lead out of it.
    symlink("/etc/shadow", rootfs.join("leads-out")).unwrap();
    assert_eq!(world.sh("cat /second/file /third/file"), "below\nbelow\n");
    world.bundle.push(
        "/mounts",
        bind(rootfs.join("leads-out"), "/shadow", &["bind"]),
    );
    let error = world.error();
    assert!(error.contains("cannot open the source of mount"), "{error}");
    assert!(error.contains("leads-out"), "{error}");
}

#[test]
fn propagation_is_as_named() {
    let mut world = require!(World::new());
    // A shared mount of the test's own; nothing of the machine changes.
    let shared = world.dir().join("shared");
    std::fs::create_dir(&shared).unwrap();
    mount("tmpfs", &shared, "tmpfs", MountFlags::empty(), None).unwrap();
    mount_change(&shared, MountPropagationFlags::SHARED).unwrap();
    for (at, option) in [
        ("/private", "rprivate"),
        ("/slave", "rslave"),
        ("/shared", "rshared"),
        ("/unbindable", "unbindable"),
    ] {
        world
            .bundle
            .push("/mounts", bind(&shared, at, &["rbind", option]));
    }
    world
        .bundle
        .push("/mounts", bind(&shared, "/default", &["rbind"]));
    world
        .bundle
        .shell("cat /proc/self/mountinfo; echo ready; exec sleep 100");
    let mut live = world.start();
    let text = live.expect("ready");
    let line = |name: &str| {
        let wanted = format!(" {name} ");
        text.lines()
            .find(|l| l.contains(&wanted))
            .unwrap()
            .to_owned()
    };
    assert!(!line("/private").contains("master:") && !line("/private").contains("shared:"));
    assert!(line("/slave").contains("master:"), "{text}");
    assert!(line("/shared").contains("shared:"), "{text}");
    assert!(line("/unbindable").contains("unbindable"), "{text}");
    assert!(!line("/default").contains("shared:"), "{text}");
    let new = shared.join("new");
    std::fs::create_dir(&new).unwrap();
    mount("tmpfs", &new, "tmpfs", MountFlags::empty(), None).unwrap();
    std::fs::write(new.join("event"), "").unwrap();
    let seen = live.exec("for d in private slave shared; do ls /$d/new | wc -l; done");
    assert_eq!(seen, "0\n1\n1\n");
    live.delete();
}

#[test]
fn the_root_itself_has_the_propagation_asked_for() {
    for (name, expected) in [
        ("", None),
        ("rprivate", None),
        ("rslave", None),
        ("shared", Some("shared:")),
        ("unbindable", Some("unbindable")),
    ] {
        let mut world = require!(World::new());
        if !name.is_empty() {
            world.bundle.set("/linux/rootfsPropagation", json!(name));
        }
        let text = world.sh("grep ' / / \\| / ' /proc/self/mountinfo | awk '$5 == \"/\"'");
        match expected {
            Some(word) => assert!(text.contains(word), "{name}: {text}"),
            None => assert!(!text.contains("shared:"), "{name}: {text}"),
        }
    }
    let mut world = require!(World::new());
    world
        .bundle
        .set("/linux/rootfsPropagation", json!("sideways"))
        .args(["true"]);
    assert!(world.error().contains("rootfsPropagation"));
}

#[test]
fn a_read_only_root_leaves_its_mounts_writable() {
    let mut world = require!(World::new());
    world.bundle.set("/root/readonly", json!(true));
    let text =
        world.sh("touch /x 2>&1; touch /dev/shm/x && echo shm; echo x > /dev/null && echo null");
    assert!(text.contains("Read-only file system"), "{text}");
    assert!(text.ends_with("shm\nnull\n"), "{text}");
}

#[test]
fn a_read_only_dev_still_has_its_devices() {
    let mut world = require!(World::new());
    world.bundle.set(
        "/mounts/1/options",
        json!(["nosuid", "mode=755", "size=65536k", "ro"]),
    );
    let text = world
        .sh("touch /dev/x 2>&1; echo x > /dev/null && ls -l /dev/null /dev/fd /dev/ptmx | wc -l");
    assert!(text.contains("Read-only file system"), "{text}");
    assert!(text.ends_with("3\n"), "{text}");
}

#[test]
fn cgroup_mounts_show_the_containers_groups_with_and_without_a_namespace() {
    let mut world = require!(World::new());
    let unified = skip::unified_cgroups().is_ok();
    let script = "cat /proc/self/cgroup; ls /sys/fs/cgroup; touch /sys/fs/cgroup/x 2>&1; :";
    let text = world.sh(script);
    assert!(
        text.contains("::/\n") || text.contains(":/\n"),
        "own root: {text}"
    );
    assert!(
        text.contains("Read-only file system") || text.contains("denied"),
        "{text}"
    );
    if !unified {
        let hybrid = skip::some_unified_cgroups().is_ok();
        assert!(text.contains("memory"), "{text}");
        assert_eq!(text.contains("unified"), hybrid, "{text}");
        let procs = world.sh("grep -c . /sys/fs/cgroup/memory/cgroup.procs");
        assert!(
            procs.trim().parse::<u32>().unwrap() >= 1,
            "only its own: {procs}"
        );
    }
    world.bundle.without_namespace("cgroup");
    let text = world.sh(script);
    assert!(text.contains(world.id.as_str()), "the host's paths: {text}");
    let file = if unified {
        "cgroup.procs"
    } else {
        "memory/cgroup.procs"
    };
    let text = world.sh(&format!("cat /sys/fs/cgroup/{file} | wc -l"));
    assert!(
        text.trim().parse::<u32>().unwrap() <= 4,
        "only its own: {text}"
    );
}

#[test]
fn the_default_devices_are_there_with_links_and_rights() {
    let mut world = require!(World::new());
    let text = world.sh(
        "cd /dev; for d in null zero full tty random urandom; do stat -c '%n %t:%T %a' $d; done; \
         readlink fd; readlink stdin; readlink ptmx; head -c 2 zero | wc -c; echo > full; :",
    );
    let expected = "null 1:3 666\nzero 1:5 666\nfull 1:7 666\ntty 5:0 666\nrandom 1:8 666\n\
                    urandom 1:9 666\n/proc/self/fd\n/proc/self/fd/0\npts/ptmx\n2\n";
    assert!(text.starts_with(expected), "{text}");
    assert!(text.contains("No space left"), "{text}");
}

#[test]
fn devices_have_modes_owners_and_need_permission() {
    let mut world = require!(World::new());
    world.bundle.set(
        "/linux/devices",
        json!([
            {"type": "c", "path": "/dev/made", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 7, "gid": 8},
            {"type": "p", "path": "/dev/sub/pipe", "fileMode": 0o600},
            {"type": "c", "path": "/dev/kmsg2", "major": 1, "minor": 11},
            {"type": "b", "path": "/dev/loop-x", "major": 7, "minor": 99},
        ]),
    );
    world.bundle.set(
        "/process/capabilities/effective/-",
        json!("CAP_DAC_OVERRIDE"),
    );
    world.bundle.set(
        "/process/capabilities/permitted/-",
        json!("CAP_DAC_OVERRIDE"),
    );
    world.bundle.set(
        "/process/capabilities/bounding/-",
        json!("CAP_DAC_OVERRIDE"),
    );
    let text = world.sh(
        "stat -c '%F %t:%T %a %u:%g' /dev/made /dev/sub/pipe /dev/loop-x; \
         head -c 3 /dev/made | wc -c; head -c 1 /dev/kmsg2 2>&1; :",
    );
    assert!(
        text.contains("character special file 1:5 640 7:8"),
        "{text}"
    );
    assert!(text.contains("fifo 0:0 600 0:0"), "{text}");
    assert!(text.contains("block special file 7:63 666 0:0"), "{text}");
    assert!(text.contains("\n3\n"), "{text}");
    assert!(
        text.contains("Operation not permitted"),
        "no rule allows it: {text}"
    );
}

#[test]
fn masked_paths_are_empty_and_read_only_paths_cannot_be_written() {
    let mut world = require!(World::new());
    std::fs::create_dir(world.bundle.rootfs().join("secret")).unwrap();
    std::fs::write(world.bundle.rootfs().join("secret/file"), "s").unwrap();
    std::fs::write(world.bundle.rootfs().join("token"), "t").unwrap();
    std::fs::write(world.bundle.rootfs().join("fixed"), "f").unwrap();
    world.bundle.set(
        "/linux/maskedPaths",
        json!([
            "/secret",
            "/token",
            "/missing",
            "/proc/kcore",
            "/secret",
            "/token"
        ]),
    );
    world.bundle.set(
        "/linux/readonlyPaths",
        json!(["/fixed", "/proc/sys", "/absent"]),
    );
    let text = world.sh(
        "ls /secret | wc -l; cat /token | wc -c; cat /fixed; echo; echo x > /fixed; \
         touch /secret/x; echo 1 > /proc/sys/kernel/pid_max; head -c 1 /proc/kcore | wc -c",
    );
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(&lines[..3], ["0", "0", "f"], "{text}");
    let mounts = world.sh("cat /proc/self/mountinfo");
    for path in [" /secret ", " /token "] {
        assert_eq!(mounts.matches(path).count(), 1, "{mounts}");
    }
    assert_eq!(text.matches("Read-only file system").count(), 3, "{text}");
    assert!(text.ends_with("\n0\n"), "{text}");
    assert!(!world.bundle.rootfs().join("missing").exists());
}

#[test]
fn a_null_device_of_the_image_does_not_open_masked_paths() {
    // CVE-2025-31133: the image replaces /dev/null where no tmpfs covers /dev.
    let mut world = require!(World::new());
    let mounts = world.bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
    symlink(
        "/proc/sysrq-trigger",
        world.bundle.rootfs().join("dev/null"),
    )
    .unwrap();
    world.bundle.args(["true"]);
    let error = world.error();
    assert!(error.contains("/dev/null"), "{error}");
}

#[test]
fn proc_is_not_mounted_through_a_link_of_the_image() {
    // CVE-2019-16884 and its kin: /proc as a link would put procfs, and the labels
    // written there, where the image wants.
    let mut world = require!(World::new());
    let root = world.bundle.rootfs();
    std::fs::remove_dir(root.join("proc")).unwrap();
    symlink("/tmp", root.join("proc")).unwrap();
    world.bundle.args(["true"]);
    let error = world.error();
    assert!(error.contains("/proc"), "{error}");
}

#[test]
fn kernel_parameters_of_the_containers_namespaces_are_set() {
    let mut world = require!(World::new());
    world.bundle.set(
        "/linux/sysctl",
        json!({"net.ipv4.ip_forward": "1", "kernel.msgmax": "9000", "net/ipv4/conf/lo/rp_filter": "2"}),
    );
    world.bundle.set("/domainname", json!("example.org"));
    let text = world.sh(
        "cd /proc/sys; cat net/ipv4/ip_forward kernel/msgmax net/ipv4/conf/lo/rp_filter kernel/domainname kernel/hostname",
    );
    assert_eq!(text, "1\n9000\n2\nexample.org\ntestkit\n");
    world
        .bundle
        .set("/linux/sysctl", json!({"kernel.msgmax": "nonsense"}));
    let error = world.error();
    assert!(error.contains("kernel.msgmax"), "{error}");
}

#[test]
fn a_moved_root_leaves_no_procfs_of_the_host_to_copy() {
    let mut world = require!(World::new());
    let caps = json!(["CAP_SYS_ADMIN", "CAP_SETFCAP", "CAP_SETUID", "CAP_SETGID"]);
    for set in ["bounding", "effective", "permitted"] {
        world
            .bundle
            .set(&format!("/process/capabilities/{set}"), caps.clone());
    }
    world
        .bundle
        .set("/linux/maskedPaths", json!(["/proc/keys"]));
    world.bundle.shell(
        "ls -d /proc/1; unshare -mrpf sh -c 'mount -t proc none /mnt || mount -t proc none /proc' \
         && echo mounted; :",
    );
    let ran = world
        .try_run_with(|options| options.no_pivot = true)
        .unwrap();
    assert!(ran.output.contains("/proc/1\n"), "{}", ran.output);
    assert!(!ran.output.contains("mounted"), "{}", ran.output);
}

#[test]
fn the_root_can_be_moved_instead_of_pivoted() {
    let mut world = require!(World::new());
    world.bundle.shell("ls /; ls -d /proc/1");
    let ran = world
        .try_run_with(|options| options.no_pivot = true)
        .unwrap();
    assert!(
        ran.output.contains("bin\n") && !ran.output.contains("work"),
        "{}",
        ran.output
    );
}
