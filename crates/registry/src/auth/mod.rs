//! Who we are to a registry: challenges, basic credentials, tokens.
//!
//! Contract
//! - Nothing is sent before a registry asked for it: the first question of an origin
//!   goes out bare, its challenge is remembered, later questions carry what it wants.
//! - Credentials are looked up for the host that is spoken to, mirrors too, and never
//!   go anywhere else than to that host and to the token server that it names. That
//!   server is refused over plain HTTP when the registry itself speaks TLS.
//! - Tokens are kept by (token server, service, scope, account) until shortly before
//!   they expire; of several threads that need the same one, one asks.

mod challenge;
mod scope;
mod token;

pub use challenge::{Challenge, parse_challenges};
pub(crate) use scope::Scopes;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::config::Endpoint;
use crate::credentials::{Credential, Credentials};
use crate::error::Error;
use crate::url::Url;
use crate::wire::Wire;
use token::{Kept, Key};

/// Whose credentials a mirror is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MirrorCredentials {
    /// Only those for the mirror's own host.
    #[default]
    Own,
    /// Those for the mirror's own host, and if there are none, those for the
    /// registry that it mirrors. Only for mirrors that are trusted with them.
    OwnThenOriginal,
}

/// A name that credentials are looked up for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Original {
    pub(crate) host: String,
    pub(crate) repository: String,
}

/// What is known about who we are to whom.
pub(crate) struct Auth {
    credentials: Arc<dyn Credentials>,
    mirrors: MirrorCredentials,
    /// What an origin wants, by its URL.
    wanted: Mutex<HashMap<String, Challenge>>,
    tokens: Mutex<HashMap<Key, Arc<Mutex<Option<Kept>>>>>,
}

/// A value for the `Authorization` header and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) header: String,
    pub(crate) username: Option<String>,
}

/// A question for authorization.
pub(crate) struct Wants<'a> {
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) original: &'a Original,
    pub(crate) url: &'a Url,
    pub(crate) scopes: &'a Scopes,
    /// A credential to use instead of looking one up (login).
    pub(crate) credential: Option<&'a Credential>,
}

impl Auth {
    pub(crate) fn new(credentials: Arc<dyn Credentials>, mirrors: MirrorCredentials) -> Self {
        Self {
            credentials,
            mirrors,
            wanted: Mutex::default(),
            tokens: Mutex::default(),
        }
    }

    /// What to send along with a first try: nothing, unless the origin is known to want it.
    pub(crate) fn before(&self, wire: &Wire, wants: &Wants<'_>) -> Result<Option<Shown>, Error> {
        let known = crate::locked(&self.wanted).get(&origin(wants.url)).cloned();
        match known {
            None => Ok(None),
            Some(challenge) => self.answer(wire, wants, &challenge, false),
        }
    }

    /// What to send after a refusal with these challenges; none when there is nothing
    /// to show. `stale` says that something was shown and refused.
    pub(crate) fn after(
        &self,
        wire: &Wire,
        wants: &Wants<'_>,
        challenges: &[Challenge],
        stale: bool,
    ) -> Result<Option<Shown>, Error> {
        // Tokens before passwords: they are worth less to a thief.
        let usable = challenges
            .iter()
            .find(|c| matches!(c, Challenge::Bearer { .. }))
            .or_else(|| {
                challenges
                    .iter()
                    .find(|c| matches!(c, Challenge::Basic { .. }))
            });
        let Some(challenge) = usable else {
            let names: Vec<String> = challenges.iter().map(ToString::to_string).collect();
            return Err(Error::Challenge {
                host: wants.endpoint.host.clone(),
                reason: match names.is_empty() {
                    true => "its refusal has no WWW-Authenticate field".to_owned(),
                    false => format!("only by {}", names.join(", ")),
                },
            });
        };
        crate::locked(&self.wanted).insert(origin(wants.url), challenge.clone());
        self.answer(wire, wants, challenge, stale)
    }

    fn answer(
        &self,
        wire: &Wire,
        wants: &Wants<'_>,
        challenge: &Challenge,
        stale: bool,
    ) -> Result<Option<Shown>, Error> {
        let credential = self.credential(wants)?;
        let username = credential
            .as_ref()
            .and_then(|c| c.username().map(str::to_owned));
        // A registry token is sent as it is, whatever kind of token is asked for.
        if let Some(credential @ Credential::RegistryToken(_)) = &credential {
            let header = credential.header();
            return Ok(header.map(|header| Shown { header, username }));
        }
        let header = match challenge {
            Challenge::Basic { .. } => credential.as_ref().and_then(Credential::header),
            Challenge::Bearer {
                realm,
                service,
                scope,
                ..
            } => {
                let key = Key {
                    realm: realm.clone(),
                    service: service.clone(),
                    scopes: wants.scopes.clone().with(scope),
                    host: wants.endpoint.host.clone(),
                    credential: credential.clone(),
                };
                Some(self.bearer(wire, wants, key, stale)?)
            }
            Challenge::Other(_) => None,
        };
        Ok(header.map(|header| Shown { header, username }))
    }

    /// A kept token, or a new one.
    fn bearer(
        &self,
        wire: &Wire,
        wants: &Wants<'_>,
        key: Key,
        stale: bool,
    ) -> Result<String, Error> {
        let slot = Arc::clone(crate::locked(&self.tokens).entry(key.clone()).or_default());
        let mut kept = crate::locked(&slot);
        if let Some(token) = kept.as_ref().filter(|token| !stale && token.is_fresh()) {
            return Ok(token.header());
        }
        *kept = None;
        let token = token::fetch(wire, wants, &key, false).map_err(|source| Error::Token {
            host: wants.endpoint.host.clone(),
            source: Box::new(source),
        })?;
        let header = token.header();
        *kept = Some(token);
        Ok(header)
    }

    /// Asks a token server for a refresh token in exchange for a password; none when
    /// it gives none, an error when it refuses the password.
    pub(crate) fn offline_token(
        &self,
        wire: &Wire,
        wants: &Wants<'_>,
        challenges: &[Challenge],
    ) -> Result<Option<String>, Error> {
        let bearer = challenges.iter().find_map(|challenge| match challenge {
            Challenge::Bearer { realm, service, .. } => Some((realm, service)),
            _ => None,
        });
        let Some((realm, service)) = bearer else {
            return Ok(None);
        };
        let key = Key {
            realm: realm.clone(),
            service: service.clone(),
            scopes: wants.scopes.clone(),
            host: wants.endpoint.host.clone(),
            credential: wants.credential.cloned(),
        };
        let token = token::fetch(wire, wants, &key, true);
        token
            .map(|token| token.refresh)
            .map_err(|source| Error::Token {
                host: wants.endpoint.host.clone(),
                source: Box::new(source),
            })
    }

    fn credential(&self, wants: &Wants<'_>) -> Result<Option<Credential>, Error> {
        if let Some(credential) = wants.credential {
            return Ok(Some(credential.clone()));
        }
        let get = |host: &str, repository: &str| {
            let found = self.credentials.get(host, repository);
            found.map_err(|source| Error::Credentials {
                host: host.to_owned(),
                source,
            })
        };
        let endpoint = wants.endpoint;
        let own = get(&endpoint.host, &endpoint.repository)?;
        if own.is_none() && endpoint.mirror && self.mirrors == MirrorCredentials::OwnThenOriginal {
            return get(&wants.original.host, &wants.original.repository);
        }
        Ok(own)
    }
}

fn origin(url: &Url) -> String {
    let scheme = if url.https() { "https" } else { "http" };
    format!("{scheme}://{}", url.authority())
}
