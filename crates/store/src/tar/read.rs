//! The reader: headers, GNU long names and PAX records.

use super::{BLOCK_BYTES, EXTENSION_BYTES_MAX, Entry, Kind, PATH_BYTES_MAX, TarError};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};

/// Reads the entries of a tar stream in order.
///
/// [`Reader::next_entry`] moves to the next header; the entry's bytes are then read through the
/// [`Read`] implementation, which ends where the entry ends. Bytes that were not read are skipped.
pub struct Reader<R> {
    input: R,
    offset: u64,
    unread: u64,
    padding: u64,
    global: BTreeMap<String, Vec<u8>>,
    ended: bool,
}

/// PAX keywords and GNU long names that apply to the next entry.
#[derive(Default)]
struct Pending {
    pax: BTreeMap<String, Vec<u8>>,
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.pax.is_empty() && self.long_path.is_none() && self.long_link.is_none()
    }
}

impl<R: Read> Reader<R> {
    /// A reader at the start of an archive.
    pub fn new(input: R) -> Self {
        Self {
            input,
            offset: 0,
            unread: 0,
            padding: 0,
            global: BTreeMap::new(),
            ended: false,
        }
    }

    /// Offset of the bytes that come next, from the start of the stream.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Gives the stream back; what follows the end mark is unread.
    pub fn into_inner(self) -> R {
        self.input
    }

