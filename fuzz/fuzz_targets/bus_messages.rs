//! Messages of the system bus: any bytes give a message or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| carrack_cgroup::fuzzing::bus_message(bytes));
