//! Readiness of the container's program for the service manager that runs us
//! (sd_notify(3), `NOTIFY_SOCKET`).
//!
//! ```text
//! program ──READY=1──► notify.sock (ours, bind-mounted into the container) ──► $NOTIFY_SOCKET
//! ```
//!
//! The container cannot be given the manager's own socket: its messages would
//! come from a foreign PID namespace, and could claim anything. Only the lines
//! in [`FORWARDED`] pass; with the first `READY=` the manager is told which
//! process to watch (`MAINPID=`), and we wait until it has taken note.

use crate::failure::Failure;
use carrack_container::CreateOptions;
use carrack_spec::ContainerId;
use carrack_spec::runtime::Mount;
use carrack_sys::Errno;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

/// Assignments that are passed on.
const FORWARDED: [&[u8]; 6] = [
    b"READY=",
    b"STATUS=",
    b"STOPPING=",
    b"RELOADING=",
    b"WATCHDOG=",
    b"EXTEND_TIMEOUT_USEC=",
];
/// Longest message that is read.
const MESSAGE_BYTES_MAX: usize = 4096;
/// How long the manager may take to note the new main process.
const BARRIER_TIMEOUT_S: i64 = 30;

/// Name of the socket, on both sides.
const SOCKET: &str = "notify.sock";
/// Where the container sees the directory of its socket.
const INSIDE: &str = "/run/notify";

/// The directory of a container's socket, `ROOT/@notify/ID`, there from create
/// to delete. No container can be called `@notify`.
pub struct NotifyDirectory(PathBuf);

impl NotifyDirectory {
    /// The directory, which need not exist.
    pub fn of(root: &Path, id: &ContainerId) -> Self {
        Self(root.join("@notify").join(id.as_str()))
    }

    /// Makes the directory and adds to `options` what makes it visible inside.
    ///
    /// # Errors
    /// Those of making directories.
    pub fn make(&self, options: &mut CreateOptions) -> Result<(), Failure> {
        let directory = &self.0;
        std::fs::create_dir_all(directory)
            .map_err(|error| Failure::file("make the directory", directory, error))?;
        options.extra_mounts.push(Mount {
            destination: INSIDE.into(),
            kind: "bind".into(),
            source: directory.display().to_string(),
            options: ["bind", "nosuid", "noexec", "nodev", "ro"]
                .map(str::to_owned)
                .to_vec(),
            ..Mount::default()
        });
        options
            .extra_env
            .push(format!("NOTIFY_SOCKET={INSIDE}/{SOCKET}"));
        Ok(())
    }

    /// Makes the socket, when the container was created for one.
    ///
    /// # Errors
    /// Those of [`Notify::bind`].
    pub fn bind(&self, manager: &OsStr) -> Result<Option<Notify>, Failure> {
        if !self.0.is_dir() {
            return Ok(None);
        }
        Notify::bind(&self.0.join(SOCKET), manager).map(Some)
    }

    /// Removes the directory, when it is there.
    pub fn remove(&self) {
        match std::fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                log::warn!("remove {}: {error}", self.0.display());
            }
            _ => {}
        }
    }
}

/// Our end of the container's notify socket.
pub struct Notify {
    inner: UnixDatagram,
    manager: UnixDatagram,
    ready: bool,
}

