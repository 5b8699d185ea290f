//! Standard streams of a process in a container.
//!
//! Pipes and `/dev/null` are opened close-on-exec; both ends that stay with the
//! caller come back in [`Ends`]. The process' ends are closed here once it runs,
//! so that a reader sees the end of file.

use crate::error::Error;
use rustix::fs::{Mode, OFlags};
use std::io::{PipeReader, PipeWriter};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Where a standard stream leads.
#[derive(Debug, Clone, Default)]
pub enum Stdio {
    /// To where the caller's own leads.
    #[default]
    Inherit,
    /// To nowhere.
    Null,
    /// To a pipe whose other end the caller gets.
    Piped,
    /// To a file, socket or pipe of the caller's.
    Fd(Arc<OwnedFd>),
}

impl<T: Into<OwnedFd>> From<T> for Stdio {
    fn from(file: T) -> Self {
        Stdio::Fd(Arc::new(file.into()))
    }
}

/// The caller's ends of pipes.
#[derive(Debug, Default)]
pub struct Ends {
    pub stdin: Option<PipeWriter>,
    pub stdout: Option<PipeReader>,
    pub stderr: Option<PipeReader>,
}

/// The process' three descriptors (`None` when all are inherited) and the caller's ends.
pub fn open(streams: &[Stdio; 3]) -> Result<(Option<[OwnedFd; 3]>, Ends), Error> {
    let mut ends = Ends::default();
    if streams.iter().all(|s| matches!(s, Stdio::Inherit)) {
        return Ok((None, ends));
    }
    let failed = |e: std::io::Error| Error::system("cannot open a standard stream", e);
    let pipe = || std::io::pipe().map_err(failed);
    let [input, output, error] = streams;
    let input = match input {
        Stdio::Piped => {
            let (theirs, ours) = pipe()?;
            ends.stdin = Some(ours);
            theirs.into()
        }
        other => single(other, rustix::stdio::stdin()).map_err(failed)?,
    };
    let outgoing = |stream: &Stdio, own, end: &mut Option<PipeReader>| match stream {
        Stdio::Piped => {
            let (ours, theirs) = pipe()?;
            *end = Some(ours);
            Ok(theirs.into())
        }
        other => single(other, own).map_err(failed),
    };
    let output = outgoing(output, rustix::stdio::stdout(), &mut ends.stdout)?;
    let error = outgoing(error, rustix::stdio::stderr(), &mut ends.stderr)?;
    Ok((Some([input, output, error]), ends))
}

fn single(stream: &Stdio, own: std::os::fd::BorrowedFd<'_>) -> std::io::Result<OwnedFd> {
    match stream {
        Stdio::Fd(file) => file.as_fd().try_clone_to_owned(),
        Stdio::Inherit => own.try_clone_to_owned(),
        Stdio::Null | Stdio::Piped => {
            let flags = OFlags::RDWR | OFlags::CLOEXEC;
            Ok(rustix::fs::open(c"/dev/null", flags, Mode::empty())?)
        }
    }
}
