//! The global options, and what every command is given.

use crate::args::{Flag, Matches, UsageError};
use crate::failure::Failure;
use carrack_container::{Container, Runtime, RuntimeOptions};
use carrack_spec::ContainerId;
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

/// More log records.
pub static DEBUG: Flag = Flag::switch("debug", "log more");
/// The log file.
pub static LOG: Flag = Flag::text(
    "log",
    "FILE",
    "append log records to this file instead of standard error",
);
/// The form of the log.
pub static LOG_FORMAT: Flag = Flag::text(
    "log-format",
    "FORMAT",
    "form of the log records: text (the default) or json",
);
/// The state root.
pub static ROOT: Flag = Flag::text(
    "root",
    "DIR",
    "where the state of containers is kept, best on a tmpfs (default: /run/carrack-runtime, or \
     $XDG_RUNTIME_DIR/carrack-runtime for an ordinary user)",
);
/// Accepted for old callers.
pub static CRIU: Flag = Flag::text(
    "criu",
    "PATH",
    "ignored: criu is found through PATH, as runc does since 1.0",
)
.hidden();
/// The systemd driver.
pub static SYSTEMD_CGROUP: Flag = Flag::switch(
    "systemd-cgroup",
    "let systemd make the cgroups; linux.cgroupsPath is then SLICE:PREFIX:NAME",
);
/// Tolerance for missing cgroup rights.
pub static ROOTLESS: Flag = Flag::text(
    "rootless",
    "WHEN",
    "go on without the right to use cgroups: true, false, or auto (the default: when not root of \
     the host)",
);
/// No lenience.
pub static STRICT: Flag = Flag::switch(
    "strict",
    "fail where this machine cannot give what the configuration asks for (a higher limit, a \
     capability), instead of warning and going on",
);
/// The version.
pub static VERSION: Flag = Flag::switch("version", "show the version").short('v');

/// All global options.
pub static GLOBALS: &[&Flag] = &[
    &ROOT,
    &LOG,
    &LOG_FORMAT,
    &DEBUG,
    &SYSTEMD_CGROUP,
    &ROOTLESS,
    &STRICT,
    &CRIU,
    &VERSION,
];

/// The values of the global options.
#[derive(Debug, Clone, Default)]
pub struct Global {
    /// `--root`, absolute; `None` is the default root.
    pub root: Option<PathBuf>,
    /// `--log`.
    pub log: Option<PathBuf>,
    /// `--log-format json`.
    pub log_json: bool,
    /// `--debug`.
    pub debug: bool,
    /// `--systemd-cgroup`.
    pub systemd_cgroup: bool,
    /// `--rootless`; `None` is auto.
    pub rootless: Option<bool>,
    /// `--strict`.
    pub strict: bool,
}

impl Global {
    /// Checks the global options.
    ///
    /// # Errors
    /// [`Failure`] for values that cannot be used.
    pub fn new(matches: &Matches) -> Result<Self, Failure> {
        let root = if matches.given(&ROOT) {
            Some(root(matches.text(&ROOT).unwrap_or_default())?)
        } else {
            None
        };
        let log_json = match matches.text(&LOG_FORMAT) {
            None => false,
            Some(format) if format == "text" => false,
            Some(format) if format == "json" => true,
            Some(format) => {
                return Err(Failure::Value {
                    what: "--log-format",
                    reason: format!("{format:?} is unknown; use text or json"),
                });
            }
        };
        let rootless = match matches.text(&ROOTLESS) {
            None => None,
            Some(when) if when.eq_ignore_ascii_case("auto") => None,
            Some(when) => Some(
                crate::args::boolean(when).ok_or_else(|| UsageError::BadValue {
                    flag: ROOTLESS.name,
                    value: when.to_string_lossy().into_owned(),
                    expected: "true, false or auto",
                })?,
            ),
        };
        Ok(Self {
            root,
            log: matches.text(&LOG).map(PathBuf::from),
            log_json,
            debug: matches.on(&DEBUG),
            systemd_cgroup: matches.on(&SYSTEMD_CGROUP),
            rootless,
            strict: matches.on(&STRICT),
        })
    }
}

/// An absolute root that is not the root of the file system, where the state
/// would lie among the system's own directories.
fn root(given: &OsStr) -> Result<PathBuf, Failure> {
    let path = match given.is_empty() {
        true => std::env::current_dir(),
        false => std::path::absolute(given),
    };
    let path = path.map_err(|source| Failure::file("make absolute", given, source))?;
    let path = clean(&path);
    if path == Path::new("/") {
        return Err(Failure::Value {
            what: "--root",
            reason: "the root directory of the file system cannot hold the state".into(),
        });
    }
    Ok(path)
}

/// The absolute path without `.` and `..`, by its text alone.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
        }
    }
    clean
}

/// What a command is given.
pub struct Context {
    /// The name the program was called by.
    pub program: String,
    /// The global options.
    pub global: Global,
    /// The command's own flags and arguments.
    pub matches: Matches,
}

impl Context {
    /// The state root.
    pub fn root(&self) -> PathBuf {
        self.global
            .root
            .clone()
            .unwrap_or_else(Runtime::default_root)
    }

    /// The state root with the caller's choices.
    pub fn runtime(&self) -> Runtime {
        Runtime::new(
            self.root(),
            RuntimeOptions {
                systemd_cgroup: self.global.systemd_cgroup,
                rootless: self.global.rootless,
                strict: self.global.strict,
            },
        )
    }

    /// The container that the first argument names.
    ///
    /// # Errors
    /// [`Failure`] when there is none.
    pub fn container(&self) -> Result<Container, Failure> {
        let id: ContainerId = self.arg(0)?.parse()?;
        Ok(self.runtime().load(&id)?)
    }

    /// The positional argument at `index` as UTF-8, empty when there is none.
    ///
    /// # Errors
    /// [`Failure::Value`] when it is not UTF-8.
    pub fn arg(&self, index: usize) -> Result<&str, Failure> {
        let arg = self.matches.args.get(index);
        let text = arg.map_or(Some(""), |arg| arg.to_str());
        text.ok_or_else(|| Failure::Value {
            what: "argument",
            reason: format!("{:?} is not UTF-8 text", arg.unwrap_or(&"".into())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::parse;

    fn global(line: &[&str]) -> Result<Global, Failure> {
        Global::new(&parse(GLOBALS, line.iter().map(Into::into), true)?)
    }

    #[test]
    fn the_order_of_the_engines_is_understood() {
        let line =
            "--root /run/x/./y/ --log /l --log-format json --systemd-cgroup create --bundle B";
        let words: Vec<_> = line.split(' ').collect();
        let global = global(&words).unwrap();
        assert_eq!(global.root, Some("/run/x/y".into()));
        assert!(global.log_json && global.systemd_cgroup && !global.strict);
    }

    #[test]
    fn the_file_systems_root_holds_no_state() {
        for root in ["/", "/..", "/a/..", "//."] {
            assert!(global(&["--root", root]).is_err(), "{root}");
        }
    }

    #[test]
    fn rootless_has_three_values() {
        assert_eq!(global(&["--rootless", "auto"]).unwrap().rootless, None);
        assert_eq!(global(&["--rootless=true"]).unwrap().rootless, Some(true));
        assert!(global(&["--rootless", "perhaps"]).is_err());
        assert!(global(&["--log-format", "xml"]).is_err());
    }
}
