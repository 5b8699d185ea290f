//! Several layers at once, from wherever their bytes come.

use crate::images::parallel::several;
use crate::images::{ImagesError, LayerEvent, TransferEvent};
use crate::{Engine, EngineError};
use carrack_spec::image::{Descriptor, media_type};
use carrack_store::{Ingested, LayerSource, Lease, LoadEvent, LoadOptions, Loaded, Progress};

/// Most layers taken in at the same time: each has two threads of its own.
const LAYERS_AT_ONCE_MAX: usize = 4;

impl From<Progress> for LayerEvent {
    fn from(progress: Progress) -> Self {
        match progress {
            Progress::Waiting => Self::Waiting,
            Progress::Read(bytes) => Self::Moved(bytes),
            Progress::Flushing => Self::Flushing,
        }
    }
}

impl Engine {
    /// Loads the images of an archive or a layout.
    ///
    /// # Errors
    /// As [`carrack_store::Store::load`].
    pub fn load(
        &self,
        options: &LoadOptions,
        tell: &(dyn Fn(TransferEvent) + Sync),
    ) -> Result<Vec<Loaded>, EngineError> {
        let layer = |(digest, size)| Descriptor::new(media_type::LAYER, digest, size);
        let tell = |event| {
            tell(match event {
                LoadEvent::Layers(layers) => {
                    TransferEvent::Layers(layers.into_iter().map(layer).collect())
                }
                LoadEvent::Layer(n, progress) => TransferEvent::Layer(n, progress.into()),
                LoadEvent::Done(n, existed) => {
                    TransferEvent::Layer(n, LayerEvent::Done { existed })
                }
            });
        };
        Ok(self.store().load_telling(options, &tell)?)
    }
}

/// Takes layers in, several at a time; the first failure ends the rest. `open` gives the bytes of the
/// layer with this number, `progress` hears of it.
pub(super) fn ingest<R: std::io::Read>(
    lease: &Lease,
    layers: &[LayerSource],
    open: impl Fn(usize) -> std::io::Result<R> + Sync,
    progress: impl Fn(usize, Progress) + Sync,
    done: impl Fn(usize, &Ingested) + Sync,
) -> Result<Vec<Ingested>, ImagesError> {
    several(layers, LAYERS_AT_ONCE_MAX, |n, layer| {
        let tell = |p| progress(n, p);
        let ingested = lease.store().ingest(lease, layer, || open(n), &tell)?;
        done(n, &ingested);
        Ok(ingested)
    })
}
