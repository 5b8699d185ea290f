//! What the program prints: tables, JSON and times in the shapes of runc.

mod table;
mod time;

pub use table::Table;
pub use time::short_fraction;

use crate::failure::Failure;
use serde::Serialize;
use std::io::Write;

/// Writes to standard output.
///
/// # Errors
/// When standard output cannot take it.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|source| Failure::system("write to standard output", source))
}

/// One line of JSON.
pub fn json_line<T: Serialize>(value: &T) -> Result<String, Failure> {
    let mut text = serde_json::to_string(value).map_err(json_failure)?;
    text.push('\n');
    Ok(text)
}

/// JSON over many lines.
pub fn json_pretty<T: Serialize>(value: &T, indent: &str) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let style = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
    let mut writer = serde_json::Serializer::with_formatter(&mut bytes, style);
    value.serialize(&mut writer).map_err(json_failure)?;
    bytes.push(b'\n');
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn json_failure(error: serde_json::Error) -> Failure {
    Failure::system("write JSON", std::io::Error::from(error))
}

/// The value of `--format` of list and ps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A table.
    Table,
    /// One line of JSON.
    Json,
}

impl Format {
    /// The format that was asked for.
    ///
    /// # Errors
    /// When there is no such format.
    pub fn new(given: Option<&std::ffi::OsStr>) -> Result<Self, Failure> {
        match given.map(|given| given.to_str()) {
            None | Some(Some("table")) => Ok(Self::Table),
            Some(Some("json")) => Ok(Self::Json),
            Some(_) => Err(Failure::Value {
                what: "--format",
                reason: "invalid format option; use table or json".into(),
            }),
        }
    }
}
