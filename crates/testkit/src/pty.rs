//! Terminals: the receiver behind `--console-socket`, and a master to talk over.

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetwinsize, tcsetwinsize};

use crate::temp::TempDir;

/// How long an expected text or connection may take.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// A listening unix socket that receives one terminal master.
#[derive(Debug)]
pub struct ConsoleSocket {
    listener: UnixListener,
    path: PathBuf,
    _dir: TempDir,
}

impl ConsoleSocket {
    /// Listens in a directory of its own.
    #[expect(clippy::new_without_default, reason = "it acts on the machine")]
    pub fn new() -> ConsoleSocket {
        let dir = TempDir::new();
        let path = dir.path().join("console");
        let listener = UnixListener::bind(&path)
            .unwrap_or_else(|error| panic!("cannot listen at {}: {error}", path.display()));
        ConsoleSocket {
            listener,
            path,
            _dir: dir,
        }
    }

    /// What to give to `--console-socket`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the master and the name that came with it.
    pub fn accept(&self) -> (Terminal, String) {
        assert!(
            readable(&self.listener, WAIT_MAX),
            "nobody connected to the console socket"
        );
        let (stream, _) = self
            .listener
            .accept()
            .unwrap_or_else(|error| panic!("console socket: {error}"));
        assert!(
            readable(&stream, WAIT_MAX),
            "no terminal came over the console socket"
        );
        let mut name = [0u8; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let message = recvmsg(
            &stream,
            &mut [IoSliceMut::new(&mut name)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
        .unwrap_or_else(|error| panic!("console socket: {error}"));
        let fds = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        });
        let master = fds
            .flatten()
            .next()
            .unwrap_or_else(|| panic!("no descriptor came along"));
        let name = String::from_utf8_lossy(&name[..message.bytes]).into_owned();
        (Terminal::of(master), name)
    }
}

/// A terminal master and all that was read from it.
#[derive(Debug)]
pub struct Terminal {
    master: File,
    seen: String,
}

impl Terminal {
    /// Talks over an open master.
    pub fn of(master: OwnedFd) -> Terminal {
        Terminal {
            master: master.into(),
            seen: String::new(),
        }
    }

    /// A new pseudo-terminal: the master, and the slave for a child's standard streams.
    pub fn open() -> (Terminal, OwnedFd) {
        let open = || {
            let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
            grantpt(&master)?;
            unlockpt(&master)?;
            let name = ptsname(&master, Vec::new())?;
            let flags =
                rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
            Ok((
                master,
                rustix::fs::open(name, flags, rustix::fs::Mode::empty())?,
            ))
        };
        let opened: rustix::io::Result<(OwnedFd, OwnedFd)> = open();
        let (master, slave) = opened.unwrap_or_else(|error| panic!("no pseudo-terminal: {error}"));
        (Terminal::of(master), slave)
    }

    /// The master's descriptor.
    pub fn as_fd(&self) -> impl AsFd {
        &self.master
    }

    /// Types.
    pub fn type_text(&mut self, text: &str) {
        self.master
            .write_all(text.as_bytes())
            .unwrap_or_else(|error| panic!("cannot type {text:?}: {error}"));
    }

    /// Reads until `text` was seen since the last call; returns what came up to its end.
    pub fn expect(&mut self, text: &str) -> String {
        let until = Instant::now() + WAIT_MAX;
        loop {
            if let Some(at) = self.seen.find(text) {
                let rest = self.seen.split_off(at + text.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            assert!(
                self.read_some(until.saturating_duration_since(Instant::now())),
                "no {text:?} on the terminal; it showed {:?}",
                self.seen
            );
        }
    }

    /// Reads until the other side is closed.
    pub fn read_to_end(&mut self) -> String {
        let until = Instant::now() + WAIT_MAX;
        while self.read_some(until.saturating_duration_since(Instant::now())) {}
        std::mem::take(&mut self.seen)
    }

    /// Rows and columns.
    pub fn size(&self) -> (u16, u16) {
        let size =
            tcgetwinsize(&self.master).unwrap_or_else(|error| panic!("terminal size: {error}"));
        (size.ws_row, size.ws_col)
    }

    /// Sets rows and columns; the processes in front get SIGWINCH.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.master, size).unwrap_or_else(|error| panic!("terminal size: {error}"));
    }

    /// One read; false at the end of the terminal or of the time.
    fn read_some(&mut self, limit: Duration) -> bool {
        if limit.is_zero() || !readable(&self.master, limit) {
            return false;
        }
        let mut bytes = [0u8; 4096];
        // A master whose slaves are all closed reads as an error (EIO).
        let count = self.master.read(&mut bytes).unwrap_or(0);
        self.seen
            .push_str(&String::from_utf8_lossy(&bytes[..count]));
        count > 0
    }
}

fn readable(fd: impl AsFd, limit: Duration) -> bool {
    let Ok(timeout) = Timespec::try_from(limit) else {
        return false;
    };
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).is_ok_and(|count| count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn one_can_talk_to_a_program_over_a_terminal() {
        let (mut terminal, slave) = Terminal::open();
        terminal.resize(33, 77);
        let input = slave.try_clone().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", "stty size; read line; echo got $line"])
            .stdin(input)
            .stdout(slave)
            .spawn()
            .unwrap();
        terminal.expect("33 77\r\n");
        terminal.type_text("words\n");
        terminal.expect("got words\r\n");
        child.wait().unwrap();
        assert_eq!(terminal.size(), (33, 77));
    }
}
