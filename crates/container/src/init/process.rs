//! From a prepared environment to the program: terminal, streams, limits,
//! labels, ids, capabilities, filter, exec.
//!
//! The order is that of least trust: what needs privilege first, then the
//! ids, then the capabilities, the filter last (or before the ids when the
//! process may gain privileges, because then only a privileged thread may load it).

use super::inroot::{self, Want};
use super::report::{self, At, Fail, Message, Stage, Step};
use super::{send_master, wait_for_go, write_proc};
use crate::plan::{CapPlan, InitPlan, ProcessPlan, SeccompPlan, TerminalPlan};
use carrack_sys::late::Late;
use carrack_sys::{Errno, cred, exec as sys_exec, mount, pty, sched, seccomp};
use rustix::fs::{Access, AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const DEVPTS_SUPER_MAGIC: u64 = 0x1cd1;

/// Makes init's terminal from the container's devpts and shows it as `/dev/console`.
pub fn terminal(
    plan: &InitPlan,
    root: BorrowedFd<'_>,
    socket: BorrowedFd<'_>,
) -> Step<Option<OwnedFd>> {
    let Some(wanted) = &plan.process.terminal else {
        return Ok(None);
    };
    let slave = open_terminal(root, wanted, socket)?;
    let console = console_file(root).at(Stage::ConsoleMount)?;
    let tree = mount::clone_tree(slave.as_fd(), c"", false).at(Stage::ConsoleMount)?;
    mount::attach(tree.as_fd(), console.as_fd()).at(Stage::ConsoleMount)?;
    Ok(Some(slave))
}

/// The file that shows the terminal. A link of the image would have the terminal
/// cover a file elsewhere, on procfs say, before that file is masked (CVE-2025-52565).
fn console_file(root: BorrowedFd<'_>) -> carrack_sys::Result<OwnedFd> {
    let dev = inroot::ensure(root, c"dev", Want::Directory)?;
    match inroot::open_no_links(dev.as_fd(), c"console", OFlags::PATH) {
        Err(Errno::NOENT) => {
            drop(inroot::ensure(dev.as_fd(), c"console", Want::File)?);
            inroot::open_no_links(dev.as_fd(), c"console", OFlags::PATH)
        }
        other => other,
    }
}

/// Makes the terminal of an exec, whose root is the container's already.
pub fn terminal_in_place(plan: &ProcessPlan, socket: BorrowedFd<'_>) -> Step<Option<OwnedFd>> {
    let Some(wanted) = &plan.terminal else {
        return Ok(None);
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(c"/", flags, Mode::empty()).at(Stage::Console)?;
    open_terminal(root.as_fd(), wanted, socket).map(Some)
}

fn open_terminal(
    root: BorrowedFd<'_>,
    wanted: &TerminalPlan,
    socket: BorrowedFd<'_>,
) -> Step<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let master = inroot::open(root, c"dev/pts/ptmx", flags).at(Stage::Console)?;
    // A file of the image in the place of the multiplexer must not be taken for one (CVE-2025-52565).
    let kind = rustix::fs::fstatfs(&master).at(Stage::Console)?.f_type as u64;
    let number = inroot::character_device(master.as_fd()).at(Stage::Console)?;
    if kind != DEVPTS_SUPER_MAGIC || number != Some(rustix::fs::makedev(5, 2)) {
        return Err(Fail {
            stage: Stage::Console,
            index: 1,
            errno: Errno::NODEV,
        });
    }
    let slave = pty::open_slave(master.as_fd()).at(Stage::Console)?;
    if let Some((rows, columns)) = wanted.size {
        pty::set_size(slave.as_fd(), rows, columns).at(Stage::Console)?;
    }
    if wanted.plain_line_ends {
        pty::plain_line_ends(slave.as_fd()).at(Stage::Console)?;
    }
    send_master(
        wanted.socket.as_ref().map(AsFd::as_fd),
        socket,
        master.as_fd(),
    )?;
    pty::set_controlling(slave.as_fd()).at(Stage::Console)?;
    Ok(slave)
}

/// Puts the standard streams in their places and gives them to the user.
pub fn streams(plan: &ProcessPlan, terminal: Option<&OwnedFd>) -> Step {
    if let Some(terminal) = terminal {
        for number in 0..3 {
            sys_exec::dup_onto(terminal.as_fd(), number)
                .at_index(Stage::Streams, number as usize)?;
        }
    } else if let Some(stdio) = &plan.stdio {
        for (number, fd) in stdio.iter().enumerate() {
            sys_exec::dup_onto(fd.as_fd(), number as i32).at_index(Stage::Streams, number)?;
        }
    }
    if plan.own_streams {
        for number in 0..3 {
            own_stream(plan, number).at_index(Stage::Streams, number)?;
        }
    }
    Ok(())
}

/// Puts the container's `/dev/null` in the place of the host's: a container that
/// holds no file of the host can be checkpointed. One that is none stays out.
pub fn inner_null(plan: &ProcessPlan, root: BorrowedFd<'_>) -> Step {
    if plan.terminal.is_some() || plan.null_streams == [false; 3] {
        return Ok(());
    }
    // Not blocking: the image may have a fifo there.
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
    let Ok(null) = inroot::open(root, c"dev/null", flags).map(Late::from) else {
        return Ok(());
    };
    if inroot::character_device(null.as_fd()) != Ok(Some(rustix::fs::makedev(1, 3))) {
        return Ok(());
    }
    for (number, _) in plan.null_streams.iter().enumerate().filter(|(_, on)| **on) {
        sys_exec::dup_onto(null.as_fd(), number as i32).at_index(Stage::Streams, number)?;
    }
    Ok(())
}

/// Lets the user reopen `/dev/stdout` and the like. Devices that are shared with
/// everybody (`/dev/null`) stay as they are; so does what cannot change hands.
fn own_stream(plan: &ProcessPlan, number: usize) -> carrack_sys::Result<()> {
    let fd = [
        rustix::stdio::stdin(),
        rustix::stdio::stdout(),
        rustix::stdio::stderr(),
    ][number];
    let stat = match rustix::fs::fstat(fd) {
        Err(Errno::BADF) => return Ok(()),
        other => other?,
    };
    let null = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == rustix::fs::makedev(1, 3);
    if stat.st_uid == plan.uid || null {
        return Ok(());
    }
    match rustix::fs::fchown(fd, Some(Uid::from_raw(plan.uid)), None::<Gid>) {
        Err(Errno::PERM | Errno::INVAL | Errno::ROFS) => Ok(()),
        other => other,
    }
}

/// Takes on everything that the plan says about the process. Returns the index
/// of the candidate to execute. Of the descriptors, those of `keep` stay open.
pub fn become_process(
    plan: &ProcessPlan,
    own_limits: bool,
    proc: BorrowedFd<'_>,
    socket: BorrowedFd<'_>,
    keep: &mut [i32],
) -> Step<usize> {
    if own_limits {
        limits(plan)?;
    }
    placement(plan)?;
    if let Some(domain) = plan.personality {
        cred::personality(domain).at(Stage::Personality)?;
    }
    if plan.no_new_privileges {
        cred::no_new_privs().at(Stage::NoNewPrivileges)?;
    }
    labels(plan, proc)?;
    set_groups(plan, proc)?;
    forget_the_caller(plan, keep).at(Stage::Streams)?;
    let entered = enter_cwd(plan)?;
    if entered {
        // Before the filter, which may refuse getcwd(2).
        cwd_is_inside()?;
    }
    let early = plan.seccomp.as_ref().filter(|_| !plan.no_new_privileges);
    if let Some(filter) = early {
        load_filter(filter, socket)?;
    }
    change_user(plan)?;
    if !entered {
        rustix::process::chdir(plan.cwd.as_c_str()).at(Stage::Cwd)?;
        cwd_is_inside()?;
    }
    finish_capabilities(plan)?;
    rustix::process::umask(Mode::from_raw_mode(plan.umask));
    let program = find_program(plan)?;
    // A listener is handed on by the parent, so its filter can't wait for start.
    if let Some(filter) = plan
        .seccomp
        .as_ref()
        .filter(|f| early.is_none() && f.listener)
    {
        load_filter(filter, socket)?;
    }
    Ok(program)
}

/// Closes what is not needed for the rest of the way, before the first path that
/// the container names is looked up. A working directory or a program such as
/// `/proc/self/fd/7/../../bin/sh` would else lead out over a descriptor of the
/// host's procfs or cgroups (CVE-2024-21626), closed on exec or not; and while it
/// waits for start, init would hold every file of its caller: pipes and sockets of
/// other containers would not end.
fn forget_the_caller(plan: &ProcessPlan, keep: &mut [i32]) -> carrack_sys::Result<()> {
    let first = 3 + plan.preserve_fds;
    sys_exec::close_others(first, keep)?;
    // What the caller passes on was inherited, so it lives on at exec. A number in that range
    // which the caller left free may have become one of our own.
    (3..first).try_for_each(|number| sys_exec::close_unless_inherited(number, keep))
}

/// Sets the resource limits.
pub fn limits(plan: &ProcessPlan) -> Step {
    for (index, (resource, limit)) in plan.rlimits.iter().enumerate() {
        rustix::process::setrlimit(*resource, *limit).at_index(Stage::Rlimit, index)?;
    }
    Ok(())
}

/// The filter that is loaded just before exec.
pub fn late_filter(plan: &ProcessPlan) -> Option<&SeccompPlan> {
    let filter = plan.seccomp.as_ref();
    filter.filter(|filter| plan.no_new_privileges && !filter.listener)
}

/// Executes the program. Returns only the failure.
pub fn exec(plan: &ProcessPlan, program: usize) -> Step<std::convert::Infallible> {
    if let Some(filter) = late_filter(plan) {
        seccomp::load(&filter.program, filter.flags).at(Stage::Seccomp)?;
    }
    let path = plan
        .candidates
        .get(program)
        .map_or(c"", |path| path.as_c_str());
    let errno = sys_exec::execve(path, &plan.args, &plan.env);
    Err(Fail {
        stage: Stage::Exec,
        index: program as u32,
        errno,
    })
}

/// Scheduling, I/O priority, memory policy and processors.
fn placement(plan: &ProcessPlan) -> Step {
    if let Some(scheduler) = &plan.scheduler {
        sched::set_attributes(scheduler).at(Stage::Scheduler)?;
    }
    if let Some(priority) = plan.io_priority {
        sched::set_io_priority(priority).at(Stage::IoPriority)?;
    }
    if let Some((mode, nodes)) = &plan.memory_policy {
        sched::set_memory_policy(*mode, nodes).at(Stage::MemoryPolicy)?;
    }
    if let Some(cpus) = &plan.affinity {
        sched::set_affinity(cpus).at(Stage::CpuAffinity)?;
    }
    Ok(())
}

/// AppArmor and SELinux labels that the kernel applies at exec.
fn labels(plan: &ProcessPlan, proc: BorrowedFd<'_>) -> Step {
    if let Some(request) = &plan.apparmor {
        let request = request.to_bytes();
        match write_proc(proc, c"thread-self/attr/apparmor/exec", request) {
            // Kernels before 5.8 have the shared file only.
            Err(Errno::NOENT) => write_proc(proc, c"thread-self/attr/exec", request),
            other => other,
        }
        .at(Stage::Apparmor)?;
    }
    if let Some(label) = &plan.selinux {
        write_proc(proc, c"thread-self/attr/exec", label.to_bytes()).at(Stage::Selinux)?;
    }
    Ok(())
}

/// Enters the working directory, made when it is missing. False when only the
/// user may enter it (tried again after the change of ids).
fn enter_cwd(plan: &ProcessPlan) -> Step<bool> {
    match rustix::process::chdir(plan.cwd.as_c_str()) {
        Ok(()) => Ok(true),
        Err(Errno::ACCESS | Errno::PERM) => Ok(false),
        Err(Errno::NOENT) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = rustix::fs::open(c"/", flags, Mode::empty()).at(Stage::Cwd)?;
            let made = inroot::ensure(root.as_fd(), &plan.cwd, Want::Directory).at(Stage::Cwd)?;
            rustix::process::fchdir(&made).at(Stage::Cwd)?;
            Ok(true)
        }
        Err(errno) => Err(Fail {
            stage: Stage::Cwd,
            index: 0,
            errno,
        }),
    }
}

