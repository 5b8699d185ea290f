//! Fresh file systems: each measurement has its own, so none meets what another left.
//!
//! Making many files soon after many were removed is slow on some disks, by an order of magnitude.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use carrack_testkit::{TempDir, temp};

/// Size of a file system on a loop device; the file is sparse.
const BYTES: u64 = 6 << 30;

/// What a file system lies on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Medium {
    /// Memory, without a disk's write-back: what the processor does.
    Tmpfs,
    /// ext4 on a loop device over a file in this directory.
    Ext4(PathBuf),
}

impl FromStr for Medium {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Medium> {
        match name {
            "tmpfs" => Ok(Medium::Tmpfs),
            // The file is in memory: the work of ext4, without the disk's.
            "ext4" => Ok(Medium::Ext4("/dev/shm".into())),
            other => bail!("--on {other}: tmpfs or ext4"),
        }
    }
}

/// A mounted file system; gone with everything in it when dropped.
pub struct Place {
    // Fields are dropped in this order: the mount before the file below it.
    directory: TempDir,
    _image: Option<TempDir>,
}

impl Place {
    /// A new one.
    pub fn fresh(medium: &Medium) -> Result<Place> {
        let directory = TempDir::new();
        let mut mount = Command::new("mount");
        let image = match medium {
            Medium::Tmpfs => {
                mount.args(["-t", "tmpfs", "-o", "mode=755", "tmpfs"]);
                None
            }
            Medium::Ext4(below) => {
                let home = TempDir::below(below);
                let file = home.path().join("ext4");
                let made = std::fs::File::create(&file).and_then(|f| f.set_len(BYTES));
                made.with_context(|| format!("{}", file.display()))?;
                let whole = "lazy_itable_init=0,lazy_journal_init=0,nodiscard";
                done(
                    Command::new("mkfs.ext4")
                        .args(["-q", "-F", "-E", whole])
                        .arg(&file),
                )?;
                mount.args(["-o", "loop"]).arg(&file);
                Some(home)
            }
        };
        done(mount.arg(directory.path()))?;
        Ok(Place {
            directory,
            _image: image,
        })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // podman leaves a mount of its own.
        temp::detach_below(self.directory.path());
    }
}

fn done(command: &mut Command) -> Result<()> {
    let status = command.status();
    let status = status.with_context(|| format!("cannot run {command:?}"))?;
    match status.success() {
        true => Ok(()),
        false => bail!("{command:?}: {status}"),
    }
}
