//! The reader: headers, GNU long names, PAX records, maps of sparse files.

use super::header::{self, number, signed_number, until_nul};
use super::pax::{self, Records, decimal};
use super::sparse::{Map, SEGMENTS_MAX};
use super::{BLOCK_BYTES, EXTENSION_BYTES_MAX, Entry, Kind, PATH_BYTES_MAX, TarError};
use crate::copy::fill;
use std::io::{BufRead, ErrorKind, Read};

const SKIP_BUFFER_BYTES: usize = 8 << 10;

/// Sees every byte of the stream that is not handed out as an entry's content: headers, padding,
/// content that nobody read, and what follows the end mark.
pub trait Observer {
    /// The next such bytes.
    ///
    /// # Errors
    /// Ends the reading with this error.
    fn literal(&mut self, bytes: &[u8]) -> std::io::Result<()>;
}

impl Observer for () {
    fn literal(&mut self, _bytes: &[u8]) -> std::io::Result<()> {
        Ok(())
    }
}

/// Reads the entries of a tar stream in order.
///
/// [`Reader::next_entry`] moves to the next header; the entry's bytes are then read through the
/// [`Read`] or [`BufRead`] implementation, which ends where the entry ends. Bytes that were not read
/// are skipped.
pub struct Reader<R, O = ()> {
    input: R,
    observer: O,
    offset: u64,
    unread: u64,
    padding: u64,
    global: Records,
    ended: bool,
}

/// PAX keywords and GNU long names that apply to the next entry.
#[derive(Default)]
struct Pending {
    pax: Records,
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
        Self::observed(input, ())
    }

    /// As [`Reader::next_entry`]; `skip` passes over bytes that nobody read, for a stream that can seek.
    ///
    /// # Errors
    /// As [`Reader::next_entry`].
    pub fn next_entry_with(
        &mut self,
        skip: impl FnMut(&mut R, u64) -> std::io::Result<u64>,
    ) -> Result<Option<Entry>, TarError> {
        let mut skip = skip;
        self.next_by(|reader, n| skip(&mut reader.input, n))
    }
}

impl<R: Read, O: Observer> Reader<R, O> {
    /// A reader at the start of an archive, with somebody who sees what is not content.
    pub fn observed(input: R, observer: O) -> Self {
        Self {
            input,
            observer,
            offset: 0,
            unread: 0,
            padding: 0,
            global: Records::default(),
            ended: false,
        }
    }

    /// Offset of the bytes that come next, from the start of the stream.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The observer.
    pub fn observer(&mut self) -> &mut O {
        &mut self.observer
    }

    /// Gives the stream back; what follows the end mark is unread.
    pub fn into_inner(self) -> R {
        self.input
    }

    /// Reads what follows the end mark, for the observer. Gives stream and observer back.
    ///
    /// # Errors
    /// Errors of the stream.
    pub fn finish(mut self) -> Result<(R, O), TarError> {
        self.pass(u64::MAX).map_err(TarError::Read)?;
        Ok((self.input, self.observer))
    }

