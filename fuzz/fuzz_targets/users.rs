//! `passwd` and `group` of an image, and the user that is asked for: any text gives an
//! identity or an error.
#![no_main]

use carrack_engine::user::{Databases, identity};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str, &str)| {
    let (wanted, passwd, group) = input;
    carrack_container::fuzzing::passwd(passwd);
    let files = Databases {
        passwd: passwd.to_owned(),
        group: group.to_owned(),
    };
    if let Ok(found) = identity(wanted, &[wanted.to_owned()], &files) {
        assert!(found.home.starts_with('/'), "{found:?}");
    }
});
