//! Which hosts are asked for an image, under which name and with which TLS settings.
//!
//! Contract: pure. The files that people already have are given as text:
//! `registries.conf` with its drop-ins ([`RegistriesConf`]), containerd's `hosts.toml`
//! ([`HostsToml`]), docker's `daemon.json` ([`DaemonJson`]). [`RegistriesConfig`]
//! joins them and answers with an ordered list of [`Endpoint`]s:
//!
//! 1. a host's own `hosts.toml` decides alone over mirrors, as in containerd;
//! 2. else the `[[registry]]` of `registries.conf` with the longest matching prefix;
//! 3. else `_default/hosts.toml`;
//! 4. else docker's `registry-mirrors`, for docker.io;
//! 5. the registry itself comes last, always over TLS, unless it is configured as
//!    insecure or is a loopback address (then unverified TLS, then plain HTTP).
//!
//! `blocked` of `registries.conf` is obeyed in every case.

mod daemon_json;
mod endpoint;
mod hosts_toml;
mod registries_conf;

pub use daemon_json::DaemonJson;
pub use endpoint::{Endpoint, PullFrom, Transport};
pub use hosts_toml::{HostEntry, HostsToml};
pub use registries_conf::{Mirror, RegistriesConf, RegistryRule, ShortNameMode};

use std::collections::BTreeMap;

use carrack_spec::{DEFAULT_HOST, Reference, ReferenceError};

use crate::tls::TlsSettings;
use crate::url::UrlError;

/// Largest configuration file that is read, in bytes.
pub const CONFIG_BYTES_MAX: usize = 4 << 20;

/// Why a configuration is refused, or refuses an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The text is not valid.
    #[error("the configuration is malformed: {0}")]
    Syntax(String),
    /// The file is too long.
    #[error("the configuration has {0} bytes; at most {CONFIG_BYTES_MAX} are read")]
    TooLong(usize),
    /// The first version of `registries.conf`.
    #[error(
        "registries.conf is in the old form ([registries.search], …); write [[registry]] tables instead"
    )]
    Version1,
    /// A value has no meaning.
    #[error("{key}: {value:?} is not allowed here; {wanted}")]
    Value {
        /// Where it stands.
        key: String,
        /// What stands there.
        value: String,
        /// What may stand there.
        wanted: &'static str,
    },
    /// A host's URL is malformed.
    #[error("[host.{url:?}] is no URL of a registry")]
    Url {
        /// What stands there.
        url: String,
        /// Why it is refused.
        #[source]
        source: UrlError,
    },
    /// The registry is blocked.
    #[error(
        "{0} is blocked by the configuration of this machine (blocked = true in registries.conf)"
    )]
    Blocked(String),
    /// A rewritten name is not a name.
    #[error("the configuration rewrites {from} to {to}, which is no image name")]
    Rewritten {
        /// The name before.
        from: String,
        /// The name after.
        to: String,
        /// Why it is refused.
        #[source]
        source: ReferenceError,
    },
    /// A short name, and no registry to look for it in.
    #[error("{0:?} names no registry, and unqualified-search-registries is empty; write HOST/{0}")]
    NoSearch(String),
    /// What was typed is not an image name.
    #[error("bad image name")]
    Reference(#[source] ReferenceError),
}

/// What a name as typed may mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidates {
    /// The references to try, in order; never empty.
    pub references: Vec<Reference>,
    /// Whether the name was short and had no alias, so that a registry had to be guessed.
    pub guessed: bool,
    /// What to do then: ask a person, refuse, or just try.
    pub mode: ShortNameMode,
}

/// Everything that is configured about registries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistriesConfig {
    conf: RegistriesConf,
    hosts: BTreeMap<String, HostsToml>,
    daemon: DaemonJson,
    tls: BTreeMap<String, TlsSettings>,
    tls_verify: Option<bool>,
}

impl RegistriesConfig {
    /// Adds a `registries.conf`; what comes later wins, as with drop-ins.
    pub fn add_registries_conf(&mut self, conf: RegistriesConf) -> &mut Self {
        self.conf.merge(conf);
        self
    }

    /// Adds the `hosts.toml` in the directory of `host`; `_default` is for all others.
    pub fn add_hosts_toml(&mut self, host: &str, hosts: HostsToml) -> &mut Self {
        self.hosts.insert(host.to_owned(), hosts);
        self
    }

    /// Adds docker's `daemon.json`.
    pub fn add_daemon_json(&mut self, daemon: DaemonJson) -> &mut Self {
        self.daemon.merge(daemon);
        self
    }

    /// Adds certificates for a host, for example those of `/etc/docker/certs.d/HOST`; the
    /// empty name stands for every host that has none of its own.
    pub fn add_tls(&mut self, host: &str, tls: TlsSettings) -> &mut Self {
        self.tls.insert(host.to_owned(), tls);
        self
    }

    /// What `--tls-verify` says: false treats every registry as insecure, true none, whatever is configured
    /// and also on the loopback; a mirror that is configured with `http://` stays as it is.
    pub fn set_tls_verify(&mut self, verify: Option<bool>) -> &mut Self {
        self.tls_verify = verify;
        self
    }

