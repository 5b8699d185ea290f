//! What an ordinary user needs to keep images and run containers: files in an image have owners, and only
//! root of a user namespace can give files away, and mount.
//!
//! ```text
//! carrack (uid 1000) ── starts a helper, which waits
//!        │ unshare(NEWUSER, NEWNS)
//!        └─ tells the helper ─► newuidmap, newgidmap: 0 is the user, 1… the ids of /etc/subuid and /etc/subgid
//! carrack goes on as root of its namespace
//! ```
//!
//! Contract: called once, before there is a second thread. The places of store and run-time state are decided
//! before, by the user's id. Verbs that only read records stay outside: they cost nothing more.

use crate::args::Verb;
use crate::image_args::{ImageVerb, SystemVerb};
use crate::manifest_args::ManifestVerb;
use anyhow::{Context, Result, bail};
use carrack_sys::clone::unshare;
use std::io::Write;
use std::process::{Command, Stdio};

/// From the kernel's headers.
const CLONE_NEWUSER: u64 = 0x1000_0000;
const CLONE_NEWNS: u64 = 0x0002_0000;
/// Waits for a line, then maps: pid, map of users, map of groups.
const HELPER: &str = "read -r go && newuidmap $0 $1 && newgidmap $0 $2";

/// Enters a user namespace, for an ordinary user and a verb that needs one.
///
/// # Errors
/// Says what the user lacks.
pub fn enter(verb: &Verb) -> Result<()> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if uid.is_root() || !touches_layers(verb) {
        return Ok(());
    }
    if let Verb::Image(ImageVerb::Mount(_) | ImageVerb::Unmount(_)) = verb {
        bail!(
            "an ordinary user's mounts are seen in a namespace of their own only; run a shell there: unshare --map-root-user --map-auto --mount"
        );
    }
    let users = map("/etc/subuid", uid.as_raw(), uid.as_raw())?;
    let groups = map("/etc/subgid", uid.as_raw(), gid.as_raw())?;
    let mut helper = Command::new("sh")
        .args(["-c", HELPER])
        .arg(std::process::id().to_string())
        .args([users, groups])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start sh")?;
    unshare(CLONE_NEWUSER | CLONE_NEWNS)
        .context("cannot make a user namespace; does this machine allow them to ordinary users?")?;
    if let Some(mut stdin) = helper.stdin.take() {
        // One that is gone says why below.
        let _ = stdin.write_all(b"go\n");
    }
    let done = helper.wait_with_output().context("cannot wait for sh")?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        bail!(
            "cannot map ids in a user namespace ({}); is the package uidmap installed?",
            said.trim()
        );
    }
    Ok(())
}

/// Whether a verb reads or writes the files of layers.
fn touches_layers(verb: &Verb) -> bool {
    match verb {
        Verb::Pull(_)
        | Verb::Push(_)
        | Verb::Load(_)
        | Verb::Save(_)
        | Verb::Import(_)
        | Verb::Rmi(_)
        | Verb::Run(_)
        | Verb::Rm(_) => true,
        Verb::Image(verb) => !matches!(
            verb,
            ImageVerb::Ls(_)
                | ImageVerb::Inspect(_)
                | ImageVerb::History(_)
                | ImageVerb::Tree(_)
                | ImageVerb::Tag(_)
                | ImageVerb::Untag(_)
                | ImageVerb::Tags(_)
                | ImageVerb::Copy(_)
        ),
        Verb::System(verb) => matches!(
            verb,
            SystemVerb::Df(_) | SystemVerb::Prune(_) | SystemVerb::Check(_)
        ),
        Verb::Manifest(verb) => matches!(
            verb,
            ManifestVerb::Push(_) | ManifestVerb::Rm(_) | ManifestVerb::Remove(_)
        ),
        _ => false,
    }
}

/// The arguments of newuidmap: the user as root, then the ids that a file gives to the user.
fn map(file: &str, uid: u32, own: u32) -> Result<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = user_name(&accounts, uid).unwrap_or_default();
    let ranges = ranges(&text, name, uid);
    if ranges.is_empty() {
        let user = if name.is_empty() { "the user" } else { name };
        bail!(
            "{user} has no ids in {file}, and files of images have several owners; as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"
        );
    }
    let mut first = 1;
    let mut words = format!("0 {own} 1");
    for (start, count) in ranges {
        words.push_str(&format!(" {first} {start} {count}"));
        first += count;
    }
    Ok(words)
}

fn user_name(accounts: &str, uid: u32) -> Option<&str> {
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

/// `NAME:START:COUNT`, or the user's number in place of the name.
fn ranges(text: &str, name: &str, uid: u32) -> Vec<(u64, u64)> {
    let number = uid.to_string();
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let mine = owner == number || (!name.is_empty() && owner == name);
        let range = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        mine.then_some(range)
    };
    text.lines().filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_by_name_and_by_number() {
        let accounts = "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n";
        assert_eq!(user_name(accounts, 1000), Some("ann"));
        assert_eq!(user_name(accounts, 1001), None);
        let text = "bob:100:10\nann:200000:65536\n1000:500000:10\nann:x:y\nbroken\n";
        assert_eq!(
            ranges(text, "ann", 1000),
            [(200_000, 65_536), (500_000, 10)]
        );
        assert!(ranges(text, "", 7).is_empty());
    }
}
