//! Numbers as people write them: durations, signals. Pure.

/// A duration in nanoseconds as Go writes it: `5s`, `1m30s`, `1.5h`, `250ms`, `0`.
pub fn duration_ns(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at_checked(end)?;
        let end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(end)?;
        let scale = match unit {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * scale;
        rest = tail;
    }
    (total < i64::MAX as f64).then_some((sign * total) as i64)
}

/// Names of the signals 1 to 31 of Linux (not of MIPS, Alpha or SPARC).
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// The first and the last real-time signal as C libraries count them.
const REALTIME: (i32, i32) = (34, 64);

/// A signal by number or name: `9`, `KILL`, `sigkill`, `RTMIN+3`.
pub fn signal(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (0..=REALTIME.1).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let name = match name {
        "IOT" => "ABRT",
        "CLD" => "CHLD",
        "POLL" => "IO",
        name => name,
    };
    if let Some(index) = SIGNALS.iter().position(|known| *known == name) {
        return i32::try_from(index + 1).ok();
    }
    let (base, offset) = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(""), _) => (REALTIME.0, 0),
        (_, Some("")) => (REALTIME.1, 0),
        (Some(rest), _) => (REALTIME.0, distance(rest.strip_prefix('+')?)?),
        (_, Some(rest)) => (REALTIME.1, -distance(rest.strip_prefix('-')?)?),
        _ => return None,
    };
    let number = base + offset;
    (REALTIME.0..=REALTIME.1)
        .contains(&number)
        .then_some(number)
}

fn distance(text: &str) -> Option<i32> {
    text.parse::<u8>().ok().map(i32::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ns) in [
            ("5s", Some(5_000_000_000)),
            ("1m30s", Some(90_000_000_000)),
            ("1.5h", Some(5_400_000_000_000)),
            ("250ms", Some(250_000_000)),
            ("3µs", Some(3_000)),
            ("-1s", Some(-1_000_000_000)),
            ("0", Some(0)),
            ("5", None),
            ("", None),
            ("s", None),
            ("1d", None),
            ("1s2", None),
        ] {
            assert_eq!(duration_ns(text), ns, "{text:?}");
        }
    }

    #[test]
    fn signals() {
        for (text, number) in [
            ("9", Some(9)),
            ("0", Some(0)),
            ("KILL", Some(9)),
            ("SIGTERM", Some(15)),
            ("sigusr1", Some(10)),
            ("WINCH", Some(28)),
            ("SYS", Some(31)),
            ("POLL", Some(29)),
            ("RTMIN", Some(34)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("RTMAX+1", None),
            ("RTMIN+99", None),
            ("RTMAX--2147483648", None),
            ("RTMIN+-1", None),
            ("65", None),
            ("-1", None),
            ("", None),
            ("FOO", None),
        ] {
            assert_eq!(signal(text), number, "{text:?}");
        }
    }
}
