//! The part of the protobuf encoding that criu's messages need.
//!
//! A message is a list of fields, each a key (`number << 3 | type`) and a value:
//! type 0 is a varint, type 2 is bytes with their length, types 1 and 5 are 8
//! and 4 bytes. Unknown fields are skipped, malformed ones are an error; nothing
//! read here is trusted.

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;
/// A varint of 64 bits has at most so many bytes.
const VARINT_BYTES_MAX: u32 = 10;

/// Bytes that are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed message")]
pub struct Malformed;

/// A message being written.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// An integer, signed ones as their 64 bit two's complement.
    pub fn int(&mut self, field: u32, value: i64) -> &mut Self {
        self.key(field, VARINT);
        self.varint(value as u64);
        self
    }

    /// A truth value; false is the default everywhere and is left out.
    pub fn flag(&mut self, field: u32, value: bool) -> &mut Self {
        if value {
            self.int(field, 1);
        }
        self
    }

    /// A string.
    pub fn text(&mut self, field: u32, value: &str) -> &mut Self {
        self.bytes(field, value.as_bytes())
    }

    /// A message within.
    pub fn message(&mut self, field: u32, fill: impl FnOnce(&mut Writer)) -> &mut Self {
        let mut inner = Writer::default();
        fill(&mut inner);
        self.bytes(field, &inner.0)
    }

    /// The message.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }

    fn bytes(&mut self, field: u32, value: &[u8]) -> &mut Self {
        self.key(field, BYTES);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    fn key(&mut self, field: u32, kind: u64) {
        self.varint(u64::from(field) << 3 | kind);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// A field's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// A varint.
    Int(u64),
    /// A string, bytes or a message.
    Bytes(&'a [u8]),
    /// A number of fixed size, which criu's messages do not use.
    Fixed,
}

impl Value<'_> {
    /// As a 32 bit number; the encoding extends its sign.
    pub fn int(self) -> Result<i32, Malformed> {
        match self {
            Self::Int(value) => Ok(value as i32),
            _ => Err(Malformed),
        }
    }

    /// As a truth value.
    pub fn flag(self) -> Result<bool, Malformed> {
        self.int().map(|value| value != 0)
    }

    /// As text.
    pub fn text(self) -> Result<String, Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(String::from_utf8_lossy(bytes).into_owned()),
            _ => Err(Malformed),
        }
    }
}

/// The fields of a message.
#[derive(Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Over a whole message.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Over the message in a field.
    pub fn within(value: Value<'a>) -> Result<Self, Malformed> {
        match value {
            Value::Bytes(bytes) => Ok(Self(bytes)),
            _ => Err(Malformed),
        }
    }

    fn field(&mut self) -> Result<(u32, Value<'a>), Malformed> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).map_err(|_| Malformed)?;
        let value = match key & 7 {
            VARINT => Value::Int(self.varint()?),
            BYTES => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                Value::Bytes(self.take(length)?)
            }
            FIXED64 => self.take(8).map(|_| Value::Fixed)?,
            FIXED32 => self.take(4).map(|_| Value::Fixed)?,
            _ => return Err(Malformed),
        };
        Ok((number, value))
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for index in 0..VARINT_BYTES_MAX {
            let byte = self.take(1)?.first().copied().unwrap_or(0);
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_the_published_encoding() {
        let mut writer = Writer::default();
        writer.int(1, 150).text(2, "testing").flag(3, false);
        writer.message(3, |inner| {
            inner.int(1, -1);
        });
        let mut wanted = b"\x08\x96\x01\x12\x07testing\x1a\x0b\x08".to_vec();
        wanted.extend([0xff; 9]);
        wanted.push(1);
        assert_eq!(writer.finish(), wanted);
    }

    #[test]
    fn what_was_written_is_read() {
        let mut writer = Writer::default();
        writer.int(60, -7).text(16, "x").flag(2, true);
        let bytes = writer.finish();
        let fields: Vec<_> = Reader::new(&bytes).map(Result::unwrap).collect();
        assert_eq!(fields[0].0, 60);
        assert_eq!(fields[0].1.int(), Ok(-7));
        assert_eq!(fields[1], (16, Value::Bytes(b"x")));
        assert_eq!(fields[2].1.flag(), Ok(true));
    }

    #[test]
    fn every_cut_of_a_message_is_an_error_or_shorter() {
        let mut writer = Writer::default();
        writer.text(1, "abc").int(2, 1 << 40).text(3, "d");
        let bytes = writer.finish();
        for end in 0..bytes.len() {
            let read = Reader::new(&bytes[..end]).collect::<Result<Vec<_>, _>>();
            assert!(read.map_or(true, |fields| fields.len() < 3), "cut at {end}");
        }
        assert!(
            Reader::new(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01])
                .any(|f| f.is_err())
        );
        assert!(Reader::new(&[0x80; 11]).any(|field| field.is_err()));
        assert!(Reader::new(&[0x0b]).any(|field| field.is_err()));
    }
}