impl Notify {
    /// The manager's socket, when there is a manager that wants to be told.
    pub fn manager() -> Option<OsString> {
        std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty())
    }

    /// Makes the socket `path`, which is visible in the container, and connects to the manager.
    ///
    /// # Errors
    /// Those of making and connecting sockets.
    pub fn bind(path: &Path, manager: &OsStr) -> Result<Self, Failure> {
        let failed = |error| Failure::file("make the notify socket", path, error);
        let inner = UnixDatagram::bind(path).map_err(failed)?;
        // Any user of the container may tell that it is ready.
        let everyone = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(path, everyone).map_err(failed)?;
        inner.set_nonblocking(true).map_err(failed)?;
        let failed = |error| Failure::file("connect to $NOTIFY_SOCKET", manager, error);
        let address = address(manager).map_err(failed)?;
        let outer = UnixDatagram::unbound().map_err(failed)?;
        outer.connect_addr(&address).map_err(failed)?;
        Ok(Self {
            inner,
            manager: outer,
            ready: false,
        })
    }

    /// Passes on what has come; `main` is the process the manager is to watch
    /// from the moment of readiness. True once the container is ready.
    ///
    /// # Errors
    /// When the manager cannot be told.
    pub fn forward(&mut self, main: i32) -> Result<bool, Failure> {
        let mut bytes = [0; MESSAGE_BYTES_MAX];
        loop {
            match self.inner.recv(&mut bytes) {
                Ok(length) => {
                    let lines = lines(bytes.get(..length).unwrap_or_default());
                    let ready = lines
                        .split(|b| *b == b'\n')
                        .any(|l| l.starts_with(b"READY="));
                    if !lines.is_empty() {
                        self.tell(&lines)?;
                    }
                    if ready && !self.ready {
                        self.ready = true;
                        self.tell(format!("MAINPID={main}\n").as_bytes())?;
                        self.barrier()?;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(self.ready),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::system("read the notify socket", error)),
            }
        }
    }

    /// Passes on until the container is ready or `process`, which is `main`, ends.
    ///
    /// # Errors
    /// When the manager cannot be told.
    pub fn forward_until_ready(
        &mut self,
        main: i32,
        process: BorrowedFd<'_>,
    ) -> Result<(), Failure> {
        loop {
            let mut fds = [
                PollFd::new(&self.inner, PollFlags::IN),
                PollFd::from_borrowed_fd(process, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(Failure::system("poll", error)),
            }
            let ended = fds.last().is_some_and(|fd| !fd.revents().is_empty());
            if self.forward(main)? || ended {
                return Ok(());
            }
        }
    }

    fn tell(&self, message: &[u8]) -> Result<(), Failure> {
        let sent = self.manager.send(message).map(drop);
        sent.map_err(|error| Failure::system("write to $NOTIFY_SOCKET", error))
    }

    /// Waits until the manager has worked off what it was told (sd_notify_barrier(3)):
    /// it closes the descriptor that comes with the message.
    fn barrier(&self) -> Result<(), Failure> {
        let failed = |error: Errno| Failure::system("wait for the service manager", error);
        let (reader, writer) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(failed)?;
        carrack_sys::fdpass::send(self.manager.as_fd(), b"BARRIER=1", &[writer.as_fd()])
            .map_err(failed)?;
        drop(writer);
        let timeout = Timespec {
            tv_sec: BARRIER_TIMEOUT_S,
            tv_nsec: 0,
        };
        match poll(
            &mut [PollFd::new(&reader, PollFlags::empty())],
            Some(&timeout),
        ) {
            Ok(0) => log::warn!("the service manager took no note within {BARRIER_TIMEOUT_S} s"),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(failed(error)),
        }
        Ok(())
    }
}

impl AsFd for Notify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

/// A path, or a name in the abstract namespace behind `@`.
fn address(socket: &OsStr) -> std::io::Result<SocketAddr> {
    match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(socket),
    }
}

/// The lines of a message that are passed on.
fn lines(message: &[u8]) -> Vec<u8> {
    let mut kept = Vec::new();
    for line in message.split(|byte| *byte == b'\n') {
        if FORWARDED.iter().any(|name| line.starts_with(name)) {
            kept.extend_from_slice(line);
            kept.push(b'\n');
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_harmless_lines_pass() {
        let message = b"STATUS=up\nMAINPID=1\nFDSTORE=1\nREADY=1\n\nNONSENSE";
        assert_eq!(lines(message), b"STATUS=up\nREADY=1\n");
        assert_eq!(lines(b""), b"");
    }

    #[test]
    fn the_manager_hears_of_readiness_and_of_the_main_process() {
        let dir = std::env::temp_dir().join(format!("notify-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let manager = UnixDatagram::bind(dir.join("manager")).unwrap();
        let mut notify = Notify::bind(&dir.join("inner"), dir.join("manager").as_os_str()).unwrap();
        let program = UnixDatagram::unbound().unwrap();
        program
            .send_to(b"MAINPID=1\nSTATUS=x", dir.join("inner"))
            .unwrap();
        assert!(!notify.forward(7).unwrap());
        program.send_to(b"READY=1", dir.join("inner")).unwrap();
        let reader = std::thread::spawn(move || {
            let mut heard = Vec::new();
            let mut bytes = [0; 64];
            for _ in 0..4 {
                // Receiving without room for descriptors closes the barrier's.
                let length = manager.recv(&mut bytes).unwrap();
                heard.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
            }
            heard
        });
        assert!(notify.forward(7).unwrap());
        let heard = reader.join().unwrap();
        assert_eq!(
            heard,
            ["STATUS=x\n", "READY=1\n", "MAINPID=7\n", "BARRIER=1"]
        );
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
