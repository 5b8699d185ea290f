//! The engine's side: calls with their answers, and the events between them.

use crate::{Answer, CALL_TIMEOUT_MS, Call, Connection, Event, Incoming, Message, TaskError};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A conversation with a monitor, from the engine's side.
#[derive(Debug)]
pub struct Client {
    connection: Connection,
    seq: u64,
    events: VecDeque<Event>,
}

/// A process that was made.
#[derive(Debug)]
pub struct Created {
    /// Its id as the host sees it.
    pub pid: i32,
    /// The other end of its terminal, when it has one.
    pub terminal: Option<OwnedFd>,
}

impl Client {
    /// Greets the monitor at the other end of `socket`.
    ///
    /// # Errors
    /// [`TaskError`], a version that does not fit among them.
    pub fn new(socket: OwnedFd) -> Result<Self, TaskError> {
        let connection = Connection::new(socket);
        connection.greet()?;
        Ok(Self {
            connection,
            seq: 0,
            events: VecDeque::new(),
        })
    }

    /// Asks for something that makes a process.
    ///
    /// # Errors
    /// [`TaskError::Failed`] when the monitor refuses.
    pub fn create(&mut self, call: Call, fds: &[BorrowedFd<'_>]) -> Result<Created, TaskError> {
        match self.exchange(call, fds)? {
            (Answer::Created { pid, .. }, fds) => Ok(Created {
                pid,
                terminal: fds.into_iter().next(),
            }),
            (other, _) => Err(TaskError::Unexpected {
                wanted: "Created",
                found: format!("{other:?}"),
            }),
        }
    }

    /// Asks for anything else.
    ///
    /// # Errors
    /// [`TaskError::Failed`] when the monitor refuses.
    pub fn call(&mut self, call: Call) -> Result<Answer, TaskError> {
        self.exchange(call, &[]).map(|(answer, _)| answer)
    }

    /// The next event; waits at most `timeout_ms`.
    ///
    /// # Errors
    /// [`TaskError::Timeout`], and [`TaskError::Closed`] when the monitor ends.
    pub fn event(&mut self, timeout_ms: u32) -> Result<Event, TaskError> {
        if let Some(event) = self.events.pop_front() {
            return Ok(event);
        }
        match self.connection.receive(timeout_ms)?.message {
            Message::Event { event } => Ok(event),
            other => Err(TaskError::Unexpected {
                wanted: "an event",
                found: other.name().to_owned(),
            }),
        }
    }

    /// True when [`Client::event`] returns without reading.
    pub fn has_event(&self) -> bool {
        !self.events.is_empty()
    }

    fn exchange(
        &mut self,
        call: Call,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Answer, Vec<OwnedFd>), TaskError> {
        self.seq += 1;
        let message = Message::Call {
            seq: self.seq,
            call: Box::new(call),
        };
        self.connection.send(&message, fds)?;
        loop {
            let Incoming { message, fds } = self.connection.receive(CALL_TIMEOUT_MS)?;
            match message {
                Message::Event { event } => self.events.push_back(event),
                Message::Done { seq, answer } if seq == self.seq => return Ok((answer, fds)),
                Message::Failed { seq, failure } if seq == self.seq => {
                    return Err(TaskError::Failed(failure));
                }
                other => {
                    let found = other.name().to_owned();
                    return Err(TaskError::Unexpected {
                        wanted: "the answer to the call",
                        found,
                    });
                }
            }
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}
