//! PAX extended headers: records of the form `LENGTH KEY=VALUE\n`, where the length counts the whole
//! record.

use super::TarError;

/// The records of one extended header, in order; later ones win.
#[derive(Default)]
pub(super) struct Records(Vec<(Vec<u8>, Vec<u8>)>);

impl Records {
    /// Adds the records of `text`, which ends before byte `at` of the archive.
    pub(super) fn parse(&mut self, mut text: &[u8], at: u64) -> Result<(), TarError> {
        let bad = || TarError::Pax(at);
        while !text.is_empty() {
            let space = text.iter().position(|&b| b == b' ').ok_or_else(bad)?;
            let (digits, _) = text.split_at(space);
            let length = decimal(digits)
                .and_then(|n| usize::try_from(n).ok())
                .ok_or_else(bad)?;
            let record = text.get(space + 1..length).ok_or_else(bad)?;
            let record = record.strip_suffix(b"\n").ok_or_else(bad)?;
            let equals = record.iter().position(|&b| b == b'=').ok_or_else(bad)?;
            let (key, value) = record.split_at(equals);
            let value = value.get(1..).unwrap_or_default();
            let is_path = matches!(key, b"path" | b"linkpath" | b"GNU.sparse.name");
            if is_path && value.contains(&0) {
                return Err(bad());
            }
            self.0.push((key.to_vec(), value.to_vec()));
            text = text.get(length..).ok_or_else(bad)?;
        }
        Ok(())
    }

    /// The last value of a key; an empty one takes the key back.
    pub(super) fn get(&self, key: &str) -> Option<Option<&[u8]>> {
        let (_, value) = self.0.iter().rev().find(|(k, _)| k == key.as_bytes())?;
        Some(Some(value.as_slice()).filter(|v| !v.is_empty()))
    }

    /// All values in order of the keys that begin so, with the rest of the key; repeated keys each time.
    pub(super) fn starting<'a>(
        &'a self,
        prefix: &'a [u8],
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.0
            .iter()
            .filter_map(move |(k, v)| Some((k.strip_prefix(prefix)?, v.as_slice())))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of keys and values.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(|(k, v)| k.len() + v.len()).sum()
    }

    /// Keeps the last record of each key only.
    pub(super) fn compact(&mut self) {
        let mut seen = std::collections::HashSet::new();
        self.0.reverse();
        self.0.retain(|(key, _)| seen.insert(key.clone()));
        self.0.reverse();
    }
}

pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `[-]SECONDS[.FRACTION]`; a negative time with a fraction counts up from the second below.
pub(super) fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanos = digits.fold(0_u32, |n, b| n * 10 + u32::from(b - b'0'));
    match (whole.starts_with('-'), nanos) {
        (true, 1..) => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos)),
        _ => Some((seconds, nanos)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_with_fractions() {
        assert_eq!(time(b"1700000000.5"), Some((1_700_000_000, 500_000_000)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"7"), Some((7, 0)));
        assert_eq!(time(b"7.x"), None);
    }

    #[test]
    fn the_last_record_counts_and_an_empty_one_takes_back() {
        let mut records = Records::default();
        records
            .parse(b"8 a=one\n8 a=two\n6 b=1\n5 b=\n", 0)
            .unwrap();
        assert_eq!(records.get("a"), Some(Some(b"two".as_slice())));
        assert_eq!(records.get("b"), Some(None));
        assert_eq!(records.get("c"), None);
        records.compact();
        assert_eq!(records.starting(b"").count(), 2);
        assert!(records.parse(b"9 a=one\n", 0).is_err());
        assert!(records.parse(b"12 path=a\0b\n", 0).is_err());
    }
}
