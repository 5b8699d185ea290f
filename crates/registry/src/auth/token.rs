//! Token servers: `GET` with basic credentials, or OAuth2 with a refresh token.

use std::time::{Duration, Instant};

use serde::Deserialize;

use super::{Scopes, Wants};
use crate::credentials::Credential;
use crate::error::Error;
use crate::url::{Url, escape};
use crate::wire::{Call, Source, Wire};

/// Longest answer of a token server, in bytes.
const TOKEN_BYTES_MAX: usize = 1 << 20;
/// How long such an answer is waited for.
const TOKEN_WAIT: Duration = Duration::from_secs(30);
/// How long a token holds that does not say so (distribution specification).
const LIFE_DEFAULT: Duration = Duration::from_secs(60);
/// Longest that a token is believed to hold.
const LIFE_MAX: Duration = Duration::from_secs(3600);
/// How we call ourselves to token servers.
const CLIENT_ID: &str = "carrack";

/// What a token is for.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) realm: String,
    pub(super) service: String,
    pub(super) scopes: Scopes,
    /// The registry, and whose token it is.
    pub(super) host: String,
    pub(super) credential: Option<Credential>,
}

/// A token and how long it holds.
pub(super) struct Kept {
    token: String,
    until: Instant,
    pub(super) refresh: Option<String>,
}

impl Kept {
    pub(super) fn is_fresh(&self) -> bool {
        Instant::now() < self.until
    }

    pub(super) fn header(&self) -> String {
        format!("Bearer {}", self.token)
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Document {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
    refresh_token: Option<String>,
}

/// Gets a token. `offline` asks for a refresh token too.
pub(super) fn fetch(
    wire: &Wire,
    wants: &Wants<'_>,
    key: &Key,
    offline: bool,
) -> Result<Kept, Error> {
    let realm = realm(wants, &key.realm)?;
    let same_host = realm.host() == wants.url.host();
    let tls = wants.endpoint.tls.for_other_place(same_host);
    let before = Instant::now();
    let answer = match &key.credential {
        Some(Credential::IdentityToken(token)) => {
            let mut form = vec![
                ("grant_type", "refresh_token".to_owned()),
                ("service", key.service.clone()),
                ("client_id", CLIENT_ID.to_owned()),
                ("refresh_token", token.clone()),
            ];
            let scopes: Vec<String> = key.scopes.texts().collect();
            if !scopes.is_empty() {
                form.push(("scope", scopes.join(" ")));
            }
            let pairs = form.iter().map(|(n, v)| format!("{n}={}", escape(v)));
            let body = pairs.collect::<Vec<_>>().join("&");
            let call = Call::new("POST", realm, &tls)
                .field("Content-Type", "application/x-www-form-urlencoded")
                .source(Source::Bytes(body.as_bytes()));
            wire.call(&call)?
        }
        other => {
            let mut url = realm;
            if !key.service.is_empty() {
                url = url.with_query("service", &key.service);
            }
            for scope in key.scopes.texts() {
                url = url.with_query("scope", &scope);
            }
            if let Some(username) = other.as_ref().and_then(Credential::username) {
                url = url.with_query("account", username);
            }
            if offline {
                url = url
                    .with_query("offline_token", "true")
                    .with_query("client_id", CLIENT_ID);
            }
            let mut call = Call::new("GET", url, &tls);
            if let Some(header) = other.as_ref().and_then(Credential::header) {
                call.private.push(("Authorization".to_owned(), header));
            }
            wire.call(&call)?
        }
    };
    let mut answer = answer.expect(&[200])?;
    let bytes = answer.bytes(TOKEN_BYTES_MAX, TOKEN_WAIT)?;
    let document: Document = serde_json::from_slice(&bytes)
        .map_err(|_| answer.protocol("the token server's answer is no JSON document"))?;
    let filled = |token: Option<String>| token.filter(|token| !token.is_empty());
    let token = filled(document.token)
        .or_else(|| filled(document.access_token))
        .ok_or_else(|| answer.protocol("the token server's answer has no token"))?;
    if !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(answer.protocol("the token has characters that no token has"));
    }
    let life = document
        .expires_in
        .map_or(LIFE_DEFAULT, Duration::from_secs)
        .clamp(LIFE_DEFAULT, LIFE_MAX);
    Ok(Kept {
        token,
        // A tenth earlier: clocks differ, and a request takes time to arrive.
        until: before + life.mul_f32(0.9),
        refresh: filled(document.refresh_token),
    })
}

/// The token server's URL, which the registry chooses.
fn realm(wants: &Wants<'_>, realm: &str) -> Result<Url, Error> {
    let refused = |reason: String| Error::Challenge {
        host: wants.endpoint.host.clone(),
        reason,
    };
    let url = wants
        .url
        .join(realm)
        .map_err(|e| refused(format!("the URL of its token server is unusable: {e}")))?;
    match wants.url.https() && !url.https() && !wants.endpoint.tls.skip_verify {
        true => Err(refused(format!(
            "its token server {url} is not reached over TLS"
        ))),
        false => Ok(url),
    }
}
