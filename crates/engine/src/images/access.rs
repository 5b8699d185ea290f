//! The registry client of this machine, made from the files that people already have.
//!
//! | what | where |
//! |---|---|
//! | mirrors, short names, blocked and insecure registries | `$CONTAINERS_REGISTRIES_CONF`, else `containers/registries.conf` in `$XDG_CONFIG_HOME` (`~/.config`), else in `/etc`; then `registries.conf.d/*.conf` of both |
//! | the same as containerd has it | `/etc/containerd/certs.d/HOST/hosts.toml` |
//! | docker's | `/etc/docker/daemon.json`: `insecure-registries`, `registry-mirrors` |
//! | certificates of a host | `HOST/*.crt`, `*.cert` with `*.key` in `/etc/containers/certs.d`, `/etc/docker/certs.d`, `~/.config/containers/certs.d` |
//! | authorities | `$SSL_CERT_FILE`, else the distribution's bundle, else Mozilla's list as built in |
//! | credentials | see the head of `credentials` |
//! | proxies | `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY` and their lower-case forms |
//!
//! A file that is there and cannot be used is an error that names it: a mirror or a block that is silently
//! left out would be worse.

use crate::images::credentials::variable;
use crate::images::{HostCredentials, ImagesError};
use carrack_registry::{
    Client, ConfigError, Credential, DaemonJson, HostsToml, MirrorCredentials, Proxies,
    RegistriesConf, RegistriesConfig, TlsSettings,
};
use carrack_spec::Reference;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where distributions keep the bundle of certificate authorities.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
const CONTAINERD_HOSTS: &str = "/etc/containerd/certs.d";
const DOCKER_DAEMON: &str = "/etc/docker/daemon.json";

/// What the command line says about registries.
#[derive(Debug, Clone, Default)]
pub struct AccessOptions {
    /// Credential for every host, in place of those in files.
    pub credential: Option<Credential>,
    /// Credentials file, in place of the usual ones.
    pub authfile: Option<PathBuf>,
    /// `false` accepts any certificate, and registries without TLS.
    pub tls_verify: Option<bool>,
    /// Directory with certificates for every host, in place of those of `certs.d`.
    pub cert_dir: Option<PathBuf>,
    /// Configuration file in place of the usual `registries.conf` and its drop-ins.
    pub registries_conf: Option<PathBuf>,
    /// Show mirrors the credentials of the registry that they mirror, when they have none of their own.
    pub mirrors_get_credentials: bool,
}

/// The way to registries.
pub struct Access {
    client: Client,
}

impl Access {
    /// Reads this machine's configuration.
    ///
    /// # Errors
    /// [`ImagesError`] names the file that cannot be used.
    pub fn open(options: AccessOptions) -> Result<Self, ImagesError> {
        let mut config = RegistriesConfig::default();
        for path in registries_files(options.registries_conf.as_deref())? {
            if let Some(text) = read(&path)? {
                let parsed = RegistriesConf::parse(&text).map_err(bad(&path))?;
                config.add_registries_conf(parsed);
            }
        }
        for host in entries(Path::new(CONTAINERD_HOSTS), "")? {
            let path = host.join("hosts.toml");
            if let Some(text) = read(&path)? {
                let parsed = HostsToml::parse(&text, &host).map_err(bad(&path))?;
                config.add_hosts_toml(&host_of(&host), parsed);
            }
        }
        let daemon = Path::new(DOCKER_DAEMON);
        if let Some(text) = read(daemon)? {
            config.add_daemon_json(DaemonJson::parse(&text).map_err(bad(daemon))?);
        }
        for (host, tls) in certificates(options.cert_dir.as_deref())? {
            config.add_tls(&host, tls);
        }
        config.set_tls_verify(options.tls_verify);
        let credentials = HostCredentials::read(options.credential, options.authfile.as_deref())?;
        let mirrors = match options.mirrors_get_credentials {
            true => MirrorCredentials::OwnThenOriginal,
            false => MirrorCredentials::Own,
        };
        let variables: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
            .collect();
        let variables = variables.iter().map(|(k, v)| (k.as_str(), v.as_str()));
        let client = Client::builder()
            .config(config)
            .credentials(Arc::new(credentials))
            .mirror_credentials(mirrors)
            .files(Arc::new(|path: &Path| std::fs::read(path)))
            .system_roots(authorities())
            .proxies(Proxies::from_environment(variables)?)
            .build();
        Ok(Self { client })
    }

    /// The names of a repository's images, one for each tag, at most `limit`.
    ///
    /// # Errors
    /// The registry's.
    pub fn tags(&self, reference: &Reference, limit: usize) -> Result<Vec<String>, ImagesError> {
        let tags = self.client.repository(reference)?.tags(None, limit)?;
        let name = format!("{}/{}", reference.host(), reference.path());
        Ok(tags.iter().map(|tag| format!("{name}:{tag}")).collect())
    }

    /// Repositories of a registry that have to do with a term, at most `limit`.
    ///
    /// # Errors
    /// The registry's.
    pub fn search(
        &self,
        host: &str,
        term: &str,
        limit: usize,
    ) -> Result<Vec<carrack_registry::Found>, ImagesError> {
        Ok(self.client.registry(host)?.search(term, limit)?)
    }

