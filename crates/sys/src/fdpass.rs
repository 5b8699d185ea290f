//! Messages with descriptors over unix sockets (`SCM_RIGHTS`).
//!
//! Neither allocates; both may run between clone and exec.

use crate::Result;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Most descriptors in one message.
pub const FDS_MAX: usize = 8;

/// Sends `bytes` with `fds` (at most [`FDS_MAX`]).
///
/// # Errors
/// Those of sendmsg(2); no signal is raised for a closed peer.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(crate::Errno::INVAL);
    }
    let iov = [IoSlice::new(bytes)];
    rustix::io::retry_on_intr(|| sendmsg(socket, &iov, &mut control, SendFlags::NOSIGNAL))
}

/// Receives one message into `bytes` and at most `N` descriptors (close-on-exec).
/// A length of zero is the end of the stream.
///
/// # Errors
/// Those of recvmsg(2).
pub fn receive<const N: usize>(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
) -> Result<(usize, [Option<OwnedFd>; N])> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut iov = [IoSliceMut::new(bytes)];
    let message = rustix::io::retry_on_intr(|| {
        recvmsg(socket, &mut iov, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut fds = [const { None }; N];
    let mut slots = fds.iter_mut();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            for fd in received {
                if let Some(slot) = slots.next() {
                    *slot = Some(fd);
                }
            }
        }
    }
    Ok((message.bytes, fds))
}
