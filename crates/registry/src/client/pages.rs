//! Answers that come page by page, each with a link to the next.

use super::{Ask, At, Inner, To};
use crate::error::Error;
use crate::link::next_link;
use crate::url::Url;
use crate::wire::Answer;

impl Inner {
    /// Asks for pages, at most `pages_max` of them, until `read` has enough. It gets each answer as it came,
    /// with the page's number, and gives it back when it wants the next page.
    ///
    /// # Errors
    /// [`Error`] of a page; a link that leads to another host or in a circle.
    pub(super) fn pages(
        &self,
        to: &To<'_>,
        path: &str,
        ask: &Ask<'_>,
        pages_max: usize,
        read: &mut dyn FnMut(usize, Answer) -> Result<Option<Answer>, Error>,
    ) -> Result<(), Error> {
        let mut next: Option<Url> = None;
        for n in 0..pages_max {
            let at = next.as_ref().map_or(At::Path(path), At::Url);
            let answer = self.ask(to, at, ask)?;
            let Some(answer) = read(n, answer)? else {
                break;
            };
            let Some(link) = answer.field("link").and_then(next_link) else {
                break;
            };
            let asked = &answer.asked.url;
            let url = asked.join(link).map_err(|source| Error::Url {
                what: "the link to the next page".to_owned(),
                source,
            })?;
            let url = url.lifted_to(asked);
            if url.origin() != asked.origin() || Some(&url) == next.as_ref() {
                return Err(answer.protocol("the link to the next page leads astray"));
            }
            next = Some(url);
        }
        Ok(())
    }
}
