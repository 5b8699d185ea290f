//! `load`, and what the store tells of layers.

use crate::images::{LayerEvent, TransferEvent};
use crate::{Engine, EngineError};
use carrack_spec::image::{Descriptor, media_type};
use carrack_store::{LoadEvent, LoadOptions, Loaded, Progress};

impl From<Progress> for LayerEvent {
    fn from(progress: Progress) -> Self {
        match progress {
            Progress::Waiting => Self::Waiting,
            Progress::Read(bytes) => Self::Moved(bytes),
            Progress::Flushing => Self::Flushing,
            Progress::Done { existed } => Self::Done { existed },
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
            });
        };
        Ok(self.store().load_telling(options, &tell)?)
    }
}
