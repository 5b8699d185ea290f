//! One host that has, or takes, a repository.

use std::net::IpAddr;

use carrack_spec::DEFAULT_HOST;

use crate::tls::TlsSettings;
use crate::url::{Url, UrlError, split_port};

/// The host that serves what is called docker.io.
pub(crate) const DOCKER_HUB: &str = "registry-1.docker.io";

/// How a host is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TLS only.
    Tls,
    /// Plain HTTP only.
    Plain,
    /// Insecure: TLS first, plain HTTP where that does not work.
    Any,
}

/// What a mirror is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PullFrom {
    /// Tags and digests.
    #[default]
    All,
    /// Digests only: the registry itself says what a tag means.
    DigestOnly,
    /// Tags only.
    TagOnly,
}

/// One host that has, or takes, a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The host as it is named in configuration and credentials, with its port.
    pub host: String,
    /// The host that is connected to, where it is another (docker.io).
    pub address: String,
    /// How it is spoken to.
    pub transport: Transport,
    /// What comes before the repository in paths, `/v2` most of the time.
    pub base: String,
    /// The repository's name there; empty for a whole registry.
    pub repository: String,
    /// Certificates.
    pub tls: TlsSettings,
    /// Header fields sent to this host only.
    pub headers: Vec<(String, String)>,
    /// Whether it is a mirror, not the registry itself.
    pub mirror: bool,
    /// Manifests and blobs may be pulled from it.
    pub pull: bool,
    /// It may say what a tag means.
    pub resolve: bool,
    /// It takes pushes.
    pub push: bool,
    /// What it is asked for.
    pub pull_from: PullFrom,
    /// The registry that it mirrors, sent as query `ns` as containerd does.
    pub namespace: Option<String>,
}

impl Endpoint {
    /// A registry itself, as its name says.
    pub fn registry(host: &str, repository: &str) -> Self {
        let address = match host {
            DEFAULT_HOST => DOCKER_HUB,
            other => other,
        };
        Self {
            host: host.to_owned(),
            address: address.to_owned(),
            transport: if is_loopback(host) {
                Transport::Any
            } else {
                Transport::Tls
            },
            base: "/v2".to_owned(),
            repository: repository.to_owned(),
            tls: TlsSettings::default(),
            headers: Vec::new(),
            mirror: false,
            pull: true,
            resolve: true,
            push: true,
            pull_from: PullFrom::All,
            namespace: None,
        }
    }

    /// Whether it may be asked for a tag, or else for a digest.
    pub fn answers(&self, tag: bool) -> bool {
        let kind = match self.pull_from {
            PullFrom::All => true,
            PullFrom::DigestOnly => !tag,
            PullFrom::TagOnly => tag,
        };
        kind && if tag { self.resolve } else { self.pull }
    }

    /// The URL of `path` below the repository; `https` picks the scheme.
    ///
    /// # Errors
    /// The host's name is malformed.
    pub(crate) fn url(&self, https: bool, path: &str) -> Result<Url, UrlError> {
        let mut target = self.base.clone();
        for part in [&self.repository, path] {
            if !part.is_empty() && !part.starts_with('/') {
                target.push('/');
            }
            target.push_str(part);
        }
        let url = Url::of(https, &self.address, &target)?;
        Ok(match &self.namespace {
            Some(namespace) => url.with_query("ns", namespace),
            None => url,
        })
    }
}

/// Whether a host with or without port is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = split_port(host).map_or(host, |(name, _)| name);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
