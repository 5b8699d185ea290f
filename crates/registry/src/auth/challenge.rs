//! `WWW-Authenticate` (RFC 9110, 11.6.1): several challenges, in one field or many.

use std::fmt;

/// Longest field that is parsed, in bytes.
const FIELD_BYTES_MAX: usize = 16 << 10;
/// Most challenges of one answer.
const CHALLENGES_MAX: usize = 16;

/// One way in which a server lets clients say who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// A user name and a password with every request.
    Basic {
        /// What the server calls itself.
        realm: String,
    },
    /// A token that another server gives out.
    Bearer {
        /// The URL of that server.
        realm: String,
        /// What it must be asked for.
        service: String,
        /// The rights that were missing.
        scope: String,
        /// `insufficient_scope`, `invalid_token`, …
        error: String,
    },
    /// Anything else, by its name.
    Other(String),
}

impl fmt::Display for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Basic { .. } => "Basic",
            Self::Bearer { .. } => "Bearer",
            Self::Other(name) => name,
        })
    }
}

/// The challenges of the fields of one answer. What is malformed ends its field.
pub fn parse_challenges<'a>(fields: impl IntoIterator<Item = &'a str>) -> Vec<Challenge> {
    let mut found = Vec::new();
    for field in fields {
        if field.len() <= FIELD_BYTES_MAX {
            parse_field(field, &mut found);
        }
    }
    found.truncate(CHALLENGES_MAX);
    found
}

fn parse_field(field: &str, found: &mut Vec<Challenge>) {
    let mut rest = field.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() && found.len() < CHALLENGES_MAX {
        let (scheme, after) = token(rest);
        if scheme.is_empty() {
            return;
        }
        let mut parameters = Vec::new();
        rest = after;
        while let Some((name, value, after)) = parameter(rest) {
            parameters.push((name.to_ascii_lowercase(), value));
            rest = after;
        }
        found.push(challenge(scheme, &parameters));
        let next = rest.trim_start_matches([' ', '\t', ',']);
        if next.len() == rest.len() && !rest.is_empty() {
            return;
        }
        rest = next;
    }
}

fn challenge(scheme: &str, parameters: &[(String, String)]) -> Challenge {
    let get = |name: &str| {
        let found = parameters.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    if scheme.eq_ignore_ascii_case("basic") {
        return Challenge::Basic {
            realm: get("realm"),
        };
    }
    if scheme.eq_ignore_ascii_case("bearer") {
        return Challenge::Bearer {
            realm: get("realm"),
            service: get("service"),
            scope: get("scope"),
            error: get("error"),
        };
    }
    Challenge::Other(scheme.to_owned())
}

/// The token at the start and what follows it.
fn token(text: &str) -> (&str, &str) {
    let word = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    text.split_at(text.find(|c| !word(c)).unwrap_or(text.len()))
}

/// `name = value` at the start, after spaces and commas, and what follows it.
fn parameter(text: &str) -> Option<(&str, String, &str)> {
    let text = text.trim_start_matches([' ', '\t', ',']);
    let (name, rest) = token(text);
    let rest = rest.trim_start_matches([' ', '\t']).strip_prefix('=')?;
    if name.is_empty() {
        return None;
    }
    let rest = rest.trim_start_matches([' ', '\t']);
    let Some(quoted) = rest.strip_prefix('"') else {
        // Values without quotes may hold more than tokens in the field (URLs).
        let end = rest.find([',', ' ', '\t']).unwrap_or(rest.len());
        let (value, rest) = rest.split_at(end);
        return Some((name, value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((name, value, quoted.get(at + 1..).unwrap_or_default())),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bearer(realm: &str, service: &str, scope: &str) -> Challenge {
        Challenge::Bearer {
            realm: realm.into(),
            service: service.into(),
            scope: scope.into(),
            error: String::new(),
        }
    }

    #[test]
    fn reads_what_registries_send() {
        let basic = |realm: &str| Challenge::Basic {
            realm: realm.into(),
        };
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/a:pull,push""#;
        for (field, wanted) in [
            (
                hub,
                vec![bearer(
                    "https://auth.docker.io/token",
                    "registry.docker.io",
                    "repository:library/a:pull,push",
                )],
            ),
            (
                r#"Basic realm="Registry Realm""#,
                vec![basic("Registry Realm")],
            ),
            (
                r#"basic REALM=x , bearer realm=https://a/t , service = "s\"q""#,
                vec![basic("x"), bearer("https://a/t", "s\"q", "")],
            ),
            (
                r#"Negotiate, Basic realm="x""#,
                vec![Challenge::Other("Negotiate".into()), basic("x")],
            ),
            ("Basic", vec![basic("")]),
            ("", vec![]),
            ("=x", vec![]),
        ] {
            assert_eq!(parse_challenges([field]), wanted, "{field}");
        }
        assert_eq!(
            parse_challenges(["Basic realm=a", "Bearer realm=b"]).len(),
            2
        );
    }

    #[test]
    fn a_flood_of_challenges_is_cut() {
        let field = "Basic realm=a, ".repeat(500);
        assert_eq!(parse_challenges([field.as_str()]).len(), CHALLENGES_MAX);
        let long = format!("Basic realm={}", "a".repeat(FIELD_BYTES_MAX));
        assert!(parse_challenges([long.as_str()]).is_empty());
    }

    proptest! {
        #[test]
        fn any_field_is_parsed(field in "\\PC{0,120}", tight in "[a-z=\", \\\\]{0,60}") {
            let _ = parse_challenges([field.as_str(), tight.as_str()]);
        }
    }
}
