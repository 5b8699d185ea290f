//! Times as Go's `RFC3339Nano` writes them: no zeros at the end of the fraction,
//! and no fraction when it is zero. Pure.

/// Shortens the fraction of an RFC 3339 time in UTC.
pub fn short_fraction(time: &str) -> String {
    match time.trim_end_matches('Z').split_once('.') {
        None => time.to_owned(),
        Some((seconds, fraction)) => match fraction.trim_end_matches('0') {
            "" => format!("{seconds}Z"),
            fraction => format!("{seconds}.{fraction}Z"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_as_short_as_can_be() {
        for (long, short) in [
            ("1970-01-01T00:00:10.000000000Z", "1970-01-01T00:00:10Z"),
            ("1970-01-01T00:00:01.500000000Z", "1970-01-01T00:00:01.5Z"),
            (
                "1970-01-01T00:00:00.000000001Z",
                "1970-01-01T00:00:00.000000001Z",
            ),
            ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
        ] {
            assert_eq!(short_fraction(long), short);
        }
    }
}
