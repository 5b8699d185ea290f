//! A criu process and the conversation with it.

use super::rpc::{self, Kind, Options, Response, flag};
use super::{CriuOptions, mounts};
use crate::error::{Error, Names};
use crate::init;
use crate::init::report::{self, At, Message, Stage, Step};
use crate::talk::{Answers, Child, Until};
use carrack_sys::clone::{self, Cloned, Parentage};
use carrack_sys::exec::{CVec, cloexec_from, dup_onto, execve};
use carrack_sys::{cred, fdpass, pidfd, signal};
use rustix::fs::{Mode, OFlags};
use rustix::io::FdFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::ffi::{CString, OsStr};
use std::fs::{DirBuilder, File, Permissions};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// criu 3.15: external pid namespaces, and the notification that lazy pages can be served.
const VERSION_MIN: i32 = version_number([3, 15, 0]);
/// Largest message of criu, in bytes.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// How much of a log's end is looked at, in bytes.
const LOG_BYTES_MAX: u64 = 64 << 10;
/// How many lines of it an error quotes.
const QUOTE_LINES_MAX: usize = 6;
const SIGKILL: i32 = 9;
const SIGPIPE: i32 = 13;

/// What a criu process starts with, all made ahead of its clone.
pub struct Program {
    path: CString,
    environment: CVec,
}

/// What the child does on its way to criu.
pub trait Prepare {
    /// Runs between clone and exec: system calls only.
    fn prepare(&self, socket: BorrowedFd<'_>) -> Step;
}

/// Nothing to prepare.
pub struct AsItIs;

impl Prepare for AsItIs {
    fn prepare(&self, _socket: BorrowedFd<'_>) -> Step {
        Ok(())
    }
}

/// Descriptors for criu's process.
#[derive(Default)]
pub struct Descriptors {
    /// Standard streams; inherited when `None`.
    pub stdio: Option<[OwnedFd; 3]>,
    /// Descriptors that it inherits under the numbers they have here.
    pub inherit: Vec<OwnedFd>,
}

/// A criu process that serves one request.
pub struct Criu {
    child: Child,
    socket: OwnedFd,
    names: Names,
}

impl Program {
    /// Looks criu up in `PATH`, then where distributions have it.
    pub fn find() -> Result<Self, Error> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path)
            .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
            .map(|directory| directory.join("criu"))
            .find(|path| {
                path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
            })
            .ok_or(Error::NoCriu)?;
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            let mut variable = name.into_vec();
            variable.push(b'=');
            variable.extend(value.into_vec());
            CString::new(variable).ok()
        });
        Ok(Self {
            path: c_string(found.as_os_str())?,
            environment: CVec::new(environment.collect()),
        })
    }

    /// Starts a process. It waits for [`Criu::go`] before it prepares anything.
    pub fn spawn(
        &self,
        descriptors: &Descriptors,
        prepare: &dyn Prepare,
        mut names: Names,
    ) -> Result<Criu, Error> {
        let (socket, served) = pair()?;
        let (ours, theirs) = pair()?;
        names.program = self.path.to_string_lossy().into_owned();
        let argv = [c"criu".to_owned(), c"swrk".to_owned(), {
            c_string(OsStr::new(&served.as_raw_fd().to_string()))?
        }];
        let argv = CVec::new(argv.into());
        let cloned = clone::clone_process(0, Parentage::Child, None)
            .map_err(|e| Error::system("cannot make a process for criu", e))?;
        match cloned {
            Cloned::Child => {
                drop(ours);
                drop(socket);
                let start = Start {
                    program: self,
                    argv: &argv,
                    served: served.as_fd(),
                    descriptors,
                };
                init::finish(theirs.as_fd(), start.run(prepare, theirs.as_fd()))
            }
            Cloned::Parent { pid, pidfd } => Ok(Criu {
                child: Child {
                    pid,
                    pidfd,
                    socket: ours,
                    console: None,
                    hook_output: None,
                },
                socket,
                names,
            }),
        }
    }

    /// Starts a process, asks it one thing without options, and gives its answer.
    fn ask(&self, request: &[u8]) -> Result<Response, Error> {
        let mut criu = self.spawn(&Descriptors::default(), &AsItIs, Names::default())?;
        criu.go()?;
        criu.send(request)?;
        let (response, _) = criu.receive()?;
        criu.end();
        Ok(response)
    }

    /// Asks for its version and refuses one that is too old.
    pub fn check_version(&self, wanted: &'static str, needed: [i32; 3]) -> Result<(), Error> {
        let response = self.ask(&rpc::request(Kind::Version, None))?;
        let needed = version_number(needed).max(VERSION_MIN);
        let found = version_number(response.version);
        if found >= needed {
            return Ok(());
        }
        Err(Error::OldCriu {
            found: version_text(found),
            wanted,
            needed: version_text(needed),
        })
    }

    /// Asks whether kernel and criu have what the options want.
    pub fn check_features(&self, track_memory: bool, lazy_pages: bool) -> Result<(), Error> {
        if !track_memory && !lazy_pages {
            return Ok(());
        }
        let response = self.ask(&rpc::feature_request(track_memory, lazy_pages))?;
        let missing = match response.features {
            [false, _] if track_memory => "tracking of memory changes",
            [_, false] if lazy_pages => "lazy pages",
            _ => return Ok(()),
        };
        let reason = format!("{missing} is not supported by criu with this kernel");
        Err(Error::system(reason, std::io::ErrorKind::Unsupported))
    }
}

