//! `config.json`: any bytes give a specification or an error, and what was parsed can
//! be written and parsed again with the same result.
#![no_main]

use carrack_spec::runtime::Spec;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(spec) = Spec::from_json(bytes) else {
        return;
    };
    let written = serde_json::to_vec(&spec).expect("a parsed specification can be written");
    let again = Spec::from_json(&written).expect("a written specification can be parsed");
    let rewritten = serde_json::to_vec(&again).expect("and written again");
    assert_eq!(written, rewritten);
});
