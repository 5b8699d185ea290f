//! Names of system calls to numbers.
//!
//! Contract: [`lookup`] finds a name's index, [`number`] the number an
//! architecture has for it. Both are pure, never allocate and never fail; an
//! unknown name or a call that the architecture lacks is `None`.
//!
//! Layout: `rows.rs` is the table that people edit. At compile time it becomes one
//! text, one array of offsets and one array of numbers, so that the program
//! carries no pointer to relocate at its start. Look-up is a binary search, and
//! [`Finder`] first tries the name after the one found last, because profiles
//! list their names in order.

mod rows;

use crate::arch::Arch;
use rows::ROWS;

/// Columns of the table.
const COLUMNS: usize = 14;
/// Marks a call that an architecture does not have.
const ABSENT: u16 = u16::MAX;
/// Marks one of ARM's private calls.
const ARM_PRIVATE: u16 = 0x8000;
/// Where ARM's private calls start.
const ARM_PRIVATE_BASE: u32 = 0x000f_0000;

/// A column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Column {
    X86,
    X86_64,
    X32,
    Arm,
    Aarch64,
    Riscv64,
    Loongarch64,
    Mips,
    Mips64,
    Mips64N32,
    Ppc,
    Ppc64,
    S390,
    S390x,
}

/// A call that carries many: argument 0 says which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Multiplexer {
    /// `socketcall`, sub-calls of `linux/net.h`.
    Socket,
    /// `ipc`, sub-calls of `linux/ipc.h`.
    Ipc,
}

/// Sub-calls of `socketcall`, from 1 on.
const SOCKET_CALLS: [&str; 20] = [
    "socket",
    "bind",
    "connect",
    "listen",
    "accept",
    "getsockname",
    "getpeername",
    "socketpair",
    "send",
    "recv",
    "sendto",
    "recvfrom",
    "shutdown",
    "setsockopt",
    "getsockopt",
    "sendmsg",
    "recvmsg",
    "accept4",
    "recvmmsg",
    "sendmmsg",
];

/// Sub-calls of `ipc`.
const IPC_CALLS: [(&str, u8); 12] = [
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];

/// Tells sub-calls of `ipc` from those of `socketcall` in [`SUB_CALLS`].
const IPC: u8 = 0x80;

/// How many names there are.
pub(crate) const NAMES: usize = ROWS.len();
const TEXT_BYTES: usize = text_bytes();

static TEXT: [u8; TEXT_BYTES] = text();
static START: [u16; NAMES + 1] = start();
static NUMBERS: [[u16; COLUMNS]; NAMES] = numbers();
static SUB_CALLS: [u8; NAMES] = sub_calls();
const SOCKETCALL: usize = index_of("socketcall");
const IPC_CALL: usize = index_of("ipc");

const _: () = assert!(sorted(), "rows must be sorted by name");

const fn text_bytes() -> usize {
    let (mut bytes, mut i) = (0, 0);
    while i < NAMES {
        bytes += ROWS[i].0.len();
        i += 1;
    }
    bytes
}

const fn text() -> [u8; TEXT_BYTES] {
    let mut text = [0; TEXT_BYTES];
    let (mut at, mut i) = (0, 0);
    while i < NAMES {
        let name = ROWS[i].0.as_bytes();
        let mut j = 0;
        while j < name.len() {
            text[at] = name[j];
            at += 1;
            j += 1;
        }
        i += 1;
    }
    text
}

const fn start() -> [u16; NAMES + 1] {
    let mut start = [0; NAMES + 1];
    let mut i = 0;
    while i < NAMES {
        start[i + 1] = start[i] + ROWS[i].0.len() as u16;
        i += 1;
    }
    start
}

const fn numbers() -> [[u16; COLUMNS]; NAMES] {
    let mut numbers = [[ABSENT; COLUMNS]; NAMES];
    let mut i = 0;
    while i < NAMES {
        numbers[i] = ROWS[i].1;
        i += 1;
    }
    numbers
}

const fn sub_calls() -> [u8; NAMES] {
    let mut sub_calls = [0; NAMES];
    let mut i = 0;
    while i < SOCKET_CALLS.len() {
        sub_calls[index_of(SOCKET_CALLS[i])] = i as u8 + 1;
        i += 1;
    }
    i = 0;
    while i < IPC_CALLS.len() {
        sub_calls[index_of(IPC_CALLS[i].0)] = IPC | IPC_CALLS[i].1;
        i += 1;
    }
    sub_calls
}

/// The index of a name, at compile time; a missing name stops the build.
const fn index_of(name: &str) -> usize {
    let name = name.as_bytes();
    let mut i = 0;
    loop {
        let row = ROWS[i].0.as_bytes();
        let mut j = 0;
        while j < row.len() && j < name.len() && row[j] == name[j] {
            j += 1;
        }
        if j == row.len() && j == name.len() {
            return i;
        }
        i += 1;
    }
}

const fn sorted() -> bool {
    let mut i = 1;
    while i < NAMES {
        let (a, b) = (ROWS[i - 1].0.as_bytes(), ROWS[i].0.as_bytes());
        let mut j = 0;
        while j < a.len() && j < b.len() && a[j] == b[j] {
            j += 1;
        }
        if j == b.len() || (j < a.len() && a[j] >= b[j]) {
            return false;
        }
        i += 1;
    }
    true
}

fn name_at(index: usize) -> &'static [u8] {
    match (START.get(index), START.get(index + 1)) {
        (Some(&from), Some(&to)) => TEXT.get(from as usize..to as usize).unwrap_or_default(),
        _ => &[],
    }
}

