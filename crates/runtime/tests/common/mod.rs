//! What every file of these tests starts from.
//!
//! `CARRACK_TEST_RUNTIME` names another runtime to run the tests on, to see
//! whether a test is fair: with Debian's runc all but the marked ones pass.
#![allow(dead_code)] // each file uses its part

use carrack_testkit::{Runtime, Skip, skip};

/// The runtime under test, as root.
pub fn runtime() -> Result<Runtime, Skip> {
    skip::root()?;
    Ok(Runtime::new(program()))
}

/// The runtime under test.
pub fn program() -> String {
    std::env::var("CARRACK_TEST_RUNTIME")
        .unwrap_or_else(|_| env!("CARGO_BIN_EXE_carrack-runtime").to_owned())
}

/// Debian's runc, to compare with.
pub fn runc() -> Result<Runtime, Skip> {
    skip::root()?;
    Ok(Runtime::new(skip::program("runc")?))
}

/// The test is about what only this runtime does.
pub fn other_runtime() -> bool {
    std::env::var_os("CARRACK_TEST_RUNTIME").is_some()
}