    /// Moves to the next entry, `None` at the end mark or a clean end of the stream.
    ///
    /// # Errors
    /// [`TarError`] for anything that is not a well-formed header.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        self.next_by(Self::pass)
    }

    fn next_by(
        &mut self,
        mut skip: impl FnMut(&mut Self, u64) -> std::io::Result<u64>,
    ) -> Result<Option<Entry>, TarError> {
        let mut pending = Pending::default();
        loop {
            if self.ended {
                return Ok(None);
            }
            let rest = self.unread.saturating_add(self.padding);
            let skipped = match rest {
                0 => 0,
                rest => skip(self, rest).map_err(TarError::Read)?,
            };
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
                // `X` is what Solaris wrote before POSIX had PAX.
                b'x' | b'X' => {
                    let text = self.extension(at, size)?;
                    pending.pax.parse(&text, self.offset)?;
                    self.check_bytes(at, pending.pax.bytes())?;
                }
                b'g' => {
                    let text = self.extension(at, size)?;
                    self.global.parse(&text, self.offset)?;
                    self.global.compact();
                    self.check_bytes(at, self.global.bytes())?;
                }
                b'L' => pending.long_path = Some(until_nul(&self.extension(at, size)?)),
                b'K' => pending.long_link = Some(until_nul(&self.extension(at, size)?)),
                // The label of a volume.
                b'V' => {
                    self.unread = size;
                    self.padding = padding(size);
                }
                _ => return self.entry(&block, at, size, &pending).map(Some),
            }
        }
    }

    /// Several extended headers in a row count together.
    fn check_bytes(&self, at: u64, bytes: usize) -> Result<(), TarError> {
        match bytes as u64 > EXTENSION_BYTES_MAX {
            false => Ok(()),
            true => Err(TarError::TooLong {
                at,
                bytes: bytes as u64,
                max: EXTENSION_BYTES_MAX,
            }),
        }
    }

    /// Passes over up to `n` bytes and tells how many there were.
    fn pass(&mut self, n: u64) -> std::io::Result<u64> {
        let mut buffer = [0; SKIP_BUFFER_BYTES];
        let mut passed = 0;
        while passed < n {
            let want = buffer
                .len()
                .min(usize::try_from(n - passed).unwrap_or(usize::MAX));
            let got = match self.input.read(buffer.get_mut(..want).unwrap_or_default()) {
                Ok(0) => break,
                Ok(got) => got,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            self.observer
                .literal(buffer.get(..got).unwrap_or_default())?;
            passed += got as u64;
        }
        Ok(passed)
    }

    /// Fills `buffer` with bytes that are no content; false when there is nothing left at all.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<bool, TarError> {
        let got = fill(&mut self.input, buffer).map_err(TarError::Read)?;
        self.offset += got as u64;
        self.observer
            .literal(buffer.get(..got).unwrap_or_default())
            .map_err(TarError::Read)?;
        match got {
            0 if !buffer.is_empty() => Ok(false),
            got if got == buffer.len() => Ok(true),
            _ => Err(TarError::Truncated(self.offset)),
        }
    }

    /// One header, or `None` at the end. A stream that stops cleanly without an end mark is accepted,
    /// as GNU tar and Go do.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK_BYTES]>, TarError> {
        let mut block = [0; BLOCK_BYTES];
        let at = self.offset;
        if !self.fill(&mut block)? || block.iter().all(|&b| b == 0) {
            return Ok(None);
        }
        match header::is_sealed(&block) {
            true => Ok(Some(block)),
            false => Err(TarError::Checksum(at)),
        }
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
        if !self.fill(&mut body)? {
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
        pending: &Pending,
    ) -> Result<Entry, TarError> {
        let fields = Fields {
            block,
            at,
            pending,
            global: &self.global,
        };
        let mut entry = fields.entry()?;
        let size = fields.decimal("size", size)?;
        // Only files have bytes; hard links of some writers repeat the size of their target.
        if entry.kind == Kind::Regular {
            self.unread = size;
            self.padding = padding(size);
            entry.size = size;
            if let Some(map) = self.map(block, at, pending)? {
                let (map, size) = map.checked(self.unread, self.offset)?;
                entry.sparse = Some(map);
                entry.size = size;
            }
        } else if block[156] == b'D' {
            // The names that GNU tar's incremental dumps keep.
            self.unread = size;
            self.padding = padding(size);
        }
        Ok(entry)
    }

    /// The map of a sparse file, of which a part may stand before the file's bytes.
    fn map(
        &mut self,
        block: &[u8; BLOCK_BYTES],
        at: u64,
        pending: &Pending,
    ) -> Result<Option<Map>, TarError> {
        if block[156] == b'S' {
            let mut map = Map {
                size: number(&block[483..495], "real size", at)?,
                ..Map::default()
            };
            map.add_block(block, 386, 4, at)?;
            let mut continued = block[482] != 0;
            while continued {
                let mut more = [0; BLOCK_BYTES];
                let at = self.offset;
                if !self.fill(&mut more)? {
                    return Err(TarError::Truncated(self.offset));
                }
                map.add_block(&more, 0, 21, at)?;
                continued = more[504] != 0;
            }
            return Ok(Some(map));
        }
        let value = |key| pending.pax.get(key).flatten();
        if value("GNU.sparse.major") == Some(b"1") && value("GNU.sparse.minor") == Some(b"0") {
            let size = value("GNU.sparse.realsize").and_then(decimal);
            let mut map = Map {
                size: size.ok_or(TarError::Sparse(at))?,
                ..Map::default()
            };
            self.map_before_content(&mut map)?;
            return Ok(Some(map));
        }
        if let Some(map) = Map::from_records(&pending.pax, at)? {
            return Ok(Some(map));
        }
        match value("GNU.sparse.major") {
            None => Ok(None),
            Some(_) => Err(TarError::Sparse(at)),
        }
    }

    /// Version 1.0: decimal numbers, each with a line feed, in whole blocks.
    fn map_before_content(&mut self, map: &mut Map) -> Result<(), TarError> {
        let mut numbers = 0_u64;
        let mut wanted = 1_u64;
        let mut offset = 0;
        let mut digits = Vec::new();
        while numbers < wanted {
            let mut block = [0; BLOCK_BYTES];
            if self.unread < BLOCK_BYTES as u64 {
                return Err(TarError::Sparse(self.offset));
            }
            if !self.fill(&mut block)? {
                return Err(TarError::Truncated(self.offset));
            }
            self.unread -= BLOCK_BYTES as u64;
            for byte in block {
                if numbers == wanted {
                    break;
                }
                if byte != b'\n' {
                    if digits.len() >= 20 {
                        return Err(TarError::Sparse(self.offset));
                    }
                    digits.push(byte);
                    continue;
                }
                let n = decimal(&digits).ok_or(TarError::Sparse(self.offset))?;
                digits.clear();
                match numbers {
                    0 if n > SEGMENTS_MAX as u64 => return Err(TarError::Sparse(self.offset)),
                    0 => wanted = 1 + 2 * n,
                    i if i % 2 == 1 => offset = n,
                    _ => map.add(offset, n, self.offset)?,
                }
                numbers += 1;
            }
        }
        Ok(())
    }
}

