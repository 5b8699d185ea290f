//! Lists: tags and repositories, page by page.

use carrack_spec::{NAME_BYTES_MAX, TAG_BYTES_MAX};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Ask, DOCUMENT_WAIT, Inner, Registry, Repository, To};
use crate::auth::Scopes;
use crate::error::Error;
use crate::url::escape;

/// Most pages that are read of one list.
pub const PAGES_MAX: usize = 1000;
/// Longest page, in bytes.
pub const LIST_BYTES_MAX: usize = 8 << 20;
/// How many entries a page is asked to have.
pub(super) const PAGE_ENTRIES: usize = 1000;

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
            let mut tags = Vec::new();
            let mut take = |page: Vec<String>| {
                let good = |tag: &String| tag.len() <= TAG_BYTES_MAX && is_graphic(tag);
                tags.extend(page.into_iter().filter(good));
                tags.len() < limit
            };
            let of = |page: TagsPage| page.tags;
            let range = (last, limit);
            self.inner().names(&to, "tags/list", range, of, &mut take)?;
            tags.truncate(limit);
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
        self.catalog_of((last, limit), limit, &|_| true)
    }

    /// The repositories that `wanted` picks, at most `limit` of them. `range` is after which one to begin,
    /// and how many are worth asking for at once.
    pub(super) fn catalog_of(
        &self,
        range: (Option<&str>, usize),
        limit: usize,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<String>, Error> {
        let mut names = Vec::new();
        let mut take = |page: Vec<String>| {
            let good = |name: &String| name.len() <= NAME_BYTES_MAX && is_graphic(name);
            names.extend(page.into_iter().filter(|name| good(name) && wanted(name)));
            names.len() < limit
        };
        let to = self.to(Scopes::catalog());
        let of = |page: CatalogPage| page.repositories;
        self.inner().names(&to, "_catalog", range, of, &mut take)?;
        names.truncate(limit);
        Ok(names)
    }
}

/// What goes to a terminal later holds no control characters.
fn is_graphic(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())
}

impl Inner {
    /// Hands pages of names to `take` until there is no next one or it says that it has enough.
    fn names<P: DeserializeOwned>(
        &self,
        to: &To<'_>,
        path: &str,
        (last, entries): (Option<&str>, usize),
        names: fn(P) -> Option<Vec<String>>,
        take: &mut dyn FnMut(Vec<String>) -> bool,
    ) -> Result<(), Error> {
        let mut path = format!("{path}?n={}", entries.clamp(1, PAGE_ENTRIES));
        if let Some(last) = last {
            path.push_str(&format!("&last={}", escape(last)));
        }
        self.pages(to, &path, &Ask::new("GET"), PAGES_MAX, &mut |_, answer| {
            let mut answer = answer.expect(&[200])?;
            let bytes = answer.bytes(LIST_BYTES_MAX, DOCUMENT_WAIT)?;
            let page: P = serde_json::from_slice(&bytes)
                .map_err(|_| answer.protocol("the list is malformed"))?;
            let page = names(page).unwrap_or_default();
            let more = !page.is_empty() && take(page);
            Ok(more.then_some(answer))
        })
    }
}
