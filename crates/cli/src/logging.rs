//! Log records of the libraries, as lines on standard error.

use indicatif::MultiProgress;
use log::{LevelFilter, Log, Metadata, Record};
use std::sync::{Mutex, PoisonError};

/// Bars that a line must not break.
static BARS: Mutex<Option<MultiProgress>> = Mutex::new(None);

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let level = record.level().as_str().to_ascii_lowercase();
            let line = || eprintln!("carrack: {level}: {}", record.args());
            match &*BARS.lock().unwrap_or_else(PoisonError::into_inner) {
                Some(bars) => bars.suspend(line),
                None => line(),
            }
        }
    }

    fn flush(&self) {}
}

/// A level by its name.
///
/// # Errors
/// Names those that there are.
pub fn parse_level(name: &str) -> Result<LevelFilter, String> {
    name.parse().map_err(|_| {
        let all: Vec<String> = LevelFilter::iter()
            .map(|level| level.as_str().to_ascii_lowercase())
            .collect();
        format!("there are {}", all.join(", "))
    })
}

/// Sends records up to `level` to standard error.
pub fn start(level: LevelFilter) {
    // Only a second call fails, and there is none.
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(level);
    }
}

/// Where there are bars at the lower end of the terminal, records go above them.
pub fn beside(bars: Option<MultiProgress>) {
    *BARS.lock().unwrap_or_else(PoisonError::into_inner) = bars;
}
