//! What is told of a transfer.

use carrack_spec::Reference;
use carrack_spec::image::Descriptor;

/// How a pull, push or copy gets on. Layers are named by their number from the bottom.
#[derive(Debug, Clone)]
pub enum TransferEvent {
    /// A registry is asked for this reference.
    Asking(Reference),
    /// This manifest of an index comes or goes next.
    Manifest(Descriptor),
    /// The manifest is there; these are the layers as they come or go.
    Layers(Vec<Descriptor>),
    /// Something happened to a layer.
    Layer(usize, LayerEvent),
}

/// What happened to a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerEvent {
    /// Another pull fetches it just now; this one waits.
    Waiting,
    /// So many bytes have come or gone.
    Moved(u64),
    /// All bytes are unpacked; the disk is being flushed.
    Flushing,
    /// The registry took it from another repository of its own.
    Mounted,
    /// It is where it should be; it was there before, or it came.
    Done {
        /// It was there before.
        existed: bool,
    },
}

/// A stream that tells how much was read of it.
pub(super) struct Telling<'a, R> {
    pub(super) input: R,
    pub(super) bytes: u64,
    pub(super) tell: &'a (dyn Fn(u64) + Sync),
}

impl<R: std::io::Read> std::io::Read for Telling<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let got = self.input.read(buf)?;
        self.bytes += got as u64;
        (self.tell)(self.bytes);
        Ok(got)
    }
}