/// The index of a name in the table.
pub(crate) fn lookup(name: &str) -> Option<usize> {
    let name = name.as_bytes();
    let (mut low, mut high) = (0, NAMES);
    while low < high {
        let middle = low.midpoint(high);
        match name_at(middle).cmp(name) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Equal => return Some(middle),
            std::cmp::Ordering::Greater => high = middle,
        }
    }
    None
}

/// A look-up that remembers where it was.
#[derive(Debug, Default)]
pub(crate) struct Finder {
    next: usize,
}

impl Finder {
    /// As [`lookup`], fast when names come in order.
    pub(crate) fn lookup(&mut self, name: &str) -> Option<usize> {
        let index = if name_at(self.next) == name.as_bytes() {
            self.next
        } else {
            lookup(name)?
        };
        self.next = index + 1;
        Some(index)
    }
}

/// The number of the call at `index` on an architecture, as it stands in the
/// register (with the base of the ABI).
pub(crate) fn number(index: usize, arch: Arch) -> Option<u32> {
    let raw = *NUMBERS.get(index)?.get(arch.column() as usize)?;
    if raw == ABSENT {
        None
    } else if raw & ARM_PRIVATE != 0 {
        Some(ARM_PRIVATE_BASE + u32::from(raw & !ARM_PRIVATE))
    } else {
        Some(arch.base() + u32::from(raw))
    }
}

/// The multiplexer that also carries the call at `index`, and its number there.
pub(crate) fn sub_call(index: usize) -> Option<(Multiplexer, u8)> {
    match *SUB_CALLS.get(index)? {
        0 => None,
        sub_call if sub_call & IPC != 0 => Some((Multiplexer::Ipc, sub_call & !IPC)),
        sub_call => Some((Multiplexer::Socket, sub_call)),
    }
}

/// The number of a multiplexer.
pub(crate) fn multiplexer(multiplexer: Multiplexer, arch: Arch) -> Option<u32> {
    let index = match multiplexer {
        Multiplexer::Socket => SOCKETCALL,
        Multiplexer::Ipc => IPC_CALL,
    };
    number(index, arch)
}

/// The name of a system call number on an architecture, for people to read.
pub fn name(arch: Arch, number: u32) -> Option<&'static str> {
    let index = (0..NAMES).find(|&i| self::number(i, arch) == Some(number))?;
    std::str::from_utf8(name_at(index)).ok()
}

/// The number of a named system call on an architecture.
///
/// `None` when the name is unknown or the architecture has no such call.
pub fn number_of(arch: Arch, name: &str) -> Option<u32> {
    number(lookup(name)?, arch)
}

/// Every name that the table knows, in order.
pub fn names() -> impl Iterator<Item = &'static str> {
    (0..NAMES).filter_map(|i| std::str::from_utf8(name_at(i)).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_by_its_name() {
        let mut finder = Finder::default();
        for (i, (name, _)) in ROWS.iter().enumerate() {
            assert_eq!(lookup(name), Some(i), "{name}");
            assert_eq!(finder.lookup(name), Some(i), "{name}");
        }
        for absent in ["", "a", "open_", "zzz", "read\0", "reaD"] {
            assert_eq!(lookup(absent), None, "{absent:?}");
        }
    }

    #[test]
    fn no_architecture_gives_one_number_to_two_names() {
        for arch in Arch::ALL {
            let mut seen = std::collections::BTreeMap::new();
            for (i, (name, _)) in ROWS.iter().enumerate() {
                if let Some(n) = number(i, arch) {
                    assert_eq!(seen.insert(n, name), None, "{arch:?} {n} {name}");
                }
            }
        }
    }

    #[test]
    fn well_known_numbers_stand_where_the_kernel_has_them() {
        for (arch, name, number) in [
            (Arch::X86_64, "read", 0),
            (Arch::X86_64, "seccomp", 317),
            (Arch::X86_64, "file_setattr", 469),
            (Arch::X86, "socketcall", 102),
            (Arch::X32, "ioctl", 0x4000_0000 + 514),
            (Arch::X32, "file_setattr", 0x4000_0000 + 469),
            (Arch::Aarch64, "openat", 56),
            (Arch::Riscv64, "riscv_flush_icache", 259),
            (Arch::Arm, "set_tls", 0x000f_0005),
            (Arch::Arm, "open_tree_attr", 467),
            (Arch::Mips64, "read", 5000),
            (Arch::S390x, "s390_pci_mmio_read", 353),
        ] {
            assert_eq!(number_of(arch, name), Some(number), "{arch:?} {name}");
            assert_eq!(self::name(arch, number), Some(name));
        }
        assert_eq!(number_of(Arch::X86_64, "socketcall"), None);
    }

    /// The C library's crate was made from the same headers by other people.
    #[test]
    fn numbers_agree_with_the_libc_crate() {
        macro_rules! agree {
            ($($constant:ident = $name:literal),* $(,)?) => {
                [$(($name, libc::$constant as u32)),*]
            };
        }
        let facts = agree![
            SYS_read = "read",
            SYS_openat2 = "openat2",
            SYS_clone3 = "clone3",
            SYS_statx = "statx",
            SYS_io_uring_setup = "io_uring_setup",
            SYS_pidfd_open = "pidfd_open",
            SYS_mount_setattr = "mount_setattr",
            SYS_landlock_restrict_self = "landlock_restrict_self",
            SYS_futex_waitv = "futex_waitv",
            SYS_fchmodat2 = "fchmodat2",
            SYS_mseal = "mseal",
        ];
        for (name, number) in facts {
            assert_eq!(number_of(Arch::native(), name), Some(number), "{name}");
        }
    }
}
