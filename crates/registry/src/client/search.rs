//! A whole registry, and search in it.

use std::sync::Arc;

use carrack_spec::DEFAULT_HOST;
use serde::Deserialize;

use super::listing::PAGE_ENTRIES;
use super::{Ask, At, DOCUMENT_WAIT, Inner, LIST_BYTES_MAX, To};
use crate::auth::{Original, Scopes};
use crate::config::Endpoint;
use crate::error::{Error, clean};
use crate::url::escape;
use crate::wire::Answer;

/// The host that searches docker.io.
const DOCKER_SEARCH: &str = "index.docker.io";
/// Most results that a registry is asked for.
const RESULTS_MAX: usize = 100;

/// A registry as a whole.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
    endpoint: Endpoint,
    original: Original,
}

/// A repository that a search found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Found {
    /// Its name, without the host.
    pub name: String,
    /// What its owner says of it.
    #[serde(deserialize_with = "nullable")]
    pub description: String,
    /// How many people like it.
    pub star_count: u64,
    /// Whether it is one of docker's own.
    pub is_official: bool,
    /// Whether it was built by docker hub.
    pub is_automated: bool,
}

fn nullable<'de, D: serde::Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    Ok(Option::<String>::deserialize(d)?.unwrap_or_default())
}

#[derive(Deserialize)]
struct Results {
    results: Vec<Found>,
}

impl Registry {
    pub(super) fn new(inner: Arc<Inner>, host: &str) -> Result<Self, Error> {
        let endpoint = inner.config.registry(host).map_err(Error::Config)?;
        Ok(Self {
            original: Original {
                host: host.to_owned(),
                repository: String::new(),
            },
            inner,
            endpoint,
        })
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.inner
    }

    pub(super) fn to(&self, scopes: Scopes) -> To<'_> {
        To {
            endpoint: &self.endpoint,
            original: &self.original,
            scopes,
            credential: None,
        }
    }

    /// A ping as nobody, whatever is known of the registry.
    pub(super) fn bare_ping(&self) -> Result<Answer, Error> {
        let ask = Ask::new("GET").bare();
        self.inner
            .ask(&self.to(Scopes::none()), At::Path("/"), &ask)
    }

    /// Repositories that have to do with a term: by docker's search where the registry
    /// has it, else those of the catalogue with the term in their name. Without a term
    /// the catalogue.
    ///
    /// # Errors
    /// [`Error`] of the registry.
    pub fn search(&self, term: &str, limit: usize) -> Result<Vec<Found>, Error> {
        let names = match term {
            "" => self.catalog(None, limit)?,
            term => {
                if let Some(mut found) = self.search_v1(term, limit)? {
                    found.truncate(limit);
                    return Ok(found);
                }
                let term = term.to_ascii_lowercase();
                self.catalog_of((None, PAGE_ENTRIES), limit, &|name| name.contains(&term))?
            }
        };
        let found = names.into_iter().map(|name| Found {
            name,
            ..Found::default()
        });
        Ok(found.collect())
    }

    /// docker's `/v1/search`; none when the registry does not have it.
    fn search_v1(&self, term: &str, limit: usize) -> Result<Option<Vec<Found>>, Error> {
        let mut endpoint = self.endpoint.clone();
        if endpoint.host == DEFAULT_HOST {
            DOCKER_SEARCH.clone_into(&mut endpoint.address);
        }
        endpoint.base = "/v1".to_owned();
        let to = To {
            endpoint: &endpoint,
            ..self.to(Scopes::none())
        };
        let path = format!(
            "search?q={}&n={}",
            escape(term),
            limit.clamp(1, RESULTS_MAX)
        );
        let ask = Ask::new("GET").field("Accept", "application/json").bare();
        let answer = self.inner.ask(&to, At::Path(&path), &ask)?;
        if matches!(answer.status(), 400..=499) && answer.status() != 429 {
            answer.drain();
            return Ok(None);
        }
        let mut answer = answer.expect(&[200])?;
        let bytes = answer.bytes(LIST_BYTES_MAX, DOCUMENT_WAIT)?;
        let Ok(results) = serde_json::from_slice::<Results>(&bytes) else {
            return Ok(None);
        };
        let tidy = |found: Found| Found {
            name: clean(&found.name),
            description: clean(&found.description),
            ..found
        };
        Ok(Some(results.results.into_iter().map(tidy).collect()))
    }
}
