//! Compiled seccomp filters, kept by the digest of profile text and architecture.
//!
//! The cache is a directory of the state root that only its owner can write.
//! A file is made under a temporary name and renamed, so a reader sees a whole
//! one; what does not check out is compiled anew. A cache that cannot be
//! written costs time, nothing else.

use crate::error::Error;
use carrack_seccomp::{Arch, Program};
use carrack_spec::runtime::{ContainerProcessState, Linux, ParseError, Seccomp, State};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Holds a character that no container id has.
const DIRECTORY: &str = "@seccomp";
/// A filter holds at most 4096 instructions of 8 bytes, and a header.
const CACHE_BYTES_MAX: u64 = 64 << 10;

/// A filter, and the profile where a listener wants to know more.
type Filter = (Program, Option<Seccomp>);

/// The filter that a configuration asks for, and its profile where there is a listener.
pub fn of(root: &Path, linux: &Linux) -> Result<(Option<Program>, Option<Seccomp>), Error> {
    let found = match &linux.seccomp {
        Some(text) => filter(root, text)?,
        None => None,
    };
    Ok(found.map_or((None, None), |(program, profile)| (Some(program), profile)))
}

/// The filter of a profile; `None` for a profile that says nothing.
fn filter(root: &Path, text: &RawValue) -> Result<Option<Filter>, Error> {
    let path = cache_path(root, text.get());
    if let Some(program) = load(&path).filter(|program| !program.listener) {
        return Ok(Some((program, None)));
    }
    let profile = parse(text)?;
    if profile.listener_path.is_empty() && !profile.listener_metadata.is_empty() {
        let reason = "there is no listenerPath to hand it to";
        return Err(Error::invalid("linux.seccomp.listenerMetadata", reason));
    }
    if carrack_seccomp::is_empty(&profile) {
        return Ok(None);
    }
    for name in carrack_seccomp::ignored_names(&profile) {
        log::debug!("config.json: linux.seccomp: no architecture has a system call {name:?}");
    }
    let program = carrack_seccomp::compile(&profile, Arch::native())?;
    if program.listener {
        refuse_write(&program)?;
        if profile.listener_path.is_empty() {
            let reason = "a rule with SCMP_ACT_NOTIFY needs it";
            return Err(Error::invalid("linux.seccomp.listenerPath", reason));
        }
        return Ok(Some((program, Some(profile))));
    }
    if let Err(error) = save(&path, &program) {
        log::debug!(
            "cannot keep the compiled filter at {}: {error}",
            path.display()
        );
    }
    Ok(Some((program, None)))
}

fn parse(text: &RawValue) -> Result<Seccomp, Error> {
    let limit = carrack_spec::runtime::CONFIG_BYTES_MAX;
    carrack_spec::runtime::parse_json(text.get().as_bytes(), limit).map_err(|error| match error {
        ParseError::Json { path, source } => {
            Error::invalid(format!("linux.seccomp.{path}"), source.to_string())
        }
        other => Error::invalid("linux.seccomp", other.to_string()),
    })
}

/// The child tells its listener's number with write(2), and could not if that had
/// to ask the listener first.
fn refuse_write(program: &Program) -> Result<(), Error> {
    let native = Arch::native();
    let number = carrack_seccomp::syscall_number(native, "write");
    match number {
        Some(number) if program.may_notify(native.audit(), number) => Err(Error::invalid(
            "linux.seccomp",
            "SCMP_ACT_NOTIFY cannot be used for the write syscall, with which the listener is handed on",
        )),
        _ => Ok(()),
    }
}

fn cache_path(root: &Path, text: &str) -> PathBuf {
    let mut digest = Sha256::new();
    digest.update(carrack_seccomp::FORMAT_VERSION.to_le_bytes());
    digest.update(env!("CARGO_PKG_VERSION"));
    digest.update(std::env::consts::ARCH);
    digest.update([0]);
    digest.update(text);
    let mut name = String::with_capacity(64);
    for byte in digest.finalize() {
        name.push_str(&format!("{byte:02x}"));
    }
    root.join(DIRECTORY).join(name)
}

fn load(path: &Path) -> Option<Program> {
    let file = fs::File::open(path).ok()?;
    let meta = file.metadata().ok()?;
    let own = meta.uid() == rustix::process::geteuid().as_raw() && meta.mode() & 0o022 == 0;
    if !own || meta.len() > CACHE_BYTES_MAX {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(meta.len()).ok()?];
    std::io::Read::read_exact(&mut &file, &mut bytes).ok()?;
    Program::from_bytes(&bytes).ok()
}

fn save(path: &Path, program: &Program) -> std::io::Result<()> {
    let temporary = path.with_extension(std::process::id().to_string());
    let open = || {
        let mut options = fs::OpenOptions::new();
        options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
    };
    let mut file = match open() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            if let Some(directory) = path.parent() {
                fs::DirBuilder::new().mode(0o700).create(directory)?;
            }
            open()?
        }
        other => other?,
    };
    let written = file
        .write_all(&program.to_bytes())
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Sends the notify descriptor and the state of the process to the profile's listener.
pub fn hand_on(
    profile: &Seccomp,
    pid: i32,
    state: State,
    descriptor: OwnedFd,
) -> Result<(), Error> {
    let path = Path::new(&profile.listener_path);
    let failed =
        |e: std::io::Error| Error::path("cannot hand the seccomp notify descriptor to", path, e);
    let listener = std::os::unix::net::UnixStream::connect(path)
        .map_err(|e| Error::path("failed to connect with seccomp agent at", path, e))?;
    let message = ContainerProcessState {
        oci_version: state.oci_version.clone(),
        fds: vec!["seccompFd".to_owned()],
        pid,
        metadata: profile.listener_metadata.clone(),
        state,
    };
    let text = serde_json::to_vec(&message).map_err(|e| failed(e.into()))?;
    let sent = carrack_sys::fdpass::send(listener.as_fd(), &text, &[descriptor.as_fd()]);
    match sent {
        Ok(length) if length == text.len() => Ok(()),
        Ok(_) => Err(failed(std::io::ErrorKind::WriteZero.into())),
        Err(error) => Err(failed(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    #[test]
    fn the_second_time_the_filter_comes_from_the_cache() {
        let root = tempfile::tempdir().unwrap();
        let text = raw(
            r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}"#,
        );
        let (first, _) = filter(root.path(), &text).unwrap().unwrap();
        let path = cache_path(root.path(), text.get());
        assert!(path.exists());
        let (second, _) = filter(root.path(), &text).unwrap().unwrap();
        assert_eq!(first.instructions, second.instructions);
        fs::write(&path, b"garbage").unwrap();
        let (third, _) = filter(root.path(), &text).unwrap().unwrap();
        assert_eq!(first.instructions, third.instructions);
    }

    #[test]
    fn a_listener_needs_a_path_and_a_free_write() {
        let root = tempfile::tempdir().unwrap();
        let notify = |name: &str, path: &str| {
            raw(&format!(
                r#"{{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"{path}","syscalls":[{{"names":["{name}"],"action":"SCMP_ACT_NOTIFY"}}]}}"#
            ))
        };
        let metadata = raw(r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerMetadata":"m"}"#);
        assert!(filter(root.path(), &metadata).is_err());
        assert!(filter(root.path(), &notify("mkdir", "")).is_err());
        assert!(filter(root.path(), &notify("write", "/x")).is_err());
        let (program, profile) = filter(root.path(), &notify("mkdir", "/x"))
            .unwrap()
            .unwrap();
        assert!(program.listener && profile.is_some());
    }
}
