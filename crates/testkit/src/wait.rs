//! Waiting for what happens when the machine gets to it.

use std::time::{Duration, Instant};

/// How long something may take that is only a matter of time: long, for machines under load.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// Looks until there is something to see; fails the test after [`PATIENCE`].
#[track_caller]
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "no {what} in {PATIENCE:?}");
        std::thread::sleep(LOOK);
    }
}

/// Looks until the condition holds; fails the test after [`PATIENCE`].
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(what, || holds().then_some(()));
}