/// A descriptor that leaked from the host as working directory would show the
/// host's file system; getcwd(2) says so with a path that is not below the root (CVE-2024-21626).
fn cwd_is_inside() -> Step {
    let mut buffer = [0u8; 4096 + 64];
    match sys_exec::getcwd(&mut buffer) {
        Ok(path) if path.first() == Some(&b'/') => Ok(()),
        Ok(_) => Err(Fail {
            stage: Stage::CwdOutside,
            index: 0,
            errno: Errno::PERM,
        }),
        // A directory that was removed, or a path that is too long, is inside all the same.
        Err(Errno::NAMETOOLONG | Errno::RANGE) => Ok(()),
        Err(errno) => Err(Fail {
            stage: Stage::CwdOutside,
            index: 0,
            errno,
        }),
    }
}

/// Bounding set and ids, with the permitted set kept for what follows.
fn change_user(plan: &ProcessPlan) -> Step {
    if let Some(caps) = &plan.caps {
        for &cap in &caps.bounding_drop {
            match cred::bounding_drop(cap) {
                // A capability that this kernel does not know is not there to be dropped.
                Ok(()) | Err(Errno::INVAL) => {}
                Err(errno) => return Err(errno).at_index(Stage::Capabilities, cap as usize),
            }
        }
        // Only the way from root to another user costs the permitted set.
        if plan.uid != 0 {
            cred::keep_caps(true).at(Stage::Capabilities)?;
        }
    }
    cred::setresgid(plan.gid).at_index(Stage::User, 1)?;
    cred::setresuid(plan.uid).at(Stage::User)
}

