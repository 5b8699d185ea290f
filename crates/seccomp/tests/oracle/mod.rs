//! libseccomp as an oracle, and runc's rules around it written down once more.
//!
//! Contract: [`Oracle::start`] compiles and starts the helper `libseccomp.c`, or says
//! why it cannot. [`Oracle::filter`] gives the filter that libseccomp makes of a
//! profile in the way runc asks it to. [`decide`] is what runc's whole filter answers:
//! its `ENOSYS` prefix, here as plain conditions, and then libseccomp's filter.

pub mod model;

use carrack_seccomp::{Arch, Instruction, Program, SeccompData, simulate, syscall_number};
use carrack_spec::runtime::{Seccomp, SeccompArg};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A running helper.
pub struct Oracle {
    program: String,
    helper: Helper,
}

struct Helper {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.program);
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // End of input ends the helper.
        self.input.take();
        let _ = self.child.wait();
    }
}

impl Helper {
    fn start(program: &str) -> Result<Helper, String> {
        let mut child = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("cannot run {program}: {e}"))?;
        let output = child.stdout.take().map(BufReader::new);
        Ok(Helper {
            input: child.stdin.take(),
            output: output.ok_or("no output")?,
            child,
        })
    }

    /// `None` when the helper died of the question.
    fn ask(&mut self, question: &str) -> Option<String> {
        let input = self.input.as_mut()?;
        input.write_all(question.as_bytes()).ok()?;
        input.flush().ok()?;
        let mut answer = String::new();
        self.output.read_line(&mut answer).ok()?;
        answer.strip_suffix('\n').map(str::to_owned)
    }
}

/// Why libseccomp gives no filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It returns an errno.
    Errno(i32),
    /// It crashes or loops.
    Dies,
}

/// libseccomp's tokens for architectures are the kernel's, but for x32.
fn token(arch: Arch) -> u32 {
    match arch {
        Arch::X32 => 0x4000_003e,
        _ => arch.audit(),
    }
}

impl Oracle {
    /// Starts the helper. `Err` tells why it is not to be had on this machine.
    pub fn start(test: &str) -> Result<Oracle, String> {
        let directory = env!("CARGO_TARGET_TMPDIR");
        let program = format!("{directory}/libseccomp-{test}-{}", std::process::id());
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/libseccomp.c");
        let built = Command::new("cc")
            .args(["-O1", "-o", &program, source, "-lseccomp"])
            .output()
            .map_err(|e| format!("cannot run cc: {e}"))?;
        if !built.status.success() {
            return Err(format!(
                "cannot build against libseccomp (is libseccomp-dev there?): {}",
                String::from_utf8_lossy(&built.stderr)
            ));
        }
        Ok(Oracle {
            helper: Helper::start(&program)?,
            program,
        })
    }

    /// The number of a call; pseudo numbers of libseccomp are negative.
    pub fn number(&mut self, arch: Arch, name: &str) -> i32 {
        let answer = self.helper.ask(&format!("number {} {name}\n", token(arch)));
        answer.expect("an answer").parse().expect("a number")
    }

    /// Whether libseccomp has a name at the same numbers on these architectures.
    pub fn agrees(&mut self, archs: &[Arch], name: &str) -> bool {
        archs.iter().all(|&arch| {
            let theirs = self.number(arch, name);
            match syscall_number(arch, name) {
                Some(ours) => theirs as u32 == ours || (-224..=-101).contains(&theirs),
                None => theirs < -1,
            }
        })
    }

    /// The filter of a profile.
    pub fn filter(&mut self, profile: &Seccomp, native: Arch) -> Result<Program, Refusal> {
        let default = value(&profile.default_action, profile.default_errno_ret);
        let rules: usize = profile.syscalls.iter().map(|rule| rule.names.len()).sum();
        let optimize = if rules > 32 { 2 } else { 1 };
        let mut text = format!("new {default} {optimize}\n");
        if native != Arch::X86_64 {
            let _ = writeln!(text, "only {}", token(native));
        }
        for name in &profile.architectures {
            let arch = Arch::from_name(name).expect("a known architecture");
            let _ = writeln!(text, "arch {}", token(arch));
        }
        for rule in &profile.syscalls {
            let action = value(&rule.action, rule.errno_ret);
            if action == default {
                continue;
            }
            let split = (0..6).any(|i| rule.args.iter().filter(|a| a.index == i).count() > 1);
            let all: Vec<&[SeccompArg]> = if split {
                rule.args.chunks(1).collect()
            } else {
                vec![&rule.args]
            };
            for name in &rule.names {
                for args in &all {
                    let _ = write!(text, "rule {action} {name} {}", args.len());
                    for a in *args {
                        let op = operator(&a.op);
                        let _ = write!(text, " {} {op} {} {}", a.index, a.value, a.value_two);
                    }
                    text.push('\n');
                }
            }
        }
        text.push_str("end\n");
        let Some(answer) = self.helper.ask(&text) else {
            self.helper = Helper::start(&self.program).expect("it ran before");
            return Err(Refusal::Dies);
        };
        match answer.split_once(' ') {
            Some(("ok", hex)) => Ok(Program {
                instructions: hex.as_bytes().chunks(16).map(instruction).collect(),
                flags: 0,
                listener: false,
            }),
            Some(("error", errno)) => Err(Refusal::Errno(errno.parse().expect("an errno"))),
            _ => panic!("unexpected answer {answer}"),
        }
    }
}