    /// Moves to the next entry, `None` at the end mark or a clean end of the stream.
    ///
    /// # Errors
    /// [`TarError`] for anything that is not a well-formed header.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        self.next_entry_with(|input, n| skip(input, n))
    }

    /// As [`Reader::next_entry`]; `skip` passes over bytes that nobody read, for a stream that can seek.
    ///
    /// # Errors
    /// As [`Reader::next_entry`].
    pub fn next_entry_with(
        &mut self,
        mut skip: impl FnMut(&mut R, u64) -> std::io::Result<u64>,
    ) -> Result<Option<Entry>, TarError> {
        let mut pending = Pending::default();
        loop {
            if self.ended {
                return Ok(None);
            }
            let rest = self.unread + self.padding;
            let skipped = skip(&mut self.input, rest).map_err(TarError::Read)?;
            self.offset += skipped;
            if skipped != rest {
                return Err(TarError::Truncated(self.offset));
            }
            (self.unread, self.padding) = (0, 0);
            let at = self.offset;
            let Some(block) = self.header_block()? else {
                self.ended = true;
                // A name or a PAX block announces an entry.
                return match pending.is_empty() {
                    true => Ok(None),
                    false => Err(TarError::Truncated(self.offset)),
                };
            };
            let size = number(&block[124..136], "size", at)?;
            match block[156] {
                b'x' => {
                    let text = self.extension(at, size)?;
                    parse_pax(&text, self.offset, &mut pending.pax)?;
                }
                b'g' => {
                    let text = self.extension(at, size)?;
                    parse_pax(&text, self.offset, &mut self.global)?;
                }
                b'L' => pending.long_path = Some(until_nul(&self.extension(at, size)?)),
                b'K' => pending.long_link = Some(until_nul(&self.extension(at, size)?)),
                _ => return self.entry(&block, at, size, pending).map(Some),
            }
        }
    }

    /// One header, or `None` at the end. A stream that stops cleanly without an end mark is accepted,
    /// as GNU tar and Go do.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK_BYTES]>, TarError> {
        let mut block = [0; BLOCK_BYTES];
        let at = self.offset;
        let got = read_full(&mut self.input, &mut block).map_err(TarError::Read)?;
        self.offset += got as u64;
        match got {
            0 => return Ok(None),
            BLOCK_BYTES => {}
            _ => return Err(TarError::Truncated(self.offset)),
        }
        if block.iter().all(|&b| b == 0) {
            return Ok(None);
        }
        let stated =
            number(&block[148..156], "checksum", at).map_err(|_| TarError::Checksum(at))?;
        let counted = |i: usize, b: u8| if (148..156).contains(&i) { b' ' } else { b };
        let sum: u64 = block
            .iter()
            .enumerate()
            .map(|(i, &b)| u64::from(counted(i, b)))
            .sum();
        // Some old writers summed signed characters.
        let signed: i64 = block
            .iter()
            .enumerate()
            .map(|(i, &b)| i64::from(counted(i, b) as i8))
            .sum();
        if stated != sum && i64::try_from(stated) != Ok(signed) {
            return Err(TarError::Checksum(at));
        }
        Ok(Some(block))
    }

    /// The body of an `x`, `g`, `L` or `K` member.
    fn extension(&mut self, at: u64, size: u64) -> Result<Vec<u8>, TarError> {
        if size > EXTENSION_BYTES_MAX {
            return Err(TarError::TooLong {
                at,
                bytes: size,
                max: EXTENSION_BYTES_MAX,
            });
        }
        let mut body = vec![0; size as usize];
        let got = read_full(&mut self.input, &mut body).map_err(TarError::Read)?;
        self.offset += got as u64;
        if got as u64 != size {
            return Err(TarError::Truncated(self.offset));
        }
        self.padding = padding(size);
        Ok(body)
    }

    fn entry(
        &mut self,
        block: &[u8; BLOCK_BYTES],
        at: u64,
        size: u64,
        pending: Pending,
    ) -> Result<Entry, TarError> {
        let keyword = |name: &str| pending.pax.get(name).or_else(|| self.global.get(name));
        let plain = || header_path(block);
        let path = keyword("path")
            .cloned()
            .or(pending.long_path.clone())
            .unwrap_or_else(plain);
        let link = keyword("linkpath")
            .cloned()
            .or(pending.long_link.clone())
            .unwrap_or_else(|| until_nul(&block[157..257]));
        let longest = path.len().max(link.len());
        if longest > PATH_BYTES_MAX {
            return Err(TarError::TooLong {
                at,
                bytes: longest as u64,
                max: PATH_BYTES_MAX as u64,
            });
        }
        let unsupported = |kind: String| TarError::Unsupported {
            kind,
            path: String::from_utf8_lossy(&path).into_owned(),
        };
        if let Some(name) = pending.pax.keys().find(|k| k.starts_with("GNU.sparse.")) {
            return Err(unsupported(name.clone()));
        }
        let kind = match block[156] {
            // Version 7 archives mark a directory by a slash at the end of its name only.
            0 | b'0' | b'7' if path.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' => Kind::Regular,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => return Err(unsupported(char::from(other).to_string())),
        };
        let decimal = |name: &'static str, field: u64| match keyword(name) {
            Some(text) => parse_decimal(text).ok_or(TarError::Number { field: name, at }),
            None => Ok(field),
        };
        let id = |name: &'static str, range: std::ops::Range<usize>| {
            let field = match keyword(name) {
                Some(_) => 0,
                None => number(&block[range], name, at)?,
            };
            u32::try_from(decimal(name, field)?).map_err(|_| TarError::Number { field: name, at })
        };
        let (uid, gid) = (id("uid", 108..116)?, id("gid", 116..124)?);
        let size = decimal("size", size)?;
        let mtime = match keyword("mtime") {
            Some(text) => parse_time(text).ok_or(TarError::Number { field: "mtime", at })?,
            None => (
                signed_number(&block[136..148]).ok_or(TarError::Number { field: "mtime", at })?,
                0,
            ),
        };
        let device = match kind {
            Kind::CharDevice | Kind::BlockDevice => {
                let part = |range: std::ops::Range<usize>, field| {
                    let n = number(&block[range], field, at)?;
                    u32::try_from(n).map_err(|_| TarError::Number { field, at })
                };
                (
                    part(329..337, "device major")?,
                    part(337..345, "device minor")?,
                )
            }
            _ => (0, 0),
        };
        let xattrs = pending
            .pax
            .iter()
            .filter_map(|(k, v)| {
                Some((
                    k.strip_prefix("SCHILY.xattr.")?.as_bytes().to_vec(),
                    v.clone(),
                ))
            })
            .collect();
        // Only files have bytes; hard links of some writers repeat the size of their target.
        let stored = if kind == Kind::Regular { size } else { 0 };
        let mode = number(&block[100..108], "mode", at)? as u32 & 0o7777;
        self.unread = stored;
        self.padding = padding(stored);
        Ok(Entry {
            path,
            link,
            kind,
            mode,
            uid,
            gid,
            mtime,
            size: stored,
            device,
            xattrs,
        })
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let want = buf
            .len()
            .min(usize::try_from(self.unread).unwrap_or(usize::MAX));
        let Some(part) = buf.get_mut(..want).filter(|p| !p.is_empty()) else {
            return Ok(0);
        };
        let got = self.input.read(part)?;
        if got == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.unread -= got as u64;
        self.offset += got as u64;
        Ok(got)
    }
}

