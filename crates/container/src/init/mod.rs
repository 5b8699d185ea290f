//! The child: replays a plan between clone and exec.
//!
//! Contract: nothing here allocates, locks, logs, reads the environment or
//! parses. The process may be the copy of one thread of a multi-threaded
//! program, and after [`rootfs::enter`] it lives in a file system that the
//! container controls. Every step either succeeds or ends the process with a
//! [`Fail`] on the socket; when the parent dies before [`Message::Ready`], the
//! kernel kills the child.

pub mod hooks;
pub mod inroot;
pub mod process;
pub mod report;
pub mod rootfs;

use crate::plan::{Birth, InitPlan, ProcessPlan};
use carrack_sys::clone::{self, Cloned, Parentage, ns};
use carrack_sys::{Errno, cred, fdpass, netif, signal};
use report::{At, Fail, Message, Stage, Step};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

/// The child of `create` and `run`. Never returns.
pub fn init(plan: &InitPlan, socket: BorrowedFd<'_>) -> ! {
    finish(socket, run_init(plan, socket))
}

/// The child of `exec`. Never returns.
pub fn exec(
    birth: &Birth,
    process: &ProcessPlan,
    proc: BorrowedFd<'_>,
    socket: BorrowedFd<'_>,
) -> ! {
    finish(socket, run_exec(birth, process, proc, socket))
}

/// Ends the child with what failed, told to the parent.
pub fn finish(socket: BorrowedFd<'_>, result: Step<std::convert::Infallible>) -> ! {
    let Err(fail) = result;
    // A parent that is gone can't be told; the exit code is all that is left.
    let _ = report::send(socket, Message::Failed(fail), &[]);
    clone::exit(1)
}

fn run_init(plan: &InitPlan, socket: BorrowedFd<'_>) -> Step<std::convert::Infallible> {
    let proc = plan.proc.as_fd();
    be_born(&plan.birth, socket)?;
    if plan.birth.clocks {
        enter_new_clocks(plan)?;
    }
    if let Some(name) = &plan.keyring {
        join_keyring(name, socket)?;
    }
    if !plan.outside_limits {
        set_oom_score(&plan.process, proc, socket)?;
    }
    if plan.loopback {
        netif::loopback_up().at(Stage::Loopback)?;
    }
    let mut held = plan.rootfs.held.borrow_mut();
    let root = rootfs::prepare(&plan.rootfs, &mut held, socket)?;
    if plan.run_hooks {
        ask(socket, Message::RunHooks)?;
    }
    if !plan.hooks.create_container.is_empty() {
        rustix::process::umask(Mode::from_raw_mode(0o022));
        // Where hooks written for runc expect to be.
        rustix::process::fchdir(&root).at(Stage::CreateContainerHook)?;
    }
    hooks::run(
        &plan.hooks,
        &plan.hooks.create_container,
        0,
        None,
        Stage::CreateContainerHook,
    )?;
    rootfs::enter(&plan.rootfs, root.as_fd())?;
    let terminal = process::terminal(plan, root.as_fd(), socket)?;
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.to_bytes()).at(Stage::Hostname)?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name.to_bytes()).at(Stage::Domainname)?;
    }
    for (index, (path, value)) in plan.sysctl.iter().enumerate() {
        write_proc(proc, path, value.to_bytes()).at_index(Stage::Sysctl, index)?;
    }
    rootfs::protect(&plan.rootfs, &held, root.as_fd())?;
    process::streams(&plan.process, terminal.as_ref())?;
    process::inner_null(&plan.process, root.as_fd())?;
    drop(root);
    drop(terminal);
    let mut keep = needed(plan, socket);
    if plan.start.is_some() {
        // A container that waits for start can be stopped as one that runs.
        signal::end_on(SIGTERM).at(Stage::StartWait)?;
    }
    let program = process::become_process(&plan.process, true, proc, socket, &mut keep)?;
    cred::parent_death_signal(0).at(Stage::StartWait)?;
    report::send(socket, Message::Ready, &[]).at(Stage::StartWait)?;
    if let Some(fifo) = &plan.start {
        wait_for_start(fifo.as_fd())?;
    }
    hooks::run(
        &plan.hooks,
        &plan.hooks.start_container,
        1,
        process::late_filter(&plan.process),
        Stage::StartContainerHook,
    )?;
    process::exec(&plan.process, program)
}

