//! The verbs: each turns its flags into calls of the engine and prints what comes of it.

pub mod containers;
pub mod image;
pub mod login;
pub mod manifest;
pub mod run;
pub mod search;
pub mod system;

use crate::args::Verb;
use std::io::Write;

/// Verbs that need neither store nor run-time state.
///
/// # Errors
/// Standard output cannot be written.
pub fn without_engine(verb: &Verb) -> anyhow::Result<Option<u8>> {
    match verb {
        Verb::Version => {
            writeln!(std::io::stdout(), "carrack {}", env!("CARGO_PKG_VERSION"))?;
            Ok(Some(0))
        }
        Verb::Search(flags) => search::search(flags).map(Some),
        Verb::Login(flags) => login::login(flags).map(Some),
        Verb::Logout(flags) => login::logout(flags).map(Some),
        _ => Ok(None),
    }
}

/// Carries out the same for several names; goes on after a failure, and the last failure counts.
fn each(names: &[String], mut act: impl FnMut(&str) -> anyhow::Result<String>) -> u8 {
    let mut code = 0;
    for name in names {
        match act(name) {
            Ok(done) => {
                let _ = writeln!(std::io::stdout(), "{done}");
            }
            Err(error) => {
                eprintln!("carrack: {}", crate::sentence(&error));
                code = 1;
            }
        }
    }
    code
}
