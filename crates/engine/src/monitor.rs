//! Starts monitors and finds them again.

use crate::{Engine, EngineError};
use carrack_task::{Client, TaskError};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// What is shown of a dead monitor's log, in bytes.
const LAST_WORDS_MAX: usize = 2000;

/// A monitor that this process started.
#[derive(Debug)]
pub(crate) struct Monitor {
    pub(crate) child: Child,
    pub(crate) client: Client,
}

impl Engine {
    /// Starts the monitor of `directory` and hands it the locked `lock`.
    pub(crate) fn start_monitor(
        &self,
        directory: &Path,
        id: &str,
        lock: File,
    ) -> Result<Monitor, EngineError> {
        let program = self.runtime()?;
        let (ours, theirs) =
            UnixStream::pair().map_err(EngineError::io("make a socket for", &program))?;
        let mut child = Command::new(&program)
            .arg("--root")
            .arg(self.runroot.join("runtime"))
            .arg("--log")
            .arg(directory.join("monitor.log"))
            .arg("monitor")
            .arg("--dir")
            .arg(directory)
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::from(lock))
            .stderr(Stdio::null())
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .current_dir("/")
            .spawn()
            .map_err(EngineError::io("execute", &program))?;
        match Client::new(ours.into()) {
            Ok(client) => Ok(Monitor { child, client }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(died(error, directory, id))
            }
        }
    }

    /// Speaks to a monitor that runs already.
    pub(crate) fn find_monitor(&self, id: &str) -> Result<Client, EngineError> {
        let path = self.directory(id).join("task.sock");
        let at = File::open(self.directory(id)).map_err(EngineError::io("open", &path))?;
        // A socket's path may have 107 bytes; through a descriptor any directory fits.
        let short = format!("/proc/self/fd/{}/task.sock", at.as_raw_fd());
        let socket = UnixStream::connect(short).map_err(EngineError::io("connect to", &path))?;
        Ok(Client::new(socket.into())?)
    }

    /// Deletes what a killed monitor left of its container.
    pub(crate) fn delete_by_force(&self, id: &str) {
        let Ok(program) = self.runtime() else {
            return;
        };
        let done = Command::new(program)
            .arg("--root")
            .arg(self.runroot.join("runtime"))
            .args(["delete", "--force", id])
            .stdin(Stdio::null())
            .output();
        match done {
            Ok(output) if output.status.success() => {}
            Ok(output) => log::warn!(
                "deleting {id} by force: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            ),
            Err(error) => log::warn!("deleting {id} by force: {error}"),
        }
    }
}

/// A connection that closed means a monitor that died; its log may say why.
pub(crate) fn died(error: TaskError, directory: &Path, id: &str) -> EngineError {
    if !matches!(error, TaskError::Closed) {
        return error.into();
    }
    let text = std::fs::read_to_string(directory.join("monitor.log")).unwrap_or_default();
    let text = text.trim();
    let start = text
        .char_indices()
        .map(|(i, _)| i)
        .find(|i| text.len() - i <= LAST_WORDS_MAX);
    let log = match text.get(start.unwrap_or(0)..) {
        None | Some("") => String::new(),
        Some(words) => format!(": {words}"),
    };
    EngineError::MonitorDied {
        id: id.to_owned(),
        log,
    }
}
