//! `login` and `logout`: the credential is tried, then kept where docker, podman and we look for it.

use crate::images::credentials::{file_to_write, read_file, tell_helper};
use crate::images::{Access, ImagesError};
use carrack_registry::Credential;
use carrack_registry::credentials::{helper, helper_server};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What a login led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedIn {
    /// The file that has the credential, or says which helper has it.
    pub file: PathBuf,
    /// Whether the registry asked for a credential at all.
    pub was_asked: bool,
}

/// `USER[:PASSWORD]` as `--creds` takes it.
pub fn parse_pair(text: &str) -> Option<Credential> {
    let (username, password) = text.split_once(':').unwrap_or((text, ""));
    (!username.is_empty()).then(|| Credential::Basic {
        username: username.to_owned(),
        password: password.to_owned(),
    })
}

impl Access {
    /// Shows the credential to the registry and keeps what is worth keeping.
    ///
    /// # Errors
    /// The registry refuses it, or it cannot be kept.
    pub fn login(
        &self,
        host: &str,
        credential: &Credential,
        authfile: Option<&Path>,
    ) -> Result<LoggedIn, ImagesError> {
        let login = self.client().registry(host)?.login(credential)?;
        let path = file_to_write(authfile)?;
        let mut file = read_file(&path)?.unwrap_or_default();
        match file.helper(host).map(str::to_owned) {
            Some(name) => {
                let server = helper_server(host);
                let input = helper::store_input(server, &login.credential);
                tell_helper(&name, "store", &input)?;
                file.set_elsewhere(host);
            }
            None => file.set(host, &login.credential),
        }
        write(&path, &file.to_text())?;
        Ok(LoggedIn {
            file: path,
            was_asked: login.was_asked,
        })
    }

    /// Forgets the credential of a host.
    ///
    /// # Errors
    /// [`ImagesError::NotLoggedIn`] when there is none; files that cannot be written.
    pub fn logout(&self, host: &str, authfile: Option<&Path>) -> Result<(), ImagesError> {
        let path = file_to_write(authfile)?;
        let not_there = || ImagesError::NotLoggedIn(host.to_owned());
        let mut file = read_file(&path)?.ok_or_else(not_there)?;
        if let Some(name) = file.helper(host) {
            tell_helper(name, "erase", helper_server(host))?;
        } else if !file.remove(host) {
            return Err(not_there());
        }
        file.remove(host);
        write(&path, &file.to_text())
    }
}

/// Writes a file that only its owner may read: whole or not at all.
fn write(path: &Path, text: &str) -> Result<(), ImagesError> {
    let failed = |source| ImagesError::Write {
        path: path.to_owned(),
        source,
    };
    // A link to the file in its usual place stays one.
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if let Some(parent) = target.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(failed)?;
    }
    let mut name = std::ffi::OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(format!(".{}", std::process::id()));
    let temporary = target.with_file_name(name);
    let mut file = std::fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(failed)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::rename(&temporary, &target));
    written.map_err(|source| {
        let _ = std::fs::remove_file(&temporary);
        failed(source)
    })
}
