//! The start of a program without the standard library's: [`entry!`](crate::entry).
//!
//! Before `main`, the standard library prepares a handler that gives a stack
//! overflow a message, which costs a short program eighteen system calls and a
//! signal stack. Without it an overflow still ends the process, by `SIGSEGV` on the guard
//! page. The two things that matter are done here: standard descriptors that are closed are
//! opened on `/dev/null`, so that no file of ours becomes somebody's standard stream,
//! and `SIGPIPE` is ignored, so that a reader that goes away is an error and not the end.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use std::os::fd::IntoRawFd;

const SIGPIPE: i32 = 13;

/// Makes a function the program's `main`: it takes nothing and returns the exit code.
///
/// To be used once, in a crate with `#![no_main]`.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[unsafe(no_mangle)]
        extern "C" fn main(_count: i32, _arguments: *const *const u8) -> i32 {
            $crate::start::run($main)
        }
    };
}

/// Prepares the process, calls `main` and ends the process with its result.
pub fn run(main: fn() -> u8) -> ! {
    open_standard_streams();
    // SAFETY: SIG_IGN is no handler, so nothing can run in a wrong context.
    unsafe { libc::signal(SIGPIPE, libc::SIG_IGN) };
    // Also writes what the standard output still holds.
    std::process::exit(main().into())
}

/// Opens `/dev/null` for each standard stream that is closed. Without it there is nothing better
/// to do than to go on.
fn open_standard_streams() {
    let (stdin, stdout, stderr) = (
        rustix::stdio::stdin(),
        rustix::stdio::stdout(),
        rustix::stdio::stderr(),
    );
    let mut fds =
        [stdin, stdout, stderr].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::empty()));
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    if rustix::io::retry_on_intr(|| poll(&mut fds, Some(&now))).is_err() {
        return;
    }
    for _ in fds
        .iter()
        .filter(|fd| fd.revents().contains(PollFlags::NVAL))
    {
        // The lowest free number is that of the next closed stream.
        if let Ok(null) = rustix::fs::open(c"/dev/null", OFlags::RDWR, Mode::empty()) {
            let _ = null.into_raw_fd();
        }
    }
}
