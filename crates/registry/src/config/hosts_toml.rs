//! containerd's `hosts.toml` (`/etc/containerd/certs.d/HOST/hosts.toml`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use carrack_spec::DEFAULT_HOST;
use serde::Deserialize;
use toml::Spanned;

use super::endpoint::{Endpoint, PullFrom, Transport};
use super::{ConfigError, parse_toml};
use crate::tls::TlsSettings;
use crate::url::Url;

/// One host of a `hosts.toml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostEntry {
    url: Url,
    base: String,
    pull: bool,
    resolve: bool,
    push: bool,
    tls: TlsSettings,
    headers: Vec<(String, String)>,
}

/// A `hosts.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostsToml {
    hosts: Vec<HostEntry>,
    server: Option<HostEntry>,
    /// Settings at the top, for the registry itself when `server` is not given.
    own: Option<Settings>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    server: Option<String>,
    #[serde(default)]
    host: BTreeMap<Spanned<String>, Settings>,
    #[serde(flatten)]
    own: Settings,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Settings {
    capabilities: Option<Vec<String>>,
    ca: OneOrMany,
    client: Option<Clients>,
    skip_verify: bool,
    header: BTreeMap<String, OneOrMany>,
    override_path: bool,
    #[serde(skip)]
    folder: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Clients {
    File(String),
    List(Vec<OneOrMany>),
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl OneOrMany {
    fn all(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

impl HostsToml {
    /// Parses a file; the paths in it are relative to `folder`.
    ///
    /// # Errors
    /// [`ConfigError`] names what is wrong.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, ConfigError> {
        let mut document: Document = parse_toml(text)?;
        document.own.folder = folder.to_owned();
        // Hosts are tried in the order in which they stand in the file.
        let mut listed: Vec<_> = document.host.into_iter().collect();
        listed.sort_by_key(|(url, _)| url.span().start);
        let hosts = listed.into_iter().map(|(url, mut settings)| {
            settings.folder = folder.to_owned();
            settings.entry(url.get_ref())
        });
        let hosts = hosts.collect::<Result<_, _>>()?;
        let server = match document.server.as_deref() {
            None | Some("") => None,
            Some(server) => Some(document.own.entry(server)?),
        };
        Ok(Self {
            hosts,
            own: Some(document.own).filter(|_| server.is_none()),
            server,
        })
    }

    /// The hosts in order, then the registry itself.
    pub(super) fn endpoints(&self, original: &str, repository: &str) -> Vec<Endpoint> {
        let mirrors = self.hosts.iter().map(|host| {
            let mut endpoint = host.endpoint(repository);
            endpoint.mirror = endpoint.address != original;
            endpoint.namespace = endpoint.mirror.then(|| original.to_owned());
            endpoint
        });
        let own = self.server(original, repository);
        mirrors.chain(std::iter::once(own)).collect()
    }

    /// The registry itself.
    pub(super) fn server(&self, original: &str, repository: &str) -> Endpoint {
        let mut endpoint = match &self.server {
            Some(server) => server.endpoint(repository),
            None => Endpoint::registry(original, repository),
        };
        if let Some(own) = &self.own {
            endpoint.tls = own.tls();
            endpoint.headers = own.headers();
        }
        // Credentials belong to the name that people log in to.
        let hub = original == DEFAULT_HOST && endpoint.address == super::endpoint::DOCKER_HUB;
        if hub || endpoint.address == original {
            original.clone_into(&mut endpoint.host);
        }
        endpoint
    }
}

impl HostEntry {
    fn endpoint(&self, repository: &str) -> Endpoint {
        let address = self.url.authority();
        Endpoint {
            host: address.clone(),
            address,
            transport: if self.url.https() {
                Transport::Tls
            } else {
                Transport::Plain
            },
            base: self.base.clone(),
            repository: repository.to_owned(),
            tls: self.tls.clone(),
            headers: self.headers.clone(),
            mirror: false,
            pull: self.pull,
            resolve: self.resolve,
            push: self.push,
            pull_from: PullFrom::All,
            namespace: None,
        }
    }
}

impl Settings {
    fn entry(&self, host: &str) -> Result<HostEntry, ConfigError> {
        let text = match host.contains("://") {
            true => host.to_owned(),
            false => format!("https://{host}"),
        };
        let url = Url::parse(&text).map_err(|source| ConfigError::Url {
            url: host.chars().take(160).collect(),
            source,
        })?;
        let path = url.path().trim_end_matches('/');
        let base = match self.override_path || path.ends_with("/v2") {
            true => path.to_owned(),
            false => format!("{path}/v2"),
        };
        let known = ["pull", "resolve", "push", "referrers"];
        let listed = self.capabilities.as_deref().unwrap_or_default();
        if let Some(unknown) = listed.iter().find(|c| !known.contains(&c.as_str())) {
            return Err(ConfigError::Value {
                key: "capabilities".to_owned(),
                value: unknown.clone(),
                wanted: "use pull, resolve, push",
            });
        }
        let can = |name: &str| listed.is_empty() || listed.iter().any(|c| c == name);
        Ok(HostEntry {
            pull: can("pull"),
            resolve: can("resolve"),
            push: can("push"),
            tls: self.tls(),
            headers: self.headers(),
            url,
            base,
        })
    }

    fn tls(&self) -> TlsSettings {
        let path = |text: &String| self.folder.join(text);
        let pair = |files: &[String]| {
            let (chain, rest) = files.split_first()?;
            let key = rest.first().filter(|key| !key.is_empty());
            Some((path(chain), key.map(path)))
        };
        let client = match &self.client {
            None => Vec::new(),
            Some(Clients::File(file)) => vec![(path(file), None)],
            Some(Clients::List(list)) => list.iter().filter_map(|one| pair(one.all())).collect(),
        };
        TlsSettings {
            ca: self.ca.all().iter().map(path).collect(),
            client,
            skip_verify: self.skip_verify,
        }
    }

    fn headers(&self) -> Vec<(String, String)> {
        let pairs = |(name, values): (&String, &OneOrMany)| {
            let name = name.clone();
            let pair = move |value: &String| (name.clone(), value.clone());
            values.all().iter().map(pair).collect::<Vec<_>>()
        };
        self.header.iter().flat_map(pairs).collect()
    }
}
