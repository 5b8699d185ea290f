//! The foreground: standard streams, the terminal and signals of a running container.
//!
//! Streams that are files, pipes or sockets are passed to the container as they are: its bytes never come
//! through here. What is a terminal of ours is never passed: with `-t` the container has a terminal of its
//! own and its bytes are pumped, without `-t` they go through a pipe, so that the container cannot reach
//! the user's terminal.
//!
//! Signals are blocked and read from a descriptor, so none is lost between two steps: the size of the
//! terminal is passed on, everything else goes to the container's first process. SIGHUP also ends the
//! program, and with it the container; so does the third SIGINT or SIGTERM.
//!
//! Raw mode is taken back when the guard is dropped, and by the panic hook where panics abort.

use anyhow::{Context, bail};
use carrack_engine::Run;
use carrack_spec::runtime::ConsoleSize;
use carrack_sys::signal;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

const PUMP_BYTES: usize = 64 << 10;
/// Longest wait for output that is still under way when the container has ended, in milliseconds.
const DRAIN_TIMEOUT_MS: u64 = 5_000;
/// So many SIGINT or SIGTERM end the program itself.
const PATIENCE: u32 = 3;

const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGPIPE: i32 = 13;
const SIGTERM: i32 = 15;
const SIGCHLD: i32 = 17;
const SIGURG: i32 = 23;
const SIGWINCH: i32 = 28;

/// What the user's streams are and what the container gets.
pub struct Streams {
    interactive: bool,
    tty: bool,
    /// For the container: standard input, output, error.
    passed: [OwnedFd; 3],
    /// Our ends of the pipes that stand for terminals.
    input: Option<OwnedFd>,
    outputs: Vec<(OwnedFd, OwnedFd)>,
}

impl Streams {
    /// Looks at the standard streams.
    ///
    /// # Errors
    /// `-it` without a terminal.
    pub fn open(interactive: bool, tty: bool) -> anyhow::Result<Self> {
        let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        if interactive && tty && !isatty(&stdin) {
            bail!("standard input is not a terminal; leave out -t, or -i");
        }
        let mut input = None;
        let mut outputs = Vec::new();
        let first = match (interactive, isatty(&stdin)) {
            (true, true) if !tty => {
                let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
                input = Some(write);
                read
            }
            (true, false) => stdin.as_fd().try_clone_to_owned()?,
            _ => File::open("/dev/null")
                .context("cannot open /dev/null")?
                .into(),
        };
        let mut output = |ours: BorrowedFd<'_>| -> anyhow::Result<OwnedFd> {
            if tty || !isatty(ours) {
                return Ok(ours.try_clone_to_owned()?);
            }
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            outputs.push((read, ours.try_clone_to_owned()?));
            Ok(write)
        };
        let passed = [first, output(stdout.as_fd())?, output(stderr.as_fd())?];
        Ok(Self {
            interactive,
            tty,
            passed,
            input,
            outputs,
        })
    }

    /// Size for the container's terminal: ours, or one that is fit for nothing in particular. `None`
    /// without `-t`.
    pub fn terminal_size(&self) -> Option<ConsoleSize> {
        self.tty.then(|| current_size().unwrap_or_default())
    }
}

