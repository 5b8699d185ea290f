//! Sizes as people write them.

/// A size in bytes: `4096`, `512m`, `1.5GiB`, `64 KB`. Every unit is a power of 1024, whatever its spelling.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    let shift = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return None,
    };
    let factor = 1u64 << shift;
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    if number.starts_with('.') || number.ends_with('.') {
        return None;
    }
    let value = number.parse::<f64>().ok()? * factor as f64;
    (value < i64::MAX as f64).then_some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_container_tools_read_them() {
        for (text, size) in [
            ("0", Some(0)),
            ("4096", Some(4096)),
            ("1k", Some(1024)),
            ("1KB", Some(1024)),
            ("1 KiB", Some(1024)),
            ("64k", Some(65_536)),
            ("512MiB", Some(512 << 20)),
            ("1.5 GB", Some(3 << 29)),
            ("0.5k", Some(512)),
            ("2T", Some(2 << 40)),
            ("10b", Some(10)),
            ("9223372036854775807", Some(i64::MAX as u64)),
            ("9223372036854775808k", None),
            ("9007199254740993p", None),
            ("99999999999999999999", None),
            ("9999999P", None),
            ("", None),
            ("-1", None),
            ("m", None),
            ("MiB", None),
            ("1x", None),
            ("1i", None),
            ("1.", None),
            (".", None),
            (".5k", None),
            ("1.2.3K", None),
            ("1..2m", None),
            ("1e3", None),
            ("ü", None),
        ] {
            assert_eq!(parse_size(text), size, "{text:?}");
        }
    }
}
