//! `registries.conf` of the containers tools, version 2 (containers-registries.conf(5)).

use std::collections::BTreeMap;

use carrack_spec::{DEFAULT_HOST, Reference};
use serde::Deserialize;

use super::endpoint::{Endpoint, PullFrom, Transport};
use super::{Candidates, ConfigError, parse_toml};

/// What to do with a short name for which there is no alias.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShortNameMode {
    /// A person chooses; without a terminal, more than one registry is an error.
    #[default]
    Enforcing,
    /// A person chooses; without a terminal all registries are tried in order.
    Permissive,
    /// All registries are tried in order.
    Disabled,
}

/// A mirror of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// `HOST[:PORT][/PATH]` that stands in for the rule's prefix.
    pub location: String,
    /// Unverified TLS and plain HTTP are allowed.
    pub insecure: bool,
    /// What it is asked for.
    pub pull_from: PullFrom,
}

/// One `[[registry]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryRule {
    /// The names it is about: `HOST[:PORT][/PATH]` or `*.HOST`.
    pub prefix: String,
    /// What stands in for the prefix; empty: the name as it is.
    pub location: String,
    /// Unverified TLS and plain HTTP are allowed.
    pub insecure: bool,
    /// Nothing may be pulled or pushed.
    pub blocked: bool,
    /// Mirrors in order.
    pub mirrors: Vec<Mirror>,
}

