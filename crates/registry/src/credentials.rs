//! Who people are to a registry: the trait the client asks, and the files that keep it.
//!
//! Contract: pure. [`AuthFile`] is the text of `~/.docker/config.json` or of
//! containers' `auth.json` (containers-auth.json(5)); running a credential helper is
//! a callback. No secret is ever shown by `Debug` or `Display`.
//!
//! Look-up for `HOST/NAMESPACE/REPOSITORY`:
//! 1. `credHelpers[HOST]`;
//! 2. `auths`, by the longest of `HOST/NAMESPACE/REPOSITORY`, `HOST/NAMESPACE`, `HOST`,
//!    then in the old form `https://HOST/v1/`;
//! 3. `credsStore`.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use carrack_spec::DEFAULT_HOST;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Largest credentials file or helper answer that is read, in bytes.
pub const AUTH_BYTES_MAX: usize = 4 << 20;
/// The name under which docker keeps the credentials of docker.io.
pub const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// The user name with which helpers mark an identity token.
const TOKEN_USER: &str = "<token>";

/// What a registry is shown.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Credential {
    /// A user name and a password.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: String,
    },
    /// A token that is exchanged for short-lived ones (OAuth2 refresh token).
    IdentityToken(String),
    /// A token that is sent as it is.
    RegistryToken(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic { username, .. } => write!(f, "Basic({username:?}, …)"),
            Self::IdentityToken(_) => f.write_str("IdentityToken(…)"),
            Self::RegistryToken(_) => f.write_str("RegistryToken(…)"),
        }
    }
}

impl Credential {
    /// The user, where it is known.
    pub fn username(&self) -> Option<&str> {
        match self {
            Self::Basic { username, .. } => Some(username),
            Self::IdentityToken(_) | Self::RegistryToken(_) => None,
        }
    }

    /// Value of an `Authorization` header, where it can be sent as it is.
    pub(crate) fn header(&self) -> Option<String> {
        match self {
            Self::Basic { username, password } => {
                let pair = STANDARD.encode(format!("{username}:{password}"));
                Some(format!("Basic {pair}"))
            }
            Self::RegistryToken(token) => Some(format!("Bearer {token}")),
            Self::IdentityToken(_) => None,
        }
    }
}

/// An error of whoever keeps credentials.
pub type CredentialsError = Box<dyn std::error::Error + Send + Sync>;

/// Where the client gets credentials from.
pub trait Credentials: Send + Sync {
    /// The credential for a repository of a host; none means anonymous.
    ///
    /// # Errors
    /// Whatever keeps the caller from finding out. The request then fails.
    fn get(&self, host: &str, repository: &str) -> Result<Option<Credential>, CredentialsError>;
}

/// Runs the `get` of the helper named first for the server named second.
pub type AskHelper<'a> = dyn Fn(&str, &str) -> Result<Option<Credential>, CredentialsError> + 'a;

/// Nobody: every request is anonymous.
#[derive(Debug, Clone, Copy, Default)]
pub struct Anonymous;

impl Credentials for Anonymous {
    fn get(&self, _: &str, _: &str) -> Result<Option<Credential>, CredentialsError> {
        Ok(None)
    }
}

