//! The log, as callers of runc read it: one line a record in the text or JSON
//! form of the logrus library, to the file of `--log` or to standard error.
//!
//! ```text
//! time="2026-01-02T03:04:05Z" level=warning msg="no such controller"
//! {"level":"error","msg":"…","time":"2026-01-02T03:04:05Z"}
//! ```
//!
//! Each record is one write(2) to a descriptor opened for appending, so that
//! several processes can share a file. A record that cannot be written is lost:
//! there is nowhere to report it.

use log::{Level, LevelFilter, Log, Metadata, Record};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::OnceLock;
use std::time::SystemTime;

/// The form of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `key=value`.
    Text,
    /// One JSON object.
    Json,
    /// `warning: …`, for people at a terminal.
    Human,
}

struct Logger {
    file: Option<File>,
    /// `None` until a record asks whether somebody reads along.
    format: Option<Format>,
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let message = record.args().to_string();
        let format_of_record = self.format.unwrap_or_else(form_for_stderr);
        let text = format(
            format_of_record,
            record.level(),
            &message,
            SystemTime::now(),
        );
        let _ = match &self.file {
            Some(file) => (&*file).write_all(text.as_bytes()),
            None => std::io::stderr().write_all(text.as_bytes()),
        };
    }

    fn flush(&self) {}
}

/// For people at a terminal, else for programs. Most runs log nothing and need not look.
fn form_for_stderr() -> Format {
    match std::io::stderr().is_terminal() {
        true => Format::Human,
        false => Format::Text,
    }
}

/// Starts logging to `file` (created when missing), or to standard error.
///
/// # Errors
/// Those of opening the file.
pub fn start(file: Option<&Path>, json: bool, debug: bool) -> std::io::Result<()> {
    let opened = match file {
        Some(path) => Some(
            OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o644)
                .open(path)?,
        ),
        None => None,
    };
    let format = match (json, &opened) {
        (true, _) => Some(Format::Json),
        (false, Some(_)) => Some(Format::Text),
        (false, None) => None,
    };
    let logger = LOGGER.get_or_init(|| Logger {
        file: opened,
        format,
    });
    log::set_max_level(if debug {
        LevelFilter::Debug
    } else {
        LevelFilter::Info
    });
    // Fails only when a logger is set already, which is then this one.
    let _ = log::set_logger(logger);
    Ok(())
}

/// Logs the error that ends the program, and says it on standard error as well
/// when the log goes to a file.
pub fn fatal(message: &str) {
    if LOGGER.get().is_none() {
        let _ = start(None, false, false);
    }
    log::error!("{message}");
    if LOGGER.get().is_some_and(|logger| logger.file.is_some()) {
        let _ = writeln!(std::io::stderr(), "{message}");
    }
}

fn format(format: Format, level: Level, message: &str, now: SystemTime) -> String {
    let level = match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    };
    let time = humantime::format_rfc3339_seconds(now);
    let mut text = String::with_capacity(message.len() + 64);
    // Writing to a string cannot fail.
    let _ = match format {
        Format::Human => writeln!(text, "{level}: {message}"),
        Format::Text => {
            let _ = write!(text, "time=\"{time}\" level={level} msg=");
            quoted_if_needed(&mut text, message);
            writeln!(text)
        }
        Format::Json => {
            let _ = write!(text, "{{\"level\":\"{level}\",\"msg\":");
            text.push_str(&serde_json::Value::from(message).to_string());
            writeln!(text, ",\"time\":\"{time}\"}}")
        }
    };
    text
}

fn quoted_if_needed(text: &mut String, message: &str) {
    let bare = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
    if !message.is_empty() && message.chars().all(bare) {
        text.push_str(message);
        return;
    }
    text.push('"');
    for c in message.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            '\r' => text.push_str("\\r"),
            c if c.is_control() => {
                let _ = write!(text, "\\u{:04x}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn at(form: Format, level: Level, message: &str) -> String {
        format(
            form,
            level,
            message,
            UNIX_EPOCH + Duration::from_secs(86_400),
        )
    }

    #[test]
    fn text_quotes_what_is_not_one_word() {
        assert_eq!(
            at(Format::Text, Level::Error, "a \"b\"\n"),
            "time=\"1970-01-02T00:00:00Z\" level=error msg=\"a \\\"b\\\"\\n\"\n"
        );
        assert_eq!(
            at(Format::Text, Level::Warn, "plain"),
            "time=\"1970-01-02T00:00:00Z\" level=warning msg=plain\n"
        );
    }

    #[test]
    fn json_is_one_object_a_line_with_sorted_keys() {
        let line = at(Format::Json, Level::Error, "x\u{1}\n\"y\"");
        assert_eq!(line.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["msg"], "x\u{1}\n\"y\"");
        assert_eq!(value["level"], "error");
        assert_eq!(value["time"], "1970-01-02T00:00:00Z");
        assert!(line.starts_with("{\"level\":"));
    }
}
