//! Files of procfs and of cgroups, and what people write like them: any text is read.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    carrack_cgroup::fuzzing::proc_files(text);
    carrack_cgroup::fuzzing::statistics(text);
    let _ = carrack_cgroup::parse_size(text);
    carrack_container::fuzzing::bit_set(text);
    carrack_container::fuzzing::mount_options(text);
});
