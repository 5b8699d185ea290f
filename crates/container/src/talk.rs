//! The parent's side of the conversation in [`crate::init::report`].

use crate::error::{Error, Names};
use crate::init::report::{self, Message};
use crate::{copy_up, hooks};
use carrack_sys::pidfd::{self, Exit};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

/// A child that is on its way.
pub struct Child {
    /// Its process id, in the caller's pid namespace.
    pub pid: i32,
    /// The process itself.
    pub pidfd: OwnedFd,
    /// Our end of the conversation.
    pub socket: OwnedFd,
    /// The terminal's master, when it came here.
    pub console: Option<OwnedFd>,
    /// What hooks of the child printed.
    pub hook_output: Option<File>,
}

/// What the child may ask for.
pub trait Answers {
    /// Run the hooks of the runtime namespace.
    fn run_hooks(&mut self, pid: i32) -> Result<(), Error>;
    /// Hand the seccomp notify descriptor on.
    fn listener(&mut self, pid: i32, descriptor: OwnedFd) -> Result<(), Error>;
    /// The child is another process from now on.
    fn moved(&mut self, pid: i32) -> Result<(), Error>;
}

/// How far to follow a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// To READY: the child then waits for start.
    Ready,
    /// To the end of the stream: the child has executed its program.
    Executed,
}

/// Both ends of a conversation: the parent's and the child's.
pub fn channel() -> Result<(OwnedFd, OwnedFd), Error> {
    rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|e| Error::system("cannot make a socket pair", e))
}

impl Child {
    /// A child that was just cloned.
    pub fn new(pid: i32, pidfd: OwnedFd, socket: OwnedFd, hook_output: Option<File>) -> Self {
        Self {
            pid,
            pidfd,
            socket,
            console: None,
            hook_output,
        }
    }

    /// Lets the child go on.
    pub fn go(&self) -> Result<(), Error> {
        match report::send(self.socket.as_fd(), Message::Go, &[]) {
            // The child died; what it said, or that it said nothing, is read next.
            Ok(()) | Err(carrack_sys::Errno::PIPE | carrack_sys::Errno::CONNRESET) => Ok(()),
            Err(error) => Err(Error::system(
                "cannot talk to the container's process",
                error,
            )),
        }
    }

    /// Answers the child until it is as far as the caller wants it.
    pub fn follow(
        &mut self,
        until: Until,
        names: &Names,
        answers: &mut dyn Answers,
    ) -> Result<(), Error> {
        let mut ready = false;
        loop {
            let received = report::receive(self.socket.as_fd())
                .map_err(|e| Error::system("cannot hear the container's process", e))?;
            let Some((message, [first, second])) = received else {
                return if ready { Ok(()) } else { Err(self.died()) };
            };
            match message {
                Message::Ready if until == Until::Ready => return Ok(()),
                Message::Ready => ready = true,
                Message::Warning(fail) => {
                    let error = names.explain(&fail, "");
                    log::warn!("{error}: {}; the container goes on without it", fail.errno);
                }
                Message::Failed(fail) => {
                    let _ = pidfd::wait(self.pidfd.as_fd(), true);
                    let output = self.hook_output.as_ref().map(hooks::quote);
                    return Err(names.explain(&fail, &output.unwrap_or_default()));
                }
                Message::Init { pid } => {
                    let _ = pidfd::wait(self.pidfd.as_fd(), true);
                    self.pid = pid;
                    self.pidfd = first.ok_or_else(|| unexpected(message))?;
                    answers.moved(pid)?;
                }
                Message::RunHooks => {
                    answers.run_hooks(self.pid)?;
                    self.go()?;
                }
                Message::CopyUp { .. } => {
                    let (Some(from), Some(to)) = (first, second) else {
                        return Err(unexpected(message));
                    };
                    copy_up::copy(from, to)
                        .map_err(|e| Error::system("cannot copy into a tmpfs", e))?;
                    self.go()?;
                }
                Message::Console => self.console = Some(first.ok_or_else(|| unexpected(message))?),
                Message::Listener { number } => {
                    let descriptor = pidfd::get_fd(self.pidfd.as_fd(), number).map_err(|e| {
                        Error::system("cannot take the seccomp notify descriptor", e)
                    })?;
                    answers.listener(self.pid, descriptor)?;
                    self.go()?;
                }
                Message::Go => return Err(unexpected(message)),
            }
        }
    }

    /// The error for a child that ended without a word.
    fn died(&self) -> Error {
        let how = match pidfd::wait(self.pidfd.as_fd(), true) {
            Ok(Some(Exit::Signal(9))) => {
                "killed by signal 9; is its memory limit too low?".to_owned()
            }
            Ok(Some(Exit::Signal(signal))) => format!("killed by signal {signal}"),
            Ok(Some(Exit::Code(code))) => format!("exit code {code}"),
            Ok(None) | Err(_) => "no status".to_owned(),
        };
        Error::ChildDied { how }
    }

    /// Kills and reaps the child.
    pub fn kill(&self) {
        let _ = pidfd::send_signal(self.pidfd.as_fd(), 9);
        let _ = pidfd::wait(self.pidfd.as_fd(), true);
    }
}

fn unexpected(message: Message) -> Error {
    let what =
        format!("the container's process sent {message:?} where the protocol has no such message");
    Error::system(what, std::io::ErrorKind::InvalidData)
}