    /// The client itself.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

/// `registries.conf` and its drop-ins, in the order in which later ones win.
fn registries_files(named: Option<&Path>) -> Result<Vec<PathBuf>, ImagesError> {
    if let Some(path) = named {
        return Ok(vec![path.to_owned()]);
    }
    if let Some(path) = variable("CONTAINERS_REGISTRIES_CONF") {
        return Ok(vec![path]);
    }
    let system = PathBuf::from("/etc/containers");
    let user = user_config();
    let own = user.as_ref().map(|d| d.join("registries.conf"));
    let main = own.filter(|path| path.exists());
    let mut files = vec![main.unwrap_or_else(|| system.join("registries.conf"))];
    for directory in [Some(system), user].into_iter().flatten() {
        files.extend(entries(&directory.join("registries.conf.d"), ".conf")?);
    }
    Ok(files)
}

/// `containers` in the user's configuration directory.
fn user_config() -> Option<PathBuf> {
    let base = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")));
    base.map(|base| base.join("containers"))
}

/// Certificates by host.
fn certificates(named: Option<&Path>) -> Result<BTreeMap<String, TlsSettings>, ImagesError> {
    let mut found: BTreeMap<String, TlsSettings> = BTreeMap::new();
    if let Some(directory) = named {
        if !directory.is_dir() {
            let source = std::io::ErrorKind::NotADirectory.into();
            let path = directory.to_owned();
            return Err(ImagesError::Read { path, source });
        }
        // The empty name stands for every host.
        found.insert(String::new(), tls_of(directory)?);
        return Ok(found);
    }
    let user = user_config().map(|d| d.join("certs.d"));
    let system = ["/etc/docker/certs.d", "/etc/containers/certs.d"].map(PathBuf::from);
    for directory in system.into_iter().chain(user) {
        for host in entries(&directory, "")? {
            let tls = tls_of(&host)?;
            if tls != TlsSettings::default() {
                found.insert(host_of(&host), tls);
            }
        }
    }
    Ok(found)
}

/// `*.crt` are authorities; `X.cert` with `X.key` is a client certificate.
fn tls_of(directory: &Path) -> Result<TlsSettings, ImagesError> {
    let mut tls = TlsSettings::default();
    for path in entries(directory, "")? {
        match path.extension().and_then(|e| e.to_str()) {
            Some("crt") => tls.ca.push(path),
            Some("cert") => {
                let key = path.with_extension("key");
                tls.client.push((path, Some(key)));
            }
            _ => {}
        }
    }
    Ok(tls)
}

/// The host that a directory is named after; containerd also writes `HOST_PORT_`.
fn host_of(directory: &Path) -> String {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    let port = name.strip_suffix('_').and_then(|n| n.rsplit_once('_'));
    match port.filter(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())) {
        Some((host, port)) => format!("{host}:{port}"),
        None => name.into_owned(),
    }
}

fn authorities() -> Vec<u8> {
    let named = variable("SSL_CERT_FILE");
    let usual = BUNDLES.iter().map(PathBuf::from);
    let mut bundles = named.into_iter().chain(usual);
    bundles
        .find_map(|path| std::fs::read(path).ok())
        .unwrap_or_default()
}

/// What is in a directory and ends so, sorted; nothing when there is no directory.
fn entries(directory: &Path, end: &str) -> Result<Vec<PathBuf>, ImagesError> {
    let failed = |source| ImagesError::Read {
        path: directory.to_owned(),
        source,
    };
    let listing = match std::fs::read_dir(directory) {
        Ok(listing) => listing,
        Err(e) if absent(&e) => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let mut found = Vec::new();
    for entry in listing {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_string_lossy().ends_with(end) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// A text file; nothing when there is none.
fn read(path: &Path) -> Result<Option<String>, ImagesError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if absent(&e) => Ok(None),
        Err(source) => Err(ImagesError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

fn absent(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}

fn bad(path: &Path) -> impl FnOnce(ConfigError) -> ImagesError {
    let path = path.to_owned();
    move |source| ImagesError::Configuration { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_name_hosts_in_docker_and_containerd_form() {
        for (directory, host) in [
            ("/x/registry.example", "registry.example"),
            ("/x/registry.example:5000", "registry.example:5000"),
            ("/x/registry.example_5000_", "registry.example:5000"),
            ("/x/_default", "_default"),
        ] {
            assert_eq!(host_of(Path::new(directory)), host);
        }
    }

    #[test]
    fn certificates_are_told_by_their_endings() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["ca.crt", "client.cert", "client.key", "README"] {
            std::fs::write(directory.path().join(name), "x").unwrap();
        }
        let tls = tls_of(directory.path()).unwrap();
        assert_eq!(tls.ca, [directory.path().join("ca.crt")]);
        let pair = (
            directory.path().join("client.cert"),
            Some(directory.path().join("client.key")),
        );
        assert_eq!(tls.client, [pair]);
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registries.conf");
        std::fs::write(&path, "[[registry").unwrap();
        let options = AccessOptions {
            registries_conf: Some(path.clone()),
            ..AccessOptions::default()
        };
        let error = Access::open(options).err().unwrap();
        assert!(
            error.to_string().contains(&*path.to_string_lossy()),
            "{error}"
        );
    }
}
