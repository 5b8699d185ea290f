//! Compiled filters on disk: any bytes give a program that passes the check or an error.
#![no_main]

use carrack_seccomp::Program;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(program) = Program::from_bytes(bytes) {
        program.check().expect("what was read was checked");
        assert_eq!(program.to_bytes(), bytes);
    }
});
