//! Copies between our standard streams and the master of a pseudo-terminal.
//!
//! Nothing here blocks but a write to our own standard output, which is tried
//! only when poll(2) said it takes at least `PIPE_BUF` bytes. The end of our
//! standard input ends the copying of input, not the terminal: the process may
//! still print.

use crate::failure::Failure;
use carrack_sys::Errno;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::stdio::{stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bytes under way in one direction; not more than a pipe takes at once (`PIPE_BUF`).
const CHUNK_BYTES: usize = 4096;

/// Bytes read and not yet written.
struct Chunk {
    bytes: [u8; CHUNK_BYTES],
    start: usize,
    end: usize,
}

/// What became of a read or write.
#[derive(Debug, PartialEq, Eq)]
enum Flow {
    /// It went on, or has to wait.
    Open,
    /// There will never be more.
    Ended,
}

impl Chunk {
    const fn new() -> Self {
        Self {
            bytes: [0; CHUNK_BYTES],
            start: 0,
            end: 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Reads; only to be called when empty.
    fn fill(&mut self, from: impl AsFd) -> Flow {
        (self.start, self.end) = (0, 0);
        match rustix::io::read(from, &mut self.bytes[..]) {
            Ok(0) => Flow::Ended,
            Ok(length) => {
                self.end = length;
                Flow::Open
            }
            Err(Errno::AGAIN | Errno::INTR) => Flow::Open,
            // EIO: the last slave is closed, or we are in the background.
            Err(_) => Flow::Ended,
        }
    }

    fn drain(&mut self, to: impl AsFd) -> Flow {
        let rest = self.bytes.get(self.start..self.end).unwrap_or_default();
        match rustix::io::write(to, rest) {
            Ok(length) => {
                self.start += length;
                Flow::Open
            }
            Err(Errno::AGAIN | Errno::INTR) => Flow::Open,
            Err(_) => {
                self.start = self.end;
                Flow::Ended
            }
        }
    }
}

/// Which descriptor a poll entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Stdin,
    Master,
    Stdout,
}

/// The two directions.
pub struct Pump {
    master: OwnedFd,
    input: Chunk,
    output: Chunk,
    input_open: bool,
    output_open: bool,
}

impl Pump {
    /// Takes the master over.
    ///
    /// # Errors
    /// When it cannot be made non-blocking.
    pub fn new(master: OwnedFd) -> Result<Self, Failure> {
        fcntl_getfl(&master)
            .and_then(|flags| fcntl_setfl(&master, flags | OFlags::NONBLOCK))
            .map_err(|error| Failure::system("set up the terminal", error))?;
        Ok(Self {
            master,
            input: Chunk::new(),
            output: Chunk::new(),
            input_open: true,
            output_open: true,
        })
    }

    /// The terminal's master.
    pub fn master(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }

    /// What each side waits for, in the order of [`Self::interests`].
    fn wanted(&self) -> impl Iterator<Item = (Side, PollFlags)> {
        let mut master = PollFlags::empty();
        if self.output_open && self.output.is_empty() {
            master |= PollFlags::IN;
        }
        if !self.input.is_empty() {
            master |= PollFlags::OUT;
        }
        let stdin =
            (self.input_open && self.input.is_empty()).then_some((Side::Stdin, PollFlags::IN));
        let stdout = (!self.output.is_empty()).then_some((Side::Stdout, PollFlags::OUT));
        let master = (!master.is_empty()).then_some((Side::Master, master));
        [stdin, master, stdout].into_iter().flatten()
    }

    /// Adds what to wait for to a poll list.
    pub fn interests<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        for (side, flags) in self.wanted() {
            let fd = match side {
                Side::Stdin => stdin(),
                Side::Master => self.master.as_fd(),
                Side::Stdout => stdout(),
            };
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        }
    }

    /// Moves what is `ready`, the results for the entries of [`Self::interests`].
    pub fn work(&mut self, ready: &[PollFlags]) {
        let wanted: Vec<_> = self.wanted().map(|(side, _)| side).collect();
        for (side, events) in wanted.into_iter().zip(ready) {
            if events.is_empty() {
                continue;
            }
            match side {
                Side::Stdin => self.input_open = self.input.fill(stdin()) == Flow::Open,
                Side::Stdout => self.write_output(),
                Side::Master => self.work_master(),
            }
        }
    }

    fn work_master(&mut self) {
        if !self.input.is_empty() && self.input.drain(&self.master) == Flow::Ended {
            self.input_open = false;
        }
        if self.output_open && self.output.is_empty() {
            self.output_open = self.output.fill(&self.master) == Flow::Open;
            if !self.output_open {
                self.input_open = false;
            }
        }
    }

    /// Output nobody reads is thrown away, so that the process does not hang.
    fn write_output(&mut self) {
        let _ = self.output.drain(stdout());
    }

    /// Writes what the process left in the terminal. Processes it left behind
    /// may hold the terminal open, so this ends when there is nothing now.
    pub fn finish(&mut self) {
        loop {
            while !self.output.is_empty() {
                let out = stdout();
                // Standard output may be non-blocking; an error shows at the write.
                let _ = poll(&mut [PollFd::from_borrowed_fd(out, PollFlags::OUT)], None);
                self.write_output();
            }
            if self.output.fill(&self.master) == Flow::Ended || self.output.is_empty() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_survives_short_writes_and_knows_the_end() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        rustix::io::write(&writer, b"hello").unwrap();
        let mut chunk = Chunk::new();
        assert_eq!(chunk.fill(&reader), Flow::Open);
        assert!(!chunk.is_empty());
        chunk.start += 2;
        assert_eq!(chunk.drain(&writer), Flow::Open);
        assert!(chunk.is_empty());
        drop(writer);
        assert_eq!(chunk.fill(&reader), Flow::Open);
        assert_eq!(chunk.bytes.get(..chunk.end), Some(&b"llo"[..]));
        chunk.start = chunk.end;
        assert_eq!(chunk.fill(&reader), Flow::Ended);
    }
}
