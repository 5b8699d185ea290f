//! What the child tells its parent: fixed-size messages over a `SOCK_SEQPACKET`
//! pair. The child reports facts; [`crate::error`] writes the prose.
//!
//! ```text
//! child                                  parent
//!   |   (only when the plan says so)       |  id maps, net devices, systemd scope, resctrl
//!   |<------------- GO --------------------|
//!   |-- INIT pid [pidfd] ----------------->|  the child cloned once more (pid namespaces)
//!   |-- COPY_UP index [dir, tmpfs] ------->|  copies the directory
//!   |<------------- GO --------------------|
//!   |-- RUN_HOOKS ------------------------>|  prestart, createRuntime
//!   |<------------- GO --------------------|
//!   |-- CONSOLE [master] ----------------->|  (only when the caller keeps the master)
//!   |-- LISTENER number ------------------>|  takes the seccomp descriptor, hands it on
//!   |<------------- GO --------------------|
//!   |-- WARNING stage index errno -------->|  (any time) logs it
//!   |-- FAILED stage index errno --------->|  (any time) undoes everything
//!   |-- READY ---------------------------->|  create: init waits for start
//!   |   (end of file: exec succeeded)      |  run, exec
//! ```
//!
//! May run between clone and exec.

use carrack_sys::{Errno, fdpass};
use std::os::fd::{BorrowedFd, OwnedFd};

/// The table of stages: the enum and its numbers, from 1, come from the one list.
macro_rules! stages {
    ($($stage:ident)*) => {
        /// The step a report is about. `index` of the report counts within the list the stage
        /// works on.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u32)]
        #[allow(missing_docs)]
        pub enum Stage {
            $($stage,)*
        }

        impl Stage {
            const ALL: &[Self] = &[$(Self::$stage,)*];
        }
    };
}

stages! {
    Wait
    JoinNamespace
    NewNamespace
    TimeOffsets
    Cgroup
    BecomeRoot
    Session
    Keyring
    OomScore
    Loopback
    Propagation
    RootTree
    RootAttach
    MountSource
    MountDestination
    Mount
    MountAttributes
    CopyUp
    CgroupMount
    Device
    DeviceLink
    Console
    ConsoleSend
    ConsoleMount
    CreateContainerHook
    Pivot
    RootAttributes
    Sysctl
    ReadonlyPath
    MaskedPath
    Hostname
    Domainname
    Rlimit
    Scheduler
    IoPriority
    MemoryPolicy
    CpuAffinity
    Personality
    NoNewPrivileges
    Apparmor
    Selinux
    Cwd
    CwdOutside
    Groups
    User
    Capabilities
    Seccomp
    SeccompListener
    Executable
    StartWait
    StartContainerHook
    Streams
    Exec
}

impl Stage {
    /// The number of this stage on the wire; 0 is none.
    pub fn number(self) -> u32 {
        self as u32 + 1
    }

    /// The stage with this number.
    fn from_number(number: u32) -> Option<Self> {
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        Self::ALL.get(index).copied()
    }
}

/// A step that failed (or only warns): where, and the kernel's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fail {
    /// The step.
    pub stage: Stage,
    /// Which element of the step's list.
    pub index: u32,
    /// What the kernel answered.
    pub errno: Errno,
}

/// Result of a step of the child.
pub type Step<T = ()> = Result<T, Fail>;

/// Names the step of a system call's error.
pub trait At<T> {
    /// The error happened at this stage.
    fn at(self, stage: Stage) -> Step<T>;
    /// The error happened at element `index` of this stage.
    fn at_index(self, stage: Stage, index: usize) -> Step<T>;
}

impl<T> At<T> for Result<T, Errno> {
    fn at(self, stage: Stage) -> Step<T> {
        self.at_index(stage, 0)
    }

    fn at_index(self, stage: Stage, index: usize) -> Step<T> {
        self.map_err(|errno| Fail {
            stage,
            index: index as u32,
            errno,
        })
    }
}

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// Parent: go on.
    Go,
    /// Child: copy the directory (first descriptor) into the tmpfs (second) of mount `index`.
    CopyUp { index: u32 },
    /// Child: I cloned once more; this is the process that goes on (with its pidfd).
    Init { pid: i32 },
    /// Child: run the hooks of the runtime namespace.
    RunHooks,
    /// Child: here is the terminal's master.
    Console,
    /// Child: the seccomp notify descriptor has this number.
    Listener { number: i32 },
    /// Child: this step did not work, but the container goes on.
    Warning(Fail),
    /// Child: this step failed, the child ends.
    Failed(Fail),
    /// Child: all is prepared; the next thing is the wait for start.
    Ready,
}

