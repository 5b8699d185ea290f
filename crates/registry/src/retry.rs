//! How often and how long after a failure something is tried again.

use std::time::{Duration, SystemTime};

use crate::error::RateLimit;
use crate::http::Response;

/// The policy: exponential back-off with jitter, and what a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Tries altogether.
    pub attempts_max: u32,
    /// Longest pause before the second try; doubled with each further one.
    pub delay_first: Duration,
    /// Longest pause of all.
    pub delay_max: Duration,
    /// Longest `Retry-After` that is waited for; a longer one is an error at once.
    pub retry_after_max: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts_max: 5,
            delay_first: Duration::from_millis(500),
            delay_max: Duration::from_secs(20),
            retry_after_max: Duration::from_secs(60),
        }
    }
}

impl Retry {
    /// The pause after the `failed`th failure; between half of the longest and the longest.
    pub(crate) fn delay(&self, failed: u32) -> Duration {
        let doubled = 1u32
            .checked_shl(failed.saturating_sub(1))
            .unwrap_or(u32::MAX);
        let longest = self.delay_first.saturating_mul(doubled).min(self.delay_max);
        longest.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

/// What an answer says of limits; none when it says nothing.
pub(crate) fn rate_limit(response: &Response) -> Option<RateLimit> {
    let (limit, window) = counted(response.field("ratelimit-limit"));
    let (remaining, _) = counted(response.field("ratelimit-remaining"));
    let rate = RateLimit {
        limit,
        window,
        remaining,
        retry_after: response
            .field("retry-after")
            .and_then(|value| retry_after(value, SystemTime::now())),
    };
    (rate != RateLimit::default()).then_some(rate)
}

/// `100` or `100;w=21600`, as docker hub sends it.
fn counted(value: Option<&str>) -> (Option<u64>, Option<Duration>) {
    let mut parts = value.unwrap_or_default().split(';').map(str::trim);
    let count = parts.next().and_then(|count| count.parse().ok());
    let window = parts
        .find_map(|part| part.strip_prefix("w="))
        .and_then(|seconds| seconds.parse().ok().map(Duration::from_secs));
    (count, window)
}

/// Seconds, or a date.
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_limit() {
        let retry = Retry::default();
        for (failed, longest) in [(1, 500), (2, 1000), (3, 2000), (10, 20_000), (200, 20_000)] {
            let delay = retry.delay(failed).as_millis();
            assert!(
                (longest / 2..=longest).contains(&delay),
                "{failed}: {delay}"
            );
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let at = |value| retry_after(value, now);
        assert_eq!(at("7"), Some(Duration::from_secs(7)));
        let date = "Sun, 06 Nov 1994 08:50:37 GMT";
        assert_eq!(at(date), Some(Duration::from_secs(60)));
        assert_eq!(at("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(at("soon"), None);
        assert_eq!(
            counted(Some("100;w=21600")).1,
            Some(Duration::from_secs(21600))
        );
        assert_eq!(counted(Some("x;w=y")), (None, None));
    }
}
