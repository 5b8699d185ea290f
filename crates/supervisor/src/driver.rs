//! What the monitor needs of a container library, as a trait: the real one is [`crate::Library`], tests
//! of the monitor itself use a fake.

use carrack_spec::ContainerId;
use carrack_spec::runtime::{Process, Status};
use carrack_task::Failure;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Standard streams of a new process.
#[derive(Debug)]
pub enum Streams {
    /// A new terminal; its other end comes with [`Made`].
    Terminal,
    /// Standard input, output and error.
    Passed([OwnedFd; 3]),
}

/// A process that was made; it is a child of the caller.
#[derive(Debug)]
pub struct Made {
    /// Its id in the caller's PID namespace.
    pub pid: i32,
    /// The process.
    pub pidfd: OwnedFd,
    /// The other end of its terminal.
    pub terminal: Option<OwnedFd>,
}

/// Makes, signals and removes containers. Waiting for processes is the caller's.
pub trait Driver {
    /// Makes the container of a bundle; with `start`, its program runs at once.
    ///
    /// # Errors
    /// [`Failure`] says what happened; nothing of the container is left then.
    fn create(
        &mut self,
        id: &ContainerId,
        bundle: &Path,
        start: bool,
        streams: Streams,
    ) -> Result<Made, Failure>;

    /// Runs the program of a created container.
    ///
    /// # Errors
    /// [`Failure`].
    fn start(&mut self, id: &ContainerId) -> Result<(), Failure>;

    /// Runs another process in a container.
    ///
    /// # Errors
    /// [`Failure`].
    fn exec(
        &mut self,
        id: &ContainerId,
        process: Process,
        streams: Streams,
    ) -> Result<Made, Failure>;

    /// Signals every process of a container.
    ///
    /// # Errors
    /// [`Failure`].
    fn signal_all(&mut self, id: &ContainerId, signal: i32) -> Result<(), Failure>;

    /// Where a container is in its life.
    ///
    /// # Errors
    /// [`Failure`].
    fn status(&mut self, id: &ContainerId) -> Result<Status, Failure>;

    /// Removes what the kernel and the runtime keep of a container.
    ///
    /// # Errors
    /// [`Failure`].
    fn delete(&mut self, id: &ContainerId, force: bool) -> Result<(), Failure>;
}
