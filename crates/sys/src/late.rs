//! Descriptors that need no close(2) of their own: [`Late`] and [`Batch`].
//!
//! A child that opens a file for one step would close some thirty of them, one by
//! one, only to close everything once more before it goes on (see
//! [`crate::exec::close_others`]). What is [`Late`] stays open until then, or
//! until the exec: every descriptor of ours is close-on-exec. At most [`LATE_MAX`]
//! of a process stay open, so that neither a low limit of open files is reached
//! nor the kernel's first table of 64 descriptors grows.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

/// How many descriptors of a process stay open; later ones are closed when they are dropped.
pub const LATE_MAX: u32 = 36;

/// How many were left open so far. The child of a clone goes on from its parent's count.
static LEFT: AtomicU32 = AtomicU32::new(0);

/// A descriptor that the end of its process' preparation closes. May be used between clone and
/// exec, and only there: in a process that lives on it would stay open.
#[derive(Debug)]
pub struct Late(ManuallyDrop<OwnedFd>);

impl From<OwnedFd> for Late {
    fn from(fd: OwnedFd) -> Self {
        Self(ManuallyDrop::new(fd))
    }
}

impl AsFd for Late {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Late {
    fn drop(&mut self) {
        if LEFT.fetch_add(1, Ordering::Relaxed) >= LATE_MAX {
            // SAFETY: `drop` runs once, and nothing uses the value after it.
            unsafe { ManuallyDrop::drop(&mut self.0) };
        }
    }
}

/// Descriptors that are closed together: one close_range(2) for each run of consecutive numbers.
#[derive(Debug, Default)]
pub struct Batch(Vec<OwnedFd>);

impl Batch {
    /// Adds a descriptor.
    pub fn push(&mut self, fd: OwnedFd) {
        self.0.push(fd);
    }

    /// The descriptors, in the order they came in.
    pub fn as_slice(&self) -> &[OwnedFd] {
        &self.0
    }

    /// The same, one after the other.
    pub fn iter(&self) -> std::slice::Iter<'_, OwnedFd> {
        self.0.iter()
    }
}

impl From<Vec<OwnedFd>> for Batch {
    fn from(fds: Vec<OwnedFd>) -> Self {
        Self(fds)
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.0.sort_unstable_by_key(AsRawFd::as_raw_fd);
        let mut fds = std::mem::take(&mut self.0).into_iter().peekable();
        while let Some(first) = fds.next() {
            let first = first.into_raw_fd();
            let mut last = first;
            while let Some(next) = fds.next_if(|fd| fd.as_raw_fd() == last + 1) {
                last = next.into_raw_fd();
            }
            // SAFETY: each number from `first` to `last` is that of a descriptor which this value
            // owned and just gave up, so nothing else is closed.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::{Errno, fcntl_getfd};

    #[test]
    fn a_batch_closes_its_own_and_nothing_else() {
        let file = || rustix::fs::open("/dev/null", rustix::fs::OFlags::RDONLY, 0.into()).unwrap();
        let (a, kept, b, c) = (file(), file(), file(), file());
        let numbers = [&a, &b, &c].map(AsRawFd::as_raw_fd);
        let mut batch = Batch::from(vec![c, a]);
        batch.push(b);
        assert_eq!(batch.iter().count(), 3);
        drop(batch);
        assert!(fcntl_getfd(&kept).is_ok());
        // Another test's thread may have taken a number again; not all of them at once.
        let closed = |number: &i32| {
            // SAFETY: the number is only asked about.
            let fd = unsafe { BorrowedFd::borrow_raw(*number) };
            fcntl_getfd(fd) == Err(Errno::BADF)
        };
        assert!(numbers.iter().any(closed));
    }
}
