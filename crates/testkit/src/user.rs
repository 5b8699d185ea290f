//! An ordinary user of the machine for rootless tests, removed when dropped.
//!
//! The user has a home, an `XDG_RUNTIME_DIR` and, when asked for, 65536
//! subordinate ids. `useradd` and its kin lock the account files, so tests that
//! run in parallel wait for each other.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::skip::{self, Skip};
use crate::temp::{TempDir, unique};

/// Attempts at an account file that another process has locked.
const LOCK_ATTEMPTS: u32 = 50;

/// First subordinate id that tests hand out; far above what distributions give.
const SUBORDINATE_FIRST: u64 = 1 << 30;

/// How many subordinate ids a user gets.
pub const SUBORDINATE_IDS: u64 = 65536;

/// A user account.
#[derive(Debug)]
pub struct User {
    name: String,
    uid: u32,
    gid: u32,
    subordinate: Option<u64>,
    dir: TempDir,
}

impl User {
    /// A user without subordinate ids.
    pub fn plain() -> Result<User, Skip> {
        skip::root()?;
        let useradd = skip::program("useradd")?;
        let name = unique();
        let dir = TempDir::new();
        let home = dir.path().join("home");
        let mut command = Command::new(useradd);
        command.args([
            "--no-create-home",
            "--system",
            "--user-group",
            "--shell",
            "/bin/sh",
        ]);
        command.arg("--home-dir").arg(&home).arg(&name);
        retry(&mut command);
        let (uid, gid) =
            account(&name).unwrap_or_else(|| panic!("{name} is not in /etc/passwd after useradd"));
        let user = User {
            name,
            uid,
            gid,
            subordinate: None,
            dir,
        };
        for (path, mode) in [(home, 0o755), (user.runtime_dir(), 0o700)] {
            user.give_dir(&path, mode);
        }
        Ok(user)
    }

    /// A user with [`SUBORDINATE_IDS`] subordinate uids and gids.
    pub fn with_subordinate_ids() -> Result<User, Skip> {
        skip::program("newuidmap")?;
        let mut user = User::plain()?;
        let first = SUBORDINATE_FIRST + u64::from(user.uid) * SUBORDINATE_IDS;
        let range = format!("{first}-{}", first + SUBORDINATE_IDS - 1);
        let mut command = Command::new(skip::program("usermod")?);
        command.args(["--add-subuids", &range, "--add-subgids", &range, &user.name]);
        retry(&mut command);
        user.subordinate = Some(first);
        Ok(user)
    }

    /// The account's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The user id.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// The group id.
    pub fn gid(&self) -> u32 {
        self.gid
    }

    /// The first subordinate id (of users and of groups alike), if there are any.
    pub fn subordinate_first(&self) -> Option<u64> {
        self.subordinate
    }

    /// A directory of the user's.
    pub fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// What `XDG_RUNTIME_DIR` says.
    pub fn runtime_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// A command that runs as the user, with a small environment of its own.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        // As root, std also drops the supplementary groups when it sets the user.
        command
            .uid(self.uid)
            .gid(self.gid)
            .current_dir(self.home())
            .env_clear();
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
        command.env("HOME", self.home()).env("USER", &self.name);
        command
            .env("XDG_RUNTIME_DIR", self.runtime_dir())
            .stdin(Stdio::null());
        command
    }

    fn give_dir(&self, path: &Path, mode: u32) {
        let made = fs::create_dir(path)
            .and_then(|()| chown(path, Some(self.uid), Some(self.gid)))
            .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)));
        made.unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if let Ok(userdel) = skip::program("userdel") {
            retry(Command::new(userdel).args(["--force", &self.name]));
        }
    }
}

/// Runs a tool of the account files until it gets the lock; says so when it never did.
fn retry(command: &mut Command) {
    let mut message = String::new();
    for _ in 0..LOCK_ATTEMPTS {
        match command.stdin(Stdio::null()).output() {
            Ok(output) if output.status.success() => return,
            Ok(output) => message = String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => message = error.to_string(),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    eprintln!("{command:?} failed: {message}");
}

fn account(name: &str) -> Option<(u32, u32)> {
    let text = fs::read_to_string("/etc/passwd").ok()?;
    let mut fields = text
        .lines()
        .find(|line| line.split(':').next() == Some(name))?
        .split(':');
    let uid = fields.nth(2)?.parse().ok()?;
    Some((uid, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_runs_commands_without_roots_groups_and_goes_away() {
        let user = crate::require!(User::with_subordinate_ids());
        let output = user
            .command("sh")
            .args(["-c", "id -u; id -G; echo $HOME"])
            .output()
            .unwrap();
        let expected = format!(
            "{}\n{}\n{}\n",
            user.uid(),
            user.gid(),
            user.home().display()
        );
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
        let name = user.name().to_string();
        assert!(fs::read_to_string("/etc/subuid").unwrap().contains(&name));
        drop(user);
        assert_eq!(account(&name), None);
        assert!(!fs::read_to_string("/etc/subuid").unwrap().contains(&name));
    }
}
