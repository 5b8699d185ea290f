//! The nearest known word for a mistyped one. Pure.

/// Longest word that is compared; longer ones are no typing errors.
const WORD_BYTES_MAX: usize = 32;

/// The candidate with the fewest edits (insert, delete, replace, swap) from
/// `word`, or the only one that starts with it; `None` when none is near.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if word.is_empty() || word.len() > WORD_BYTES_MAX {
        return None;
    }
    let limit = (word.len() / 3).max(1);
    let (mut best, mut prefixed, mut prefixes) = (None, None, 0);
    for candidate in candidates {
        let edits = distance(word.as_bytes(), candidate.as_bytes());
        if edits <= limit && best.is_none_or(|(least, _)| edits < least) {
            best = Some((edits, candidate));
        }
        if candidate.starts_with(word) {
            prefixed = Some(candidate);
            prefixes += 1;
        }
    }
    let prefixed = prefixed.filter(|_| prefixes == 1);
    best.map(|(_, candidate)| candidate).or(prefixed)
}

/// Optimal string alignment distance.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let replace = above[j] + usize::from(x != y);
            let mut least = replace.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or(a.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits() {
        for (a, b, edits) in [
            ("", "abc", 3),
            ("abc", "", 3),
            ("run", "run", 0),
            ("rnu", "run", 1),
            ("delte", "delete", 1),
            ("bundel", "bundle", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a.as_bytes(), b.as_bytes()), edits, "{a} {b}");
        }
    }

    #[test]
    fn prefers_few_edits_then_a_unique_beginning() {
        let words = ["create", "delete", "checkpoint", "events", "exec"];
        let near = |word| nearest(word, words.into_iter());
        assert_eq!(near("crate"), Some("create"));
        assert_eq!(near("check"), Some("checkpoint"));
        assert_eq!(near("e"), None);
        assert_eq!(near("frobnicate"), None);
        assert_eq!(near(""), None);
    }
}
