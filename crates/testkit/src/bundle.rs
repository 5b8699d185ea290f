//! A bundle in a temporary directory: `rootfs` with static busybox, and a config.
//!
//! ```text
//! <temp>/config.json    written by `write`, which every run calls
//! <temp>/rootfs/bin     busybox and a link for each applet
//! <temp>/rootfs/{proc,dev,sys,tmp,root,etc}
//! ```

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value, json};

use crate::config;
use crate::skip::Skip;
use crate::temp::TempDir;

/// Where Debian's `busybox-static` puts its program.
const BUSYBOX: &str = "/usr/bin/busybox";

/// Links made for busybox; all that tests call inside a container.
const APPLETS: &str = "awk cat chmod chown cp cut date dd df dmesg echo env expr false find free grep \
    head hostname id ifconfig ip kill ln ls mkdir mkfifo mknod mount mv nc nproc pidof ping ps pwd \
    readlink rm rmdir route sed seq sh sleep sort stat stty su sync tail tee test touch tr true tty \
    umount uname uniq unshare wc which whoami xargs yes";

/// A bundle directory and its configuration.
#[derive(Debug)]
pub struct Bundle {
    dir: TempDir,
    /// The configuration as it is written by the next run.
    pub config: Value,
}

impl Bundle {
    /// A bundle with busybox as its root file system and the default configuration.
    pub fn busybox() -> Result<Bundle, Skip> {
        let busybox = Path::new(BUSYBOX);
        if !busybox.exists() {
            return Err(Skip::new(
                "no static busybox; install Debian's busybox-static",
            ));
        }
        let bundle = Bundle {
            dir: TempDir::new(),
            config: config::default(),
        };
        fill_rootfs(&bundle.rootfs(), busybox)
            .unwrap_or_else(|error| panic!("cannot fill {}: {error}", bundle.rootfs().display()));
        Ok(bundle)
    }

    /// The same for a user without privileges: owned by that user, one id mapped.
    pub fn busybox_rootless(uid: u32, gid: u32) -> Result<Bundle, Skip> {
        let mut bundle = Bundle::busybox()?;
        config::rootless(&mut bundle.config, uid, gid);
        bundle.chown(uid, gid);
        Ok(bundle)
    }

    /// The bundle directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The root file system.
    pub fn rootfs(&self) -> PathBuf {
        self.path().join("rootfs")
    }

    /// Sets `process.args`.
    pub fn args<const N: usize>(&mut self, args: [&str; N]) -> &mut Bundle {
        self.set("/process/args", json!(args.to_vec()))
    }

    /// Sets `process.args` to a shell with this script.
    pub fn shell(&mut self, script: &str) -> &mut Bundle {
        self.args(["sh", "-c", script])
    }

    /// Sets the value at a JSON pointer (`/linux/resources/memory/limit`), making objects on the
    /// way; in a list, `-` appends.
    pub fn set(&mut self, pointer: &str, value: Value) -> &mut Bundle {
        *slot(&mut self.config, pointer) = value;
        self
    }

    /// Appends to the list at a JSON pointer, which is made when missing.
    pub fn push(&mut self, pointer: &str, value: Value) -> &mut Bundle {
        self.set(&format!("{pointer}/-"), value)
    }

    /// Removes what is at a JSON pointer, if anything.
    pub fn remove(&mut self, pointer: &str) -> &mut Bundle {
        if let Some((parent, key)) = pointer.rsplit_once('/') {
            match self.config.pointer_mut(parent) {
                Some(Value::Object(map)) => drop(map.remove(key)),
                Some(Value::Array(list)) => {
                    if let Ok(at) = key.parse::<usize>()
                        && at < list.len()
                    {
                        list.remove(at);
                    }
                }
                _ => {}
            }
        }
        self
    }

    /// Takes a namespace out of the list.
    pub fn without_namespace(&mut self, kind: &str) -> &mut Bundle {
        if let Some(list) = self
            .config
            .pointer_mut("/linux/namespaces")
            .and_then(Value::as_array_mut)
        {
            list.retain(|namespace| namespace["type"] != kind);
        }
        self
    }