fn run_exec(
    birth: &Birth,
    plan: &ProcessPlan,
    proc: BorrowedFd<'_>,
    socket: BorrowedFd<'_>,
) -> Step<std::convert::Infallible> {
    // Before the namespaces: in a user namespace of the container these rights over the host are gone.
    set_oom_score(plan, proc, socket)?;
    let own_user = birth.become_root;
    if own_user {
        process::limits(plan)?;
    }
    be_born(birth, socket)?;
    if let Some(name) = &plan.keyring {
        join_keyring(name, socket)?;
    }
    let terminal = process::terminal_in_place(plan, socket)?;
    process::streams(plan, terminal.as_ref())?;
    let mut keep = [socket.as_raw_fd()];
    let program = process::become_process(plan, !own_user, proc, socket, &mut keep)?;
    cred::parent_death_signal(0).at(Stage::StartWait)?;
    report::send(socket, Message::Ready, &[]).at(Stage::StartWait)?;
    process::exec(plan, program)
}

/// From the first instruction to being where the plan wants us: signals,
/// namespaces, cgroups, ids, session.
fn be_born(birth: &Birth, socket: BorrowedFd<'_>) -> Step {
    cred::parent_death_signal(SIGKILL).at(Stage::Wait)?;
    if birth.hidden {
        // Root of the container's user namespace could trace the child and take descriptors
        // of the host from it (CVE-2016-9962). Exec ends it.
        cred::set_dumpable(false).at(Stage::Wait)?;
    }
    if birth.wait {
        wait_for_go(socket)?;
    }
    for (index, tasks) in birth.tasks.iter().enumerate() {
        // The task moves itself: the kernel then skips the grace period that moving another costs.
        rustix::io::write(tasks, b"0").at_index(Stage::Cgroup, index)?;
    }
    for (index, (namespace, flags)) in birth.joins.iter().enumerate() {
        clone::setns(namespace.as_fd(), *flags).at_index(Stage::JoinNamespace, index)?;
    }
    if birth.unshare != 0 {
        clone::unshare(birth.unshare).at(Stage::NewNamespace)?;
    }
    if birth.second {
        become_second(socket)?;
    }
    if birth.become_root {
        cred::setresgid(0).at(Stage::BecomeRoot)?;
        cred::setresuid(0).at(Stage::BecomeRoot)?;
    }
    if birth.session {
        // EPERM: the process leads a group already, which a child of clone never does.
        rustix::process::setsid().at(Stage::Session)?;
    }
    // HUP by nohup, INT and QUIT by shells for what runs in the background, PIPE by ourselves.
    let mut left = birth.ignored;
    while left != 0 {
        signal::reset(left.trailing_zeros() as i32 + 1).at(Stage::Session)?;
        left &= left - 1;
    }
    signal::unblock_all().at(Stage::Session)
}

