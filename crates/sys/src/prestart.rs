//! The program runs itself again from a read-only mount before the C library starts.
//!
//! `carrack_container::shield` is the rule and the authority; this is the same
//! step taken earlier. Starting glibc costs half a millisecond where CPUID traps
//! (in most virtual machines), and a program that runs itself again would pay it
//! twice. So the program's entry point is [`carrack_entry`](self): it looks at
//! the raw arguments, and for a command that enters a container makes the
//! detached read-only mount and executes it. Whatever fails here is left to
//! `shield`, which also has the other way and the error messages.
//!
//! ```text
//! kernel ─▶ carrack_entry ─▶ early ──(works)──▶ execveat ─▶ carrack_entry ─▶ _start
//!                              └──(not needed, or fails)──▶ _start ─▶ main ─▶ shield
//! ```
//!
//! Where the file is out of reach already, [`is_out_of_reach`] remembers it, so that `shield` need
//! not look again.
//!
//! Contract of everything below: no C library, no thread-local storage, no
//! relocated data (a position-independent program has not relocated itself yet),
//! no function that the compiler could turn into `memcmp` or `strlen`. Only
//! system calls by hand, on x86_64.
//!
//! A program uses it by naming the entry to its linker: `-Wl,-e,carrack_entry`,
//! in optimised builds only: without optimisation the checks that the compiler
//! puts into pointer reads use relocated data.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicBool, Ordering};

global_asm!(
    ".globl carrack_entry",
    ".type carrack_entry, @function",
    "carrack_entry:",
    // The kernel enters with argc at the top of a 16-byte aligned stack, and rdx for _start.
    "xor ebp, ebp",
    "mov rdi, rsp",
    "push rdx",
    "push rdx",
    "call {early}",
    "pop rdx",
    "pop rdx",
    "jmp _start",
    ".size carrack_entry, . - carrack_entry",
    early = sym early,
);

const SYS_CLOSE: usize = 3;
const SYS_STATFS: usize = 137;
const SYS_EXECVEAT: usize = 322;
const SYS_OPEN_TREE: usize = 428;
const SYS_MOUNT_SETATTR: usize = 442;
const SYS_OPEN_TREE_ATTR: usize = 467;
const O_CLOEXEC: usize = 0o2_000_000;
const AT_FDCWD: usize = -100isize as usize;
const AT_EMPTY_PATH: usize = 0x1000;
const OPEN_TREE_CLONE: usize = 1;
const ST_RDONLY: u64 = 1;
/// `MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV`.
const ATTRIBUTES: u64 = 1 | 4;

/// Set when the program's file is on a read-only mount.
static OUT_OF_REACH: AtomicBool = AtomicBool::new(false);

/// Whether the early step found the program's file on a read-only mount. False when it was not
/// taken, or did not look.
pub fn is_out_of_reach() -> bool {
    OUT_OF_REACH.load(Ordering::Relaxed)
}

/// A system call with up to five arguments.
#[inline(always)]
fn call(number: usize, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
    let result: isize;
    // SAFETY: the callers below pass descriptors, numbers and pointers to memory that lives across
    // the call and is as large as the kernel expects; the kernel clobbers rcx and r11 only.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            in("r8") e,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// Whether the C string at `text` is a word that makes a command enter a
/// container. One that stands elsewhere among the arguments costs a needless
/// step, nothing else.
#[inline(always)]
fn is_word(text: *const u8) -> bool {
    // Each literal by itself: a table of them would need relocated pointers.
    same(text, b"run\0")
        || same(text, b"create\0")
        || same(text, b"exec\0")
        || same(text, b"restore\0")
        || same(text, b"monitor\0")
}

/// Whether the C string at `text` is `word`, which ends in a zero byte.
#[inline(always)]
fn same<const N: usize>(text: *const u8, word: &[u8; N]) -> bool {
    let mut index = 0;
    while index < N {
        // SAFETY: `text` is an argument from the kernel, ended by a zero byte; no byte past that one
        // is read, because `word` ends in its only zero byte and the first difference ends the loop.
        let byte = unsafe { text.add(index).read_volatile() };
        if byte != word[index] {
            return false;
        }
        index += 1;
    }
    true
}

/// Looks at the arguments and, when the command enters a container, executes
/// the program again from a read-only mount. Returns when there is nothing to do,
/// or when it cannot be done here.
///
/// `stack` is what the kernel left: argc, argv, null, envp, null.
extern "C" fn early(stack: *const usize) {
    // SAFETY: the kernel puts argc at the top of the initial stack.
    let count = unsafe { stack.read() };
    // SAFETY: argv follows argc.
    let argv = unsafe { stack.add(1) };
    // SAFETY: envp follows argv's `count` pointers and their null.
    let envp = unsafe { argv.add(count + 1) };
    let mut index = 1;
    let mut enters = false;
    while index < count && !enters {
        // SAFETY: `index` is below argc, so this is one of argv's pointers.
        let argument = unsafe { argv.add(index).read_volatile() };
        enters = is_word(argument as *const u8);
        index += 1;
    }
    if enters {
        run_again(argv as usize, envp as usize);
    }
}

/// Executes the program from a detached read-only mount of its file; see `shield` for the reasons.
fn run_again(argv: usize, envp: usize) {
    // A magic link: every call below that follows it finds the very file that runs.
    let path = c"/proc/self/exe".as_ptr() as usize;
    let empty = c"".as_ptr() as usize;
    let mut statfs = [0u64; 16];
    if call(SYS_STATFS, path, statfs.as_mut_ptr() as usize, 0, 0, 0) != 0 {
        return;
    }
    // `f_flags` is the eleventh word of the structure.
    if statfs[10] & ST_RDONLY != 0 {
        OUT_OF_REACH.store(true, Ordering::Relaxed);
        return;
    }
    // Whether this user could write the file is not asked: without the right to mount, the next
    // step fails, and `shield` asks.
    let attr = [ATTRIBUTES, 0, 0, 0];
    let (attr_at, attr_size) = (attr.as_ptr() as usize, size_of_val(&attr));
    let flags = OPEN_TREE_CLONE | O_CLOEXEC;
    let once = call(
        SYS_OPEN_TREE_ATTR,
        AT_FDCWD,
        path,
        flags,
        attr_at,
        attr_size,
    );
    if once >= 0 {
        call(
            SYS_EXECVEAT,
            once as usize,
            empty,
            argv,
            envp,
            AT_EMPTY_PATH,
        );
        call(SYS_CLOSE, once as usize, 0, 0, 0, 0);
        return;
    }
    // Before Linux 6.15.
    let tree = call(SYS_OPEN_TREE, AT_FDCWD, path, flags, 0, 0);
    if tree < 0 {
        return;
    }
    let tree = tree as usize;
    let set = call(
        SYS_MOUNT_SETATTR,
        tree,
        empty,
        AT_EMPTY_PATH,
        attr_at,
        attr_size,
    );
    if set == 0 {
        call(SYS_EXECVEAT, tree, empty, argv, envp, AT_EMPTY_PATH);
    }
    call(SYS_CLOSE, tree, 0, 0, 0, 0);
}
