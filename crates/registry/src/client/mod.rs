//! The client: what is configured, and one authenticated question to one endpoint.

mod blob;
mod builder;
mod listing;
mod login;
mod manifest;
mod pages;
mod push;
mod referrers;
mod repository;
mod search;
mod upload;

pub use blob::{Blob, RESUMES_MAX, Verified};
pub use builder::Builder;
pub use listing::{LIST_BYTES_MAX, PAGES_MAX};
pub use login::Login;
pub use manifest::{Document, DocumentKind, Which};
pub use push::{Pushed, PushedManifest};
pub use repository::Repository;
pub use search::{Found, Registry};
pub use upload::UploadOptions;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carrack_spec::Reference;

use crate::auth::{Auth, Original, Scopes, Shown, Wants, parse_challenges};
use crate::config::{Endpoint, RegistriesConfig, Transport};
use crate::credentials::Credential;
use crate::error::Error;
use crate::url::Url;
use crate::wire::{Answer, Call, Source, Wire};

/// How long a document (not a blob) is waited for altogether.
const DOCUMENT_WAIT: Duration = Duration::from_secs(120);

/// A client of registries. Cheap to clone; all clones share connections and tokens,
/// and may be used by many threads at once.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

impl Client {
    /// What to set before there is a client.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The configuration.
    pub fn config(&self) -> &RegistriesConfig {
        &self.inner.config
    }

    /// The repository of a reference, with its mirrors.
    ///
    /// # Errors
    /// [`Error::Config`] when the configuration forbids it.
    pub fn repository(&self, reference: &Reference) -> Result<Repository, Error> {
        Repository::new(Arc::clone(&self.inner), reference)
    }

    /// A whole registry: ping, login, catalogue, search.
    ///
    /// # Errors
    /// [`Error::Config`] when the configuration forbids it.
    pub fn registry(&self, host: &str) -> Result<Registry, Error> {
        Registry::new(Arc::clone(&self.inner), host)
    }
}

/// What all handles of a client share.
struct Inner {
    wire: Wire,
    auth: Auth,
    config: RegistriesConfig,
    /// Insecure hosts that turned out to speak no TLS.
    plain: Mutex<HashSet<String>>,
}

/// Whom to ask, and as who.
struct To<'a> {
    endpoint: &'a Endpoint,
    original: &'a Original,
    scopes: Scopes,
    /// A credential to use instead of looking one up.
    credential: Option<&'a Credential>,
}

/// Where to ask.
#[derive(Clone, Copy)]
enum At<'a> {
    /// A path below the repository of the endpoint, with queries.
    Path(&'a str),
    /// A URL that the registry gave.
    Url(&'a Url),
}

/// What to ask.
#[derive(Clone)]
struct Ask<'a> {
    method: &'static str,
    fields: Vec<(String, String)>,
    source: Source<'a>,
    attempts: u32,
    bare: bool,
}

impl<'a> Ask<'a> {
    fn new(method: &'static str) -> Self {
        Self {
            method,
            fields: Vec::new(),
            source: Source::None,
            attempts: u32::MAX,
            bare: false,
        }
    }

    /// As nobody, whatever is known of the host.
    fn bare(mut self) -> Self {
        self.bare = true;
        self
    }

    fn field(mut self, name: &str, value: impl Into<String>) -> Self {
        self.fields.push((name.to_owned(), value.into()));
        self
    }

    fn source(mut self, source: Source<'a>) -> Self {
        self.source = source;
        self
    }

    /// How often passing troubles are met with another try.
    fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }
}

