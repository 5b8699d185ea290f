//! Whether a credential is good, and what is worth keeping of it.

use super::{Ask, At, Registry, To};
use crate::auth::{Scopes, Wants, parse_challenges};
use crate::credentials::Credential;
use crate::error::Error;

/// What a successful login gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// What to keep: a token where the registry gives one, else what was given.
    pub credential: Credential,
    /// Whether the registry asked for a credential at all.
    pub was_asked: bool,
}

impl Registry {
    /// Whether the host speaks the distribution protocol, as whoever we are.
    ///
    /// # Errors
    /// [`Error`] of the registry.
    pub fn ping(&self) -> Result<(), Error> {
        let to = self.to(Scopes::none());
        let answer = self.inner().ask(&to, At::Path("/"), &Ask::new("GET"))?;
        answer.expect(&[200])?.drain();
        Ok(())
    }

    /// Shows a credential to the registry, and asks for a token to keep in its place.
    ///
    /// # Errors
    /// [`Error::Unauthorized`] or [`Error::Token`] when it is not good.
    pub fn login(&self, credential: &Credential) -> Result<Login, Error> {
        let to = To {
            credential: Some(credential),
            ..self.to(Scopes::none())
        };
        let inner = self.inner();
        // First bare: only an answer that refuses says what is wanted.
        let bare = self.bare_ping()?;
        if bare.status() != 401 {
            bare.expect(&[200])?.drain();
            return Ok(Login {
                credential: credential.clone(),
                was_asked: false,
            });
        }
        let challenges = parse_challenges(bare.response.all("www-authenticate"));
        let url = bare.asked.url.clone();
        bare.drain();
        let wants = Wants {
            endpoint: to.endpoint,
            original: to.original,
            url: &url,
            scopes: &to.scopes,
            credential: to.credential,
        };
        let token = match credential {
            Credential::Basic { .. } => {
                inner.auth.offline_token(&inner.wire, &wants, &challenges)?
            }
            Credential::IdentityToken(_) | Credential::RegistryToken(_) => None,
        };
        let kept = token.map_or_else(|| credential.clone(), Credential::IdentityToken);
        let to = To {
            credential: Some(&kept),
            ..self.to(Scopes::none())
        };
        let answer = inner.ask(&to, At::Path("/"), &Ask::new("GET"))?;
        answer.expect(&[200])?.drain();
        Ok(Login {
            credential: kept,
            was_asked: true,
        })
    }
}
