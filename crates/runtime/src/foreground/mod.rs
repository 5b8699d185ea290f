//! Staying with a container's process until it ends: signals go to it, a
//! terminal is copied, children are reaped, and its exit code becomes ours.
//!
//! ```text
//!   our stdin  ──► input  ──► pty master ──► the process
//!   our stdout ◄── output ◄── pty master ◄──
//!   our signals ─────────────────────────► the process   (SIGCHLD: reap, SIGWINCH: resize)
//! ```
//!
//! One thread and one poll(2). Every signal is blocked from before the process
//! exists, so that neither its end nor a request to stop can be missed; the
//! library resets the mask in the child. Without a terminal the process has our
//! own standard streams, and nothing is copied.
//!
//! On failure the terminal is given back as it was. A kill of this program
//! leaves the process running, as it does with runc.

mod pump;
mod terminal;

use crate::failure::Failure;
use crate::notify::Notify;
use carrack_sys::Errno;
use carrack_sys::pidfd::{self, Exit};
use carrack_sys::signal;
use pump::Pump;
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, WaitOptions, wait};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use terminal::HostTerminal;

pub use terminal::host_size;

/// Signals of which the runtime itself is the subject.
const SIGCHLD: i32 = 17;
const SIGWINCH: i32 = 28;
const SIGPIPE: i32 = 13;

/// What is set up before the process exists.
pub struct Foreground {
    signals: OwnedFd,
    /// Readiness messages to pass on meanwhile.
    pub notify: Option<Notify>,
}

impl Foreground {
    /// Blocks every signal and, with `subreaper`, adopts orphans among the
    /// container's processes.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn prepare(subreaper: bool) -> Result<Self, Failure> {
        if subreaper && let Err(error) = carrack_sys::cred::child_subreaper(true) {
            log::warn!("cannot adopt orphans of the container: {error}");
        }
        signal::block_all().map_err(|error| Failure::system("block signals", error))?;
        let signals =
            signal::descriptor().map_err(|error| Failure::system("receive signals", error))?;
        Ok(Self {
            signals,
            notify: None,
        })
    }

    /// Stays until process `pid`, a child of this program, ends; `console` is
    /// the master of its terminal. Returns its exit code, 128 + n for signal n.
    ///
    /// # Errors
    /// When there is no terminal to connect `console` to, and those of the kernel.
    pub fn stay(
        self,
        pid: i32,
        process: BorrowedFd<'_>,
        console: Option<OwnedFd>,
    ) -> Result<u8, Failure> {
        let terminal = match console {
            None => None,
            Some(master) => {
                let host = HostTerminal::open()?;
                host.copy_size(master.as_fd());
                host.make_raw()?;
                Some((Pump::new(master)?, host))
            }
        };
        self.watch(pid, process, terminal)
    }

    fn watch(
        mut self,
        pid: i32,
        process: BorrowedFd<'_>,
        mut terminal: Option<(Pump, HostTerminal)>,
    ) -> Result<u8, Failure> {
        loop {
            if let Some(signal) = self.wait_for_event(terminal.as_mut().map(|(pump, _)| pump))? {
                match signal {
                    SIGCHLD => {
                        if let Some(exit) = reap(pid)? {
                            if let Some((pump, _)) = &mut terminal {
                                pump.finish();
                            }
                            let code = exit.shell_code();
                            log::debug!("process {pid} ended with {code}");
                            return Ok(u8::try_from(code).unwrap_or(u8::MAX));
                        }
                    }
                    SIGWINCH => {
                        if let Some((pump, host)) = &terminal {
                            host.copy_size(pump.master());
                        }
                    }
                    SIGPIPE => {}
                    other => forward(process, other),
                }
            }
        }
    }

    /// Sleeps until something happens, and works off what is not a signal.
    /// Returns a signal that came.
    fn wait_for_event(&mut self, pump: Option<&mut Pump>) -> Result<Option<i32>, Failure> {
        let mut fds = Vec::with_capacity(5);
        fds.push(PollFd::new(&self.signals, PollFlags::IN));
        if let Some(notify) = &self.notify {
            fds.push(PollFd::from_borrowed_fd(notify.as_fd(), PollFlags::IN));
        }
        let others = fds.len();
        if let Some(pump) = &pump {
            pump.interests(&mut fds);
        }
        match rustix::event::poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(None),
            Err(error) => return Err(Failure::system("poll", error)),
        }
        let signalled = fds.first().is_some_and(|fd| !fd.revents().is_empty());
        let ready: Vec<_> = fds.iter().skip(others).map(PollFd::revents).collect();
        drop(fds);
        if let Some(pump) = pump {
            pump.work(&ready);
        }
        self.pass_readiness_on();
        if !signalled {
            return Ok(None);
        }
        match signal::take(self.signals.as_fd()) {
            Ok((number, _)) => Ok(Some(number)),
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(Failure::system("read a signal", error)),
        }
    }

    /// The manager watches this program, which lives as long as the container.
    fn pass_readiness_on(&mut self) {
        let main = || rustix::process::getpid().as_raw_nonzero().get();
        if let Some(notify) = &mut self.notify
            && let Err(failure) = notify.forward(main())
        {
            log::warn!("{}", failure.message());
            self.notify = None;
        }
    }
}

fn forward(process: BorrowedFd<'_>, number: i32) {
    match pidfd::send_signal(process, number) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(error) => log::error!("cannot forward signal {number}: {error}"),
    }
}

/// Reaps every child that has ended; returns how `main` did.
fn reap(main: i32) -> Result<Option<Exit>, Failure> {
    let mut exit = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if Pid::from_raw(main) == Some(pid) => {
                exit = match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Some(Exit::Code(code)),
                    (_, Some(signal)) => Some(Exit::Signal(signal)),
                    _ => exit,
                };
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(Errno::CHILD) => return Ok(exit),
            Err(Errno::INTR) => {}
            Err(error) => return Err(Failure::system("wait for children", error)),
        }
    }
}
