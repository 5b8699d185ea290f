//! `image ls`.

use crate::image_args::ListFlags;
use crate::template::Template;
use crate::{table, time};
use anyhow::{Result, bail};
use carrack_engine::{Engine, EngineError, ImageRecord};
use carrack_spec::Reference;
use serde_json::{Value, json};

/// What stands where there is no name.
const NONE: &str = "<none>";

/// `carrack image ls`, `carrack images`.
///
/// # Errors
/// The records cannot be read, or a filter or format is wrong.
pub fn list(engine: &Engine, flags: &ListFlags) -> Result<u8> {
    let mut images = engine.store().images().map_err(EngineError::from)?;
    for filter in &flags.filter {
        apply(engine, filter, &mut images)?;
    }
    if let Some(pattern) = &flags.name {
        images.retain(|image| has_name(image, pattern));
    }
    let mut rows: Vec<Row> = images.iter().map(Row::of).collect();
    rows.sort_by(|a, b| a.order().cmp(&b.order()));
    if flags.quiet {
        let mut seen = std::collections::BTreeSet::new();
        rows.retain(|row| seen.insert(&row.image.id));
    }
    let whole = flags.no_trunc;
    let cells = |columns: &[&str]| -> Vec<Vec<String>> {
        let line = |row: &Row| columns.iter().map(|c| row.cell(c, whole)).collect();
        rows.iter().map(line).collect()
    };
    match &flags.format {
        Some(format) => {
            let values: Vec<Value> = rows.iter().map(|row| row.value(whole)).collect();
            Template::parse(format)?.print(&values)?;
        }
        None if flags.quiet => table::print_rows(&cells(&["ID"])),
        None => {
            let mut columns = vec!["Repository", "Tag", "Digest", "ID", "CreatedSince", "Size"];
            let mut heading = vec!["REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "SIZE"];
            if !flags.digests {
                columns.remove(2);
                heading.remove(2);
            }
            if flags.noheading {
                table::print_rows(&cells(&columns));
            } else {
                table::print(&heading, &cells(&columns));
            }
        }
    }
    Ok(0)
}

/// An image, with what is parsed of its record.
struct Row<'a> {
    image: &'a ImageRecord,
    repository: String,
    tag: String,
    made: u64,
}

impl<'a> Row<'a> {
    fn of(image: &'a ImageRecord) -> Self {
        let (repository, tag) = repository_and_tag(image);
        Self {
            image,
            repository,
            tag,
            made: made(image),
        }
    }

    /// The newest first, then by name.
    fn order(&self) -> (std::cmp::Reverse<u64>, &str, &str) {
        (std::cmp::Reverse(self.made), &self.repository, &self.tag)
    }

    /// A field as text; none but those of [`Row::value`] are asked for.
    fn cell(&self, field: &str, whole: bool) -> String {
        match field {
            "Repository" => self.repository.clone(),
            "Tag" => self.tag.clone(),
            "Digest" => self.image.target.digest.to_string(),
            "ID" if whole => self.image.id.to_string(),
            "ID" => self.image.id.short().to_owned(),
            "CreatedSince" => table::ago(self.made),
            "Size" => table::size(self.image.size),
            _ => String::new(),
        }
    }

    /// All fields, for a template.
    fn value(&self, whole: bool) -> Value {
        json!({
            "Repository": self.repository,
            "Tag": self.tag,
            "Digest": self.cell("Digest", whole),
            "ID": self.cell("ID", whole),
            "CreatedSince": self.cell("CreatedSince", whole),
            "CreatedAt": time::format(self.made),
            "Created": time::format(self.made),
            "Size": self.cell("Size", whole),
            "VirtualSize": self.cell("Size", whole),
            "Bytes": self.image.size,
            "Containers": "N/A",
            "Layers": self.image.layers.len(),
            "Platform": self.image.platform.to_string(),
            "Dangling": self.image.reference.is_none(),
        })
    }
}

