//! Maps of sparse files, in the forms of GNU tar's manual, "Storing Sparse Files".

use super::header::number;
use super::pax::{Records, decimal};
use super::{BLOCK_BYTES, TarError};

/// Most segments of one file; each costs 16 bytes of memory.
pub(super) const SEGMENTS_MAX: usize = 1 << 20;

/// A run of bytes of a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where in the file it begins.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
}

/// The map being read, and the size of the file.
#[derive(Default)]
pub(super) struct Map {
    pub(super) segments: Vec<Segment>,
    pub(super) size: u64,
}

impl Map {
    /// Adds the segments of an old GNU header (`count` of them from `start`) up to the first unused one.
    pub(super) fn add_block(
        &mut self,
        block: &[u8; BLOCK_BYTES],
        start: usize,
        count: usize,
        at: u64,
    ) -> Result<(), TarError> {
        for i in 0..count {
            let from = start + i * 24;
            let Some((offset, length)) = block
                .get(from..from + 12)
                .zip(block.get(from + 12..from + 24))
            else {
                break;
            };
            if offset.first() == Some(&0) || length.first() == Some(&0) {
                break;
            }
            self.add(
                number(offset, "sparse offset", at)?,
                number(length, "sparse length", at)?,
                at,
            )?;
        }
        Ok(())
    }

    pub(super) fn add(&mut self, offset: u64, length: u64, at: u64) -> Result<(), TarError> {
        if self.segments.len() >= SEGMENTS_MAX {
            return Err(TarError::Sparse(at));
        }
        self.segments.push(Segment { offset, length });
        Ok(())
    }

    /// The map in PAX records of the versions 0.0 and 0.1; `None` when they have none.
    pub(super) fn from_records(records: &Records, at: u64) -> Result<Option<Self>, TarError> {
        let value = |key| records.get(key).flatten();
        if value("GNU.sparse.major").is_some_and(|v| v != b"0") {
            return Ok(None);
        }
        let bad = || TarError::Sparse(at);
        let numbers = |text: &[u8]| -> Result<Vec<u64>, TarError> {
            if text.is_empty() {
                return Ok(Vec::new());
            }
            text.split(|&b| b == b',')
                .map(|n| decimal(n).ok_or_else(bad))
                .collect()
        };
        let mut pairs = Vec::new();
        if let Some(text) = records.get("GNU.sparse.map") {
            pairs = numbers(text.unwrap_or_default())?;
        } else if records.get("GNU.sparse.numblocks").is_some() {
            for (key, text) in records.starting(b"GNU.sparse.") {
                let wanted: &[u8] = match pairs.len() % 2 {
                    0 => b"offset",
                    _ => b"numbytes",
                };
                match key {
                    b"offset" | b"numbytes" if key == wanted => {
                        pairs.push(decimal(text).ok_or_else(bad)?);
                    }
                    b"offset" | b"numbytes" => return Err(bad()),
                    _ => {}
                }
            }
        } else {
            return Ok(None);
        }
        let size = value("GNU.sparse.size").or(value("GNU.sparse.realsize"));
        let mut map = Self {
            segments: Vec::new(),
            size: size.and_then(decimal).ok_or_else(bad)?,
        };
        for pair in pairs.chunks(2) {
            let [offset, length] = pair else {
                return Err(bad());
            };
            map.add(*offset, *length, at)?;
        }
        Ok(Some(map))
    }

    /// Checks the map against the bytes that the archive has for the file.
    pub(super) fn checked(self, stored: u64, at: u64) -> Result<(Vec<Segment>, u64), TarError> {
        let mut end = 0_u64;
        let mut sum = 0_u64;
        for segment in &self.segments {
            if segment.offset < end {
                return Err(TarError::Sparse(at));
            }
            end = segment
                .offset
                .checked_add(segment.length)
                .ok_or(TarError::Sparse(at))?;
            sum += segment.length;
        }
        match end <= self.size && sum == stored && i64::try_from(self.size).is_ok() {
            true => Ok((self.segments, self.size)),
            false => Err(TarError::Sparse(at)),
        }
    }
}
