//! What a client is made of.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::{Client, Inner};
use crate::auth::{Auth, MirrorCredentials};
use crate::config::RegistriesConfig;
use crate::credentials::{Anonymous, Credentials};
use crate::dns::{Resolve, SystemResolver};
use crate::http::{Http, Timeouts};
use crate::proxy::Proxies;
use crate::retry::Retry;
use crate::tls::{Files, TlsConfigs};
use crate::wire::Wire;

/// What a [`Client`] is made of.
pub struct Builder {
    config: RegistriesConfig,
    credentials: Arc<dyn Credentials>,
    mirrors: MirrorCredentials,
    resolver: Option<Arc<dyn Resolve>>,
    files: Arc<dyn Files>,
    system_roots: Vec<u8>,
    proxies: Proxies,
    timeouts: Timeouts,
    retry: Retry,
    user_agent: String,
}

impl Default for Builder {
    fn default() -> Self {
        let no_files = |path: &Path| -> io::Result<Vec<u8>> {
            let reason = format!("{} is not given to the client", path.display());
            Err(io::Error::new(io::ErrorKind::NotFound, reason))
        };
        Self {
            config: RegistriesConfig::default(),
            credentials: Arc::new(Anonymous),
            mirrors: MirrorCredentials::default(),
            resolver: None,
            files: Arc::new(no_files),
            system_roots: Vec::new(),
            proxies: Proxies::default(),
            timeouts: Timeouts::default(),
            retry: Retry::default(),
            user_agent: concat!("carrack/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

impl Builder {
    /// Mirrors, blocked and insecure registries, certificates.
    #[must_use]
    pub fn config(mut self, config: RegistriesConfig) -> Self {
        self.config = config;
        self
    }

    /// Where credentials come from; without this every request is anonymous.
    #[must_use]
    pub fn credentials(mut self, credentials: Arc<dyn Credentials>) -> Self {
        self.credentials = credentials;
        self
    }

    /// Whose credentials mirrors are shown.
    #[must_use]
    pub fn mirror_credentials(mut self, mirrors: MirrorCredentials) -> Self {
        self.mirrors = mirrors;
        self
    }

    /// Another resolver than the one over `/etc/hosts` and `/etc/resolv.conf`.
    #[must_use]
    pub fn resolver(mut self, resolver: Arc<dyn Resolve>) -> Self {
        self.resolver = Some(resolver);
        self
    }

    /// How files are read: those of the resolver, and certificates that the
    /// configuration names. Without this only addresses and loopback names resolve.
    #[must_use]
    pub fn files(mut self, files: Arc<dyn Files>) -> Self {
        self.files = files;
        self
    }

    /// The machine's bundle of certificate authorities, PEM. Without a single
    /// certificate in it, the built-in Mozilla list is used.
    #[must_use]
    pub fn system_roots(mut self, pem: Vec<u8>) -> Self {
        self.system_roots = pem;
        self
    }

    /// The proxies to go through.
    #[must_use]
    pub fn proxies(mut self, proxies: Proxies) -> Self {
        self.proxies = proxies;
        self
    }

    /// How long steps may take.
    #[must_use]
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// How often things are tried.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// What the client calls itself.
    #[must_use]
    pub fn user_agent(mut self, name: &str) -> Self {
        name.clone_into(&mut self.user_agent);
        self
    }

    /// The client.
    pub fn build(self) -> Client {
        let resolver = self
            .resolver
            .unwrap_or_else(|| Arc::new(SystemResolver::new(Arc::clone(&self.files))));
        let tls = TlsConfigs::new(self.files, self.system_roots);
        let http = Http::new(resolver, tls, self.proxies, self.timeouts, self.user_agent);
        let wire = Wire {
            http,
            retry: self.retry,
        };
        Client {
            inner: Arc::new(Inner {
                wire,
                auth: Auth::new(self.credentials, self.mirrors),
                config: self.config,
                plain: Mutex::default(),
            }),
        }
    }
}