/// The child's view.
struct Start<'a> {
    program: &'a Program,
    argv: &'a CVec,
    served: BorrowedFd<'a>,
    descriptors: &'a Descriptors,
}

impl Start<'_> {
    fn run(&self, prepare: &dyn Prepare, socket: BorrowedFd<'_>) -> Step<std::convert::Infallible> {
        // A criu that nobody listens to must not go on; what it made lies in its cgroup.
        cred::parent_death_signal(SIGKILL).at(Stage::Wait)?;
        init::wait_for_go(socket)?;
        prepare.prepare(socket)?;
        if let Some(stdio) = &self.descriptors.stdio {
            for (number, fd) in stdio.iter().enumerate() {
                dup_onto(fd.as_fd(), number as i32).at_index(Stage::Streams, number)?;
            }
        }
        cloexec_from(3).at(Stage::Streams)?;
        let none = FdFlags::empty();
        rustix::io::fcntl_setfd(self.served, none).at(Stage::Streams)?;
        for fd in &self.descriptors.inherit {
            rustix::io::fcntl_setfd(fd, none).at(Stage::Streams)?;
        }
        signal::reset(SIGPIPE).at(Stage::Session)?;
        signal::unblock_all().at(Stage::Session)?;
        report::send(socket, Message::Ready, &[]).at(Stage::Wait)?;
        let program = self.program;
        Err(execve(&program.path, self.argv, &program.environment)).at(Stage::Exec)
    }
}

/// Answers of a parent whose child asks nothing.
pub struct NoAnswers;

impl Answers for NoAnswers {
    fn run_hooks(&mut self, _pid: i32) -> Result<(), Error> {
        Ok(())
    }
    fn listener(&mut self, _pid: i32, _descriptor: OwnedFd) -> Result<(), Error> {
        Ok(())
    }
    fn moved(&mut self, _pid: i32) -> Result<(), Error> {
        Ok(())
    }
}

impl Criu {
    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.pid
    }

    /// Lets it prepare and execute.
    pub fn go(&mut self) -> Result<(), Error> {
        self.child.go()?;
        self.child
            .follow(Until::Executed, &self.names, &mut NoAnswers)
    }

    /// Sends a message.
    pub fn send(&self, message: &[u8]) -> Result<(), Error> {
        fdpass::send(self.socket.as_fd(), message, &[])
            .map(drop)
            .map_err(|e| Error::system("cannot talk to criu", e))
    }

    /// Receives an answer, and the descriptor that came with it.
    pub fn receive(&self) -> Result<(Response, Option<OwnedFd>), Error> {
        let failed = |e: std::io::Error| Error::system("cannot hear criu", e);
        let mut bytes = vec![0; MESSAGE_BYTES_MAX];
        let (length, [fd]) =
            fdpass::receive::<1>(self.socket.as_fd(), &mut bytes).map_err(|e| failed(e.into()))?;
        let message = bytes.get(..length).unwrap_or_default();
        if message.is_empty() {
            return Err(failed(std::io::ErrorKind::UnexpectedEof.into()));
        }
        let response = Response::read(message)
            .map_err(|e| failed(std::io::Error::new(std::io::ErrorKind::InvalidData, e)))?;
        Ok((response, fd))
    }

    /// Carries out a request; `notify` answers each notification.
    pub fn carry_out(
        &self,
        kind: Kind,
        options: &Options,
        mut notify: impl FnMut(&Response, Option<OwnedFd>) -> Result<(), Error>,
    ) -> Result<(), Reason> {
        self.send(&rpc::request(kind, Some(options)))?;
        loop {
            let (response, fd) = self.receive()?;
            if !response.success {
                return Err(Reason::Refused(response));
            }
            if response.kind == Kind::Notify as i32 {
                notify(&response, fd)?;
                self.send(&rpc::notified())?;
                continue;
            }
            if response.kind != kind as i32 {
                let what = format!("criu answered {} to a request {kind:?}", response.kind);
                return Err(Error::system(what, std::io::ErrorKind::InvalidData).into());
            }
            return Ok(());
        }
    }

    /// Hangs up and waits until it has ended.
    pub fn end(self) {
        drop(self.socket);
        let _ = pidfd::wait(self.child.pidfd.as_fd(), true);
    }

    /// Ends it at once.
    pub fn kill(self) {
        self.child.kill();
    }
}

