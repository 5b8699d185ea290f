//! Runs an OCI bundle in the foreground: `bundle STATE_ROOT ID BUNDLE`.
//!
//! The exit code is the program's.

use carrack_container::{CreateOptions, Runtime, RuntimeOptions};
use std::os::fd::AsFd;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    carrack_container::shield()?;
    let args: Vec<String> = std::env::args().collect();
    let [_, root, id, bundle] = args.as_slice() else {
        return Err("usage: bundle STATE_ROOT ID BUNDLE".into());
    };
    let runtime = Runtime::new(root, RuntimeOptions::default());
    let options = CreateOptions {
        bundle: bundle.into(),
        ..CreateOptions::default()
    };
    let created = runtime.run(&id.parse()?, options)?;
    let exit = carrack_sys::pidfd::wait(created.pidfd.as_fd(), true)?;
    created.container.delete(false)?;
    std::process::exit(exit.map_or(1, carrack_sys::pidfd::Exit::shell_code));
}