/// When an image was made, or else loaded.
fn made(image: &ImageRecord) -> u64 {
    let made = image.created.as_deref().and_then(time::parse);
    made.unwrap_or(image.loaded)
}

/// Repository and tag as docker shows them.
pub fn repository_and_tag(image: &ImageRecord) -> (String, String) {
    let parsed = image.reference.as_ref().map(|r| r.parse::<Reference>());
    match parsed {
        Some(Ok(name)) => (name.familiar_name(), name.tag().unwrap_or(NONE).to_owned()),
        _ => (NONE.to_owned(), NONE.to_owned()),
    }
}

/// Keeps the images that a filter selects.
fn apply(engine: &Engine, filter: &str, images: &mut Vec<ImageRecord>) -> Result<()> {
    let Some((key, value)) = filter.split_once('=') else {
        bail!("the filter {filter:?} has no value; write KEY=VALUE");
    };
    let find = |name: &str| {
        let found = engine.store().find_image(name);
        found.map(|image| made(&image)).map_err(EngineError::from)
    };
    match key {
        "reference" => images.retain(|image| has_name(image, value)),
        "dangling" => match value {
            "true" | "1" => images.retain(|image| image.reference.is_none()),
            "false" | "0" => images.retain(|image| image.reference.is_some()),
            _ => bail!("the filter dangling is true or false, not {value:?}"),
        },
        "id" => images.retain(|image| image.id.hex().starts_with(value)),
        "before" => {
            let limit = find(value)?;
            images.retain(|image| made(image) < limit);
        }
        "since" | "after" => {
            let limit = find(value)?;
            images.retain(|image| made(image) > limit);
        }
        "until" => {
            let Some(limit) = time::point(value) else {
                bail!("{value:?} is no time; write 24h, 2024-05-06 or 2024-05-06T07:08:09Z");
            };
            images.retain(|image| made(image) < limit);
        }
        "label" => {
            let mut kept = Vec::new();
            for image in images.drain(..) {
                let config = engine
                    .store()
                    .image_config(&image)
                    .map_err(EngineError::from)?;
                let labels = config.config.labels;
                let fits = match value.split_once('=') {
                    Some((key, value)) => labels.get(key).is_some_and(|v| v == value),
                    None => labels.contains_key(value),
                };
                if fits {
                    kept.push(image);
                }
            }
            *images = kept;
        }
        _ => bail!(
            "no filter {key:?}; there are reference, dangling, label, before, since, until and id"
        ),
    }
    Ok(())
}

/// Whether the name fits a pattern; one without a tag fits every tag, one without a host any host.
fn has_name(image: &ImageRecord, pattern: &str) -> bool {
    let (repository, tag) = repository_and_tag(image);
    let last = repository.rsplit('/').next().unwrap_or_default();
    let full = format!("{repository}:{tag}");
    let short = format!("{last}:{tag}");
    [&repository, &full, &short, &last.to_owned()]
        .iter()
        .any(|name| fits(pattern, name))
        || image.reference.as_deref().is_some_and(|r| fits(pattern, r))
}

/// `*` stands for any text, `?` for one letter.
fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    // Where to go on when the letters differ: after the last star, one letter further.
    let (mut p, mut t, mut back) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                back = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || text.get(t) == Some(c) => {
                p += 1;
                t += 1;
            }
            _ => match back {
                Some((star, at)) => {
                    back = Some((star, at + 1));
                    p = star + 1;
                    t = at + 1;
                }
                None => return false,
            },
        }
    }
    pattern
        .get(p..)
        .is_some_and(|rest| rest.iter().all(|c| *c == '*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_have_stars() {
        for (pattern, text, expected) in [
            ("debian", "debian", true),
            ("deb*", "debian", true),
            ("*ian", "debian", true),
            ("*b*a*", "debian", true),
            ("d?bian", "debian", true),
            ("deb", "debian", false),
            ("*x*", "debian", false),
            ("*", "", true),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }
}
