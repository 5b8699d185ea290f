//! Pseudo-terminals. May run between clone and exec.

use crate::{Result, check};
use rustix::termios::{OptionalActions, OutputModes};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Unlocks a master and opens its slave without going through a path.
///
/// # Errors
/// `EIO`, `ENOTTY` for something that is no master.
pub fn open_slave(master: BorrowedFd<'_>) -> Result<OwnedFd> {
    let unlock: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int, which lives across the call.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) }.into())?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags as an integer.
    let fd = check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) }.into())?;
    // SAFETY: the kernel returned a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Makes the terminal the controlling one of the caller's session.
///
/// # Errors
/// `EPERM` when the caller leads no session.
pub fn set_controlling(terminal: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: TIOCSCTTY takes an integer.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) }.into()).map(drop)
}

/// Lets what is written to the terminal keep its line ends: no carriage return before a line feed.
///
/// # Errors
/// `ENOTTY`.
pub fn plain_line_ends(terminal: BorrowedFd<'_>) -> Result<()> {
    let mut modes = rustix::termios::tcgetattr(terminal)?;
    modes.output_modes.remove(OutputModes::ONLCR);
    rustix::termios::tcsetattr(terminal, OptionalActions::Now, &modes)
}

/// Sets the size in characters.
///
/// # Errors
/// `ENOTTY`.
pub fn set_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads one winsize, which lives across the call.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }.into())
        .map(drop)
}