/// Bytes of a message on the socket: four native integers.
pub const MESSAGE_BYTES: usize = 16;

impl Message {
    fn encode(self) -> [u8; MESSAGE_BYTES] {
        let [kind, a, b, c] = match self {
            Self::Go => [1, 0, 0, 0],
            Self::CopyUp { index } => [2, index, 0, 0],
            Self::RunHooks => [3, 0, 0, 0],
            Self::Console => [4, 0, 0, 0],
            Self::Listener { number } => [5, number as u32, 0, 0],
            Self::Warning(f) => [6, f.stage.number(), f.index, f.errno.raw_os_error() as u32],
            Self::Failed(f) => [7, f.stage.number(), f.index, f.errno.raw_os_error() as u32],
            Self::Ready => [8, 0, 0, 0],
            Self::Init { pid } => [9, pid as u32, 0, 0],
        };
        let mut bytes = [0; MESSAGE_BYTES];
        for (slot, word) in bytes.chunks_exact_mut(4).zip([kind, a, b, c]) {
            slot.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8; MESSAGE_BYTES]) -> Option<Self> {
        let mut words = [0u32; 4];
        for (word, slot) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes(slot.try_into().ok()?);
        }
        let [kind, a, b, c] = words;
        let fail = || {
            let stage = Stage::from_number(a)?;
            // Errno values are 1 to 4095; anything else would be no errno at all.
            let errno = i32::try_from(c)
                .ok()
                .filter(|code| (1..4096).contains(code))?;
            Some(Fail {
                stage,
                index: b,
                errno: Errno::from_raw_os_error(errno),
            })
        };
        Some(match kind {
            1 => Self::Go,
            2 => Self::CopyUp { index: a },
            3 => Self::RunHooks,
            4 => Self::Console,
            5 => Self::Listener { number: a as i32 },
            6 => Self::Warning(fail()?),
            7 => Self::Failed(fail()?),
            8 => Self::Ready,
            9 => Self::Init { pid: a as i32 },
            _ => return None,
        })
    }
}

/// Sends a message with descriptors.
pub fn send(
    socket: BorrowedFd<'_>,
    message: Message,
    fds: &[BorrowedFd<'_>],
) -> carrack_sys::Result<()> {
    fdpass::send(socket, &message.encode(), fds).map(drop)
}

/// Sends a message with write(2) alone: the one call that no filter may hand to a
/// listener before the listener has its descriptor.
pub fn write(socket: BorrowedFd<'_>, message: Message) -> carrack_sys::Result<()> {
    rustix::io::write(socket, &message.encode()).map(drop)
}

/// Receives a message and at most two descriptors; `None` at the end of the
/// stream. A malformed message is `EBADMSG`.
#[allow(clippy::type_complexity)]
pub fn receive(
    socket: BorrowedFd<'_>,
) -> carrack_sys::Result<Option<(Message, [Option<OwnedFd>; 2])>> {
    let mut bytes = [0; MESSAGE_BYTES];
    let (length, fds) = match fdpass::receive::<2>(socket, &mut bytes) {
        // A peer that was killed with unread messages resets the socket: the same as its end.
        Err(Errno::CONNRESET) => return Ok(None),
        other => other?,
    };
    match length {
        0 => Ok(None),
        MESSAGE_BYTES => Message::decode(&bytes)
            .map(|m| Some((m, fds)))
            .ok_or(Errno::BADMSG),
        _ => Err(Errno::BADMSG),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_survives_the_wire() {
        let fail = Fail {
            stage: Stage::Mount,
            index: 7,
            errno: Errno::ACCESS,
        };
        for message in [
            Message::Go,
            Message::CopyUp { index: 3 },
            Message::RunHooks,
            Message::Console,
            Message::Listener { number: 9 },
            Message::Warning(fail),
            Message::Failed(fail),
            Message::Ready,
            Message::Init { pid: 41 },
        ] {
            assert_eq!(Message::decode(&message.encode()), Some(message));
        }
        assert_eq!(Message::decode(&[0; MESSAGE_BYTES]), None);
        assert_eq!(Message::decode(&[0xff; MESSAGE_BYTES]), None);
    }

    #[test]
    fn every_stage_has_its_number() {
        for (stage, number) in Stage::ALL.iter().zip(1..) {
            assert_eq!(stage.number(), number);
            assert_eq!(Stage::from_number(number), Some(*stage));
        }
        assert_eq!(Stage::from_number(0), None);
        assert_eq!(Stage::from_number(Stage::Exec.number() + 1), None);
    }
}