/// Why a request was not carried out.
pub enum Reason {
    /// criu said so.
    Refused(Response),
    /// We, or the way to criu, failed.
    Ours(Error),
}

impl From<Error> for Reason {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

impl Reason {
    /// The error for the caller, with criu's log when it was criu.
    pub fn explain(self, doing: &'static str, log: &Path) -> Error {
        let reason = match self {
            // An end without an answer is explained by the log, if by anything.
            Self::Ours(Error::System { source, .. })
                if source.kind() == std::io::ErrorKind::UnexpectedEof =>
            {
                "it ended without an answer".to_owned()
            }
            Self::Ours(error) => return error,
            Self::Refused(response) if !response.message.is_empty() => response.message,
            Self::Refused(response) => match response.errno {
                0 => "it gives no reason".to_owned(),
                errno => std::io::Error::from_raw_os_error(errno).to_string(),
            },
        };
        Error::Criu {
            doing,
            reason,
            log: log.to_owned(),
            quote: quote(log),
        }
    }
}

/// The lines of a log that tell of errors, or its last ones.
fn quote(log: &Path) -> String {
    let mut bytes = Vec::new();
    let read = File::open(log).and_then(|mut file| {
        let length = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES_MAX)))?;
        file.take(LOG_BYTES_MAX).read_to_end(&mut bytes)
    });
    if let Err(error) = read {
        return format!("(no log: {error})");
    }
    quote_lines(&String::from_utf8_lossy(&bytes))
}

fn quote_lines(text: &str) -> String {
    let last = |lines: Vec<&str>| {
        let from = lines.len().saturating_sub(QUOTE_LINES_MAX);
        lines.get(from..).unwrap_or_default().join("\n")
    };
    let errors: Vec<&str> = text.lines().filter(|line| line.contains("Error")).collect();
    match errors.is_empty() {
        false => last(errors),
        true => last(text.lines().collect()),
    }
}

/// The directories of images and logs, opened, and the path of the log.
pub struct Directories {
    images: File,
    work: Option<File>,
    /// Where criu writes its log.
    pub log: PathBuf,
}

impl Directories {
    /// Looks at the directories before anything is made or asked of criu; those that will be
    /// made may be missing.
    pub fn check(options: &CriuOptions, make: bool) -> Result<(), Error> {
        let check = |path: &Path, make: bool| {
            let checked = match std::fs::metadata(path) {
                Ok(metadata) if metadata.is_dir() => Ok(()),
                Ok(_) => Err(std::io::ErrorKind::NotADirectory.into()),
                Err(error) if make && error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            };
            checked.map_err(|e| Error::path("cannot open the directory", path, e))
        };
        check(&options.images, make)?;
        options
            .work
            .as_deref()
            .map_or(Ok(()), |path| check(path, true))
    }

    /// Opens them, and makes those that are missing when `make` says so for the images.
    pub fn open(options: &CriuOptions, make: bool, log: &str) -> Result<Self, Error> {
        let open = |path: &Path, make: bool| {
            if make {
                // The memory of processes is in there.
                let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
                made.map_err(|e| Error::path("cannot make the directory", path, e))?;
            }
            let opened = File::open(path).and_then(|file| match file.metadata()?.is_dir() {
                true => Ok(file),
                false => Err(std::io::ErrorKind::NotADirectory.into()),
            });
            opened.map_err(|e| Error::path("cannot open the directory", path, e))
        };
        let images = open(&options.images, make)?;
        let work = options.work.as_deref();
        Ok(Self {
            images,
            work: work.map(|path| open(path, true)).transpose()?,
            log: work.unwrap_or(&options.images).join(log),
        })
    }

