//! A step before exec for `std::process::Command`: entering cgroups.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Makes the command's process write `0` to each descriptor before it executes, which moves it
/// into the cgroup whose `tasks` or `cgroup.procs` file the descriptor is.
///
/// A refused write fails the spawn with its errno.
pub fn enter_before_exec(command: &mut Command, files: Vec<OwnedFd>) {
    let files: Vec<File> = files.into_iter().map(File::from).collect();
    let enter = move || -> io::Result<()> {
        for mut file in &files {
            file.write_all(b"0")?;
        }
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec and only calls write(2) on descriptors it
    // owns: no allocation, no lock, no environment.
    unsafe { command.pre_exec(enter) };
}
