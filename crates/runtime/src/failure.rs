//! What ends a command with an error, its text and its exit code. This is the
//! one place where errors of the libraries become words and numbers.
//!
//! ```text
//! exit code   when
//! 1           any failure that is not named below
//! 3           the command does not exist
//! 255         exec could not start its process
//! other       run and exec: that of the process, 128 + n when signal n killed it
//! ```

use crate::args::UsageError;
use carrack_spec::runtime::Status;
use std::error::Error;
use std::path::PathBuf;

/// Exit code of an ordinary failure.
pub const CODE_FAILURE: u8 = 1;
/// Exit code for a command that does not exist.
pub const CODE_NO_COMMAND: u8 = 3;
/// Exit code of an exec that could not start its process.
pub const CODE_EXEC: u8 = 255;

/// A failed command.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line is wrong.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// A flag or argument has a value that cannot be used.
    #[error("{what}: {reason}")]
    Value {
        /// The flag or argument.
        what: &'static str,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// The operation does not fit the state of the container or of the command line.
    #[error("{0}")]
    State(String),
    /// A file operation failed.
    #[error("{action} {}", path.display())]
    File {
        /// What was tried, as an infinitive without `to`.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// The kernel's reason.
        #[source]
        source: std::io::Error,
    },
    /// A call that names no file failed.
    #[error("{action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// The kernel's reason.
        #[source]
        source: std::io::Error,
    },
    /// The library could not do it.
    #[error(transparent)]
    Container(carrack_container::Error),
    /// The cgroups cannot be read.
    #[error(transparent)]
    Cgroup(#[from] carrack_cgroup::Error),
    /// The identifier cannot be used.
    #[error(transparent)]
    Id(#[from] carrack_spec::ContainerIdError),
    /// A document cannot be read.
    #[error("parse {}", path.display())]
    Parse {
        /// The document.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: carrack_spec::runtime::ParseError,
    },
    /// A failure with the words that callers look for around it.
    #[error("{words}")]
    Within {
        /// For example `exec failed`.
        words: String,
        /// The exit code.
        code: u8,
        /// The failure itself.
        #[source]
        source: Box<Failure>,
    },
}

impl From<carrack_container::Error> for Failure {
    fn from(error: carrack_container::Error) -> Self {
        use carrack_container::Error::WrongStatus;
        match error {
            WrongStatus { verb, id, status } => Self::State(wrong_status(verb, &id, status)),
            other => Self::Container(other),
        }
    }
}

/// In the words that engines look for in the output of runc.
fn wrong_status(verb: &str, id: &str, status: Status) -> String {
    match (verb, status) {
        ("start", Status::Running | Status::Paused) => {
            "cannot start an already running container".to_owned()
        }
        ("start", Status::Stopped) => "cannot start a container that has stopped".to_owned(),
        ("exec in", Status::Paused) => {
            "cannot exec in a paused container (use --ignore-paused to override)".to_owned()
        }
        (verb, status) => format!("cannot {verb} container {id} that is {status}"),
    }
}

impl Failure {
    /// Puts words around a failure and sets its exit code.
    pub fn within(self, words: impl Into<String>, code: u8) -> Self {
        match self {
            // A wrong command line has nothing to do with what it asked for.
            Self::Usage(_) => self,
            other => Self::Within {
                words: words.into(),
                code,
                source: Box::new(other),
            },
        }
    }

    /// A file operation failed.
    pub fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<std::io::Error>,
    ) -> Self {
        Self::File {
            action,
            path: path.into(),
            source: source.into(),
        }
    }

    /// A call that names no file failed.
    pub fn system(action: &'static str, source: impl Into<std::io::Error>) -> Self {
        Self::System {
            action,
            source: source.into(),
        }
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Within { code, .. } => *code,
            Self::Usage(UsageError::UnknownCommand { .. }) => CODE_NO_COMMAND,
            _ => CODE_FAILURE,
        }
    }

    /// The error and its causes in one line.
    pub fn message(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&plain(error.to_string()));
            cause = error.source();
        }
        text
    }
}

/// An error of the kernel as C programs and runc write it: `permission denied`
/// instead of `Permission denied (os error 13)`.
fn plain(error: String) -> String {
    let Some((words, number)) = error.rsplit_once(" (os error ") else {
        return error;
    };
    let digits = number.strip_suffix(')').unwrap_or_default();
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return error;
    }
    let mut rest = words.chars();
    match rest.next() {
        // RDMA… and other words that are capital throughout stay as they are.
        Some(first) if !rest.as_str().starts_with(char::is_uppercase) => {
            first.to_lowercase().chain(rest).collect()
        }
        _ => words.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_tells_the_whole_chain_once() {
        let inner = Failure::file(
            "open",
            "/x",
            std::io::Error::from(std::io::ErrorKind::NotFound),
        );
        let outer = inner.within("exec failed", CODE_EXEC);
        assert_eq!(outer.code(), 255);
        assert_eq!(outer.message(), "exec failed: open /x: entity not found");
    }

    #[test]
    fn errors_of_the_kernel_are_plain_words() {
        let kernel = std::io::Error::from_raw_os_error(13).to_string();
        assert_eq!(plain(kernel), "permission denied");
        assert_eq!(
            plain("RFS specific error (os error 7)".into()),
            "RFS specific error"
        );
        assert_eq!(plain("odd (os error x)".into()), "odd (os error x)");
        assert_eq!(plain("Plain".into()), "Plain");
    }

    #[test]
    fn a_wrong_command_line_keeps_its_code() {
        let error = UsageError::UnknownCommand {
            given: "x".into(),
            nearest: None,
        };
        assert_eq!(Failure::from(error).within("exec failed", 255).code(), 3);
    }
}
