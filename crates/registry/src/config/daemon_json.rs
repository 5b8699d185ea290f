//! What docker's `daemon.json` says of registries.

use std::net::IpAddr;

use serde::Deserialize;

use super::endpoint::{Endpoint, Transport};
use super::{CONFIG_BYTES_MAX, ConfigError};
use crate::proxy::Network;
use crate::url::{Url, split_port};

/// `insecure-registries` and `registry-mirrors` of a `daemon.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct DaemonJson {
    insecure_registries: Vec<String>,
    registry_mirrors: Vec<String>,
}

impl DaemonJson {
    /// Parses the file; everything else in it is passed over.
    ///
    /// # Errors
    /// [`ConfigError`] names what is wrong.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        if text.len() > CONFIG_BYTES_MAX {
            return Err(ConfigError::TooLong(text.len()));
        }
        let parsed: Self =
            serde_json::from_str(text).map_err(|e| ConfigError::Syntax(e.to_string()))?;
        parsed.mirrors("library/x")?;
        Ok(parsed)
    }

    pub(super) fn merge(&mut self, later: Self) {
        self.insecure_registries.extend(later.insecure_registries);
        self.registry_mirrors.extend(later.registry_mirrors);
    }

    /// The mirrors of docker.io.
    pub(super) fn mirrors(&self, repository: &str) -> Result<Vec<Endpoint>, ConfigError> {
        let mirror = |text: &String| {
            let url = Url::parse(text).map_err(|source| ConfigError::Url {
                url: text.clone(),
                source,
            })?;
            let mut endpoint = Endpoint::registry(&url.authority(), repository);
            if !url.https() {
                endpoint.transport = Transport::Plain;
            }
            endpoint.base = format!("{}/v2", url.path().trim_end_matches('/'));
            endpoint.mirror = true;
            endpoint.push = false;
            Ok(endpoint)
        };
        self.registry_mirrors.iter().map(mirror).collect()
    }

    /// Whether a host, with or without port, is listed by name or by network.
    pub(super) fn is_insecure(&self, host: &str) -> bool {
        let name = split_port(host).map_or(host, |(name, _)| name);
        let name = name.trim_start_matches('[').trim_end_matches(']');
        let address = name.parse::<IpAddr>().ok();
        self.insecure_registries.iter().any(|entry| {
            let network = Network::parse(entry);
            entry == host
                || address
                    .zip(network)
                    .is_some_and(|(address, network)| network.contains(address))
        })
    }
}
