//! Log records of the libraries, as lines on standard error.

use log::{LevelFilter, Log, Metadata, Record};

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let level = record.level().as_str().to_ascii_lowercase();
            eprintln!("carrack: {level}: {}", record.args());
        }
    }

    fn flush(&self) {}
}

/// Sends records up to `level` to standard error.
pub fn start(level: LevelFilter) {
    // Only a second call fails, and there is none.
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(level);
    }
}
