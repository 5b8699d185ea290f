//! How a layer's tar stream is made again, bit for bit: what is no file content stands in the recipe,
//! file content is taken from the layer's files.
//!
//! # Format (inside one zstd frame)
//!
//! ```text
//! "carrack-recipe 1\n"
//! 1, u32 length, bytes                                   these bytes
//! 2, u32 length, key, u32 count, count × (u64 offset, u64 length)   these parts of a file
//! 0                                                      the end
//! ```
//!
//! Numbers are little-endian. Whether the stream is the right one is decided by its digest, the diff
//! id; the reader only takes care that a damaged recipe costs no more memory than its limits.

use crate::tar::{Observer, Segment};
use std::io::{Error, ErrorKind, Read, Result, Write};

const MAGIC: &[u8] = b"carrack-recipe 1\n";
const END: u8 = 0;
const LITERAL: u8 = 1;
const CONTENT: u8 = 2;
/// Literal bytes collected before they are written.
const LITERAL_BYTES_MAX: usize = 64 << 10;
/// Longest key a driver may give.
const KEY_BYTES_MAX: usize = 8 << 10;
const SEGMENTS_MAX: u32 = 1 << 20;
/// Headers compress well at any level.
const LEVEL: i32 = 1;

/// Writes a recipe beside the reading of its stream.
pub(crate) struct Writer<W: Write> {
    output: zstd::stream::write::Encoder<'static, W>,
    literal: Vec<u8>,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(output: W) -> Result<Self> {
        let mut output = zstd::stream::write::Encoder::new(output, LEVEL)?;
        output.include_checksum(true)?;
        output.write_all(MAGIC)?;
        Ok(Self {
            output,
            literal: Vec::with_capacity(LITERAL_BYTES_MAX),
        })
    }

    /// The content of a file comes next.
    pub(crate) fn content(&mut self, key: &[u8], segments: &[Segment]) -> Result<()> {
        let too_long = |_| Error::from(ErrorKind::InvalidInput);
        if key.len() > KEY_BYTES_MAX {
            return Err(ErrorKind::InvalidInput.into());
        }
        self.flush_literal()?;
        self.output.write_all(&[CONTENT])?;
        let length = u32::try_from(key.len()).map_err(too_long)?;
        self.output.write_all(&length.to_le_bytes())?;
        self.output.write_all(key)?;
        let count = u32::try_from(segments.len()).map_err(too_long)?;
        self.output.write_all(&count.to_le_bytes())?;
        for segment in segments {
            self.output.write_all(&segment.offset.to_le_bytes())?;
            self.output.write_all(&segment.length.to_le_bytes())?;
        }
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Result<W> {
        self.flush_literal()?;
        self.output.write_all(&[END])?;
        self.output.finish()
    }

    fn flush_literal(&mut self) -> Result<()> {
        if self.literal.is_empty() {
            return Ok(());
        }
        let too_long = |_| Error::from(ErrorKind::InvalidInput);
        let length = u32::try_from(self.literal.len()).map_err(too_long)?;
        self.output.write_all(&[LITERAL])?;
        self.output.write_all(&length.to_le_bytes())?;
        self.output.write_all(&self.literal)?;
        self.literal.clear();
        Ok(())
    }
}

impl<W: Write> Observer for Writer<W> {
    fn literal(&mut self, bytes: &[u8]) -> Result<()> {
        if self.literal.len() + bytes.len() > LITERAL_BYTES_MAX {
            self.flush_literal()?;
        }
        for part in bytes.chunks(LITERAL_BYTES_MAX) {
            self.literal.extend_from_slice(part);
            if self.literal.len() >= LITERAL_BYTES_MAX {
                self.flush_literal()?;
            }
        }
        Ok(())
    }
}

/// One step of a recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// These bytes.
    Literal(Vec<u8>),
    /// Parts of a file.
    Content {
        /// What the driver knows the file by.
        key: Vec<u8>,
        /// Its parts.
        segments: Vec<Segment>,
    },
}

/// Reads a recipe.
pub struct Recipe<R: Read> {
    input: zstd::stream::read::Decoder<'static, std::io::BufReader<R>>,
}

impl<R: Read> Recipe<R> {
    /// A reader at the start of a recipe.
    ///
    /// # Errors
    /// It is none, or of another version.
    pub fn new(input: R) -> Result<Self> {
        let mut input = zstd::stream::read::Decoder::new(input)?.single_frame();
        let mut magic = [0; MAGIC.len()];
        input.read_exact(&mut magic)?;
        match magic == MAGIC {
            true => Ok(Self { input }),
            false => Err(Error::new(ErrorKind::InvalidData, "not a layer recipe")),
        }
    }

    /// The next step; `None` at the end.
    ///
    /// # Errors
    /// The recipe is damaged or cut off.
    pub fn step(&mut self) -> Result<Option<Step>> {
        match self.byte()? {
            // Reading on verifies the frame's checksum.
            END => match self.input.read(&mut [0])? {
                0 => Ok(None),
                _ => Err(damaged()),
            },
            LITERAL => Ok(Some(Step::Literal(self.bytes(LITERAL_BYTES_MAX)?))),
            CONTENT => {
                let key = self.bytes(KEY_BYTES_MAX)?;
                let count = self.number32()?;
                if count > SEGMENTS_MAX {
                    return Err(damaged());
                }
                let segments = (0..count)
                    .map(|_| {
                        Ok(Segment {
                            offset: self.number64()?,
                            length: self.number64()?,
                        })
                    })
                    .collect::<Result<_>>()?;
                Ok(Some(Step::Content { key, segments }))
            }
            _ => Err(damaged()),
        }
    }

    fn bytes(&mut self, max: usize) -> Result<Vec<u8>> {
        let length = usize::try_from(self.number32()?).unwrap_or(usize::MAX);
        if length > max {
            return Err(damaged());
        }
        let mut bytes = vec![0; length];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.input.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn number32(&mut self) -> Result<u32> {
        let mut bytes = [0; 4];
        self.input.read_exact(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn number64(&mut self) -> Result<u64> {
        let mut bytes = [0; 8];
        self.input.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

fn damaged() -> Error {
    Error::new(ErrorKind::InvalidData, "the layer recipe is damaged")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_come_back_and_literals_are_joined() {
        let mut writer = Writer::new(Vec::new()).unwrap();
        writer.literal(b"one").unwrap();
        writer.literal(b" two").unwrap();
        let parts = [Segment {
            offset: 7,
            length: u64::MAX,
        }];
        writer.content(b"a/b", &parts).unwrap();
        let long = vec![9; LITERAL_BYTES_MAX + 1];
        writer.literal(&long).unwrap();
        let bytes = writer.finish().unwrap();
        let mut recipe = Recipe::new(bytes.as_slice()).unwrap();
        let literal = |bytes: &[u8]| Some(Step::Literal(bytes.to_vec()));
        assert_eq!(recipe.step().unwrap(), literal(b"one two"));
        let content = Step::Content {
            key: b"a/b".to_vec(),
            segments: parts.to_vec(),
        };
        assert_eq!(recipe.step().unwrap(), Some(content));
        assert_eq!(recipe.step().unwrap(), literal(&long[1..]));
        assert_eq!(recipe.step().unwrap(), literal(&long[..1]));
        assert_eq!(recipe.step().unwrap(), None);
        for cut in 0..bytes.len() {
            let read = Recipe::new(&bytes[..cut]).and_then(|mut r| {
                while r.step()?.is_some() {}
                Ok(())
            });
            assert!(read.is_err(), "cut at {cut}");
        }
    }
}
