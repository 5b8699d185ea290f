//! `login` and `logout`: the credential is tried, then kept where docker, podman and we look for it.

use crate::images::credentials::{file_to_write, read_file, tell_helper};
use crate::images::{Access, HostCredentials, ImagesError};
use carrack_registry::credentials::{helper, helper_server};
use carrack_registry::{AuthFile, Credential, Credentials};
use carrack_spec::DEFAULT_HOST;
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

/// What a person logs in to: a registry, or a part of its names.
struct Server {
    host: String,
    /// The host, and the part of the names after a slash: the key of the credential in files.
    key: String,
}

impl Server {
    /// `HOST`, `HOST/NAMESPACE`, or the URL of a registry as docker's users have it.
    fn parse(text: &str) -> Self {
        let rest = ["https://", "http://"]
            .iter()
            .find_map(|scheme| text.strip_prefix(scheme))
            .unwrap_or(text)
            .trim_end_matches('/');
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host = match host {
            "index.docker.io" | "registry-1.docker.io" => DEFAULT_HOST,
            other => other,
        };
        let key = match path {
            "" | "v1" | "v2" => host.to_owned(),
            path => format!("{host}/{path}"),
        };
        let host = host.to_owned();
        Self { host, key }
    }

    fn path(&self) -> &str {
        self.key.split_once('/').map_or("", |(_, path)| path)
    }

    /// The helper that keeps the credential; for a part of the names there is none.
    fn helper<'f>(&self, file: &'f AuthFile) -> Option<&'f str> {
        file.helper(&self.host).filter(|_| self.path().is_empty())
    }
}

impl Access {
    /// Shows the credential to the registry and keeps what is worth keeping. `name` is a host, perhaps with a
    /// part of its names: `HOST/TEAM`.
    ///
    /// # Errors
    /// The registry refuses it, or it cannot be kept.
    pub fn login(
        &self,
        name: &str,
        credential: &Credential,
        authfile: Option<&Path>,
    ) -> Result<LoggedIn, ImagesError> {
        let server = Server::parse(name);
        let login = self.client().registry(&server.host)?.login(credential)?;
        let path = file_to_write(authfile)?;
        let mut file = read_file(&path)?.unwrap_or_default();
        match server.helper(&file).map(str::to_owned) {
            Some(name) => {
                let input = helper::store_input(helper_server(&server.host), &login.credential);
                tell_helper(&name, "store", &input)?;
                file.set_elsewhere(&server.key);
            }
            None => file.set(&server.key, &login.credential),
        }
        write(&path, &file.to_text())?;
        Ok(LoggedIn {
            file: path,
            was_asked: login.was_asked,
        })
    }

    /// The credential that would be shown to a host; none is an error.
    ///
    /// # Errors
    /// [`ImagesError::NotLoggedIn`]; a file or a helper cannot be read.
    pub fn logged_in(name: &str, authfile: Option<&Path>) -> Result<Credential, ImagesError> {
        let server = Server::parse(name);
        let known = HostCredentials::read(None, authfile)?;
        let found = known.get(&server.host, server.path());
        let found = found.map_err(|source| ImagesError::Credentials {
            host: server.host.clone(),
            source,
        })?;
        found.ok_or(ImagesError::NotLoggedIn(server.key))
    }

    /// Forgets the credential of a host, or of a part of its names.
    ///
    /// # Errors
    /// [`ImagesError::NotLoggedIn`] when there is none, [`ImagesError::LoggedInElsewhere`] when only a file
    /// that `login` does not write has one; files that cannot be written.
    pub fn logout(name: &str, authfile: Option<&Path>) -> Result<(), ImagesError> {
        let server = Server::parse(name);
        let path = file_to_write(authfile)?;
        let mut file = read_file(&path)?.unwrap_or_default();
        let helper = server.helper(&file).map(str::to_owned);
        if let Some(name) = &helper {
            tell_helper(name, "erase", helper_server(&server.host))?;
        }
        if !file.remove(&server.key) && helper.is_none() {
            let key = server.key;
            let elsewhere = HostCredentials::read(None, authfile)?.file_of(&server.host);
            return Err(match elsewhere {
                Some(path) => ImagesError::LoggedInElsewhere { key, path },
                None => ImagesError::NotLoggedIn(key),
            });
        }
        write(&path, &file.to_text())
    }

    /// Forgets every credential of the file that `login` writes; the names that it had.
    ///
    /// # Errors
    /// A helper fails, or the file cannot be written.
    pub fn logout_of_all(authfile: Option<&Path>) -> Result<Vec<String>, ImagesError> {
        let path = file_to_write(authfile)?;
        let Some(mut file) = read_file(&path)? else {
            return Ok(Vec::new());
        };
        let names = file.hosts();
        for name in &names {
            let server = Server::parse(name);
            if let Some(helper) = server.helper(&file) {
                tell_helper(helper, "erase", helper_server(&server.host))?;
            }
            file.remove(name);
        }
        write(&path, &file.to_text())?;
        Ok(names)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_named_as_people_have_them() {
        for (typed, host, key) in [
            (
                "registry.example:5000",
                "registry.example:5000",
                "registry.example:5000",
            ),
            (
                "https://registry.example/",
                "registry.example",
                "registry.example",
            ),
            ("https://index.docker.io/v1/", "docker.io", "docker.io"),
            (
                "http://127.0.0.1:5000/v2/",
                "127.0.0.1:5000",
                "127.0.0.1:5000",
            ),
            (
                "registry.example/team",
                "registry.example",
                "registry.example/team",
            ),
        ] {
            let server = Server::parse(typed);
            assert_eq!((server.host.as_str(), server.key.as_str()), (host, key));
        }
    }
}
