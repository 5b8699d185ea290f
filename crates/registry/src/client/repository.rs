//! One repository with all the hosts that have it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use carrack_spec::Reference;

use super::{Inner, To};
use crate::auth::{Original, Scopes};
use crate::config::Endpoint;
use crate::error::{Error, with_sources};

/// A repository. Cheap to clone; clones remember together which host had the image.
#[derive(Clone)]
pub struct Repository {
    shared: Arc<Shared>,
}

struct Shared {
    inner: Arc<Inner>,
    original: Original,
    endpoints: Vec<Endpoint>,
    push: Endpoint,
    /// The endpoint that answered last.
    preferred: AtomicUsize,
}

impl Repository {
    pub(super) fn new(inner: Arc<Inner>, reference: &Reference) -> Result<Self, Error> {
        let endpoints = inner.config.endpoints(reference).map_err(Error::Config)?;
        let push = inner.config.push_endpoint(reference);
        let push = push.map_err(Error::Config)?;
        Ok(Self {
            shared: Arc::new(Shared {
                inner,
                original: Original {
                    host: reference.host().to_owned(),
                    repository: reference.path().to_owned(),
                },
                endpoints,
                push,
                preferred: AtomicUsize::new(0),
            }),
        })
    }

    /// The registry's host as the reference names it.
    pub fn host(&self) -> &str {
        &self.shared.original.host
    }

    /// The repository's name as the reference names it.
    pub fn name(&self) -> &str {
        &self.shared.original.repository
    }

    /// The hosts that are asked, in order.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.shared.endpoints
    }

    /// The host that gave the last answer: where an image was really pulled from.
    pub fn served_by(&self) -> Option<&Endpoint> {
        let at = self.shared.preferred.load(Ordering::Relaxed);
        self.shared.endpoints.get(at)
    }

    /// Host and name, for messages.
    pub(super) fn text(&self) -> String {
        format!("{}/{}", self.host(), self.name())
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.shared.inner
    }

    /// Asks an endpoint as a puller.
    pub(super) fn puller<'a>(&'a self, endpoint: &'a Endpoint) -> To<'a> {
        self.to(endpoint, "pull")
    }

    /// Asks the endpoint that takes pushes.
    pub(super) fn pusher(&self) -> To<'_> {
        self.to(&self.shared.push, "pull,push")
    }

    /// Asks the endpoint that takes pushes to delete something.
    pub(super) fn deleter(&self) -> To<'_> {
        self.to(&self.shared.push, "delete,pull,push")
    }

    fn to<'a>(&'a self, endpoint: &'a Endpoint, actions: &str) -> To<'a> {
        To {
            endpoint,
            original: &self.shared.original,
            scopes: Scopes::repository(&endpoint.repository, actions),
            credential: None,
        }
    }

    /// Does something with the endpoints in turn until one can: the one that answered
    /// last comes first, then the configured order. `tag` says what is asked about.
    ///
    /// `act` learns how often it may try: once where there is another endpoint left.
    pub(super) fn anywhere<T>(
        &self,
        tag: bool,
        act: &mut dyn FnMut(&Endpoint, u32) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let first = self.shared.preferred.load(Ordering::Relaxed);
        let mut asked: Vec<(usize, &Endpoint)> = self.shared.endpoints.iter().enumerate().collect();
        asked.retain(|(_, endpoint)| endpoint.answers(tag));
        asked.sort_by_key(|(at, _)| *at != first);
        let mut failed: Vec<String> = Vec::new();
        for (place, (at, endpoint)) in asked.iter().enumerate() {
            let is_last = place + 1 == asked.len();
            match act(endpoint, if is_last { u32::MAX } else { 1 }) {
                Ok(value) => {
                    self.shared.preferred.store(*at, Ordering::Relaxed);
                    return Ok(value);
                }
                Err(error) if is_last && failed.is_empty() => return Err(error),
                Err(error) if is_last => {
                    return Err(Error::Mirrors {
                        mirrors: failed.join("; "),
                        last: Box::new(error),
                    });
                }
                Err(error) => {
                    log::info!("{}: {error}; asking the next host", endpoint.host);
                    failed.push(with_sources(&error));
                }
            }
        }
        Err(Error::NoEndpoint(self.text()))
    }
}
