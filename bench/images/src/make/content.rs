//! File contents that compress as a distribution's files do, the same on every machine.
//!
//! Two kinds: words of a vocabulary in a skewed distribution (documentation, sources: gzip makes a
//! quarter of them), and short sequences of bytes between random ones (programs: a third). The ratio
//! over an image comes out near that of Debian's.

use std::io::Read;

/// Words of the vocabulary, and sequences of bytes.
const WORDS: usize = 512;
/// Bytes of a word at least and, without the last, at most.
const WORD_BYTES_MIN: usize = 4;
const WORD_BYTES_MAX: usize = 16;

/// Numbers that look random: xorshift64*.
#[derive(Debug, Clone)]
pub struct Numbers(u64);

impl Numbers {
    /// A sequence of its own for each seed.
    pub fn new(seed: u64) -> Numbers {
        Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next one.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// One below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}

/// What contents are made of.
pub struct Vocabulary {
    words: Vec<Vec<u8>>,
    sequences: Vec<Vec<u8>>,
}

impl Vocabulary {
    /// The same each time.
    pub fn new() -> Vocabulary {
        let mut numbers = Numbers::new(1);
        let mut list = |letters: bool| -> Vec<Vec<u8>> {
            (0..WORDS)
                .map(|_| {
                    let spare = (WORD_BYTES_MAX - WORD_BYTES_MIN) as u64;
                    let length = WORD_BYTES_MIN as u64 + numbers.below(spare);
                    (0..length)
                        .map(|_| match letters {
                            true => b'a' + numbers.below(26) as u8,
                            false => numbers.below(256) as u8,
                        })
                        .collect()
                })
                .collect()
        };
        Vocabulary {
            words: list(true),
            sequences: list(false),
        }
    }
}

/// The bytes of one file.
pub struct Content<'a> {
    vocabulary: &'a Vocabulary,
    numbers: Numbers,
    text: bool,
    left: u64,
    /// Bytes that are made and not read yet.
    ahead: Vec<u8>,
    at: usize,
}

/// As many are made at a time.
const BLOCK_BYTES: usize = 16 << 10;

impl<'a> Content<'a> {
    /// `bytes` bytes, other ones for each seed.
    pub fn new(vocabulary: &'a Vocabulary, seed: u64, text: bool, bytes: u64) -> Content<'a> {
        Content {
            vocabulary,
            numbers: Numbers::new(seed),
            text,
            left: bytes,
            ahead: Vec::with_capacity(BLOCK_BYTES + 64),
            at: 0,
        }
    }

    fn make(&mut self) {
        self.ahead.clear();
        self.at = 0;
        while self.ahead.len() < BLOCK_BYTES {
            let number = self.numbers.next();
            // The square of an even distribution: the first words are frequent.
            let at = number & 0xffff;
            let at = ((at * at * WORDS as u64) >> 32) as usize;
            if self.text {
                self.ahead
                    .extend_from_slice(self.vocabulary.words.get(at).map_or(&[], Vec::as_slice));
                self.ahead
                    .push(if number >> 16 & 15 == 0 { b'\n' } else { b' ' });
            } else {
                self.ahead.extend_from_slice(
                    self.vocabulary.sequences.get(at).map_or(&[], Vec::as_slice),
                );
                self.ahead.push((number >> 16) as u8);
            }
        }
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 {
            return Ok(0);
        }
        if self.at >= self.ahead.len() {
            self.make();
        }
        let there = self.ahead.get(self.at..).unwrap_or_default();
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let count = there.len().min(buffer.len()).min(most);
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), there.get(..count)) {
            to.copy_from_slice(from);
        }
        self.at += count;
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_differ_by_seed_and_are_the_same_each_time() {
        let vocabulary = Vocabulary::new();
        let content = |seed, text| {
            let mut bytes = Vec::new();
            let mut content = Content::new(&vocabulary, seed, text, 40_000);
            content.read_to_end(&mut bytes).unwrap();
            bytes
        };
        assert_eq!(content(1, true), content(1, true));
        assert_eq!(content(1, false).len(), 40_000);
        assert_ne!(content(1, true), content(2, true));
        assert!(content(1, true).is_ascii());
    }
}