fn set_groups(plan: &ProcessPlan, proc: BorrowedFd<'_>) -> Step {
    let Some(groups) = &plan.groups else {
        return Ok(());
    };
    match cred::setgroups(groups) {
        // The user namespace that the runtime itself is in denies it to everybody: as in runc,
        // the process then keeps the groups of who made that namespace.
        Err(Errno::PERM) if groups.is_empty() && denies_groups(proc) => Ok(()),
        other => other.at(Stage::Groups),
    }
}

fn denies_groups(proc: BorrowedFd<'_>) -> bool {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    let mut answer = [0u8; 8];
    rustix::fs::openat2(proc, c"self/setgroups", flags, Mode::empty(), resolve)
        .and_then(|file| rustix::io::read(&file, &mut answer))
        .is_ok_and(|length| answer[..length].starts_with(b"deny"))
}

fn finish_capabilities(plan: &ProcessPlan) -> Step {
    let Some(CapPlan { sets, ambient, .. }) = &plan.caps else {
        return Ok(());
    };
    if plan.uid != 0 {
        cred::keep_caps(false).at(Stage::Capabilities)?;
    }
    cred::capset(sets).at(Stage::Capabilities)?;
    // exec empties the ambient set of a program with privileges only; start from none. capset(2)
    // leaves in it what is permitted and inheritable.
    if sets.permitted & sets.inheritable != 0 {
        cred::ambient_clear().at(Stage::Capabilities)?;
    }
    for &cap in ambient {
        cred::ambient_raise(cap).at_index(Stage::Capabilities, cap as usize)?;
    }
    Ok(())
}

