//! The container library as a [`Driver`].

use crate::driver::{Driver, Made, Streams};
use carrack_container::{Console, Container, CreateOptions, Error, ExecOptions, Runtime};
use carrack_spec::ContainerId;
use carrack_spec::runtime::{Process, Status};
use carrack_task::{Failure, FailureKind};
use std::path::Path;

/// Containers made in this process by `carrack-container`.
#[derive(Debug)]
pub struct Library {
    runtime: Runtime,
}

impl Library {
    /// Containers of this runtime's state root.
    pub fn new(runtime: Runtime) -> Self {
        Self { runtime }
    }

    fn load(&self, id: &ContainerId) -> Result<Container, Failure> {
        self.runtime.load(id).map_err(failure)
    }
}

impl Driver for Library {
    fn create(
        &mut self,
        id: &ContainerId,
        bundle: &Path,
        start: bool,
        streams: Streams,
    ) -> Result<Made, Failure> {
        let (console, stdio) = split(streams);
        let options = CreateOptions {
            bundle: bundle.to_owned(),
            console,
            stdio,
            ..CreateOptions::default()
        };
        let created = match start {
            true => self.runtime.run(id, options),
            false => self.runtime.create(id, options),
        };
        let created = created.map_err(failure)?;
        let pid = created.container.record().init_process_pid;
        Ok(Made {
            pid,
            pidfd: created.pidfd,
            terminal: created.console,
        })
    }

    fn start(&mut self, id: &ContainerId) -> Result<(), Failure> {
        self.load(id)?.start().map_err(failure)
    }

    fn exec(
        &mut self,
        id: &ContainerId,
        process: Process,
        streams: Streams,
    ) -> Result<Made, Failure> {
        let (console, stdio) = split(streams);
        let options = ExecOptions {
            process,
            console,
            stdio,
            ..ExecOptions::default()
        };
        let executed = self.load(id)?.exec(options).map_err(failure)?;
        Ok(Made {
            pid: executed.pid,
            pidfd: executed.pidfd,
            terminal: executed.console,
        })
    }

    fn signal_all(&mut self, id: &ContainerId, signal: i32) -> Result<(), Failure> {
        self.load(id)?.kill(signal, true).map_err(failure)
    }

    fn status(&mut self, id: &ContainerId) -> Result<Status, Failure> {
        self.load(id)?.status().map_err(failure)
    }

    fn delete(&mut self, id: &ContainerId, force: bool) -> Result<(), Failure> {
        match self.runtime.load(id) {
            Ok(container) => container.delete(force).map_err(failure),
            // Somebody else deleted it, which is what is wanted.
            Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failure(error)),
        }
    }
}

fn split(streams: Streams) -> (Console, Option<[std::os::fd::OwnedFd; 3]>) {
    match streams {
        Streams::Terminal => (Console::Master, None),
        Streams::Passed(fds) => (Console::None, Some(fds)),
    }
}

/// The error with its causes in one line, and its kind for the exit code.
fn failure(error: Error) -> Failure {
    let kind = match (&error, error.program_missing()) {
        (_, Some(true)) => FailureKind::NoProgram,
        (_, Some(false)) => FailureKind::NotExecutable,
        (Error::NotFound { .. }, None) => FailureKind::NotFound,
        (Error::Exists { .. }, None) => FailureKind::Exists,
        (Error::WrongStatus { .. }, None) => FailureKind::WrongState,
        _ => FailureKind::Other,
    };
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    Failure { kind, message }
}
