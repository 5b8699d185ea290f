//! Mounts with a map of owners, and of many layers.

use super::*;
use std::os::fd::AsFd;

/// A user namespace whose ids 0 to 65535 are 100000 and above outside, and the process that keeps it.
fn user_namespace() -> (std::fs::File, std::process::Child) {
    let child = std::process::Command::new("unshare")
        .args(["--user", "sh", "-c", "echo ready; read line"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn();
    let mut child = child.unwrap();
    let mut line = String::new();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    let proc = PathBuf::from(format!("/proc/{}", child.id()));
    std::fs::write(proc.join("uid_map"), "0 100000 65536").unwrap();
    std::fs::write(proc.join("gid_map"), "0 100000 65536").unwrap();
    (std::fs::File::open(proc.join("ns/user")).unwrap(), child)
}

#[test]
fn owners_are_shown_by_the_map_of_a_user_namespace() {
    require!(skip::root());
    let mut owned = large("owned", b'o', 10_000);
    (owned.0.uid, owned.0.gid) = (7, 8);
    let base = vec![dir("./"), owned, file("small", "s")];
    let (userns, mut child) = user_namespace();
    for driver in drivers() {
        let temp = tempfile::tempdir().unwrap();
        let Loaded { store, image } =
            load(temp.path(), driver, std::slice::from_ref(&base)).unwrap();
        let id: ContainerId = "box".parse().unwrap();
        let snapshot = store
            .create_snapshot(&id, &image, Path::new("/owner"))
            .unwrap();
        let mount = snapshot.mount(false, Some(userns.as_fd())).unwrap();
        let found = look(&mount);
        assert!(
            found["/owned"].starts_with("100644 100007:100008"),
            "{found:?}"
        );
        assert!(
            found["/small"].starts_with("100644 100000:100000"),
            "{found:?}"
        );
        assert!(found["/"].starts_with("40755 100000:100000"), "{found:?}");
        // Root of the namespace writes there, as what it is outside.
        let script = "cd -P /proc/self/fd/0 && echo x >new && echo x >>owned && rm small && ls -n";
        let output = std::process::Command::new("nsenter")
            .arg(format!("--user=/proc/{}/ns/user", child.id()))
            .args(["--setuid", "0", "--setgid", "0", "sh", "-c", script])
            .stdin(mount)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{driver:?} {output:?}");
        assert!(text.contains(" 7 8 ") && !text.contains("small"), "{text}");
        let upper = store.snapshot_path(&id).join("upper");
        for (name, owner) in [("", 100_000), ("new", 100_000), ("owned", 100_007)] {
            assert_eq!(upper.join(name).metadata().unwrap().uid(), owner, "{name}");
        }
        // A second mount changes no owner again.
        drop(snapshot.mount(false, Some(userns.as_fd())).unwrap());
        assert_eq!(upper.metadata().unwrap().uid(), 100_000);
    }
    drop(child.stdin.take());
    child.wait().unwrap();
}

/// Before Linux 6.5 layers are options of mount(2), a page of them.
#[test]
fn an_image_may_have_a_hundred_layers() {
    require!(skip::root());
    let layers: Vec<_> = (0..100)
        .map(|n| vec![file(&format!("of-{n}"), "x"), file("all", &n.to_string())])
        .collect();
    let (userns, mut child) = user_namespace();
    for driver in drivers() {
        let temp = tempfile::tempdir().unwrap();
        let Loaded { store, image } = load(temp.path(), driver, &layers).unwrap();
        let id: ContainerId = "box".parse().unwrap();
        let snapshot = store
            .create_snapshot(&id, &image, Path::new("/owner"))
            .unwrap();
        let check = |mount: OwnedFd| {
            let root = root_of(&mount);
            assert_eq!(std::fs::read_to_string(root.join("all")).unwrap(), "99");
            assert_eq!(std::fs::read_dir(&root).unwrap().count(), 101);
        };
        check(store.mount_image(&image).unwrap());
        check(snapshot.mount(false, Some(userns.as_fd())).unwrap());
        check(snapshot.mount(false, None).unwrap());
        std::fs::write(
            root_of(&snapshot.mount(true, None).unwrap()).join("new"),
            "",
        )
        .unwrap();
        let id: ContainerId = "other".parse().unwrap();
        let other = store.create_snapshot(&id, &image, Path::new("/owner"));
        check(other.unwrap().mount(true, Some(userns.as_fd())).unwrap());
        let left = std::fs::read_dir(temp.path().join(driver.name()).join("tmp"));
        assert_eq!(left.unwrap().count(), 0, "left below tmp");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
