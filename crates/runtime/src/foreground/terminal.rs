//! The terminal of the person who runs the program.
//!
//! While it is connected to a container it is raw: echo, line editing and signals of
//! keys are the business of the container's own terminal. Line ends are this one's, as with
//! runc: a caller that reads the output through a pipe finds no carriage returns in it.

use crate::failure::Failure;
use carrack_spec::runtime::ConsoleSize;
use carrack_sys::Errno;
use rustix::fs::{Mode, OFlags};
use rustix::stdio::{stderr, stdin, stdout};
use rustix::termios::{
    OptionalActions, OutputModes, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};
use std::os::fd::{BorrowedFd, OwnedFd};

/// The terminal, given back as it was when this is dropped.
pub struct HostTerminal {
    fd: OwnedFd,
    saved: Termios,
}

/// The size of the terminal among the standard streams.
pub fn host_size() -> Option<ConsoleSize> {
    let sizes = [stderr(), stdout(), stdin()].into_iter();
    let size = sizes
        .filter_map(|stream| tcgetwinsize(stream).ok())
        .next()?;
    let (height, width) = (size.ws_row, size.ws_col);
    (height > 0 && width > 0).then_some(ConsoleSize { height, width })
}

impl HostTerminal {
    /// Finds the terminal among the standard streams, or the controlling one.
    ///
    /// # Errors
    /// When there is none.
    pub fn open() -> Result<Self, Failure> {
        for stream in [stderr(), stdout(), stdin()] {
            if let Ok(saved) = tcgetattr(stream) {
                let fd = rustix::io::fcntl_dupfd_cloexec(stream, 3);
                let fd = fd.map_err(|error| Failure::system("duplicate a descriptor", error))?;
                return Ok(Self { fd, saved });
            }
        }
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let no_terminal = |error: Errno| {
            Failure::State(format!(
                "process.terminal asks for a terminal, but this program has none ({error}); \
                 use --detach with --console-socket, or set it to false"
            ))
        };
        let fd = rustix::fs::open("/dev/tty", flags, Mode::empty()).map_err(no_terminal)?;
        let saved = tcgetattr(&fd).map_err(no_terminal)?;
        Ok(Self { fd, saved })
    }

    /// Makes this terminal raw but for the line ends of its output.
    ///
    /// # Errors
    /// Those of setting terminal attributes.
    pub fn make_raw(&self) -> Result<(), Failure> {
        let mut raw = self.saved.clone();
        raw.make_raw();
        raw.output_modes |= self.saved.output_modes & OutputModes::OPOST;
        tcsetattr(&self.fd, OptionalActions::Now, &raw)
            .map_err(|error| Failure::system("set the attributes of the terminal", error))
    }

    /// Gives the container's terminal the size of this one, where it has one.
    pub fn copy_size(&self, master: BorrowedFd<'_>) {
        // Either side may be gone already; the size is then of no use.
        if let Ok(size) = tcgetwinsize(&self.fd)
            && (size.ws_row, size.ws_col) != (0, 0)
        {
            let _ = tcsetwinsize(master, size);
        }
    }
}

impl Drop for HostTerminal {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(&self.fd, OptionalActions::Now, &self.saved) {
            log::debug!("cannot give the terminal back as it was: {error}");
        }
    }
}
