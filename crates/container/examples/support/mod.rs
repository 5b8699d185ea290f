//! A root file system for the examples: the directory given as argument, or a
//! temporary one made of the host's static busybox.

use carrack_container::{Runtime, RuntimeOptions};
use std::error::Error;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use tempfile::TempDir;

/// Where an example's containers live; what is temporary goes away with it.
pub struct Stage {
    /// The root file system.
    pub root: PathBuf,
    /// A runtime with its state in a temporary directory.
    pub runtime: Runtime,
    _temporary: TempDir,
}

/// Sets the stage.
pub fn stage() -> Result<Stage, Box<dyn Error>> {
    let temporary = tempfile::tempdir()?;
    let root = match std::env::args_os().nth(1) {
        Some(root) => root.into(),
        None => {
            let root = temporary.path().join("root");
            let bin = root.join("bin");
            fs::create_dir_all(&bin)?;
            fs::copy("/bin/busybox", bin.join("busybox"))
                .map_err(|e| format!("no /bin/busybox ({e}): name a root file system"))?;
            for applet in "sh cat echo hostname id ls ps sleep true wc".split(' ') {
                symlink("busybox", bin.join(applet))?;
            }
            root
        }
    };
    let runtime = Runtime::new(temporary.path().join("state"), RuntimeOptions::default());
    Ok(Stage {
        root,
        runtime,
        _temporary: temporary,
    })
}
