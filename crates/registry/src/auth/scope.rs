//! What a token is to allow: `repository:NAME:pull,push`, `registry:catalog:*`.

use std::collections::{BTreeMap, BTreeSet};

/// Most scopes of one token.
const SCOPES_MAX: usize = 32;

/// A set of scopes, joined by what they are about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Scopes(BTreeMap<String, BTreeSet<String>>);

impl Scopes {
    /// No scope: what `login` and `ping` ask for.
    pub(crate) fn none() -> Self {
        Self::default()
    }

    /// Actions on a repository: `pull`, `pull,push`, `delete`.
    pub(crate) fn repository(name: &str, actions: &str) -> Self {
        Self::default().with(&format!("repository:{name}:{actions}"))
    }

    /// The list of all repositories.
    pub(crate) fn catalog() -> Self {
        Self::default().with("registry:catalog:*")
    }

    /// These scopes and those in `text`, which are separated by spaces.
    #[must_use]
    pub(crate) fn with(mut self, text: &str) -> Self {
        for scope in text.split_ascii_whitespace().take(SCOPES_MAX) {
            // A name may have colons (a port), actions have none.
            let Some((resource, actions)) = scope.rsplit_once(':') else {
                continue;
            };
            let own = self.0.entry(resource.to_owned()).or_default();
            own.extend(actions.split(',').map(str::to_owned));
        }
        self
    }

    /// Each scope as it is sent.
    pub(crate) fn texts(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(resource, actions)| {
            let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
            format!("{resource}:{}", actions.join(","))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_joined_by_resource() {
        let scopes = Scopes::repository("a/b", "pull")
            .with("repository:a/b:push,pull repository:c:pull broken")
            .with("registry:catalog:*");
        let texts: Vec<String> = scopes.texts().collect();
        let wanted = [
            "registry:catalog:*",
            "repository:a/b:pull,push",
            "repository:c:pull",
        ];
        assert_eq!(texts, wanted);
    }
}