/// What a header and the records before it say.
struct Fields<'a> {
    block: &'a [u8; BLOCK_BYTES],
    at: u64,
    pending: &'a Pending,
    global: &'a Records,
}

impl<'a> Fields<'a> {
    /// Everything but the size.
    fn entry(&self) -> Result<Entry, TarError> {
        let (block, at) = (self.block, self.at);
        let path = self
            .record("GNU.sparse.name")
            .or_else(|| self.record("path"))
            .map(<[u8]>::to_vec)
            .or_else(|| self.pending.long_path.clone())
            .unwrap_or_else(|| header::path(block));
        let link = self
            .record("linkpath")
            .map(<[u8]>::to_vec)
            .or_else(|| self.pending.long_link.clone())
            .unwrap_or_else(|| until_nul(&block[157..257]));
        let longest = path.len().max(link.len());
        if longest > PATH_BYTES_MAX {
            return Err(TarError::TooLong {
                at,
                bytes: longest as u64,
                max: PATH_BYTES_MAX as u64,
            });
        }
        let kind = kind(block[156], &path)?;
        let mtime = match self.record("mtime") {
            Some(text) => pax::time(text).ok_or(self.bad("mtime"))?,
            None => (signed_number(&block[136..148]).ok_or(self.bad("mtime"))?, 0),
        };
        let device = match kind {
            Kind::CharDevice | Kind::BlockDevice => (
                self.number32("SCHILY.devmajor", "device major", 329..337)?,
                self.number32("SCHILY.devminor", "device minor", 337..345)?,
            ),
            _ => (0, 0),
        };
        let mut xattrs: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for (key, value) in self.pending.pax.starting(b"SCHILY.xattr.") {
            match xattrs.iter_mut().find(|(k, _)| k == key) {
                Some((_, before)) => *before = value.to_vec(),
                None => xattrs.push((key.to_vec(), value.to_vec())),
            }
        }
        Ok(Entry {
            path,
            link,
            kind,
            mode: number(&block[100..108], "mode", at)? as u32 & 0o7777,
            uid: self.number32("uid", "uid", 108..116)?,
            gid: self.number32("gid", "gid", 116..124)?,
            mtime,
            size: 0,
            sparse: None,
            device,
            xattrs,
        })
    }

    /// The value of a PAX record for this entry, or else for all.
    fn record(&self, key: &str) -> Option<&'a [u8]> {
        match self.pending.pax.get(key) {
            Some(value) => value,
            None => self.global.get(key).flatten(),
        }
    }

    fn bad(&self, field: &'static str) -> TarError {
        TarError::Number { field, at: self.at }
    }

    fn decimal(&self, key: &'static str, field: u64) -> Result<u64, TarError> {
        match self.record(key) {
            Some(text) => decimal(text).ok_or(self.bad(key)),
            None => Ok(field),
        }
    }

    fn number32(
        &self,
        key: &'static str,
        field: &'static str,
        range: std::ops::Range<usize>,
    ) -> Result<u32, TarError> {
        let n = match self.record(key) {
            Some(text) => decimal(text).ok_or(self.bad(field))?,
            None => number(self.block.get(range).unwrap_or_default(), field, self.at)?,
        };
        u32::try_from(n).map_err(|_| self.bad(field))
    }
}