    /// Lets group `gid` pass the images' directory. The processes of a user namespace read their
    /// images with its rights and know their names; they need not list the directory.
    pub fn let_in(&self, gid: u32) {
        let metadata = self.images.metadata();
        let closed = metadata.is_ok_and(|found| {
            found.mode() & 0o001 == 0 && (found.gid() != gid || found.mode() & 0o010 == 0)
        });
        if !closed {
            return;
        }
        let opened = fchown(&self.images, None, Some(gid))
            .and_then(|()| self.images.set_permissions(Permissions::from_mode(0o710)));
        if let Err(error) = opened {
            log::warn!("cannot let group {gid} into the images' directory: {error}");
        }
    }

    /// The same directories as process `pid` has them in its mount namespace. criu makes mounts
    /// below them, which works in one's own namespace only.
    pub fn seen_by(&self, proc: BorrowedFd<'_>, pid: i32) -> Result<Self, Error> {
        let failed = |e| Error::system("cannot open the images' directory for criu", e);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // A magic link: it leads to the root of the process' own mount namespace.
        let root = rustix::fs::openat(proc, format!("{pid}/root"), flags, Mode::empty())
            .map_err(failed)?;
        let again = |file: &File| {
            let path = mounts::path_of(file.as_fd()).map_err(failed)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let inside = path.trim_start_matches('/');
            rustix::fs::openat(&root, inside, flags, Mode::empty())
                .map(File::from)
                .map_err(failed)
        };
        Ok(Self {
            images: again(&self.images)?,
            work: self.work.as_ref().map(again).transpose()?,
            log: self.log.clone(),
        })
    }

    /// Puts their descriptors into a request.
    pub fn name_in(&self, request: &mut Options) {
        request.images = self.images.as_raw_fd();
        request.work = self.work.as_ref().map(AsRawFd::as_raw_fd);
    }

    /// Options that a dump and a restore begin with.
    pub fn options(&self, options: &CriuOptions, log: &'static str) -> Options {
        let mut flags = vec![
            flag::NOTIFY_SCRIPTS,
            flag::MANAGE_CGROUPS,
            flag::ORPHAN_PTS_MASTER,
        ];
        let switches = [
            (flag::TCP_ESTABLISHED, options.tcp_established),
            (flag::EXTERNAL_UNIX_SOCKETS, options.external_unix_sockets),
            (flag::SHELL_JOB, options.shell_job),
            (flag::FILE_LOCKS, options.file_locks),
            (flag::AUTO_DEDUP, options.auto_dedup),
            (flag::LAZY_PAGES, options.lazy_pages),
        ];
        flags.extend(
            switches
                .iter()
                .filter(|(_, on)| *on)
                .map(|(field, _)| *field),
        );
        let mut request = Options {
            log,
            flags,
            cgroups: options.cgroups,
            // Network devices belong to whoever made them: engines set the network up again.
            empty_namespaces: clone::ns::NET,
            ..Options::default()
        };
        self.name_in(&mut request);
        request
    }
}

/// Two ends of a conversation.
pub fn pair() -> Result<(OwnedFd, OwnedFd), Error> {
    socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|e| Error::system("cannot make a socket pair", e))
}

fn c_string(text: &OsStr) -> Result<CString, Error> {
    CString::new(text.as_bytes()).map_err(|e| Error::system("criu's path", std::io::Error::from(e)))
}

const fn version_number(version: [i32; 3]) -> i32 {
    version[0] * 10_000 + version[1] * 100 + version[2]
}

fn version_text(number: i32) -> String {
    format!("{}.{}", number / 10_000, number / 100 % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_quoted_by_its_errors() {
        let log = "a\nError (x.c:1): one\nb\nError (y.c:2): two\nc\n";
        assert_eq!(quote_lines(log), "Error (x.c:1): one\nError (y.c:2): two");
        assert_eq!(quote_lines("1\n2\n3\n4\n5\n6\n7\n"), "2\n3\n4\n5\n6\n7");
        assert!(quote(Path::new("/no/such/log")).contains("no log"));
    }

    #[test]
    fn versions_compare_and_print() {
        assert!(version_number([3, 17, 1]) > VERSION_MIN);
        assert!(version_number([3, 9, 2]) < VERSION_MIN);
        assert_eq!(version_text(version_number([4, 0, 1])), "4.0");
    }
}
