//! The terminal of a process and the way its master goes.

use crate::error::Error;
use crate::options::Console;
use carrack_spec::runtime::Process;
use std::os::fd::OwnedFd;

/// A terminal to make.
#[derive(Debug)]
pub struct TerminalPlan {
    /// Rows and columns.
    pub size: Option<(u16, u16)>,
    /// The connected console socket; `None` sends the master to the parent.
    pub socket: Option<OwnedFd>,
    /// The terminal writes line ends as the program does, without carriage returns of its own.
    pub plain_line_ends: bool,
}

/// Plans the terminal, connected to the console socket if there is one.
pub fn terminal_plan(process: &Process, console: &Console) -> Result<Option<TerminalPlan>, Error> {
    let socket = match (process.terminal, console) {
        (false, Console::Socket(_)) => {
            return Err(Error::invalid(
                "process.terminal",
                "a console socket is for a process with a terminal",
            ));
        }
        (false, _) => return Ok(None),
        (true, Console::None) => {
            return Err(Error::invalid(
                "process.terminal",
                "a terminal needs a console socket or a caller in the foreground",
            ));
        }
        (true, Console::Master | Console::PlainMaster) => None,
        (true, Console::Socket(path)) => {
            let stream = std::os::unix::net::UnixStream::connect(path)
                .map_err(|e| Error::path("cannot connect to the console socket", path, e))?;
            Some(OwnedFd::from(stream))
        }
    };
    let size = process.console_size.map(|size| (size.height, size.width));
    Ok(Some(TerminalPlan {
        size: size.filter(|&(rows, columns)| rows > 0 && columns > 0),
        socket,
        plain_line_ends: *console == Console::PlainMaster,
    }))
}