/// The first candidate that is a file the process may execute.
fn find_program(plan: &ProcessPlan) -> Step<usize> {
    let mut errno = Errno::NOENT;
    for (index, path) in plan.candidates.iter().enumerate() {
        match executable(path) {
            Ok(()) => return Ok(index),
            Err(error @ (Errno::ACCESS | Errno::ISDIR)) => errno = error,
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(error) => errno = error,
        }
    }
    Err(Fail {
        stage: Stage::Executable,
        index: 0,
        errno,
    })
}

fn executable(path: &CStr) -> carrack_sys::Result<()> {
    match rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
        // Filters older than faccessat2(2) refuse it. The older call asks for the real
        // ids, which are the effective ones here.
        Err(Errno::PERM | Errno::NOSYS) => {
            rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::empty())?;
        }
        other => other?,
    }
    let stat = rustix::fs::stat(path)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Err(Errno::ISDIR),
        FileType::RegularFile => Ok(()),
        _ => Err(Errno::ACCESS),
    }
}

/// Loads the filter; a listener's descriptor goes to the parent by number,
/// because sending it could itself be a filtered call.
fn load_filter(filter: &SeccompPlan, socket: BorrowedFd<'_>) -> Step {
    let mut flags = filter.flags;
    if filter.listener {
        flags |= seccomp::FLAG_NEW_LISTENER;
        // The parent fetches it, without privileges only from a process that may be looked at.
        // What was the host's is closed by now.
        cred::set_dumpable(true).at(Stage::SeccompListener)?;
    }
    let Some(listener) = seccomp::load(&filter.program, flags).at(Stage::Seccomp)? else {
        return Ok(());
    };
    let number = std::os::fd::AsRawFd::as_raw_fd(&listener);
    report::write(socket, Message::Listener { number }).at(Stage::SeccompListener)?;
    wait_for_go(socket)
}