/// Why a credentials file or a helper's answer is refused.
#[derive(Debug, thiserror::Error)]
pub enum AuthFileError {
    /// It is no JSON, or has another shape.
    #[error("the credentials file is malformed")]
    Syntax(#[source] serde_json::Error),
    /// It is longer than allowed.
    #[error("{0} bytes of credentials; at most {AUTH_BYTES_MAX} are read")]
    TooLong(usize),
    /// An entry is not base64 of `USER:PASSWORD`.
    #[error("the entry for {0} in the credentials file is malformed; log in again")]
    Entry(String),
    /// A helper answered something else than the protocol says.
    #[error("the credential helper's answer is malformed")]
    Helper(#[source] serde_json::Error),
}

/// A credentials file; what is not understood is kept when it is written again.
#[derive(Clone, Default)]
pub struct AuthFile(Map<String, Value>);

impl fmt::Debug for AuthFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AuthFile").field(&self.hosts()).finish()
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

impl AuthFile {
    /// Parses the file; an empty one has no entries.
    ///
    /// # Errors
    /// [`AuthFileError`] says what is wrong.
    pub fn parse(text: &[u8]) -> Result<Self, AuthFileError> {
        if text.len() > AUTH_BYTES_MAX {
            return Err(AuthFileError::TooLong(text.len()));
        }
        if text.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_slice(text)
            .map(Self)
            .map_err(AuthFileError::Syntax)
    }

    /// The file's text.
    pub fn to_text(&self) -> String {
        let mut text = format!("{:#}", Value::Object(self.0.clone()));
        text.push('\n');
        text
    }

    /// The names that have an entry of their own.
    pub fn hosts(&self) -> Vec<String> {
        let auths = self.0.get("auths").and_then(Value::as_object);
        auths.map_or_else(Vec::new, |auths| auths.keys().cloned().collect())
    }

    /// The helper that keeps the credentials of a host, by the end of its program's
    /// name (`docker-credential-NAME`).
    pub fn helper(&self, host: &str) -> Option<&str> {
        let own = self.0.get("credHelpers").and_then(Value::as_object);
        let own = own.and_then(|helpers| {
            let mut keys = host_keys(host).into_iter();
            keys.find_map(|key| helpers.get(&key)?.as_str())
        });
        own.or_else(|| self.0.get("credsStore")?.as_str())
            .filter(|name| !name.is_empty())
    }

    /// The credential for a repository. `ask` runs a helper's `get` for a server.
    ///
    /// # Errors
    /// A malformed entry, or what `ask` says.
    pub fn get(
        &self,
        host: &str,
        repository: &str,
        ask: &AskHelper<'_>,
    ) -> Result<Option<Credential>, CredentialsError> {
        let own = self.0.get("credHelpers").and_then(Value::as_object);
        let own =
            own.is_some_and(|helpers| host_keys(host).iter().any(|key| helpers.contains_key(key)));
        let server = helper_server(host);
        if let (true, Some(helper)) = (own, self.helper(host)) {
            return ask(helper, server);
        }
        if let Some(credential) = self.own(host, repository)? {
            return Ok(Some(credential));
        }
        match self.helper(host) {
            Some(helper) => ask(helper, server),
            None => Ok(None),
        }
    }

    /// The credential that stands in the file itself.
    fn own(&self, host: &str, repository: &str) -> Result<Option<Credential>, AuthFileError> {
        let Some(auths) = self.0.get("auths").and_then(Value::as_object) else {
            return Ok(None);
        };
        let mut keys = Vec::new();
        let mut path = repository;
        while !path.is_empty() {
            keys.push(format!("{host}/{path}"));
            path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        }
        keys.extend(host_keys(host));
        for key in &keys {
            if let Some(value) = auths.get(key)
                && let Some(credential) = entry(key, value)?
            {
                return Ok(Some(credential));
            }
        }
        // Old files have URLs; their host counts.
        for (key, value) in auths {
            let bare = key.split_once("://").map_or(key.as_str(), |(_, rest)| rest);
            let old = bare.len() < key.len() || key.ends_with("/v1/") || key.ends_with("/v2/");
            let key_host = bare.split('/').next().unwrap_or(bare);
            if old
                && host_keys(host).iter().any(|wanted| wanted == key_host)
                && let Some(credential) = entry(key, value)?
            {
                return Ok(Some(credential));
            }
        }
        Ok(None)
    }

    /// Puts a credential in under `key`: a host, or a host and a part of a path.
    pub fn set(&mut self, key: &str, credential: &Credential) {
        let value = match credential {
            Credential::Basic { username, password } => {
                json!({"auth": STANDARD.encode(format!("{username}:{password}"))})
            }
            Credential::IdentityToken(token) => json!({"identitytoken": token}),
            Credential::RegistryToken(token) => json!({"registrytoken": token}),
        };
        self.put(key, value);
    }

    /// Notes that a helper keeps the credential, as docker does with an empty entry.
    pub fn set_elsewhere(&mut self, key: &str) {
        self.put(key, json!({}));
    }

    fn put(&mut self, key: &str, value: Value) {
        let auths = self.0.entry("auths").or_insert_with(|| json!({}));
        if !auths.is_object() {
            *auths = json!({});
        }
        if let Some(auths) = auths.as_object_mut() {
            auths.insert(file_key(key).to_owned(), value);
        }
    }

    /// Takes the entry of `key` out; whether there was one.
    pub fn remove(&mut self, key: &str) -> bool {
        let auths = self.0.get_mut("auths").and_then(Value::as_object_mut);
        auths.is_some_and(|auths| {
            let mut keys = host_keys(key);
            keys.push(key.to_owned());
            let removed = keys.iter().filter(|key| auths.remove(*key).is_some());
            removed.count() > 0
        })
    }
}

/// The key under which docker and podman look for a host's entry.
fn file_key(key: &str) -> &str {
    match key {
        DEFAULT_HOST => DOCKER_HUB_KEY,
        other => other,
    }
}

/// What a helper is asked for.
pub fn helper_server(host: &str) -> &str {
    file_key(host)
}

fn host_keys(host: &str) -> Vec<String> {
    match host {
        DEFAULT_HOST => [DEFAULT_HOST, DOCKER_HUB_KEY, "index.docker.io"]
            .map(str::to_owned)
            .to_vec(),
        other => vec![other.to_owned()],
    }
}

fn entry(key: &str, value: &Value) -> Result<Option<Credential>, AuthFileError> {
    let bad = || AuthFileError::Entry(key.to_owned());
    let entry: Entry = serde_json::from_value(value.clone()).map_err(|_| bad())?;
    if !entry.identitytoken.is_empty() {
        return Ok(Some(Credential::IdentityToken(entry.identitytoken)));
    }
    if !entry.registrytoken.is_empty() {
        return Ok(Some(Credential::RegistryToken(entry.registrytoken)));
    }
    if !entry.auth.is_empty() {
        let bytes = STANDARD.decode(entry.auth.trim()).map_err(|_| bad())?;
        let text = String::from_utf8(bytes).map_err(|_| bad())?;
        let (username, password) = text.split_once(':').ok_or_else(bad)?;
        return Ok(Some(Credential::Basic {
            username: username.to_owned(),
            // docker once padded its passwords with zeros.
            password: password.trim_end_matches('\0').to_owned(),
        }));
    }
    let named = !entry.username.is_empty();
    Ok(named.then_some(Credential::Basic {
        username: entry.username,
        password: entry.password,
    }))
}

/// The protocol of `docker-credential-*`: the server goes to standard input of
/// `get` and `erase`, a document to `store`; `get` answers with a document.
pub mod helper {
    use super::{AuthFileError, Credential, TOKEN_USER};
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        #[serde(default)]
        username: String,
        #[serde(default)]
        secret: String,
    }

    /// Reads what `get` wrote to standard output.
    ///
    /// # Errors
    /// [`AuthFileError::Helper`] when it is not the protocol's document.
    pub fn read_get(output: &[u8]) -> Result<Option<Credential>, AuthFileError> {
        if output.len() > super::AUTH_BYTES_MAX {
            return Err(AuthFileError::TooLong(output.len()));
        }
        let answer: Answer = serde_json::from_slice(output).map_err(AuthFileError::Helper)?;
        Ok(match (answer.username.as_str(), answer.secret) {
            ("", secret) if secret.is_empty() => None,
            (TOKEN_USER, token) => Some(Credential::IdentityToken(token)),
            (username, password) => Some(Credential::Basic {
                username: username.to_owned(),
                password,
            }),
        })
    }

    /// Whether the output of a failed `get` only says that there is nothing.
    pub fn says_not_found(output: &[u8]) -> bool {
        let text = String::from_utf8_lossy(output).to_ascii_lowercase();
        text.contains("credentials not found") || text.contains("no credentials server url")
    }

    /// What `store` reads from standard input.
    pub fn store_input(server: &str, credential: &Credential) -> String {
        let (username, secret) = match credential {
            Credential::Basic { username, password } => (username.as_str(), password),
            Credential::IdentityToken(token) | Credential::RegistryToken(token) => {
                (TOKEN_USER, token)
            }
        };
        json!({"ServerURL": server, "Username": username, "Secret": secret}).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn basic(username: &str, password: &str) -> Credential {
        Credential::Basic {
            username: username.into(),
            password: password.into(),
        }
    }

    fn file(value: Value) -> AuthFile {
        AuthFile::parse(value.to_string().as_bytes()).unwrap()
    }

    fn get(file: &AuthFile, host: &str, repository: &str) -> Option<Credential> {
        let ask = |helper: &str, server: &str| Ok(Some(basic(helper, server)));
        file.get(host, repository, &ask).unwrap()
    }

    #[test]
    fn the_longest_path_wins() {
        let file = file(json!({"auths": {
            "r.example": {"auth": STANDARD.encode("host:1")},
            "r.example/team": {"auth": STANDARD.encode("team:a:b")},
            "r.example/team/app": {"identitytoken": "t"},
        }}));
        assert_eq!(get(&file, "r.example", "x/y"), Some(basic("host", "1")));
        assert_eq!(
            get(&file, "r.example", "team/z"),
            Some(basic("team", "a:b"))
        );
        assert_eq!(get(&file, "r.example", "teamx"), Some(basic("host", "1")));
        let token = Credential::IdentityToken("t".into());
        assert_eq!(get(&file, "r.example", "team/app"), Some(token));
        assert_eq!(get(&file, "other.example", "team"), None);
    }

    #[test]
    fn docker_hub_and_old_keys_are_found() {
        let file = file(json!({"auths": {
            DOCKER_HUB_KEY: {"username": "me", "password": "pw"},
            "https://old.example/v1/": {"auth": STANDARD.encode("old:pw\0\0")},
        }}));
        assert_eq!(
            get(&file, "docker.io", "library/a"),
            Some(basic("me", "pw"))
        );
        assert_eq!(get(&file, "old.example", "a"), Some(basic("old", "pw")));
    }

    #[test]
    fn helpers_are_asked_in_their_turn() {
        let file = file(json!({
            "auths": {"a.example": {}, "b.example": {"auth": STANDARD.encode("b:1")}},
            "credHelpers": {"c.example": "ecr"}, "credsStore": "pass",
        }));
        assert_eq!(get(&file, "c.example", ""), Some(basic("ecr", "c.example")));
        assert_eq!(get(&file, "b.example", ""), Some(basic("b", "1")));
        assert_eq!(
            get(&file, "a.example", ""),
            Some(basic("pass", "a.example"))
        );
        assert_eq!(
            get(&file, "docker.io", ""),
            Some(basic("pass", DOCKER_HUB_KEY))
        );
    }

    #[test]
    fn writing_keeps_what_is_not_understood() {
        let mut file = file(json!({"HttpHeaders": {"a": "b"}, "auths": {"x": {}}}));
        file.set("docker.io", &basic("u", "p"));
        let again = AuthFile::parse(file.to_text().as_bytes()).unwrap();
        assert_eq!(get(&again, "docker.io", "a"), Some(basic("u", "p")));
        assert!(again.to_text().contains("HttpHeaders"));
        assert!(file.remove("docker.io") && !file.remove("docker.io"));
    }

    #[test]
    fn helper_documents_cross_over() {
        let token = Credential::IdentityToken("t".into());
        for credential in [basic("u", "p"), token] {
            let text = helper::store_input("s", &credential);
            assert_eq!(helper::read_get(text.as_bytes()).unwrap(), Some(credential));
        }
        assert_eq!(helper::read_get(b"{}").unwrap(), None);
        assert!(helper::read_get(b"oops").is_err());
        assert!(helper::says_not_found(
            b"credentials not found in native keychain\n"
        ));
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = format!(
            "{:?}",
            (
                basic("u", "hidden"),
                Credential::IdentityToken("hidden".into())
            )
        );
        assert!(!shown.contains("hidden"), "{shown}");
        let bad = file(json!({"auths": {"h": {"auth": "%%%"}}}));
        let none = |_: &str, _: &str| Ok(None);
        assert!(
            bad.get("h", "", &none)
                .unwrap_err()
                .to_string()
                .contains("entry for h")
        );
    }

    proptest! {
        #[test]
        fn any_file_is_read_or_refused(text in "[{}\\[\\]\":a-z,0-9. ]{0,80}") {
            if let Ok(file) = AuthFile::parse(text.as_bytes()) {
                let _ = file.get("a", "b/c", &|_, _| Ok(None));
                let _ = file.hosts();
            }
        }
    }
}