/// Makes a time namespace and enters it. Its offsets can be set while nobody is in it, and exec
/// leads into it since Linux 6.3 only.
fn enter_new_clocks(plan: &InitPlan) -> Step {
    let proc = plan.proc.as_fd();
    clone::unshare(ns::TIME).at(Stage::NewNamespace)?;
    if let Some(offsets) = &plan.time_offsets {
        // In a user namespace of our own the file is ours only while we are dumpable.
        let own_user = plan.birth.become_root;
        if own_user {
            cred::set_dumpable(true).at(Stage::TimeOffsets)?;
        }
        write_proc(proc, c"self/timens_offsets", offsets.to_bytes()).at(Stage::TimeOffsets)?;
        if own_user {
            cred::set_dumpable(false).at(Stage::TimeOffsets)?;
        }
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let path = c"self/ns/time_for_children";
    let namespace = rustix::fs::openat(proc, path, flags, Mode::empty()).at(Stage::NewNamespace)?;
    clone::setns(namespace.as_fd(), ns::TIME).at(Stage::NewNamespace)
}

/// Clones once more and goes on in the clone, a child of our parent; hands the
/// parent its pidfd.
fn become_second(socket: BorrowedFd<'_>) -> Step {
    match clone::clone_process(0, Parentage::Sibling, None).at(Stage::NewNamespace)? {
        Cloned::Child => cred::parent_death_signal(SIGKILL).at(Stage::Wait),
        Cloned::Parent { pid, pidfd } => {
            let sent = report::send(socket, Message::Init { pid }, &[pidfd.as_fd()]);
            clone::exit(if sent.is_ok() { 0 } else { 1 })
        }
    }
}

fn join_keyring(name: &CStr, socket: BorrowedFd<'_>) -> Step {
    /// Possessor: all; user: view, read, search, link (as runc gives them).
    const RIGHTS: u32 = 0x3f1b_0000;
    match cred::join_session_keyring(name) {
        // No keyrings in this kernel: nothing to keep apart.
        Err(Errno::NOSYS) => Ok(()),
        Err(errno @ (Errno::DQUOT | Errno::PERM)) => warn(
            socket,
            Fail {
                stage: Stage::Keyring,
                index: 0,
                errno,
            },
        ),
        Err(errno) => Err(Fail {
            stage: Stage::Keyring,
            index: 0,
            errno,
        }),
        Ok(serial) => match cred::keyring_set_permissions(serial, RIGHTS) {
            Ok(()) => Ok(()),
            Err(errno) => warn(
                socket,
                Fail {
                    stage: Stage::Keyring,
                    index: 1,
                    errno,
                },
            ),
        },
    }
}

/// Waits until the parent says GO.
pub fn wait_for_go(socket: BorrowedFd<'_>) -> Step {
    match report::receive(socket).at(Stage::Wait)? {
        Some((Message::Go, _)) => Ok(()),
        Some(_) => Err(Fail {
            stage: Stage::Wait,
            index: 0,
            errno: Errno::BADMSG,
        }),
        None => Err(Fail {
            stage: Stage::Wait,
            index: 0,
            errno: Errno::PIPE,
        }),
    }
}

/// Sends a question and waits for the parent's GO.
fn ask(socket: BorrowedFd<'_>, message: Message) -> Step {
    report::send(socket, message, &[]).at(Stage::Wait)?;
    wait_for_go(socket)
}

fn warn(socket: BorrowedFd<'_>, fail: Fail) -> Step {
    report::send(socket, Message::Warning(fail), &[]).at(Stage::Wait)
}

fn set_oom_score(plan: &ProcessPlan, proc: BorrowedFd<'_>, socket: BorrowedFd<'_>) -> Step {
    let Some(value) = &plan.oom_score_adj else {
        return Ok(());
    };
    let result = write_proc(proc, c"self/oom_score_adj", value.to_bytes());
    let forgiven = [Errno::ACCESS, Errno::PERM];
    lenient(socket, result, &forgiven, Stage::OomScore, plan.strict)
}

/// Turns the errors of `allowed` into a warning, unless the mode is strict.
fn lenient(
    socket: BorrowedFd<'_>,
    result: carrack_sys::Result<()>,
    allowed: &[Errno],
    stage: Stage,
    strict: bool,
) -> Step {
    match result {
        Err(errno) if !strict && allowed.contains(&errno) => warn(
            socket,
            Fail {
                stage,
                index: 0,
                errno,
            },
        ),
        other => other.at(stage),
    }
}

/// The descriptors that init still needs once it is ready.
fn needed(plan: &InitPlan, socket: BorrowedFd<'_>) -> [i32; 5] {
    let number = |fd: &std::os::fd::OwnedFd| fd.as_raw_fd();
    let state = |index: usize| {
        let states = plan.hooks.states.as_ref();
        states.map_or(-1, |states| number(&states[index]))
    };
    [
        socket.as_raw_fd(),
        plan.start.as_ref().map_or(-1, number),
        state(0),
        state(1),
        plan.hooks.output.as_ref().map_or(-1, number),
    ]
}

/// Blocks until `start` has written its byte.
fn wait_for_start(fifo: BorrowedFd<'_>) -> Step {
    let mut byte = [0u8; 1];
    rustix::io::retry_on_intr(|| rustix::io::read(fifo, &mut byte)).at(Stage::StartWait)?;
    Ok(())
}

/// Writes a procfs file through the checked handle: no mount on top of it is
/// crossed, and no symbolic link but `self` is followed.
pub(crate) fn write_proc(
    proc: BorrowedFd<'_>,
    path: &CStr,
    value: &[u8],
) -> carrack_sys::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    let file = rustix::fs::openat2(proc, path, flags, Mode::empty(), resolve)?;
    let written = rustix::io::write(&file, value)?;
    if written == value.len() {
        Ok(())
    } else {
        Err(Errno::IO)
    }
}

/// Sends a terminal's master to whoever keeps it: a console socket, or the parent.
fn send_master(
    console: Option<BorrowedFd<'_>>,
    socket: BorrowedFd<'_>,
    master: BorrowedFd<'_>,
) -> Step {
    match console {
        // The receiver may show the name; the descriptor is what counts.
        Some(console) => fdpass::send(console, b"/dev/ptmx", &[master])
            .at(Stage::ConsoleSend)
            .map(drop),
        None => report::send(socket, Message::Console, &[master]).at(Stage::ConsoleSend),
    }
}
