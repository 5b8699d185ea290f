//! Credentials files and answers of helpers: what is accepted is the same after it was
//! written and read again, and an entry that was set is found.
#![no_main]

use carrack_registry::credentials::helper;
use carrack_registry::{AuthFile, Credential};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let none = |_: &str, _: &str| Ok(None);
    if let Ok(mut file) = AuthFile::parse(bytes) {
        let again = AuthFile::parse(file.to_text().as_bytes()).expect("what was written is read");
        for (host, repository) in [
            ("docker.io", "library/a"),
            ("r.example", "team/app"),
            ("a", ""),
        ] {
            let (one, two) = (
                file.get(host, repository, &none),
                again.get(host, repository, &none),
            );
            assert_eq!(one.ok(), two.ok());
        }
        let credential = Credential::Basic {
            username: "user".to_owned(),
            password: "pass:word".to_owned(),
        };
        file.set("r.example/team/app", &credential);
        if file.helper("r.example").is_none() {
            let found = file.get("r.example", "team/app", &none);
            assert_eq!(found.ok().flatten(), Some(credential));
        }
    }
    let _ = helper::read_get(bytes);
    let _ = helper::says_not_found(bytes);
});
