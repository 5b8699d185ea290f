//! One child program, its output line by line, and every process that comes loose from it.
//!
//! The caller becomes a child subreaper, so each process that a test leaves behind
//! becomes our child: it is reaped at once when it ends (a test that waits for a
//! process to vanish must not see our zombie), and the audit finds it when it does
//! not end. Because of that the child is waited for here and not through `std`.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, WaitOptions};

use super::audit::descendants;

/// How long output may still come after the program ended (a leaked process may hold the pipe).
const DRAIN: Duration = Duration::from_secs(2);

enum Event {
    Line(String),
    Eof,
    Exit(Option<i32>),
}

/// Runs `command` to its end, at most `limit`, and hands every line of its standard output to `take`.
/// Returns the exit status, or `None` after a signal or the limit.
pub fn run(
    mut command: Command,
    limit: Duration,
    mut take: impl FnMut(&str),
) -> Result<Option<i32>> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .context("cannot become a child subreaper")?;
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child: Child = command
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let stdout = child
        .stdout
        .take()
        .with_context(|| format!("no output pipe from {name}"))?;
    let (sender, receiver) = channel();
    let lines = sender.clone();
    std::thread::spawn(move || read_lines(stdout, &lines));
    let pid = i32::try_from(child.id()).ok();
    std::thread::spawn(move || reap(pid, &sender));
    Ok(pump(&receiver, limit, &mut take))
}

fn pump(events: &Receiver<Event>, limit: Duration, take: &mut impl FnMut(&str)) -> Option<i32> {
    let mut deadline = Instant::now() + limit;
    let (mut status, mut exited, mut eof) = (None, false, false);
    while !(exited && eof) {
        match events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Event::Line(line)) => take(&line),
            Ok(Event::Eof) => eof = true,
            Ok(Event::Exit(code)) => {
                status = code;
                exited = true;
                deadline = Instant::now() + DRAIN;
            }
            Err(RecvTimeoutError::Timeout) if exited => break,
            Err(RecvTimeoutError::Timeout) => {
                println!(
                    "no end after {} minutes: killing the run",
                    limit.as_secs() / 60
                );
                for process in descendants() {
                    kill(process.pid);
                }
                deadline = Instant::now() + DRAIN;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    status
}

fn read_lines(from: ChildStdout, to: &Sender<Event>) {
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    while reader
        .by_ref()
        .read_until(b'\n', &mut line)
        .is_ok_and(|bytes| bytes > 0)
    {
        let text = String::from_utf8_lossy(&line)
            .trim_end_matches('\n')
            .to_string();
        if to.send(Event::Line(text)).is_err() {
            return;
        }
        line.clear();
    }
    let _ = to.send(Event::Eof);
}

/// Reaps everything; tells when the program itself ended.
fn reap(program: Option<i32>, to: &Sender<Event>) {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if Some(pid.as_raw_nonzero().get()) == program => {
                let _ = to.send(Event::Exit(status.exit_status()));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// Sends SIGKILL to a process that descends from us.
pub fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}
