//! The writer: ustar headers, with a PAX record for each field that does not fit one.

use super::{BLOCK_BYTES, Entry, Kind};
use std::io::{Error, ErrorKind, Read, Write};

/// Writes a tar stream, entry by entry.
pub struct Writer<W> {
    output: W,
}

impl<W: Write> Writer<W> {
    /// A writer at the start of an archive.
    pub fn new(output: W) -> Self {
        Self { output }
    }

    /// Adds an entry; `data` must hold exactly `entry.size` bytes.
    ///
    /// # Errors
    /// Errors of the stream, and `InvalidData` when `data` is shorter than promised.
    pub fn append(&mut self, entry: &Entry, data: &mut impl Read) -> std::io::Result<()> {
        let mut pax = Vec::new();
        let header = header(entry, &mut pax);
        if !pax.is_empty() {
            let extension = Entry {
                path: b"pax".to_vec(),
                link: Vec::new(),
                kind: Kind::Regular,
                mode: 0o644,
                uid: 0,
                gid: 0,
                mtime: (0, 0),
                size: pax.len() as u64,
                sparse: None,
                device: (0, 0),
                xattrs: Vec::new(),
            };
            let mut block = self::header(&extension, &mut Vec::new());
            block[156] = b'x';
            seal(&mut block);
            self.output.write_all(&block)?;
            self.output.write_all(&pax)?;
            self.pad(pax.len() as u64)?;
        }
        self.output.write_all(&header)?;
        let copied = crate::copy::copy(&mut data.take(entry.size), &mut self.output)?;
        if copied != entry.size {
            let text = format!("an entry of {} bytes gave {copied}", entry.size);
            return Err(Error::new(ErrorKind::InvalidData, text));
        }
        self.pad(entry.size)
    }

    /// Writes the end mark and gives the stream back.
    ///
    /// # Errors
    /// Errors of the stream.
    pub fn finish(mut self) -> std::io::Result<W> {
        self.output.write_all(&[0; 2 * BLOCK_BYTES])?;
        self.output.flush()?;
        Ok(self.output)
    }

    fn pad(&mut self, size: u64) -> std::io::Result<()> {
        let used = (size % BLOCK_BYTES as u64) as usize;
        if used != 0 {
            self.output.write_all(&[0; BLOCK_BYTES][used..])?;
        }
        Ok(())
    }
}

fn header(entry: &Entry, pax: &mut Vec<u8>) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    name(&mut block[..100], &entry.path, "path", pax);
    octal(&mut block[100..108], u64::from(entry.mode), "mode", pax);
    octal(&mut block[108..116], u64::from(entry.uid), "uid", pax);
    octal(&mut block[116..124], u64::from(entry.gid), "gid", pax);
    octal(&mut block[124..136], entry.size, "size", pax);
    let (seconds, nanos) = entry.mtime;
    match u64::try_from(seconds) {
        Ok(n) if nanos == 0 && n < 1 << 33 => octal(&mut block[136..148], n, "mtime", pax),
        _ => record(pax, "mtime", time(seconds, nanos).as_bytes()),
    }
    block[156] = match entry.kind {
        Kind::Regular => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::CharDevice => b'3',
        Kind::BlockDevice => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    };
    name(&mut block[157..257], &entry.link, "linkpath", pax);
    block[257..265].copy_from_slice(b"ustar\x0000");
    octal(
        &mut block[329..337],
        u64::from(entry.device.0),
        "SCHILY.devmajor",
        pax,
    );
    octal(
        &mut block[337..345],
        u64::from(entry.device.1),
        "SCHILY.devminor",
        pax,
    );
    for (key, value) in &entry.xattrs {
        let key = format!("SCHILY.xattr.{}", String::from_utf8_lossy(key));
        record(pax, &key, value);
    }
    seal(&mut block);
    block
}

fn seal(block: &mut [u8; BLOCK_BYTES]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

fn name(field: &mut [u8], value: &[u8], key: &str, pax: &mut Vec<u8>) {
    if value.len() > field.len() {
        record(pax, key, value);
    }
    for (slot, byte) in field.iter_mut().zip(value) {
        *slot = *byte;
    }
}

fn octal(field: &mut [u8], value: u64, key: &str, pax: &mut Vec<u8>) {
    let width = field.len() - 1;
    let text = format!("{value:0width$o}");
    if text.len() > width {
        record(pax, key, value.to_string().as_bytes());
        field[..width].fill(b'0');
    } else {
        field[..width].copy_from_slice(text.as_bytes());
    }
}

fn time(seconds: i64, nanos: u32) -> String {
    match (seconds, nanos) {
        (_, 0) => seconds.to_string(),
        (0.., _) => format!("{seconds}.{nanos:09}"),
        (-1, _) => format!("-0.{:09}", 1_000_000_000 - nanos),
        (..-1, _) => format!("{}.{:09}", seconds + 1, 1_000_000_000 - nanos),
    }
}

fn record(pax: &mut Vec<u8>, key: &str, value: &[u8]) {
    let bare = key.len() + value.len() + 3;
    let mut length = bare + 1;
    while length != bare + length.to_string().len() {
        length = bare + length.to_string().len();
    }
    pax.extend_from_slice(format!("{length} {key}=").as_bytes());
    pax.extend_from_slice(value);
    pax.push(b'\n');
}