fn instruction(hex: &[u8]) -> Instruction {
    let hex = std::str::from_utf8(hex).expect("hex");
    let n = u64::from_str_radix(hex, 16).expect("hex").to_be_bytes();
    Instruction {
        code: u16::from_ne_bytes([n[0], n[1]]),
        jt: n[2],
        jf: n[3],
        k: u32::from_ne_bytes([n[4], n[5], n[6], n[7]]),
    }
}

fn value(action: &str, errno: Option<u32>) -> u32 {
    let errno = errno.unwrap_or(1);
    match action {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => 0,
        "SCMP_ACT_KILL_PROCESS" => 0x8000_0000,
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_ERRNO" => 0x0005_0000 | errno,
        "SCMP_ACT_TRACE" => 0x7ff0_0000 | errno,
        "SCMP_ACT_ALLOW" => 0x7fff_0000,
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_NOTIFY" => 0x7fc0_0000,
        other => panic!("{other}"),
    }
}

fn operator(name: &str) -> u32 {
    match name {
        "SCMP_CMP_NE" => 1,
        "SCMP_CMP_LT" => 2,
        "SCMP_CMP_LE" => 3,
        "SCMP_CMP_EQ" => 4,
        "SCMP_CMP_GE" => 5,
        "SCMP_CMP_GT" => 6,
        "SCMP_CMP_MASKED_EQ" => 7,
        other => panic!("{other}"),
    }
}

/// Whether a filter compares another word than it means to.
///
/// libseccomp (2.5 and 2.6) leaves out loads that it thinks redundant in two cases.
/// When conditions on 32-bit ABIs nest, it goes on after a failed inner condition with
/// the outer argument while the accumulator still holds the inner one: then the word
/// depends on the way to the comparison. And when x86_64 and x32 share a filter whose
/// first rule is for a call that neither has, it never loads the number and compares
/// the architecture instead. Such filters decide by accident and are no measure.
pub fn compares_stale_word(filter: &Program) -> bool {
    #[derive(Clone, Copy, PartialEq)]
    enum Held {
        Nothing,
        Word(u32, u32),
        Several,
    }
    let count = filter.instructions.len();
    let mut held = vec![Held::Nothing; count + 1];
    for (at, i) in filter.instructions.iter().enumerate() {
        let here = held[at];
        let (there, to): (Held, Vec<usize>) = match i.code {
            0x20 => (Held::Word(i.k, u32::MAX), vec![at + 1]),
            0x54 => match here {
                Held::Word(offset, mask) => (Held::Word(offset, mask & i.k), vec![at + 1]),
                other => (other, vec![at + 1]),
            },
            0x05 => (here, vec![at + 1 + i.k as usize]),
            0x06 => (here, vec![]),
            _ if here == Held::Several => return true,
            _ if here == Held::Word(4, u32::MAX)
                && Arch::ALL.iter().all(|arch| arch.audit() != i.k) =>
            {
                return true;
            }
            _ => (
                here,
                vec![at + 1 + usize::from(i.jt), at + 1 + usize::from(i.jf)],
            ),
        };
        for to in to {
            held[to] = match held[to] {
                Held::Nothing => there,
                same if same == there => same,
                _ => Held::Several,
            };
        }
    }
    false
}

/// Calls that are multiplexed on x86.
const MULTIPLEXED: [&str; 32] = [
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
    "semop",
    "semget",
    "semctl",
    "semtimedop",
    "msgsnd",
    "msgrcv",
    "msgget",
    "msgctl",
    "shmat",
    "shmdt",
    "shmget",
    "shmctl",
];

/// What runc's prefix needs to know of a profile.
pub struct Prefix {
    /// Largest numbers, for x32 and for the others by the kernel's architecture.
    last: Vec<(Arch, u32)>,
}

impl Prefix {
    pub fn new(profile: &Seccomp, native: Arch) -> Prefix {
        let default = value(&profile.default_action, None) & 0xffff_0000;
        if [0x7fff_0000, 0x7ffc_0000, 0x7ff0_0000].contains(&default) {
            return Prefix { last: Vec::new() };
        }
        let named = profile.architectures.iter();
        let mut archs: Vec<Arch> = named.filter_map(|name| Arch::from_name(name)).collect();
        archs.push(native);
        let last = |arch| {
            let names = profile.syscalls.iter().flat_map(|rule| &rule.names);
            let numbers = names
                .filter(|n| arch != Arch::X86 || !MULTIPLEXED.contains(&n.as_str()))
                .filter_map(|name| syscall_number(arch, name));
            numbers.max().filter(|&n| n != 0).map(|n| (arch, n))
        };
        Prefix {
            last: archs.into_iter().filter_map(last).collect(),
        }
    }

    fn applies(&self, data: &SeccompData) -> bool {
        let x32 = data.arch == Arch::X86_64.audit() && data.nr & 0x4000_0000 != 0;
        self.last.iter().any(|&(arch, last)| {
            arch.audit() == data.arch && (arch == Arch::X32) == x32 && data.nr > last
        })
    }
}

/// What runc's filter answers.
pub fn decide(prefix: &Prefix, filter: &Program, data: &SeccompData) -> u32 {
    if prefix.applies(data) {
        0x0005_0026
    } else {
        simulate(filter, data)
    }
}
