//! A plain tar file as an image of one layer.

use crate::images::{ImageError, ImageRecord};
use crate::ingest::{LayerSource, Progress};
use crate::store::Store;
use carrack_spec::Reference;
use carrack_spec::image::{
    ContainerConfig, Descriptor, History, ImageConfig, Manifest, Platform, RootFs, media_type,
};
use std::io::Read;

/// What the image is to be.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Its name.
    pub name: Option<Reference>,
    /// Defaults for its containers.
    pub config: ContainerConfig,
    /// The machine it is for; this one by default.
    pub platform: Option<Platform>,
    /// When it was made, RFC 3339.
    pub created: Option<String>,
    /// A word on where it comes from, for its history.
    pub comment: Option<String>,
}

impl Store {
    /// Takes a tar stream (gzip or zstd around it, or not) in as an image of one layer.
    ///
    /// # Errors
    /// As of [`Store::ingest`] and [`Store::put_image`].
    pub fn import(
        &self,
        input: impl Read,
        options: ImportOptions,
        progress: &dyn Fn(Progress),
    ) -> Result<ImageRecord, ImageError> {
        let lease = self.lease()?;
        let layer = self.ingest(&lease, &LayerSource::default(), || Ok(input), progress)?;
        let platform = options.platform.unwrap_or_else(Platform::native);
        let config = ImageConfig {
            created: options.created.clone(),
            architecture: platform.architecture,
            variant: platform.variant,
            os: platform.os,
            config: options.config,
            rootfs: RootFs {
                kind: "layers".into(),
                diff_ids: vec![layer.diff_id.clone()],
            },
            history: vec![History {
                created: options.created,
                comment: options.comment,
                ..History::default()
            }],
            ..ImageConfig::default()
        };
        let (id, config_size) = self.put_document(&lease, &config)?;
        let plain = Descriptor::new(media_type::LAYER, layer.diff_id.clone(), layer.info.archive);
        let descriptor = Descriptor::new(media_type::CONFIG, id.clone(), config_size);
        let (digest, size) = self.put_document(&lease, &Manifest::new(descriptor, vec![plain]))?;
        let target = Descriptor::new(media_type::MANIFEST, digest.clone(), size);
        let record = ImageRecord::new(
            options.name.as_ref(),
            target,
            digest,
            id,
            &config,
            layer.info.bytes,
        );
        self.put_image(&lease, &record)?;
        Ok(record)
    }
}