    /// The directories in which containerd would look for the `hosts.toml` of a host.
    pub fn hosts_directories(host: &str) -> Vec<String> {
        let with_port = host
            .rsplit_once(':')
            .filter(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
            .map(|(name, port)| format!("{name}_{port}_"));
        let own = [host.to_owned(), "_default".to_owned()];
        with_port.into_iter().chain(own).collect()
    }

    /// What a name as typed may mean: an alias, a full reference, or a short name
    /// that is looked for in each of `unqualified-search-registries`.
    ///
    /// # Errors
    /// [`ConfigError`] when it is no name, or there is nowhere to look.
    pub fn candidates(&self, typed: &str) -> Result<Candidates, ConfigError> {
        self.conf.candidates(typed)
    }

    /// Where to pull an image from: mirrors first, the registry itself last.
    ///
    /// # Errors
    /// [`ConfigError::Blocked`], or a rewritten name that is no name.
    pub fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>, ConfigError> {
        let host = reference.host();
        let rule = self.conf.rule(reference);
        if rule.is_some_and(|rule| rule.blocked) {
            return Err(ConfigError::Blocked(rule_name(rule, host)));
        }
        let name = (host, reference.path());
        if let Some(hosts) = self.hosts.get(host) {
            return Ok(self.finish(hosts.endpoints(host, reference.path()), host));
        }
        let mut endpoints = match (rule, self.hosts.get("_default")) {
            (Some(rule), _) => rule.endpoints(reference)?,
            (None, Some(hosts)) => hosts.endpoints(host, reference.path()),
            (None, None) if host == DEFAULT_HOST => self.daemon.mirrors(reference.path())?,
            (None, None) => Vec::new(),
        };
        if endpoints.iter().all(|endpoint| endpoint.mirror) {
            endpoints.push(Endpoint::registry(name.0, name.1));
        }
        Ok(self.finish(endpoints, host))
    }

    /// Where to push an image: never a mirror, unless `hosts.toml` allows it there.
    ///
    /// # Errors
    /// As [`Self::endpoints`].
    pub fn push_endpoint(&self, reference: &Reference) -> Result<Endpoint, ConfigError> {
        let mut endpoints = self.endpoints(reference)?;
        let of_hosts_toml = self.hosts.contains_key(reference.host());
        let at = endpoints
            .iter()
            .position(|e| e.push && (of_hosts_toml || !e.mirror));
        match at {
            Some(at) => Ok(endpoints.swap_remove(at)),
            None => Ok(Endpoint::registry(reference.host(), reference.path())),
        }
    }

    /// The endpoint of a whole registry, for what is not about one repository.
    ///
    /// # Errors
    /// [`ConfigError::Blocked`].
    pub fn registry(&self, host: &str) -> Result<Endpoint, ConfigError> {
        let rule = self.conf.rule_of_host(host);
        if rule.is_some_and(|rule| rule.blocked) {
            return Err(ConfigError::Blocked(rule_name(rule, host)));
        }
        let mut endpoint = Endpoint::registry(host, "");
        if rule.is_some_and(|rule| rule.insecure) {
            endpoint.transport = Transport::Any;
        }
        if let Some(own) = self.hosts.get(host).map(|hosts| hosts.server(host, "")) {
            endpoint = own;
        }
        let mut finished = self.finish(vec![endpoint], host);
        Ok(finished.swap_remove(0))
    }

    /// Adds what is configured for hosts rather than for names.
    fn finish(&self, mut endpoints: Vec<Endpoint>, original: &str) -> Vec<Endpoint> {
        let insecure_all = self.tls_verify == Some(false);
        for endpoint in &mut endpoints {
            let insecure = insecure_all || self.daemon.is_insecure(&endpoint.host);
            endpoint.transport = match endpoint.transport {
                Transport::Any if self.tls_verify == Some(true) => Transport::Tls,
                Transport::Tls if insecure && self.tls_verify != Some(true) => Transport::Any,
                other => other,
            };
            let named = self.tls.get(&endpoint.host);
            let own = || self.tls.get(original).filter(|_| !endpoint.mirror);
            let everywhere = || self.tls.get("");
            if let Some(tls) = named.or_else(own).or_else(everywhere) {
                endpoint.tls.ca.extend(tls.ca.iter().cloned());
                endpoint.tls.client.extend(tls.client.iter().cloned());
                endpoint.tls.skip_verify |= tls.skip_verify;
            }
            if endpoint.transport == Transport::Any || insecure_all {
                endpoint.tls.skip_verify = true;
            } else if self.tls_verify == Some(true) {
                endpoint.tls.skip_verify = false;
            }
        }
        endpoints
    }
}

fn rule_name(rule: Option<&RegistryRule>, host: &str) -> String {
    rule.map_or_else(|| host.to_owned(), |rule| rule.prefix.clone())
}

/// Parses TOML of limited length.
pub(crate) fn parse_toml<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, ConfigError> {
    if text.len() > CONFIG_BYTES_MAX {
        return Err(ConfigError::TooLong(text.len()));
    }
    toml::from_str(text).map_err(|e| ConfigError::Syntax(e.to_string().trim().to_owned()))
}

#[cfg(test)]
mod tests;
