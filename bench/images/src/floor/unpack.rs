//! The files of a tar stream, with as few system calls as make them what they should be.

use std::io::{Error, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, openat,
};

use super::Stream;

const BLOCK_BYTES: usize = 512;
/// Set-user-id, set-group-id and sticky: a change of the owner clears them.
const SPECIAL_BITS: u32 = 0o7000;
const XATTR: &str = "SCHILY.xattr.";

/// What a header says.
struct Entry {
    path: String,
    link: String,
    kind: u8,
    mode: u32,
    owner: (u32, u32),
    time: Timespec,
    size: u64,
    xattrs: Vec<(String, Vec<u8>)>,
}

/// Makes everything below `at`.
pub fn unpack(stream: &mut Stream, at: &Path) -> Result<()> {
    let root: OwnedFd = std::fs::File::open(at)?.into();
    let mut directories = Vec::new();
    let mut xattrs = Vec::new();
    let mut block = [0; BLOCK_BYTES];
    while stream.fill(&mut block) && block.first() != Some(&0) {
        let entry = Entry::parse(&block, std::mem::take(&mut xattrs))?;
        if entry.kind == b'x' {
            let mut records = vec![0; usize::try_from(entry.size)?];
            stream.fill(&mut records);
            xattrs = parse_xattrs(&records);
        } else {
            make(stream, &root, &entry).with_context(|| entry.path.clone())?;
            if entry.kind == b'5' {
                directories.push((entry.path, entry.time));
            }
        }
        let used = usize::try_from(entry.size)? % BLOCK_BYTES;
        if used > 0 {
            stream.fill(block.get_mut(used..).unwrap_or_default());
        }
    }
    for (path, time) in directories.iter().rev() {
        rustix::fs::utimensat(&root, path.as_str(), &stamps(*time), AtFlags::empty())?;
    }
    Ok(())
}

impl Entry {
    fn parse(block: &[u8; BLOCK_BYTES], xattrs: Vec<(String, Vec<u8>)>) -> Result<Entry> {
        let field = |from: usize, to: usize| -> Result<String> {
            let bytes = block.get(from..to).unwrap_or_default();
            let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
            Ok(str::from_utf8(bytes.get(..end).unwrap_or_default())?.to_owned())
        };
        let octal = |from, to| -> Result<u64> {
            let text = field(from, to)?;
            u64::from_str_radix(text.trim(), 8).with_context(|| format!("number {text:?}"))
        };
        Ok(Entry {
            path: field(0, 100)?,
            link: field(157, 257)?,
            kind: block[156],
            mode: octal(100, 108)? as u32,
            owner: (octal(108, 116)? as u32, octal(116, 124)? as u32),
            time: Timespec {
                tv_sec: octal(136, 148)? as i64,
                tv_nsec: 0,
            },
            size: octal(124, 136)?,
            xattrs,
        })
    }
}

/// Attributes among PAX records (`LENGTH KEY=VALUE\n`); no other record is used by `images-make`.
fn parse_xattrs(mut records: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    while let Some(space) = records.iter().position(|b| *b == b' ') {
        let length = str::from_utf8(records.get(..space).unwrap_or_default());
        let length: usize = length.ok().and_then(|l| l.parse().ok()).unwrap_or(0);
        let record = records.get(space + 1..length.saturating_sub(1));
        let record = record.unwrap_or_default();
        if let Some(equal) = record.iter().position(|b| *b == b'=') {
            let key = String::from_utf8_lossy(record.get(..equal).unwrap_or_default());
            if let Some(key) = key.strip_prefix(XATTR) {
                let value = record.get(equal + 1..).unwrap_or_default();
                found.push((key.to_owned(), value.to_vec()));
            }
        }
        records = records.get(length.max(space + 1)..).unwrap_or_default();
    }
    found
}

fn make(stream: &mut Stream, root: &OwnedFd, entry: &Entry) -> Result<()> {
    let path = entry.path.as_str();
    let mode = Mode::from_raw_mode(entry.mode & !SPECIAL_BITS);
    if let Some((directory, name)) = path.rsplit_once('/')
        && let Some(hidden) = name.strip_prefix(".wh.")
    {
        return whiteout(root, directory, hidden);
    }
    match entry.kind {
        b'0' => return file(stream, root, entry),
        b'5' => rustix::fs::mkdirat(root, path, mode)?,
        b'2' => rustix::fs::symlinkat(entry.link.as_str(), root, path)?,
        b'1' => {
            rustix::fs::linkat(root, entry.link.as_str(), root, path, AtFlags::empty())?;
            return Ok(());
        }
        kind => bail!("entries of type {kind} are not made"),
    }
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    if entry.owner != (0, 0) {
        let (uid, gid) = owner(entry);
        rustix::fs::chownat(root, path, Some(uid), Some(gid), flags)?;
    }
    if entry.kind == b'2' {
        rustix::fs::utimensat(root, path, &stamps(entry.time), flags)?;
    }
    Ok(())
}

/// As overlayfs has them. The layer below is in another directory: parents may be missing here.
fn whiteout(root: &OwnedFd, directory: &str, hidden: &str) -> Result<()> {
    let mut parent = String::new();
    for part in directory.split('/') {
        parent.push_str(part);
        match rustix::fs::mkdirat(root, parent.as_str(), Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => parent.push('/'),
            Err(error) => return Err(error.into()),
        }
    }
    if hidden == ".wh..opq" {
        let fd = openat(root, parent.as_str(), OFlags::DIRECTORY, Mode::empty())?;
        rustix::fs::fsetxattr(fd, "trusted.overlay.opaque", b"y", XattrFlags::empty())?;
    } else {
        parent.push_str(hidden);
        let kind = FileType::CharacterDevice;
        rustix::fs::mknodat(root, parent.as_str(), kind, Mode::empty(), 0)?;
    }
    Ok(())
}

fn file(stream: &mut Stream, root: &OwnedFd, entry: &Entry) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(entry.mode & !SPECIAL_BITS);
    let fd = openat(root, entry.path.as_str(), flags, mode)?;
    let mut left = entry.size;
    while left > 0 {
        let bytes = stream.peek(usize::try_from(left).unwrap_or(usize::MAX));
        let written = rustix::io::write(&fd, bytes)?;
        if written == 0 {
            return Err(Error::from(ErrorKind::UnexpectedEof).into());
        }
        stream.consume(written);
        left -= written as u64;
    }
    if entry.owner != (0, 0) {
        let (uid, gid) = owner(entry);
        rustix::fs::fchown(&fd, Some(uid), Some(gid))?;
    }
    if entry.mode & SPECIAL_BITS != 0 {
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(entry.mode))?;
    }
    for (key, value) in &entry.xattrs {
        rustix::fs::fsetxattr(fd.as_fd(), key.as_str(), value, XattrFlags::empty())?;
    }
    Ok(rustix::fs::futimens(&fd, &stamps(entry.time))?)
}

fn owner(entry: &Entry) -> (Uid, Gid) {
    (Uid::from_raw(entry.owner.0), Gid::from_raw(entry.owner.1))
}

fn stamps(time: Timespec) -> Timestamps {
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
