//! `search`, `image tags`.

use crate::registry_args::{SearchFlags, TagsFlags};
use crate::table;
use crate::template::Template;
use anyhow::{Context, Result};
use carrack_engine::images::Access;
use carrack_spec::{DEFAULT_HOST, Reference};
use serde_json::{Value, json};

/// Most results of a search that are shown.
const RESULTS: usize = 25;
/// Most repositories of a catalogue that are shown.
const REPOSITORIES: usize = 1000;
/// Longest description in a listing.
const DESCRIPTION_CHARS_MAX: usize = 60;

/// `carrack search`.
///
/// # Errors
/// The registry cannot be asked.
pub fn search(flags: &SearchFlags) -> Result<u8> {
    if flags.list_tags {
        return list_tags(
            &flags.access.options()?,
            &flags.term,
            flags.limit.unwrap_or(RESULTS),
            flags.format.as_deref(),
        );
    }
    let access = Access::open(flags.access.options()?)?;
    // What stands before the first slash is a registry when it could be no part of a name.
    let (host, term) = match flags.term.split_once('/') {
        Some((host, term)) if host.contains(['.', ':']) || host == "localhost" => (host, term),
        _ => (DEFAULT_HOST, flags.term.as_str()),
    };
    if term.is_empty() {
        return catalogue(&access, host, flags);
    }
    let found = access.search(host, term, flags.limit.unwrap_or(RESULTS))?;
    let rows: Vec<Value> = found
        .iter()
        .map(|f| {
            let description: String = match flags.no_trunc {
                true => f.description.clone(),
                false => f.description.chars().take(DESCRIPTION_CHARS_MAX).collect(),
            };
            json!({
                "Name": format!("{host}/{}", f.name),
                "Description": description,
                "Stars": f.star_count.to_string(),
                "Official": if f.is_official { "[OK]" } else { "" },
            })
        })
        .collect();
    let columns = ["Name", "Description", "Stars", "Official"];
    let heading = ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"];
    print(&rows, flags.format.as_deref(), &columns, &heading)
}

/// `carrack search HOST/`: of the repositories of a catalogue there is nothing but their names.
fn catalogue(access: &Access, host: &str, flags: &SearchFlags) -> Result<u8> {
    let limit = flags.limit.unwrap_or(REPOSITORIES);
    let found = access.search(host, "", limit)?;
    let rows: Vec<Value> = found
        .iter()
        .map(|found| json!({ "Name": format!("{host}/{}", found.name) }))
        .collect();
    if rows.len() == limit && flags.limit.is_none() {
        eprintln!("carrack: these are the first {limit}; see --limit");
    }
    print(&rows, flags.format.as_deref(), &["Name"], &["NAME"])
}

/// `carrack image tags`.
///
/// # Errors
/// The registry cannot be asked.
pub fn tags(flags: &TagsFlags) -> Result<u8> {
    let options = flags.access.options()?;
    list_tags(&options, &flags.name, flags.limit, flags.format.as_deref())
}

fn list_tags(
    options: &carrack_engine::images::AccessOptions,
    name: &str,
    limit: usize,
    format: Option<&str>,
) -> Result<u8> {
    let access = Access::open(options.clone())?;
    let name = name.strip_prefix("docker://").unwrap_or(name);
    let reference: Reference = name.parse().with_context(|| format!("{name:?}"))?;
    let rows: Vec<Value> = access
        .tags(&reference, limit)?
        .iter()
        .filter_map(|full| full.rsplit_once(':'))
        .map(|(name, tag)| json!({ "Name": name, "Tag": tag }))
        .collect();
    print(&rows, format, &["Name", "Tag"], &["NAME", "TAG"])
}

fn print(rows: &[Value], format: Option<&str>, columns: &[&str], heading: &[&str]) -> Result<u8> {
    if let Some(format) = format {
        Template::parse(format)?.print(rows)?;
        return Ok(0);
    }
    let cell = |row: &Value, column: &&str| row[*column].as_str().unwrap_or_default().to_owned();
    let line = |row: &Value| columns.iter().map(|column| cell(row, column)).collect();
    let cells: Vec<Vec<String>> = rows.iter().map(line).collect();
    table::print(heading, &cells);
    Ok(0)
}
