//! Credentials of this machine: the files of docker and of podman, and credential helpers.
//!
//! Looked for in this order, the first that knows the repository counts: what was given on the command
//! line; `--authfile`, or else `$REGISTRY_AUTH_FILE`, `$XDG_RUNTIME_DIR/containers/auth.json`,
//! `$XDG_CONFIG_HOME/containers/auth.json`, `$DOCKER_CONFIG/config.json` (`~/.docker/config.json`).
//!
//! A helper is a program `docker-credential-NAME` in PATH. It gets [`HELPER_SECONDS_MAX`] seconds.

use crate::images::ImagesError;
use carrack_registry::credentials::{CredentialsError, helper};
use carrack_registry::{AuthFile, Credential, Credentials};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Longest time that a credential helper may take, in seconds. Some ask a person to unlock a key ring.
const HELPER_SECONDS_MAX: u64 = 60;
/// Most bytes that are read of a helper's answer.
const HELPER_BYTES_MAX: u64 = 1 << 20;

/// What this machine knows of who we are.
#[derive(Debug, Default)]
pub struct HostCredentials {
    given: Option<Credential>,
    files: Vec<(PathBuf, AuthFile)>,
}

impl HostCredentials {
    /// Reads the files. `given` is used for every host in their place.
    ///
    /// # Errors
    /// A file that is there cannot be read, or is malformed.
    pub fn read(given: Option<Credential>, authfile: Option<&Path>) -> Result<Self, ImagesError> {
        let mut files = Vec::new();
        for path in candidates(authfile) {
            match read_file(&path)? {
                Some(file) => files.push((path, file)),
                None if authfile.is_some() => {
                    let source = std::io::ErrorKind::NotFound.into();
                    return Err(ImagesError::Read { path, source });
                }
                None => {}
            }
        }
        Ok(Self { given, files })
    }

    /// The first file with an entry for a host.
    pub(super) fn file_of(&self, host: &str) -> Option<PathBuf> {
        let has = |file: &AuthFile| {
            let found = file.get(host, "", &|_, _| Ok(None));
            matches!(found, Ok(Some(_)))
        };
        let found = self.files.iter().find(|(_, file)| has(file));
        found.map(|(path, _)| path.clone())
    }
}

impl Credentials for HostCredentials {
    fn get(&self, host: &str, repository: &str) -> Result<Option<Credential>, CredentialsError> {
        if let Some(given) = &self.given {
            return Ok(Some(given.clone()));
        }
        for (path, file) in &self.files {
            let found = file.get(host, repository, &|name, server| {
                Ok(ask_helper(name, server)?)
            });
            match found {
                Ok(None) => {}
                Ok(found) => {
                    log::debug!("credentials for {host} come from {}", path.display());
                    return Ok(found);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// The file that `login` writes: `authfile`, `$REGISTRY_AUTH_FILE`, or docker's.
pub(super) fn file_to_write(authfile: Option<&Path>) -> Result<PathBuf, ImagesError> {
    authfile
        .map(Path::to_owned)
        .or_else(|| variable("REGISTRY_AUTH_FILE"))
        .or_else(docker_file)
        .ok_or(ImagesError::NoAuthFile)
}

/// Reads one file; none when it is not there.
pub(super) fn read_file(path: &Path) -> Result<Option<AuthFile>, ImagesError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            let path = path.to_owned();
            return Err(ImagesError::Read { path, source });
        }
    };
    let parsed = AuthFile::parse(&bytes).map_err(|source| ImagesError::AuthFile {
        path: path.to_owned(),
        source,
    })?;
    Ok(Some(parsed))
}

fn candidates(authfile: Option<&Path>) -> Vec<PathBuf> {
    if let Some(path) = authfile {
        return vec![path.to_owned()];
    }
    if let Some(path) = variable("REGISTRY_AUTH_FILE") {
        return vec![path];
    }
    let below = |directory: PathBuf| directory.join("containers/auth.json");
    let config = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")));
    let runtime = variable("XDG_RUNTIME_DIR").map(below);
    runtime
        .into_iter()
        .chain(config.map(below))
        .chain(docker_file())
        .collect()
}

fn docker_file() -> Option<PathBuf> {
    let directory = variable("DOCKER_CONFIG").or_else(|| Some(variable("HOME")?.join(".docker")));
    directory.map(|directory| directory.join("config.json"))
}

/// A variable of the environment that names a path; an empty one counts as none.
pub(super) fn variable(name: &str) -> Option<PathBuf> {
    let value = std::env::var_os(name).filter(|value| !value.is_empty())?;
    Some(value.into())
}

fn ask_helper(name: &str, server: &str) -> Result<Option<Credential>, ImagesError> {
    let (good, output) = run_helper(name, "get", server)?;
    match (good, helper::says_not_found(&output)) {
        (true, _) => helper::read_get(&output).map_err(|source| ImagesError::Helper {
            helper: name.to_owned(),
            said: format!(": {source}"),
            source: None,
        }),
        (false, true) => Ok(None),
        (false, false) => Err(failed(name, &output)),
    }
}

/// Has a helper keep a credential (`store`) or forget it (`erase`).
pub(super) fn tell_helper(name: &str, verb: &str, input: &str) -> Result<(), ImagesError> {
    match run_helper(name, verb, input)? {
        (true, _) => Ok(()),
        (false, output) => Err(failed(name, &output)),
    }
}

fn failed(name: &str, output: &[u8]) -> ImagesError {
    let text = String::from_utf8_lossy(output);
    let line = text.lines().next().unwrap_or_default().trim();
    let said = match line.is_empty() {
        true => String::new(),
        false => format!(": {}", line.chars().take(200).collect::<String>()),
    };
    ImagesError::Helper {
        helper: name.to_owned(),
        said,
        source: None,
    }
}

/// Runs a helper; whether it ended well, and its standard output.
fn run_helper(name: &str, verb: &str, input: &str) -> Result<(bool, Vec<u8>), ImagesError> {
    let io = |source| ImagesError::Helper {
        helper: name.to_owned(),
        said: String::new(),
        source: Some(source),
    };
    // The name comes from a file: it is one word, never a path.
    if name.contains('/') {
        return Err(io(std::io::ErrorKind::InvalidInput.into()));
    }
    let mut child = Command::new(format!("docker-credential-{name}"))
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(io)?;
    if let Some(mut pipe) = child.stdin.take() {
        // One that does not read its input says why in its output.
        let _ = pipe.write_all(input.as_bytes());
    }
    let stdout = child.stdout.take();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut output = Vec::new();
        let read = stdout.map(|s| s.take(HELPER_BYTES_MAX).read_to_end(&mut output));
        let _ = sender.send(read.transpose().map(|_| output));
    });
    let answer = receiver.recv_timeout(Duration::from_secs(HELPER_SECONDS_MAX));
    let Ok(output) = answer else {
        let _ = child.kill();
        let _ = child.wait();
        return Err(io(std::io::ErrorKind::TimedOut.into()));
    };
    let output = output.map_err(io)?;
    let status = child.wait().map_err(io)?;
    Ok((status.success(), output))
}