    /// Writes an executable file into the root file system.
    pub fn script(&self, path: &str, text: &str) -> PathBuf {
        let path = self.rootfs().join(path.trim_start_matches('/'));
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&path, mode).unwrap_or_else(|error| panic!("{error}"));
        path
    }

    /// Writes `config.json`.
    pub fn write(&self) {
        let path = self.path().join("config.json");
        let text = serde_json::to_vec_pretty(&self.config).unwrap_or_default();
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Gives the whole bundle to a user.
    pub fn chown(&self, uid: u32, gid: u32) {
        chown_tree(self.path(), uid, gid);
    }
}

/// The place of a JSON pointer inside `value`, made on the way.
fn slot<'a>(value: &'a mut Value, pointer: &str) -> &'a mut Value {
    let keys = pointer.split('/').skip(1);
    keys.fold(value, |here, key| {
        if key == "-" && !here.is_array() {
            *here = Value::Array(Vec::new());
        }
        match here {
            Value::Array(list) => {
                let at = key.parse::<usize>().unwrap_or(list.len());
                if at >= list.len() {
                    list.push(Value::Null);
                }
                let last = list.len() - 1;
                &mut list[at.min(last)]
            }
            other => {
                if !other.is_object() {
                    *other = Value::Object(Map::new());
                }
                // Indexing an object by a missing key inserts null.
                &mut other[key]
            }
        }
    })
}

/// Copies a program that is to be executed soon, in a process of its own: a file that this
/// process had open for writing is busy (`ETXTBSY`) as long as a child that another thread
/// made meanwhile has not executed its own program.
pub fn copy_program(from: &Path, to: &Path) -> std::io::Result<()> {
    let status = Command::new("cp").arg(from).arg(to).status()?;
    match status.success() {
        true => Ok(()),
        false => Err(std::io::Error::other(format!("cp: {status}"))),
    }
}

fn fill_rootfs(rootfs: &Path, busybox: &Path) -> std::io::Result<()> {
    for dir in ["bin", "proc", "dev", "sys", "tmp", "root", "etc"] {
        fs::create_dir_all(rootfs.join(dir))?;
    }
    fs::set_permissions(rootfs.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    copy_program(busybox, &rootfs.join("bin/busybox"))?;
    for applet in APPLETS.split_whitespace() {
        symlink("busybox", rootfs.join("bin").join(applet))?;
    }
    fs::write(
        rootfs.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n",
    )?;
    fs::write(
        rootfs.join("etc/group"),
        "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n",
    )
}

fn chown_tree(path: &Path, uid: u32, gid: u32) {
    std::os::unix::fs::lchown(path, Some(uid), Some(gid))
        .unwrap_or_else(|error| panic!("cannot chown {}: {error}", path.display()));
    let is_dir = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir());
    for entry in is_dir
        .then(|| fs::read_dir(path))
        .into_iter()
        .flatten()
        .flatten()
        .flatten()
    {
        chown_tree(&entry.path(), uid, gid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_make_what_is_missing() {
        let mut value = json!({"list": [1]});
        *slot(&mut value, "/a/b/c") = json!(2);
        *slot(&mut value, "/list/-") = json!(3);
        *slot(&mut value, "/new/-") = json!(4);
        *slot(&mut value, "/list/0") = json!(5);
        assert_eq!(
            value,
            json!({"list": [5, 3], "a": {"b": {"c": 2}}, "new": [4]})
        );
    }

    #[test]
    fn a_bundle_is_written_and_goes_away() {
        let mut bundle = crate::require!(Bundle::busybox());
        bundle
            .args(["true"])
            .remove("/hostname")
            .without_namespace("network");
        bundle.write();
        let text = fs::read_to_string(bundle.path().join("config.json")).unwrap();
        let config: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(config["process"]["args"], json!(["true"]));
        assert_eq!(config.get("hostname"), None);
        assert_eq!(config["linux"]["namespaces"].as_array().unwrap().len(), 5);
        assert!(bundle.rootfs().join("bin/sh").exists());
        let path = bundle.path().to_path_buf();
        drop(bundle);
        assert!(!path.exists());
    }
}