fn padding(size: u64) -> u64 {
    (BLOCK_BYTES as u64 - size % BLOCK_BYTES as u64) % BLOCK_BYTES as u64
}

fn read_full(input: &mut impl Read, buf: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buf.get_mut(filled..).filter(|r| !r.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

fn skip(input: &mut impl Read, n: u64) -> std::io::Result<u64> {
    if n == 0 {
        return Ok(0);
    }
    std::io::copy(&mut input.take(n), &mut std::io::sink())
}

fn until_nul(field: &[u8]) -> Vec<u8> {
    let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
    field.iter().take(end).copied().collect()
}

/// `prefix` and `name` of a ustar header; GNU headers use the prefix for something else.
fn header_path(block: &[u8; BLOCK_BYTES]) -> Vec<u8> {
    let name = until_nul(&block[..100]);
    let prefix = until_nul(&block[345..500]);
    if prefix.is_empty() || &block[257..263] != b"ustar\0" {
        return name;
    }
    [prefix.as_slice(), b"/", name.as_slice()].concat()
}

/// Octal text, or base 256 when the first bit is set.
fn number(field: &[u8], name: &'static str, at: u64) -> Result<u64, TarError> {
    signed_number(field)
        .and_then(|n| u64::try_from(n).ok())
        .ok_or(TarError::Number { field: name, at })
}

fn signed_number(field: &[u8]) -> Option<i64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // Two's complement, big-endian; bit 6 of the first byte is the sign.
        let start = if first & 0x40 != 0 { -1_i64 } else { 0 };
        let start = (start << 6) | i64::from(first & 0x3f);
        return rest
            .iter()
            .try_fold(start, |n, &b| n.checked_mul(256).map(|n| n | i64::from(b)));
    }
    let text = field.split(|&b| b == 0).next().unwrap_or_default();
    let text = text.trim_ascii();
    text.iter().try_fold(0_i64, |n, &b| match b {
        b'0'..=b'7' => n.checked_mul(8)?.checked_add(i64::from(b - b'0')),
        _ => None,
    })
}

