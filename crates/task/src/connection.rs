//! Frames over a socket.

use crate::{
    FRAME_BYTES_MAX, FRAME_FDS_MAX, FRAME_TIMEOUT_MS, Message, PROTOCOL_VERSION, TaskError,
};
use carrack_sys::fdpass;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// One end of a conversation.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
}

/// A received message with its descriptors, already counted.
#[derive(Debug)]
pub struct Incoming {
    /// The message.
    pub message: Message,
    /// As many as [`Message::descriptors`] says.
    pub fds: Vec<OwnedFd>,
}

impl Connection {
    /// Speaks over a connected unix stream socket, which no longer blocks from now on: a peer that
    /// does not read may cost a frame's time, no more.
    pub fn new(socket: OwnedFd) -> Self {
        // Fails for no socket; then sending waits without a limit, as ever.
        let _ = rustix::io::ioctl_fionbio(&socket, true);
        Self { socket }
    }

    /// Sends a message. The number of `fds` must be what the message says.
    ///
    /// # Errors
    /// [`TaskError`]; the connection is of no use after it.
    pub fn send(&self, message: &Message, fds: &[BorrowedFd<'_>]) -> Result<(), TaskError> {
        if fds.len() != message.descriptors() {
            return Err(TaskError::Descriptors {
                wanted: message.descriptors(),
                found: fds.len(),
            });
        }
        let mut frame = vec![0; 4];
        serde_json::to_writer(&mut frame, message)?;
        let bytes = frame.len() - 4;
        if bytes > FRAME_BYTES_MAX || fds.len() > FRAME_FDS_MAX {
            return Err(TaskError::TooLarge {
                bytes,
                fds: fds.len(),
            });
        }
        for (slot, byte) in frame.iter_mut().zip((bytes as u32).to_le_bytes()) {
            *slot = byte;
        }
        let mut sent = 0;
        while let Some(rest) = frame.get(sent..).filter(|r| !r.is_empty()) {
            let with = if sent == 0 { fds } else { &[] };
            match fdpass::send(self.socket.as_fd(), rest, with) {
                Ok(n) => sent += n,
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT, FRAME_TIMEOUT_MS)?,
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(TaskError::Closed),
                Err(error) => return Err(TaskError::Socket(error.into())),
            }
        }
        Ok(())
    }

    /// Receives a message; waits at most `timeout_ms` for its start.
    ///
    /// # Errors
    /// [`TaskError::Closed`] at the end of the stream, [`TaskError::Timeout`], and what is wrong with the frame.
    pub fn receive(&self, timeout_ms: u32) -> Result<Incoming, TaskError> {
        let mut header = [0; 4];
        let mut fds = Vec::new();
        self.fill(&mut header, &mut fds, timeout_ms)?;
        let bytes = u32::from_le_bytes(header) as usize;
        if bytes > FRAME_BYTES_MAX {
            return Err(TaskError::TooLarge {
                bytes,
                fds: fds.len(),
            });
        }
        let mut body = vec![0; bytes];
        self.fill(&mut body, &mut fds, FRAME_TIMEOUT_MS)?;
        let message: Message = serde_json::from_slice(&body)?;
        if message.descriptors() != fds.len() {
            return Err(TaskError::Descriptors {
                wanted: message.descriptors(),
                found: fds.len(),
            });
        }
        Ok(Incoming { message, fds })
    }

    /// Exchanges the first messages.
    ///
    /// # Errors
    /// [`TaskError::Version`] when the other side speaks another version.
    pub fn greet(&self) -> Result<(), TaskError> {
        self.send(
            &Message::Hello {
                version: PROTOCOL_VERSION,
            },
            &[],
        )?;
        match self.receive(FRAME_TIMEOUT_MS)?.message {
            Message::Hello {
                version: PROTOCOL_VERSION,
            } => Ok(()),
            Message::Hello { version } => Err(TaskError::Version { theirs: version }),
            other => Err(TaskError::Unexpected {
                wanted: "Hello",
                found: other.name().to_owned(),
            }),
        }
    }

    fn fill(
        &self,
        buffer: &mut [u8],
        fds: &mut Vec<OwnedFd>,
        timeout_ms: u32,
    ) -> Result<(), TaskError> {
        let mut filled = 0;
        let mut timeout_ms = timeout_ms;
        while let Some(rest) = buffer.get_mut(filled..).filter(|r| !r.is_empty()) {
            self.wait(PollFlags::IN, timeout_ms)?;
            timeout_ms = FRAME_TIMEOUT_MS;
            match fdpass::receive::<FRAME_FDS_MAX>(self.socket.as_fd(), rest) {
                Ok((0, _)) => return Err(TaskError::Closed),
                Ok((n, received)) => {
                    filled += n;
                    fds.extend(received.into_iter().flatten());
                    if fds.len() > FRAME_FDS_MAX {
                        return Err(TaskError::TooLarge {
                            bytes: filled,
                            fds: fds.len(),
                        });
                    }
                }
                Err(Errno::AGAIN) => {}
                Err(Errno::CONNRESET) => return Err(TaskError::Closed),
                Err(error) => return Err(TaskError::Socket(error.into())),
            }
        }
        Ok(())
    }

    fn wait(&self, flags: PollFlags, timeout_ms: u32) -> Result<(), TaskError> {
        let limit = Timespec {
            tv_sec: i64::from(timeout_ms / 1000),
            tv_nsec: i64::from(timeout_ms % 1000) * 1_000_000,
        };
        let mut fds = [PollFd::new(&self.socket, flags)];
        match rustix::io::retry_on_intr(|| poll(&mut fds, Some(&limit))) {
            Ok(0) => Err(TaskError::Timeout),
            Ok(_) => Ok(()),
            Err(error) => Err(TaskError::Socket(error.into())),
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
