//! Profiles of AppArmor for tests.

use crate::{Skip, TempDir, skip, unique};
use std::path::PathBuf;
use std::process::Command;

/// A profile of its own name that allows what a container does, loaded while the value lives.
#[derive(Debug)]
pub struct AppArmorProfile {
    name: String,
    file: PathBuf,
    _dir: TempDir,
}

impl AppArmorProfile {
    /// Loads it with the rules added.
    pub fn load(rules: &str) -> Result<AppArmorProfile, Skip> {
        skip::root()?;
        let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        if !enabled.is_ok_and(|text| text.starts_with('Y')) {
            return Err(Skip::new("AppArmor is off here"));
        }
        let parser = skip::program("apparmor_parser")?;
        let (name, dir) = (unique(), TempDir::new());
        let file = dir.path().join("profile");
        let text = format!(
            "profile {name} flags=(attach_disconnected,mediate_deleted) {{\n\
             file, capability, network, signal, ptrace, unix, mount, umount,\n{rules}\n}}\n"
        );
        std::fs::write(&file, text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let profile = AppArmorProfile {
            name,
            file,
            _dir: dir,
        };
        let output = Command::new(parser)
            .args(["--skip-cache", "--replace"])
            .arg(&profile.file)
            .output()
            .unwrap_or_else(|error| panic!("apparmor_parser: {error}"));
        assert!(output.status.success(), "{output:?}");
        Ok(profile)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for AppArmorProfile {
    fn drop(&mut self) {
        let mut command = Command::new("apparmor_parser");
        let _ = command.arg("--remove").arg(&self.file).output();
    }
}
