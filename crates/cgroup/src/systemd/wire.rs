//! The part of the D-Bus wire format that talking to systemd needs. Pure.
//!
//! ```text
//! 'l' type flags 1 | body length | serial | fields a(yv) | padding to 8 | body
//! ```
//!
//! Little endian on the way out, both on the way in. Every value is aligned to
//! its own size from the start of the message. Incoming bytes are not trusted:
//! lengths are checked against what is there, nesting against [`DEPTH_MAX`],
//! and nothing panics. Source: the D-Bus Specification, "Message Protocol".

use std::collections::VecDeque;

/// Largest message read, in bytes.
pub(crate) const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting of values read (the specification allows 64).
pub(crate) const DEPTH_MAX: usize = 32;
/// Bytes of the fixed part of a header with the length of its fields.
pub(crate) const HEADER_BYTES: usize = 16;

/// A value of the types that systemd's interface uses.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Byte(u8),
    Bool(bool),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    Double(f64),
    Str(String),
    Path(String),
    Signature(String),
    Variant(Box<Value>),
    /// Element signature and elements.
    Array(String, Vec<Value>),
    Struct(Vec<Value>),
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed D-Bus message: {0}")]
pub(crate) struct Malformed(pub &'static str);

impl Value {
    pub fn str(text: impl Into<String>) -> Value {
        Value::Str(text.into())
    }

    pub fn variant(self) -> Value {
        Value::Variant(Box::new(self))
    }

    /// The signature of the value.
    pub fn signature(&self) -> String {
        match self {
            Value::Byte(_) => "y".into(),
            Value::Bool(_) => "b".into(),
            Value::I32(_) => "i".into(),
            Value::U32(_) => "u".into(),
            Value::I64(_) => "x".into(),
            Value::U64(_) => "t".into(),
            Value::Double(_) => "d".into(),
            Value::Str(_) => "s".into(),
            Value::Path(_) => "o".into(),
            Value::Signature(_) => "g".into(),
            Value::Variant(_) => "v".into(),
            Value::Array(element, _) => format!("a{element}"),
            Value::Struct(fields) => {
                let inner: String = fields.iter().map(Value::signature).collect();
                format!("({inner})")
            }
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(s) | Value::Path(s) | Value::Signature(s) => Some(s),
            Value::Variant(v) => v.as_str(),
            _ => None,
        }
    }
}

fn alignment(code: u8) -> usize {
    match code {
        b'b' | b'i' | b'u' | b's' | b'o' | b'a' | b'h' => 4,
        b'n' | b'q' => 2,
        b'x' | b't' | b'd' | b'(' | b'{' => 8,
        _ => 1,
    }
}

/// Appends values, keeping their alignment.
#[derive(Debug, Default)]
pub(crate) struct Writer(pub Vec<u8>);

impl Writer {
    pub fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, n: usize) {
        // Nothing written here comes near 4 GiB.
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        self.0.extend(n.to_le_bytes());
    }

    fn string(&mut self, text: &str) {
        self.u32(text.len());
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    pub fn value(&mut self, value: &Value) {
        let code = value.signature().bytes().next().unwrap_or(b'y');
        self.align(alignment(code));
        match value {
            Value::Byte(n) => self.0.push(*n),
            Value::Bool(b) => self.u32(usize::from(*b)),
            Value::I32(n) => self.0.extend(n.to_le_bytes()),
            Value::U32(n) => self.0.extend(n.to_le_bytes()),
            Value::I64(n) => self.0.extend(n.to_le_bytes()),
            Value::U64(n) => self.0.extend(n.to_le_bytes()),
            Value::Double(n) => self.0.extend(n.to_le_bytes()),
            Value::Str(s) | Value::Path(s) => self.string(s),
            Value::Signature(s) => self.signature(s),
            Value::Variant(inner) => {
                self.signature(&inner.signature());
                self.value(inner);
            }
            Value::Array(element, items) => self.array(element, items),
            Value::Struct(fields) => fields.iter().for_each(|f| self.value(f)),
        }
    }

    /// The length counts the elements without the padding before the first.
    fn array(&mut self, element: &str, items: &[Value]) {
        let length_at = self.0.len();
        self.u32(0);
        self.align(alignment(element.bytes().next().unwrap_or(b'y')));
        let start = self.0.len();
        items.iter().for_each(|i| self.value(i));
        let length = u32::try_from(self.0.len() - start).unwrap_or(u32::MAX);
        if let Some(slot) = self.0.get_mut(length_at..length_at + 4) {
            slot.copy_from_slice(&length.to_le_bytes());
        }
    }
}

/// Takes values from the bytes of one message.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big_endian: bool,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8], at: usize, big_endian: bool) -> Self {
        Reader {
            bytes,
            at,
            big_endian,
        }
    }

    fn align(&mut self, to: usize) -> Result<(), Malformed> {
        self.at = self.at.next_multiple_of(to);
        if self.at > self.bytes.len() {
            return Err(Malformed("padding beyond the end"));
        }
        Ok(())
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(n).ok_or(Malformed("length overflow"))?;
        let part = self
            .bytes
            .get(self.at..end)
            .ok_or(Malformed("value beyond the end"))?;
        self.at = end;
        Ok(part)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut bytes = [0u8; N];
        bytes.copy_from_slice(self.take(N)?);
        if self.big_endian {
            bytes.reverse();
        }
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.align(4)?;
        Ok(u32::from_le_bytes(self.fixed()?))
    }

    fn text(&mut self, length: usize) -> Result<String, Malformed> {
        let text = std::str::from_utf8(self.take(length)?)
            .map_err(|_| Malformed("text that is not UTF-8"))?
            .to_owned();
        self.take(1)?; // the zero byte
        Ok(text)
    }

    /// One value of the first complete type in `signature`, which is consumed.
    pub fn value(
        &mut self,
        signature: &mut VecDeque<u8>,
        depth: usize,
    ) -> Result<Value, Malformed> {
        if depth > DEPTH_MAX {
            return Err(Malformed("nested too deep"));
        }
        let code = signature
            .pop_front()
            .ok_or(Malformed("signature ends early"))?;
        self.align(alignment(code))?;
        Ok(match code {
            b'y' => Value::Byte(u8::from_le_bytes(self.fixed()?)),
            b'b' => Value::Bool(self.u32()? != 0),
            b'n' | b'q' => Value::I32(u16::from_le_bytes(self.fixed()?).into()),
            b'i' => Value::I32(i32::from_le_bytes(self.fixed()?)),
            b'u' | b'h' => Value::U32(self.u32()?),
            b'x' => Value::I64(i64::from_le_bytes(self.fixed()?)),
            b't' => Value::U64(u64::from_le_bytes(self.fixed()?)),
            b'd' => Value::Double(f64::from_le_bytes(self.fixed()?)),
            b's' | b'o' => {
                let length = self.u32()? as usize;
                let text = self.text(length)?;
                if code == b's' {
                    Value::Str(text)
                } else {
                    Value::Path(text)
                }
            }
            b'g' => Value::Signature(self.short_text()?),
            b'v' => {
                let mut inner: VecDeque<u8> = self.short_text()?.into_bytes().into();
                Value::Variant(Box::new(self.value(&mut inner, depth + 1)?))
            }
            b'a' => self.array(signature, depth)?,
            b'(' | b'{' => {
                let close = if code == b'(' { b')' } else { b'}' };
                let mut fields = Vec::new();
                while signature.front() != Some(&close) {
                    fields.push(self.value(signature, depth + 1)?);
                }
                signature.pop_front();
                Value::Struct(fields)
            }
            _ => return Err(Malformed("unknown type")),
        })
    }

    fn short_text(&mut self) -> Result<String, Malformed> {
        let length = usize::from(u8::from_le_bytes(self.fixed()?));
        self.text(length)
    }

    fn array(&mut self, signature: &mut VecDeque<u8>, depth: usize) -> Result<Value, Malformed> {
        let length = self.u32()? as usize;
        let element = first_type(signature)?;
        signature.drain(..element.len());
        self.align(alignment(element.first().copied().unwrap_or(b'y')))?;
        let end = self
            .at
            .checked_add(length)
            .filter(|e| *e <= self.bytes.len());
        let end = end.ok_or(Malformed("array beyond the end"))?;
        let mut items = Vec::new();
        while self.at < end {
            let before = self.at;
            let mut one: VecDeque<u8> = element.clone().into();
            items.push(self.value(&mut one, depth + 1)?);
            if self.at == before {
                return Err(Malformed("array of nothing"));
            }
        }
        let element = String::from_utf8(element).map_err(|_| Malformed("signature"))?;
        Ok(Value::Array(element, items))
    }
}

