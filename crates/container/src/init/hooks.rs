//! Hooks that run inside the container's namespaces, as children of init.
//!
//! stdin is the state as JSON, stdout and stderr a file that the parent quotes
//! when a hook fails. A hook that outlives its timeout is killed.

use super::report::{At, Fail, Stage, Step};
use crate::plan::{HookPlan, Hooks, SeccompPlan};
use carrack_sys::clone::{self, Cloned, Parentage};
use carrack_sys::pidfd::{self, Exit};
use carrack_sys::{Errno, exec, seccomp};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::{AsFd, BorrowedFd};

const SIGSYS: i32 = 31;

/// Runs a list in order; the first that fails ends it. `state` picks the state to pass.
/// `filter` is loaded into each hook, when it is not in force already.
pub fn run(
    hooks: &Hooks,
    list: &[HookPlan],
    state: usize,
    filter: Option<&SeccompPlan>,
    stage: Stage,
) -> Step {
    for (index, hook) in list.iter().enumerate() {
        run_one(hooks, hook, state, filter).at_index(stage, index)?;
    }
    Ok(())
}

fn run_one(
    hooks: &Hooks,
    hook: &HookPlan,
    state: usize,
    filter: Option<&SeccompPlan>,
) -> carrack_sys::Result<()> {
    let stdin = hooks
        .states
        .as_ref()
        .map(|states| states[state.min(1)].as_fd());
    let output = hooks.output.as_ref().map(AsFd::as_fd);
    if let Some(stdin) = stdin {
        rustix::fs::seek(stdin, rustix::fs::SeekFrom::Start(0))?;
    }
    let child = match clone::clone_process(0, Parentage::Child, None)? {
        Cloned::Child => {
            let errno = become_hook(hook, stdin, output, filter);
            clone::exit(if errno == Errno::NOENT { 127 } else { 126 })
        }
        Cloned::Parent { pidfd, .. } => pidfd,
    };
    match wait(child.as_fd(), hook.timeout_ms)? {
        Exit::Code(0) => Ok(()),
        // The report has room for an errno only: a missing program, a program that can't be run, a
        // failed one, one that the filter or another signal ended.
        Exit::Code(127) => Err(Errno::NOENT),
        Exit::Code(126) => Err(Errno::ACCESS),
        Exit::Code(_) => Err(Errno::CANCELED),
        Exit::Signal(SIGSYS) => Err(Errno::NOSYS),
        Exit::Signal(_) => Err(Errno::INTR),
    }
}

fn become_hook(
    hook: &HookPlan,
    stdin: Option<BorrowedFd<'_>>,
    output: Option<BorrowedFd<'_>>,
    filter: Option<&SeccompPlan>,
) -> Errno {
    let streams = [(stdin, 0), (output, 1), (output, 2)];
    for (fd, number) in streams {
        if let Some(fd) = fd
            && let Err(errno) = exec::dup_onto(fd, number)
        {
            return errno;
        }
    }
    if let Err(errno) = exec::cloexec_from(3) {
        return errno;
    }
    if let Some(filter) = filter
        && let Err(errno) = seccomp::load(&filter.program, filter.flags)
    {
        return errno;
    }
    exec::execve(&hook.path, &hook.argv, &hook.envp)
}

fn wait(child: BorrowedFd<'_>, timeout_ms: Option<i64>) -> carrack_sys::Result<Exit> {
    if let Some(timeout_ms) = timeout_ms {
        let timeout = Timespec {
            tv_sec: timeout_ms / 1000,
            tv_nsec: timeout_ms % 1000 * 1_000_000,
        };
        let mut fds = [PollFd::new(&child, PollFlags::IN)];
        if rustix::io::retry_on_intr(|| poll(&mut fds, Some(&timeout)))? == 0 {
            let _ = pidfd::send_signal(child, 9);
            pidfd::wait(child, true)?;
            return Err(Errno::TIMEDOUT);
        }
    }
    pidfd::wait(child, true)?.ok_or(Errno::CHILD)
}

/// What the parent needs to explain a hook's report.
pub fn explain(fail: &Fail) -> &'static str {
    match fail.errno {
        Errno::NOENT => "the program does not exist",
        Errno::ACCESS => "the program cannot be executed",
        Errno::TIMEDOUT => "it ran longer than its timeout and was killed",
        Errno::CANCELED => "it exited with a failure",
        Errno::NOSYS => "bad system call: the seccomp filter ended it",
        Errno::INTR => "a signal ended it",
        _ => "it could not be run",
    }
}
