//! The first half of an ingest: bytes as they come, verified, and decompressed by what they begin with.

use crate::layers::LayerError;
use carrack_spec::image::media_type;
use sha2::{Digest as _, Sha256};
use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result};

const INPUT_BUFFER_BYTES: usize = 128 << 10;
/// Window that zstd may ask for: 2^27 bytes, what its own command line accepts by default.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Plain,
    Gzip,
    Zstd,
}

impl Form {
    /// Tells by the first bytes. zstd may begin with a frame to be skipped.
    pub(crate) fn of(head: &[u8]) -> Result<Self> {
        let unknown = |name| {
            let text = format!("compressed with {name}; only gzip and zstd are read");
            Err(Error::new(ErrorKind::Unsupported, text))
        };
        match head {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Self::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => unknown("xz"),
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, ..] => unknown("bzip2"),
            _ => Ok(Self::Plain),
        }
    }

    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Plain => media_type::LAYER,
            Self::Gzip => media_type::LAYER_GZIP,
            Self::Zstd => media_type::LAYER_ZSTD,
        }
    }
}

/// A stream of a layer as it comes, digested and counted. It gives at most one byte more than `limit`.
pub(crate) struct Source<R> {
    input: R,
    hash: Sha256,
    bytes: u64,
    limit: u64,
}

impl<R: Read> Source<R> {
    pub(crate) fn new(input: R, limit: Option<u64>) -> Self {
        Self {
            input,
            hash: Sha256::new(),
            bytes: 0,
            limit: limit.unwrap_or(u64::MAX - 1),
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn digest(self) -> carrack_spec::Digest {
        carrack_spec::Digest::from_sha256(self.hash.finalize().into())
    }
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        if self.bytes > self.limit {
            let text = format!("it is longer than the {} bytes it should have", self.limit);
            return Err(Error::new(ErrorKind::InvalidData, text));
        }
        let want = usize::try_from(self.limit + 1 - self.bytes).unwrap_or(usize::MAX);
        let want = want.min(buf.len());
        let part = buf.get_mut(..want).unwrap_or_default();
        let got = loop {
            match self.input.read(part) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.hash.update(part.get(..got).unwrap_or_default());
        self.bytes += got as u64;
        if self.bytes > self.limit {
            let text = format!("it is longer than the {} bytes it should have", self.limit);
            return Err(Error::new(ErrorKind::InvalidData, text));
        }
        Ok(got)
    }
}

type Input<R> = BufReader<Source<R>>;

/// A stream being decompressed.
pub(crate) enum Decompressor<R: Read> {
    Plain(Input<R>),
    Gzip(Box<flate2::bufread::MultiGzDecoder<Input<R>>>),
    Zstd(zstd::stream::read::Decoder<'static, Input<R>>),
}

impl<R: Read> Decompressor<R> {
    pub(crate) fn new(source: Source<R>) -> Result<(Self, Form)> {
        let mut input = BufReader::with_capacity(INPUT_BUFFER_BYTES, source);
        let form = Form::of(input.fill_buf()?)?;
        let decompressor = match form {
            Form::Plain => Self::Plain(input),
            Form::Gzip => Self::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(input))),
            Form::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Self::Zstd(decoder)
            }
        };
        Ok((decompressor, form))
    }

    /// Bytes read so far as they come.
    pub(crate) fn compressed(&self) -> u64 {
        match self {
            Self::Plain(input) => input.get_ref().count(),
            Self::Gzip(decoder) => decoder.get_ref().get_ref().count(),
            Self::Zstd(decoder) => decoder.get_ref().get_ref().count(),
        }
    }

    /// Reads what is left after the compressed stream, so that the digest covers everything.
    pub(crate) fn finish(self) -> Result<Source<R>> {
        let mut source = match self {
            Self::Plain(input) => input.into_inner(),
            Self::Gzip(decoder) => decoder.into_inner().into_inner(),
            Self::Zstd(decoder) => decoder.finish().into_inner(),
        };
        std::io::copy(&mut source, &mut std::io::sink())?;
        Ok(source)
    }
}

impl<R: Read> Read for Decompressor<R> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        match self {
            Self::Plain(input) => input.read(buf),
            Self::Gzip(decoder) => decoder.read(buf),
            Self::Zstd(decoder) => decoder.read(buf),
        }
    }
}

/// Says which layer it was.
pub(crate) fn unreadable(name: &str) -> impl Fn(Error) -> LayerError {
    move |e| LayerError::Read(name.to_owned(), e)
}