/// The first complete type of a signature.
fn first_type(signature: &VecDeque<u8>) -> Result<Vec<u8>, Malformed> {
    let mut open = 0usize;
    let mut out = Vec::new();
    for code in signature {
        out.push(*code);
        match code {
            b'(' | b'{' => open += 1,
            b')' | b'}' => open = open.checked_sub(1).ok_or(Malformed("signature"))?,
            b'a' => continue,
            _ => {}
        }
        if open == 0 {
            return Ok(out);
        }
    }
    Err(Malformed("signature ends early"))
}

/// Kinds of message.
pub(crate) const CALL: u8 = 1;
pub(crate) const RETURN: u8 = 2;
pub(crate) const ERROR: u8 = 3;
pub(crate) const SIGNAL: u8 = 4;

/// A message, in or out. Fields that are not used here are not kept.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Message {
    pub kind: u8,
    pub serial: u32,
    /// The serial this answers.
    pub reply_to: u32,
    pub path: String,
    pub interface: String,
    pub member: String,
    pub destination: String,
    pub error_name: String,
    pub body: Vec<Value>,
}

impl Message {
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Writer::default();
        self.body.iter().for_each(|v| body.value(v));
        let signature: String = self.body.iter().map(Value::signature).collect();
        let mut fields = Vec::new();
        let mut field = |code: u8, value: Value| {
            fields.push(Value::Struct(vec![Value::Byte(code), value.variant()]));
        };
        field(1, Value::Path(self.path.clone()));
        field(2, Value::str(&self.interface));
        field(3, Value::str(&self.member));
        if !self.destination.is_empty() {
            field(6, Value::str(&self.destination));
        }
        if !signature.is_empty() {
            field(8, Value::Signature(signature));
        }
        let mut out = Writer(vec![b'l', self.kind, 0, 1]);
        out.u32(body.0.len());
        out.0.extend(self.serial.to_le_bytes());
        out.value(&Value::Array("(yv)".into(), fields));
        out.align(8);
        out.0.extend(body.0);
        out.0
    }

    /// How long the message is whose first [`HEADER_BYTES`] these are.
    pub fn length(header: &[u8; HEADER_BYTES]) -> Result<usize, Malformed> {
        let number = |at: usize| -> usize {
            let mut n = [0u8; 4];
            n.copy_from_slice(header.get(at..at + 4).unwrap_or(&[0; 4]));
            if header[0] == b'B' {
                u32::from_be_bytes(n) as usize
            } else {
                u32::from_le_bytes(n) as usize
            }
        };
        if !matches!(header[0], b'l' | b'B') || header[3] != 1 {
            return Err(Malformed("not a version 1 header"));
        }
        let length = (HEADER_BYTES + number(12)).next_multiple_of(8) + number(4);
        if length > MESSAGE_BYTES_MAX {
            return Err(Malformed("longer than 1 MiB"));
        }
        Ok(length)
    }

    pub fn decode(bytes: &[u8]) -> Result<Message, Malformed> {
        let big_endian = bytes.first() == Some(&b'B');
        let mut reader = Reader::new(bytes, 0, big_endian);
        let mut message = Message::default();
        let mut head: VecDeque<u8> = b"yyyyuua(yv)".to_vec().into();
        let mut values = Vec::new();
        while !head.is_empty() {
            values.push(reader.value(&mut head, 0)?);
        }
        reader.align(8)?;
        let [
            _,
            Value::Byte(kind),
            _,
            _,
            _,
            Value::U32(serial),
            Value::Array(_, fields),
        ] = &values[..]
        else {
            return Err(Malformed("header"));
        };
        (message.kind, message.serial) = (*kind, *serial);
        let mut signature = String::new();
        for field in fields {
            let Value::Struct(pair) = field else { continue };
            let [Value::Byte(code), Value::Variant(value)] = &pair[..] else {
                continue;
            };
            let text = || value.as_str().unwrap_or_default().to_owned();
            match (code, &**value) {
                (1, _) => message.path = text(),
                (2, _) => message.interface = text(),
                (3, _) => message.member = text(),
                (4, _) => message.error_name = text(),
                (5, Value::U32(serial)) => message.reply_to = *serial,
                (6, _) => message.destination = text(),
                (8, _) => signature = text(),
                _ => {}
            }
        }
        let mut signature: VecDeque<u8> = signature.into_bytes().into();
        while !signature.is_empty() {
            message.body.push(reader.value(&mut signature, 0)?);
        }
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn call() -> Message {
        Message {
            kind: CALL,
            serial: 7,
            path: "/org/freedesktop/systemd1".into(),
            interface: "org.freedesktop.systemd1.Manager".into(),
            member: "StartTransientUnit".into(),
            destination: "org.freedesktop.systemd1".into(),
            body: vec![
                Value::str("x.scope"),
                Value::Array(
                    "(sv)".into(),
                    vec![
                        Value::Struct(vec![Value::str("Delegate"), Value::Bool(true).variant()]),
                        Value::Struct(vec![
                            Value::str("PIDs"),
                            Value::Array("u".into(), vec![Value::U32(9)]).variant(),
                        ]),
                        Value::Struct(vec![
                            Value::str("MemoryMax"),
                            Value::U64(u64::MAX).variant(),
                        ]),
                    ],
                ),
                Value::Array("(sa(sv))".into(), vec![]),
            ],
            ..Default::default()
        }
    }

    #[test]
    fn a_call_survives_the_wire() {
        let message = call();
        let bytes = message.encode();
        let mut header = [0; HEADER_BYTES];
        header.copy_from_slice(&bytes[..HEADER_BYTES]);
        assert_eq!(Message::length(&header), Ok(bytes.len()));
        assert_eq!(Message::decode(&bytes).unwrap(), message);
    }

    #[test]
    fn known_bytes_of_the_specification_are_produced() {
        let mut w = Writer::default();
        w.value(&Value::Byte(1));
        w.value(&Value::U64(2));
        w.value(&Value::str("foo"));
        assert_eq!(
            w.0,
            [
                1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, b'f', b'o', b'o', 0
            ]
        );
    }

    #[test]
    fn an_empty_array_of_structures_is_padded_but_has_no_length() {
        let mut w = Writer::default();
        w.value(&Value::Array("(sv)".into(), vec![]));
        assert_eq!(w.0, [0, 0, 0, 0, 0, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = Message::decode(&bytes);
        }

        #[test]
        fn a_damaged_message_is_an_error_or_another_message(at in 0usize..200, byte: u8) {
            let mut bytes = call().encode();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = Message::decode(&bytes);
            let _ = Message::decode(&bytes[..at]);
        }
    }
}
