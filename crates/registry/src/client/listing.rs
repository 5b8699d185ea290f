//! Lists: tags and repositories, page by page.

use carrack_spec::{NAME_BYTES_MAX, TAG_BYTES_MAX};
use serde::Deserialize;

use super::{Ask, At, DOCUMENT_WAIT, Inner, Registry, Repository, To};
use crate::auth::Scopes;
use crate::error::Error;
use crate::link::next_link;
use crate::url::{Url, escape};

/// Most pages that are read of one list.
pub const PAGES_MAX: usize = 1000;
/// Longest page, in bytes.
pub const LIST_BYTES_MAX: usize = 8 << 20;
/// How many entries a page is asked to have.
const PAGE_ENTRIES: usize = 1000;

#[derive(Deserialize)]
struct TagsPage {
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct CatalogPage {
    repositories: Option<Vec<String>>,
}

impl Repository {
    /// The tags after `last` in the registry's order, at most `limit` of them.
    ///
    /// # Errors
    /// [`Error`] of the last host that was asked.
    pub fn tags(&self, last: Option<&str>, limit: usize) -> Result<Vec<String>, Error> {
        self.anywhere(true, &mut |endpoint, _| {
            let to = self.puller(endpoint);
            let read = |bytes: &[u8]| {
                let page: TagsPage = serde_json::from_slice(bytes).ok()?;
                Some(page.tags.unwrap_or_default())
            };
            let mut tags = all_pages(self.inner(), &to, "tags/list", last, limit, &read)?;
            tags.retain(|tag| tag.len() <= TAG_BYTES_MAX && is_graphic(tag));
            Ok(tags)
        })
    }
}

impl Registry {
    /// The repositories after `last` in the registry's order, at most `limit` of them.
    /// Public registries do not answer this.
    ///
    /// # Errors
    /// [`Error`] of the registry.
    pub fn catalog(&self, last: Option<&str>, limit: usize) -> Result<Vec<String>, Error> {
        let to = self.to(Scopes::catalog());
        let read = |bytes: &[u8]| {
            let page: CatalogPage = serde_json::from_slice(bytes).ok()?;
            Some(page.repositories.unwrap_or_default())
        };
        let mut names = all_pages(self.inner(), &to, "_catalog", last, limit, &read)?;
        names.retain(|name| name.len() <= NAME_BYTES_MAX && is_graphic(name));
        Ok(names)
    }
}

/// What goes to a terminal later holds no control characters.
fn is_graphic(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())
}

/// Reads pages until there is no next one or `limit` entries are there.
fn all_pages(
    inner: &Inner,
    to: &To<'_>,
    path: &str,
    last: Option<&str>,
    limit: usize,
    read: &dyn Fn(&[u8]) -> Option<Vec<String>>,
) -> Result<Vec<String>, Error> {
    let mut path = format!("{path}?n={}", limit.clamp(1, PAGE_ENTRIES));
    if let Some(last) = last {
        path.push_str(&format!("&last={}", escape(last)));
    }
    let mut entries: Vec<String> = Vec::new();
    let mut next: Option<Url> = None;
    for _ in 0..PAGES_MAX {
        let at = next.as_ref().map_or(At::Path(&path), At::Url);
        let mut answer = inner.ask(to, at, &Ask::new("GET"))?.expect(&[200])?;
        let bytes = answer.bytes(LIST_BYTES_MAX, DOCUMENT_WAIT)?;
        let page = read(&bytes).ok_or_else(|| answer.protocol("the list is malformed"))?;
        let empty = page.is_empty();
        entries.extend(page);
        let link = answer.field("link").and_then(next_link);
        let (Some(link), false, true) = (link, empty, entries.len() < limit) else {
            break;
        };
        let url = answer.asked.url.join(link).map_err(|source| Error::Url {
            what: "the link to the next page".to_owned(),
            source,
        })?;
        let url = url.lifted_to(&answer.asked.url);
        if url.origin() != answer.asked.url.origin() || Some(&url) == next.as_ref() {
            return Err(answer.protocol("the link to the next page leads astray"));
        }
        next = Some(url);
    }
    entries.truncate(limit);
    Ok(entries)
}
