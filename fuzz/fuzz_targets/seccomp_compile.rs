//! Profiles as they stand in a `config.json`: a compiled filter is always one the kernel
//! would take, it ends for every call, and its stored form reads back the same.
#![no_main]

use carrack_seccomp::{Arch, Program, SeccompData, compile, simulate};
use carrack_spec::runtime::Seccomp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(profile) = serde_json::from_slice::<Seccomp>(bytes) else {
        return;
    };
    let Ok(program) = compile(&profile, Arch::X86_64) else {
        return;
    };
    program
        .check()
        .expect("the compiler's own programs pass its check");
    for nr in [0, 1, 59, 435, 0x4000_0000, u32::MAX] {
        let data = SeccompData {
            nr,
            arch: Arch::X86_64.audit(),
            instruction_pointer: 0,
            args: [u64::MAX, 0, 1, 2, 1 << 32, 40],
        };
        simulate(&program, &data);
    }
    assert_eq!(Program::from_bytes(&program.to_bytes()).ok(), Some(program));
});
