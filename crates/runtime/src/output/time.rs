//! Times as Go's `RFC3339Nano` writes them: no zeros at the end of the fraction,
//! and no fraction when it is zero. Pure.

use std::time::SystemTime;

/// The time in UTC.
pub fn rfc3339(time: SystemTime) -> String {
    let text = humantime::format_rfc3339_nanos(time).to_string();
    match text.trim_end_matches('Z').split_once('.') {
        None => text,
        Some((seconds, fraction)) => match fraction.trim_end_matches('0') {
            "" => format!("{seconds}Z"),
            fraction => format!("{seconds}.{fraction}Z"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn fractions_are_as_short_as_can_be() {
        let at = |ns| rfc3339(UNIX_EPOCH + Duration::from_nanos(ns));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(1_500_000_000), "1970-01-01T00:00:01.5Z");
        assert_eq!(at(1), "1970-01-01T00:00:00.000000001Z");
    }
}
