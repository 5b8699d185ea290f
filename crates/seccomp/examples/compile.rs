//! Compiles a seccomp profile and prints what came out.
//!
//! ```text
//! cargo run -p carrack-seccomp --example compile -- PROFILE.json [SCMP_ARCH_X86_64]
//! ```
//!
//! The file holds the `linux.seccomp` object of a `config.json`, or a whole
//! `config.json`. The second word is the native architecture to compile for. Prints the
//! instructions, how many there are, how long compiling took, and the names that no
//! architecture has. Anything wrong is told on standard error with exit status 1.

use carrack_seccomp::{Arch, Instruction, compile, ignored_names, syscall_name};
use carrack_spec::runtime::Seccomp;
use std::process::ExitCode;
use std::time::Instant;

/// Runs that the shortest time is taken of.
const RUNS: u32 = 200;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compile: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: compile PROFILE.json [ARCH]")?;
    let native = match args.next() {
        Some(name) => Arch::from_name(&name).ok_or("unknown architecture")?,
        None => Arch::native(),
    };
    let document: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    let profile = document.pointer("/linux/seccomp").unwrap_or(&document);
    let profile: Seccomp = serde_json::from_value(profile.clone())?;
    let program = compile(&profile, native)?;
    let mut arch = native;
    for (at, instruction) in program.instructions.iter().enumerate() {
        if let (0x15, Some(next)) = (instruction.code, of_audit(instruction.k)) {
            arch = next;
        }
        println!("{at:4}  {}", disassemble(at, instruction, arch));
    }
    let best = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            let result = std::hint::black_box(compile(std::hint::black_box(&profile), native));
            let time = start.elapsed();
            drop(result);
            time
        })
        .min()
        .unwrap_or_default();
    println!(
        "{} instructions, flags {:#x}, listener {}, compiled in {best:?} (best of {RUNS})",
        program.instructions.len(),
        program.flags,
        program.listener,
    );
    let ignored = ignored_names(&profile);
    if !ignored.is_empty() {
        println!(
            "ignored, as no architecture has them: {}",
            ignored.join(" ")
        );
    }
    Ok(())
}

fn of_audit(audit: u32) -> Option<Arch> {
    Arch::ALL.into_iter().find(|arch| arch.audit() == audit)
}

fn disassemble(at: usize, i: &Instruction, arch: Arch) -> String {
    let target = |skip: u32| at + 1 + skip as usize;
    let jump = |name: &str| {
        let (yes, no) = (target(i.jt.into()), target(i.jf.into()));
        format!("{name} {:#x} -> {yes}, else {no}", i.k)
    };
    match i.code {
        0x20 => match i.k {
            0 => "load nr".into(),
            4 => "load arch".into(),
            k => format!("load args[{}]+{}", k.saturating_sub(16) / 8, k % 8),
        },
        0x54 => format!("and {:#x}", i.k),
        0x05 => format!("jump {}", target(i.k)),
        0x15 => match syscall_name(arch, i.k) {
            Some(name) => format!("{}  ({name}?)", jump("if ==")),
            None => jump("if =="),
        },
        0x25 => jump("if >"),
        0x35 => jump("if >="),
        0x45 => jump("if &"),
        0x06 => format!("return {:#010x}", i.k),
        code => format!("? {code:#x} {} {} {:#x}", i.jt, i.jf, i.k),
    }
}
