//! Messages of criu: any bytes give a response or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| carrack_container::fuzzing::criu_response(bytes));
