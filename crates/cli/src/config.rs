//! The configuration file, and how flags override it.
//!
//! TOML with these keys, all optional; an unknown key is an error:
//!
//! ```toml
//! root = "/var/lib/carrack"        # images and writable layers
//! runroot = "/run/carrack"         # run-time state
//! storage_driver = "overlay"       # or "pool", "pool-verity": of a store that is made
//! runtime = "/usr/bin/carrack-runtime"
//! log_level = "warn"
//! ```

use crate::args::Global;
use anyhow::Context;
use carrack_engine::EngineOptions;
use log::LevelFilter;
use serde::Deserialize;
use std::path::{Path, PathBuf};

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    root: Option<PathBuf>,
    runroot: Option<PathBuf>,
    storage_driver: Option<String>,
    runtime: Option<PathBuf>,
    log_level: Option<String>,
}

/// Reads the file and lets the flags win.
///
/// # Errors
/// The file is malformed, or was named and is not there.
pub fn settle(flags: &Global) -> anyhow::Result<(EngineOptions, LevelFilter)> {
    let file = match &flags.config {
        Some(path) => {
            read(path)?.with_context(|| format!("no configuration file {}", path.display()))?
        }
        None => default_path()
            .as_deref()
            .map_or(Ok(None), read)?
            .unwrap_or_default(),
    };
    let level = match (flags.log_level, &file.log_level) {
        (Some(level), _) => level,
        (None, Some(text)) => crate::logging::parse_level(text).map_err(|all| {
            anyhow::anyhow!("bad log_level {text:?} in the configuration file: {all}")
        })?,
        (None, None) => LevelFilter::Warn,
    };
    let driver = file.storage_driver.as_deref().map(str::parse).transpose();
    let driver = driver.context("bad storage_driver in the configuration file")?;
    let options = EngineOptions {
        root: flags.root.clone().or(file.root),
        runroot: flags.runroot.clone().or(file.runroot),
        storage_driver: flags.storage_driver.or(driver),
        runtime: file.runtime,
    };
    Ok((options, level))
}

fn read(path: &Path) -> anyhow::Result<Option<File>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
    };
    let file = toml::from_str(&text)
        .with_context(|| format!("bad configuration file {}", path.display()))?;
    Ok(Some(file))
}

fn default_path() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some("/etc/carrack/carrack.toml".into());
    }
    let variable = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    let base =
        variable("XDG_CONFIG_HOME").or_else(|| variable("HOME").map(|h| h.join(".config")))?;
    Some(base.join("carrack/carrack.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use carrack_engine::DriverKind;

    #[test]
    fn flags_win_over_the_file_and_unknown_keys_are_errors() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c.toml");
        std::fs::write(
            &path,
            "root = \"/a\"\nrunroot = \"/b\"\nlog_level = \"debug\"\nstorage_driver = \"pool\"\n",
        )
        .unwrap();
        let flags = Global {
            config: Some(path.clone()),
            root: Some("/x".into()),
            ..Global::default()
        };
        let (options, level) = settle(&flags).unwrap();
        assert_eq!(
            (options.root, options.runroot),
            (Some("/x".into()), Some("/b".into()))
        );
        assert_eq!(level, LevelFilter::Debug);
        assert_eq!(options.storage_driver, Some(DriverKind::Pool));
        for bad in ["rot = \"/a\"\n", "storage_driver = \"aufs\"\n"] {
            std::fs::write(&path, bad).unwrap();
            assert!(settle(&flags).is_err(), "{bad}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(settle(&flags).is_err());
    }
}
