//! `history`, `image tree`, `image diff`.

use crate::image_args::{DiffFlags, HistoryFlags, TreeFlags};
use crate::template::Template;
use crate::{table, time};
use anyhow::Result;
use carrack_engine::images::{Change, TreeNode};
use carrack_engine::{Engine, EngineError};
use serde_json::{Value, json};
use std::io::Write;

/// Longest command in a listing.
const COMMAND_CHARS_MAX: usize = 45;
/// What stands where an image has no id of its own.
const MISSING: &str = "<missing>";

/// `carrack history`.
///
/// # Errors
/// The image is not there or damaged, or the format is wrong.
pub fn history(engine: &Engine, flags: &HistoryFlags) -> Result<u8> {
    let store = engine.store();
    let image = store.find_image(&flags.image).map_err(EngineError::from)?;
    let steps = store.history(&image).map_err(EngineError::from)?;
    let rows: Vec<Value> = steps
        .iter()
        .enumerate()
        .map(|(n, step)| {
            let id = match (n, flags.no_trunc) {
                (0, true) => image.id.to_string(),
                (0, false) => image.id.short().to_owned(),
                _ => MISSING.to_owned(),
            };
            let made = step.history.created.as_deref().and_then(time::parse);
            let since = made.map(table::ago).unwrap_or_default();
            let at = made.map(time::format).unwrap_or_default();
            let by = step.history.created_by.clone().unwrap_or_default();
            let bytes = step.layer.as_ref().map_or(0, |(_, bytes)| *bytes);
            json!({
                "ID": id,
                "CreatedSince": if flags.human { since } else { at.clone() },
                "CreatedAt": at,
                "CreatedBy": if flags.no_trunc { by } else { clipped(&by) },
                "Size": if flags.human { table::size(bytes) } else { bytes.to_string() },
                "Comment": step.history.comment.clone().unwrap_or_default(),
                "Layer": step.layer.as_ref().map(|(id, _)| id.to_string()).unwrap_or_default(),
            })
        })
        .collect();
    match &flags.format {
        Some(format) => Template::parse(format)?.print(&rows)?,
        None if flags.quiet => Template::parse("{{.ID}}")?.print(&rows)?,
        None => {
            let columns = ["ID", "CreatedSince", "CreatedBy", "Size", "Comment"];
            let cells = |row: &Value| {
                columns
                    .iter()
                    .map(|c| row[c].as_str().unwrap_or_default().to_owned())
                    .collect()
            };
            let rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
            table::print(
                &["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"],
                &rows,
            );
        }
    }
    Ok(0)
}

fn clipped(text: &str) -> String {
    match text.chars().count() > COMMAND_CHARS_MAX {
        false => text.to_owned(),
        true => text.chars().take(COMMAND_CHARS_MAX - 1).collect::<String>() + "…",
    }
}

/// `carrack image tree`.
///
/// # Errors
/// The image is not there.
pub fn tree(engine: &Engine, flags: &TreeFlags) -> Result<u8> {
    let store = engine.store();
    let mut roots = store.tree().map_err(EngineError::from)?;
    if let Some(name) = &flags.image {
        let image = store.find_image(name).map_err(EngineError::from)?;
        let mut chain = image.layers.iter();
        let first = chain.next();
        roots.retain(|node| Some(&node.diff_id) == first);
        let mut level = &mut roots;
        for diff_id in chain {
            let Some(node) = level.first_mut() else {
                break;
            };
            node.children.retain(|child| child.diff_id == *diff_id);
            level = &mut node.children;
        }
    }
    let mut text = String::new();
    for root in &roots {
        draw(root, "", "", &mut text);
    }
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(0)
}

/// A chain of layers without a fork goes straight down; only forks are indented.
fn draw(node: &TreeNode, first: &str, rest: &str, text: &mut String) {
    let images = match node.images.is_empty() {
        true => String::new(),
        false => format!("   {}", node.images.join(", ")),
    };
    let id = node.diff_id.short();
    let line = format!("{first}{id}   {:>8}{images}\n", table::size(node.bytes));
    text.push_str(&line);
    let last = node.children.len().saturating_sub(1);
    for (n, child) in node.children.iter().enumerate() {
        match (last, n == last) {
            (0, _) => draw(child, &format!("{rest}└─ "), &format!("{rest}   "), text),
            (_, false) => draw(child, &format!("{rest}├─ "), &format!("{rest}│  "), text),
            (_, true) => draw(child, &format!("{rest}└─ "), &format!("{rest}   "), text),
        }
    }
}

/// `carrack image diff`.
///
/// # Errors
/// An image is not there or damaged.
pub fn diff(engine: &Engine, flags: &DiffFlags) -> Result<u8> {
    let changes = engine.image_diff(&flags.image, flags.other.as_deref())?;
    let mut out = std::io::BufWriter::new(std::io::stdout());
    if flags.format.is_some() {
        let of = |wanted: Change| -> Vec<String> {
            let paths = changes.iter().filter(|(_, change)| **change == wanted);
            paths
                .map(|(path, _)| format!("/{}", path.display()))
                .collect()
        };
        let document = json!({
            "changed": of(Change::Changed),
            "added": of(Change::Added),
            "deleted": of(Change::Deleted),
        });
        writeln!(out, "{document}")?;
        return Ok(0);
    }
    for (path, change) in &changes {
        let letter = match change {
            Change::Added => 'A',
            Change::Changed => 'C',
            Change::Deleted => 'D',
        };
        let shown: String = path
            .display()
            .to_string()
            .chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .collect();
        writeln!(out, "{letter} /{shown}")?;
    }
    out.flush()?;
    Ok(0)
}