fn parse_decimal(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `[-]SECONDS[.FRACTION]`; a negative time with a fraction counts up from the second below.
fn parse_time(text: &[u8]) -> Option<(i64, u32)> {
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

/// Records of the form `LENGTH KEY=VALUE\n`, where the length counts the whole record.
fn parse_pax(
    mut text: &[u8],
    at: u64,
    into: &mut BTreeMap<String, Vec<u8>>,
) -> Result<(), TarError> {
    let bad = || TarError::Pax(at);
    while !text.is_empty() {
        let space = text.iter().position(|&b| b == b' ').ok_or_else(bad)?;
        let (digits, _) = text.split_at(space);
        let length = parse_decimal(digits)
            .and_then(|n| usize::try_from(n).ok())
            .ok_or_else(bad)?;
        let record = text.get(space + 1..length).ok_or_else(bad)?;
        let record = record.strip_suffix(b"\n").ok_or_else(bad)?;
        let equals = record.iter().position(|&b| b == b'=').ok_or_else(bad)?;
        let (key, value) = record.split_at(equals);
        let key = String::from_utf8(key.to_vec()).map_err(|_| bad())?;
        let value = value.get(1..).unwrap_or_default();
        let is_path = matches!(key.as_str(), "path" | "linkpath");
        if is_path && value.contains(&0) {
            return Err(bad());
        }
        // An empty value takes a global keyword back.
        if value.is_empty() && !key.starts_with("SCHILY.xattr.") {
            into.remove(&key);
        } else {
            into.insert(key, value.to_vec());
        }
        text = text.get(length..).ok_or_else(bad)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Writer;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_in_octal_and_base_256() {
        assert_eq!(signed_number(b"0000644\0"), Some(0o644));
        assert_eq!(signed_number(b"   17 \0 "), Some(0o17));
        assert_eq!(signed_number(b"\0\0\0\0"), Some(0));
        assert_eq!(
            signed_number(b"\x80\0\0\0\0\0\0\x01\0\0\0\0"),
            Some(1 << 32)
        );
        assert_eq!(signed_number(&[0xff; 12]), Some(-1));
        assert_eq!(signed_number(b"12x"), None);
        assert_eq!(signed_number(&[0xbf; 12]), None);
    }

    #[test]
    fn times_with_fractions() {
        assert_eq!(
            parse_time(b"1700000000.5"),
            Some((1_700_000_000, 500_000_000))
        );
        assert_eq!(parse_time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(parse_time(b"7"), Some((7, 0)));
        assert_eq!(parse_time(b"7.x"), None);
    }

    #[test]
    fn long_names_and_attributes_round_trip() {
        let entry = Entry {
            path: [b"d/".as_slice(), &[b'n'; 240], b"\xff"].concat(),
            link: Vec::new(),
            kind: Kind::Regular,
            mode: 0o4755,
            uid: 3_000_000,
            gid: 7,
            mtime: (12, 34),
            size: 5,
            device: (0, 0),
            xattrs: vec![(b"user.a".to_vec(), b"\0\n=".to_vec())],
        };
        let mut writer = Writer::new(Vec::new());
        writer.append(&entry, &mut b"hello".as_slice()).unwrap();
        let bytes = writer.finish().unwrap();
        let mut reader = Reader::new(bytes.as_slice());
        assert_eq!(reader.next_entry().unwrap(), Some(entry));
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        assert_eq!(reader.next_entry().unwrap(), None);
        for cut in 1..bytes.len() - 1024 {
            let mut reader = Reader::new(&bytes[..cut]);
            let first = reader.next_entry();
            let outcome = first.and_then(|_| reader.next_entry());
            assert!(outcome.is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_huge_extension_is_refused_before_it_is_read() {
        let mut block = [0_u8; BLOCK_BYTES];
        block[124..135].copy_from_slice(b"77777777777");
        block[156] = b'x';
        let sum: u64 = block.iter().map(|&b| u64::from(b)).sum::<u64>() + 8 * 32;
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        let error = Reader::new(block.as_slice()).next_entry().unwrap_err();
        assert!(matches!(error, TarError::TooLong { .. }), "{error}");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..3000), fix in any::<bool>()) {
            if fix && bytes.len() >= BLOCK_BYTES {
                let sum: u64 = bytes[..BLOCK_BYTES].iter().enumerate()
                    .map(|(i, &b)| if (148..156).contains(&i) { 32 } else { u64::from(b) }).sum();
                bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
            let mut reader = Reader::new(bytes.as_slice());
            while let Ok(Some(_)) = reader.next_entry() {}
        }
    }
}