/// Starts a container with `start` and stays until it has ended; the result is its exit code.
///
/// # Errors
/// Those of `start`, and of the connection to the container's monitor.
pub fn foreground(
    streams: Streams,
    start: impl FnOnce([BorrowedFd<'_>; 3]) -> anyhow::Result<Run>,
) -> anyhow::Result<u8> {
    signal::block_all().context("cannot block signals")?;
    let signals = signal::descriptor().context("cannot receive signals")?;
    let Streams {
        interactive,
        tty,
        passed,
        input,
        outputs,
    } = streams;
    let [a, b, c] = &passed;
    let started = start([a.as_fd(), b.as_fd(), c.as_fd()]);
    // Our copies would keep the pipes open for ever.
    drop(passed);
    let mut run = started?;
    let (done, pumps) = channel();
    let mut pumping = 0;
    for (from, to) in outputs {
        pump_out(from, to, done.clone());
        pumping += 1;
    }
    if let Some(to) = input {
        pump_in(std::io::stdin().as_fd().try_clone_to_owned()?, to);
    }
    let mut raw = None;
    if let Some(terminal) = run.terminal.take() {
        if interactive {
            raw = Some(RawMode::enter()?);
            pump_in(
                std::io::stdin().as_fd().try_clone_to_owned()?,
                terminal.try_clone()?,
            );
        }
        pump_out(
            terminal,
            std::io::stdout().as_fd().try_clone_to_owned()?,
            done.clone(),
        );
        pumping += 1;
        // The window may have changed since its size was asked for.
        if let Some(size) = current_size() {
            run.resize(size)?;
        }
    }
    drop(done);
    let code = attend(&mut run, &signals, tty);
    if code.is_ok() {
        drain(&pumps, pumping);
    }
    drop(raw);
    let code = code?;
    run.finish();
    Ok(code)
}

/// Passes signals on until the container has ended.
fn attend(run: &mut Run, signals: &OwnedFd, tty: bool) -> anyhow::Result<u8> {
    let mut asked = 0;
    loop {
        if !run.has_event() {
            let mut fds = [
                PollFd::new(&*run, PollFlags::IN),
                PollFd::new(signals, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("cannot wait for the container"),
            }
            let [first, second] = fds.map(|fd| !fd.revents().is_empty());
            if second {
                while let Ok((number, _)) = signal::take(signals.as_fd()) {
                    match number {
                        SIGWINCH if tty => {
                            if let Some(size) = current_size() {
                                run.resize(size)?;
                            }
                        }
                        SIGCHLD | SIGPIPE | SIGURG | SIGWINCH => {}
                        SIGHUP => {
                            run.signal(SIGHUP)?;
                            return Ok(128 + SIGHUP as u8);
                        }
                        SIGINT | SIGTERM => {
                            asked += 1;
                            run.signal(number)?;
                            if asked >= PATIENCE {
                                log::warn!("the container does not end; it will be killed");
                                return Ok(128 + number as u8);
                            }
                        }
                        other => run.signal(other)?,
                    }
                }
            }
            if !first && !run.has_event() {
                continue;
            }
        }
        if let Some(exit) = run.exit()? {
            return Ok(u8::try_from(exit.code).unwrap_or(u8::MAX));
        }
    }
}

fn current_size() -> Option<ConsoleSize> {
    let of = |fd: BorrowedFd<'_>| tcgetwinsize(fd).ok();
    let size = of(std::io::stdin().as_fd()).or_else(|| of(std::io::stdout().as_fd()))?;
    Some(ConsoleSize {
        height: size.ws_row,
        width: size.ws_col,
    })
}

/// Copies until the other end is closed (a terminal says so with EIO), then reports.
fn pump_out(from: OwnedFd, to: OwnedFd, done: Sender<()>) {
    std::thread::spawn(move || {
        copy(from, to);
        let _ = done.send(());
    });
}

/// Copies until the end of input. Nobody waits for it: it ends with the program.
fn pump_in(from: OwnedFd, to: OwnedFd) {
    std::thread::spawn(move || copy(from, to));
}

fn copy(from: OwnedFd, to: OwnedFd) {
    let (mut from, mut to) = (File::from(from), File::from(to));
    let mut buffer = vec![0; PUMP_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(n) => {
                let sent = buffer.get(..n).map(|part| to.write_all(part));
                if !matches!(sent, Some(Ok(()))) {
                    return;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

fn drain(pumps: &Receiver<()>, count: usize) {
    for _ in 0..count {
        if pumps
            .recv_timeout(Duration::from_millis(DRAIN_TIMEOUT_MS))
            .is_err()
        {
            return;
        }
    }
}

/// Settings of the terminal before raw mode, for the guard and the panic hook.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// The terminal on standard input in raw mode, until dropped.
struct RawMode;

impl RawMode {
    fn enter() -> anyhow::Result<Self> {
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin).context("cannot read the terminal's settings")?;
        if let Ok(mut kept) = BEFORE.lock() {
            *kept = Some(before.clone());
        }
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            hook(info);
        }));
        let mut raw = before;
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Drain, &raw)
            .context("cannot put the terminal into raw mode")?;
        Ok(Self)
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    let kept = BEFORE.lock().map(|mut b| b.take());
    if let Ok(Some(before)) = kept {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Drain, &before);
    }
}
