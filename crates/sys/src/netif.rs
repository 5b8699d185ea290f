//! The few network interface operations that a runtime needs, by ioctl and
//! rtnetlink. [`loopback_up`] may run between clone and exec.

use crate::late::Late;
use crate::{Errno, Result, check};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Brings the loopback interface of the caller's network namespace up. For the child of a clone
/// only: its socket is [`Late`].
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN` over the namespace.
pub fn loopback_up() -> Result<()> {
    let socket = Late::from(rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?);
    // SAFETY: an all-zero ifreq is a valid value of this plain C structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which lives across the call.
    check(
        unsafe {
            libc::ioctl(
                socket.as_fd().as_raw_fd(),
                libc::SIOCSIFFLAGS,
                &raw const request,
            )
        }
        .into(),
    )
    .map(drop)
}

/// Index of the interface `name` in the caller's network namespace.
///
/// # Errors
/// `ENODEV` when there is none.
pub fn index(name: &std::ffi::CStr) -> Result<u32> {
    // SAFETY: a C string that lives across the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(crate::last()),
        index => Ok(index),
    }
}

/// A request under construction: `nlmsghdr`, a fixed header, attributes.
pub struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// Starts a request of message type `kind` with `flags` and the family's fixed header.
    pub fn new(kind: u16, flags: u16, header: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&1u32.to_ne_bytes());
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(header);
        Self { bytes }
    }

    /// Adds an attribute, padded to four bytes.
    #[must_use]
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = (4 + value.len()) as u16;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    fn finish(mut self) -> Vec<u8> {
        let length = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes
    }
}

/// A routing netlink socket in the network namespace the caller was in when it was opened.
#[derive(Debug)]
pub struct Route {
    socket: std::os::fd::OwnedFd,
}

impl Route {
    /// Opens the socket.
    ///
    /// # Errors
    /// Those of socket(2).
    pub fn open() -> Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok(Self { socket })
    }

    /// The socket.
    pub fn socket(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.socket)
    }

    /// Sends a request with `NLM_F_ACK` and waits for the kernel's answer. Messages
    /// before the acknowledgement (an answer or the parts of a dump) go to `each`
    /// as type and body.
    ///
    /// # Errors
    /// The kernel's answer, or those of the socket; `EBADMSG` for a malformed answer.
    pub fn call(&self, request: Request, mut each: impl FnMut(u16, &[u8])) -> Result<()> {
        const NLMSG_ERROR: u16 = 2;
        const NLMSG_DONE: u16 = 3;
        let bytes = request.finish();
        rustix::net::send(&self.socket, &bytes, rustix::net::SendFlags::empty())?;
        let mut buffer = vec![0u8; 32 * 1024];
        loop {
            let (_, length) = rustix::net::recv(
                &self.socket,
                &mut buffer[..],
                rustix::net::RecvFlags::empty(),
            )?;
            let mut rest = &buffer[..length.min(buffer.len())];
            while rest.len() >= 16 {
                let size = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
                let kind = u16::from_ne_bytes([rest[4], rest[5]]);
                if size < 16 || size > rest.len() {
                    return Err(Errno::BADMSG);
                }
                let body = &rest[16..size];
                match kind {
                    NLMSG_ERROR if body.len() >= 4 => {
                        let code = i32::from_ne_bytes([body[0], body[1], body[2], body[3]]);
                        return match code {
                            0 => Ok(()),
                            code => Err(Errno::from_raw_os_error(code.wrapping_neg())),
                        };
                    }
                    NLMSG_DONE => return Ok(()),
                    kind => each(kind, body),
                }
                rest = &rest[size.next_multiple_of(4).min(rest.len())..];
            }
        }
    }
}