/// One or several merged `registries.conf`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistriesConf {
    search: Option<Vec<String>>,
    mode: Option<ShortNameMode>,
    aliases: BTreeMap<String, String>,
    rules: Vec<RegistryRule>,
    helpers: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct Document {
    unqualified_search_registries: Option<Vec<String>>,
    short_name_mode: Option<String>,
    credential_helpers: Vec<String>,
    registry: Vec<RegistryTable>,
    aliases: BTreeMap<String, String>,
    registries: Option<toml::Table>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct RegistryTable {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<MirrorTable>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct MirrorTable {
    location: String,
    insecure: bool,
    pull_from_mirror: String,
}

impl RegistriesConf {
    /// Parses one file.
    ///
    /// # Errors
    /// [`ConfigError`] names what is wrong.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let document: Document = parse_toml(text)?;
        if document.registries.is_some() {
            return Err(ConfigError::Version1);
        }
        let mode = match document.short_name_mode.as_deref() {
            None | Some("") => None,
            Some("enforcing") => Some(ShortNameMode::Enforcing),
            Some("permissive") => Some(ShortNameMode::Permissive),
            Some("disabled") => Some(ShortNameMode::Disabled),
            Some(other) => {
                return Err(value(
                    "short-name-mode",
                    other,
                    "use enforcing, permissive or disabled",
                ));
            }
        };
        let rules = document.registry.into_iter().map(rule);
        Ok(Self {
            search: document.unqualified_search_registries,
            mode,
            aliases: document.aliases,
            rules: rules.collect::<Result<_, _>>()?,
            helpers: document.credential_helpers,
        })
    }

    /// Lays a later file over this one: lists are replaced, rules of the same
    /// prefix and aliases of the same name too, an empty alias takes one away.
    pub fn merge(&mut self, later: Self) {
        self.search = later.search.or(self.search.take());
        self.mode = later.mode.or(self.mode);
        if !later.helpers.is_empty() {
            self.helpers = later.helpers;
        }
        self.rules
            .retain(|rule| later.rules.iter().all(|new| new.prefix != rule.prefix));
        self.rules.extend(later.rules);
        self.aliases.extend(later.aliases);
        self.aliases.retain(|_, target| !target.is_empty());
    }

    /// Programs that keep credentials, in order; `containers-auth.json` is the files.
    pub fn credential_helpers(&self) -> &[String] {
        &self.helpers
    }

    /// The rule with the longest prefix that matches.
    pub(super) fn rule(&self, reference: &Reference) -> Option<&RegistryRule> {
        self.rule_of(&format!("{}/{}", reference.host(), reference.path()))
    }

    /// The rule for a whole host.
    pub(super) fn rule_of_host(&self, host: &str) -> Option<&RegistryRule> {
        self.rule_of(host)
    }

    fn rule_of(&self, name: &str) -> Option<&RegistryRule> {
        self.rules
            .iter()
            .filter(|rule| matched(&rule.prefix, name).is_some())
            .max_by_key(|rule| rule.prefix.len())
    }

    pub(super) fn candidates(&self, typed: &str) -> Result<Candidates, ConfigError> {
        let parse = |text: &str| text.parse().map_err(ConfigError::Reference);
        let mode = self.mode.unwrap_or_default();
        let sure = |reference| Candidates {
            references: vec![reference],
            guessed: false,
            mode,
        };
        if names_host(typed) {
            return Ok(sure(parse(typed)?));
        }
        let end = typed.find(['@', ':']).unwrap_or(typed.len());
        let (name, rest) = typed.split_at(end);
        if let Some(target) = self.aliases.get(name) {
            return Ok(sure(parse(&format!("{target}{rest}"))?));
        }
        let fallback = [DEFAULT_HOST.to_owned()];
        let search = self.search.as_deref().unwrap_or(&fallback);
        let references = search
            .iter()
            .map(|registry| parse(&format!("{registry}/{typed}")))
            .collect::<Result<Vec<Reference>, _>>()?;
        if references.is_empty() {
            parse(typed)?;
            return Err(ConfigError::NoSearch(typed.to_owned()));
        }
        Ok(Candidates {
            references,
            guessed: self.search.is_some(),
            mode,
        })
    }
}

impl RegistryRule {
    /// The mirrors, then the registry itself.
    pub(super) fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>, ConfigError> {
        let name = format!("{}/{}", reference.host(), reference.path());
        let mut endpoints = Vec::new();
        for mirror in &self.mirrors {
            let mut endpoint = self.rewritten(&name, &mirror.location)?;
            endpoint.mirror = true;
            endpoint.push = false;
            endpoint.pull_from = mirror.pull_from;
            if mirror.insecure {
                endpoint.transport = Transport::Any;
            }
            endpoints.push(endpoint);
        }
        let mut own = self.rewritten(&name, &self.location)?;
        if self.insecure {
            own.transport = Transport::Any;
        }
        endpoints.push(own);
        Ok(endpoints)
    }

    /// The endpoint of a name whose matched prefix is replaced.
    fn rewritten(&self, name: &str, location: &str) -> Result<Endpoint, ConfigError> {
        let rest = matched(&self.prefix, name).unwrap_or_default();
        let to = match location {
            "" => name.to_owned(),
            location => format!("{location}{rest}"),
        };
        // The parser knows the grammar; a name without a slash would be docker.io's.
        let parsed: Reference = to.parse().map_err(|source| ConfigError::Rewritten {
            from: name.to_owned(),
            to: to.clone(),
            source,
        })?;
        let (host, path) = to.split_once('/').unwrap_or((parsed.host(), parsed.path()));
        let path = if host == DEFAULT_HOST {
            parsed.path()
        } else {
            path
        };
        Ok(Endpoint::registry(host, path))
    }
}

fn rule(table: RegistryTable) -> Result<RegistryRule, ConfigError> {
    let prefix = match table.prefix.as_str() {
        "" => table.location.clone(),
        prefix => prefix.to_owned(),
    };
    let prefix = prefix.trim_end_matches('/').to_owned();
    let plain = |text: &str| {
        !text.contains("://") && !text.contains('*') && text.bytes().all(|b| b.is_ascii_graphic())
    };
    let wanted = "write HOST[:PORT][/PATH]";
    if prefix.is_empty() || !plain(prefix.strip_prefix("*.").unwrap_or(&prefix)) {
        return Err(value("registry.prefix", &prefix, wanted));
    }
    let location = |key: &str, text: &str| {
        let text = text.trim_end_matches('/');
        match plain(text) {
            true => Ok(text.to_owned()),
            false => Err(value(key, text, wanted)),
        }
    };
    let mirror = |mirror: MirrorTable| {
        let key = "registry.mirror.location";
        let pull_from = match mirror.pull_from_mirror.as_str() {
            "" | "all" if table.mirror_by_digest_only => PullFrom::DigestOnly,
            "" | "all" => PullFrom::All,
            "digest-only" => PullFrom::DigestOnly,
            "tag-only" => PullFrom::TagOnly,
            other => {
                return Err(value(
                    "pull-from-mirror",
                    other,
                    "use all, digest-only or tag-only",
                ));
            }
        };
        if mirror.location.is_empty() {
            return Err(value(key, "", wanted));
        }
        Ok(Mirror {
            location: location(key, &mirror.location)?,
            insecure: mirror.insecure,
            pull_from,
        })
    };
    let mirrors = table.mirror.into_iter().map(mirror);
    Ok(RegistryRule {
        mirrors: mirrors.collect::<Result<_, _>>()?,
        location: location("registry.location", &table.location)?,
        prefix,
        insecure: table.insecure,
        blocked: table.blocked,
    })
}

/// What of `name` comes after the prefix; `None` when it does not match.
fn matched<'a>(prefix: &str, name: &'a str) -> Option<&'a str> {
    let rest = match prefix.strip_prefix("*.") {
        None => name.strip_prefix(prefix)?,
        Some(domain) => {
            // The domain must end the host (or go on into the path), after a dot.
            let host = name.split('/').next().unwrap_or(name);
            let head = domain.split('/').next().unwrap_or(domain);
            let before = host.strip_suffix(head)?.len();
            let below = before > 1 && host.get(..before)?.ends_with('.');
            if !below {
                return None;
            }
            name.get(before..)?.strip_prefix(domain)?
        }
    };
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

/// Whether the first component is a host, as [`Reference`] decides it.
fn names_host(typed: &str) -> bool {
    let name = typed.split('@').next().unwrap_or(typed);
    name.split_once('/').is_some_and(|(first, _)| {
        first == "localhost"
            || first.contains(['.', ':'])
            || first.bytes().any(|b| b.is_ascii_uppercase())
    })
}

fn value(key: &str, value: &str, wanted: &'static str) -> ConfigError {
    ConfigError::Value {
        key: key.to_owned(),
        value: value.chars().take(160).collect(),
        wanted,
    }
}