fn kind(flag: u8, path: &[u8]) -> Result<Kind, TarError> {
    Ok(match flag {
        // Version 7 archives mark a directory by a slash at the end of its name only.
        0 | b'0' | b'7' if path.ends_with(b"/") => Kind::Directory,
        0 | b'0' | b'7' | b'S' => Kind::Regular,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::CharDevice,
        b'4' => Kind::BlockDevice,
        b'5' | b'D' => Kind::Directory,
        b'6' => Kind::Fifo,
        other => {
            return Err(TarError::Unsupported {
                kind: char::from(other).to_string(),
                path: String::from_utf8_lossy(path).into_owned(),
            });
        }
    })
}

impl<R: Read, O> Read for Reader<R, O> {
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

impl<R: BufRead, O> BufRead for Reader<R, O> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        if self.unread == 0 {
            return Ok(&[]);
        }
        let bytes = self.input.fill_buf()?;
        if bytes.is_empty() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let n = bytes
            .len()
            .min(usize::try_from(self.unread).unwrap_or(usize::MAX));
        Ok(bytes.get(..n).unwrap_or_default())
    }

    fn consume(&mut self, n: usize) {
        self.input.consume(n);
        self.unread = self.unread.saturating_sub(n as u64);
        self.offset += n as u64;
    }
}

fn padding(size: u64) -> u64 {
    (BLOCK_BYTES as u64 - size % BLOCK_BYTES as u64) % BLOCK_BYTES as u64
}

#[cfg(test)]
mod tests {
    use super::super::Writer;
    use super::*;
    use proptest::prelude::*;

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
            sparse: None,
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

    struct Seen(Vec<u8>);

    impl Observer for Seen {
        fn literal(&mut self, bytes: &[u8]) -> std::io::Result<()> {
            self.0.extend_from_slice(bytes);
            Ok(())
        }
    }

    /// Content and what the observer sees, in order; `None` when the archive is refused.
    fn all_bytes(archive: &[u8], takes: &[bool]) -> Option<Vec<u8>> {
        let mut reader = Reader::observed(archive, Seen(Vec::new()));
        let mut takes = takes.iter().cycle();
        while let Some(entry) = reader.next_entry().ok()? {
            let mut left = entry.stored();
            // As a driver does: all of an entry's bytes, or none.
            while left > 0 && takes.next() == Some(&true) {
                let part = reader.fill_buf().ok()?.to_vec();
                reader.observer().0.extend_from_slice(&part);
                reader.consume(part.len());
                left -= part.len() as u64;
            }
        }
        reader.finish().ok().map(|(_, seen)| seen.0)
    }

    proptest! {
        #[test]
        fn every_byte_is_content_or_seen(
            sizes in proptest::collection::vec(0_u64..1300, 1..6),
            takes in proptest::collection::vec(any::<bool>(), 1..4),
            hits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
            flag in proptest::sample::select(b"0125SgxLKDV7\0".to_vec()),
            tail in 0_usize..2000,
        ) {
            let mut writer = Writer::new(Vec::new());
            for (n, size) in sizes.iter().enumerate() {
                let entry = Entry {
                    size: *size,
                    xattrs: vec![(b"user.a".to_vec(), vec![b'v'; n * 90])],
                    ..Entry::new(Kind::Regular, format!("{:>60}", n))
                };
                writer.append(&entry, &mut std::io::repeat(b'c').take(*size)).unwrap();
            }
            let mut bytes = writer.finish().unwrap();
            bytes.extend(std::iter::repeat_n(b't', tail));
            bytes[156] = flag;
            for (at, byte) in hits {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            // Damage that the checksum would tell is no test of what comes after it.
            for block in 0..bytes.len() / BLOCK_BYTES {
                let block = &mut bytes[block * BLOCK_BYTES..][..BLOCK_BYTES];
                if &block[257..262] == b"ustar" {
                    block[148..156].fill(b' ');
                    let sum: u64 = block.iter().map(|&b| u64::from(b)).sum();
                    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
                }
            }
            if let Some(all) = all_bytes(&bytes, &takes) {
                prop_assert!(all == bytes);
            }
        }

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