impl Inner {
    /// One question to one endpoint. The answer is whatever the registry says, except
    /// for a refusal of who we are, which is an error.
    fn ask(&self, to: &To<'_>, at: At<'_>, ask: &Ask<'_>) -> Result<Answer, Error> {
        let endpoint = to.endpoint;
        let path = match at {
            At::Url(url) => return self.authorized(to, ask, url.clone()),
            At::Path(path) => path,
        };
        let url = |https: bool| {
            endpoint.url(https, path).map_err(|source| Error::Url {
                what: format!("the host {}", endpoint.host),
                source,
            })
        };
        let plain = match endpoint.transport {
            Transport::Tls => false,
            Transport::Plain => true,
            Transport::Any => crate::locked(&self.plain).contains(&endpoint.address),
        };
        if endpoint.transport != Transport::Any || plain {
            return self.authorized(to, ask, url(!plain)?);
        }
        // A host that speaks no TLS does not learn it between two tries.
        let first = ask.clone().attempts(1);
        match self.authorized(to, &first, url(true)?) {
            Err(Error::Http { source, .. }) if source.may_speak_plain() => {
                let answer = self.authorized(to, ask, url(false)?)?;
                crate::locked(&self.plain).insert(endpoint.address.clone());
                Ok(answer)
            }
            Err(error) if error.is_transient() && ask.attempts > 1 => {
                self.authorized(to, ask, url(true)?)
            }
            other => other,
        }
    }

    /// Asks, shows who we are when that is wanted, and asks again, once.
    fn authorized(&self, to: &To<'_>, ask: &Ask<'_>, url: Url) -> Result<Answer, Error> {
        let endpoint = to.endpoint;
        let mut call = call(to, ask, url);
        let elsewhere;
        if !belongs_to(&call.url, endpoint) {
            let same_host = Url::of(true, &endpoint.address, "/")
                .is_ok_and(|own| own.host() == call.url.host());
            elsewhere = endpoint.tls.for_other_place(same_host);
            call.tls = &elsewhere;
            return self.wire.call(&call);
        }
        if ask.bare {
            call.private = private(endpoint, None);
            return self.wire.call(&call);
        }
        let url = call.url.clone();
        let wants = Wants {
            endpoint,
            original: to.original,
            url: &url,
            scopes: &to.scopes,
            credential: to.credential,
        };
        let mut shown = self.auth.before(&self.wire, &wants)?;
        call.private = private(endpoint, shown.as_ref());
        let answer = self.wire.call(&call)?;
        if answer.status() != 401 || !answer.own {
            return Ok(answer);
        }
        let challenges = parse_challenges(answer.response.all("www-authenticate"));
        let next = self
            .auth
            .after(&self.wire, &wants, &challenges, shown.is_some())?;
        // The same password again would not be better.
        if next.is_none() || next == shown {
            return Err(unauthorized(endpoint, shown.as_ref(), answer));
        }
        answer.drain();
        shown = next;
        call.private = private(endpoint, shown.as_ref());
        let answer = self.wire.call(&call)?;
        match answer.status() == 401 && answer.own {
            true => Err(unauthorized(endpoint, shown.as_ref(), answer)),
            false => Ok(answer),
        }
    }
}

fn call<'a>(to: &To<'a>, ask: &Ask<'a>, url: Url) -> Call<'a> {
    Call {
        method: ask.method,
        url,
        tls: &to.endpoint.tls,
        fields: ask.fields.clone(),
        private: Vec::new(),
        source: ask.source,
        attempts: ask.attempts,
        insecure: to.endpoint.transport != Transport::Tls,
    }
}

/// The fields for the endpoint alone; what we show replaces a configured authorization.
fn private(endpoint: &Endpoint, shown: Option<&Shown>) -> Vec<(String, String)> {
    let mut fields = endpoint.headers.clone();
    if let Some(shown) = shown {
        fields.retain(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
        fields.push(("Authorization".to_owned(), shown.header.clone()));
    }
    fields
}

/// Whether a URL leads to the endpoint itself, over TLS unless that is waived.
fn belongs_to(url: &Url, endpoint: &Endpoint) -> bool {
    let secure = match endpoint.transport {
        Transport::Tls => url.https(),
        Transport::Plain => !url.https(),
        Transport::Any => true,
    };
    let own = Url::of(url.https(), &endpoint.address, "/");
    secure && own.is_ok_and(|own| own.origin() == url.origin())
}

fn unauthorized(endpoint: &Endpoint, shown: Option<&Shown>, answer: Answer) -> Error {
    Error::Unauthorized {
        host: endpoint.host.clone(),
        username: shown.and_then(|shown| shown.username.clone()),
        refusal: Box::new(answer.refusal()),
    }
}
