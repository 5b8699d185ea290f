//! Writes an image as an archive: OCI image layout or docker archive.
//!
//! Layers are given as whole tar streams in memory, so this suits images that a program makes itself
//! (demonstrations, tests, small tools).

use crate::digesting::digest_of;
use crate::tar::{Entry, Kind, Writer};
use carrack_spec::image::{
    ANNOTATION_REF_NAME, ArchiveImage, ContainerConfig, Descriptor, ImageConfig, ImageLayout,
    Index, Manifest, Platform, RootFs, media_type,
};
use carrack_spec::{Digest, Reference};
use std::collections::BTreeMap;
use std::io::{Result, Write};

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, what every reader knows.
    Gzip,
    /// zstd.
    Zstd,
}

/// An image being put together.
#[derive(Debug, Clone, Default)]
pub struct ImageWriter {
    config: ContainerConfig,
    platform: Option<Platform>,
    diff_ids: Vec<Digest>,
    layers: Vec<(Descriptor, Vec<u8>)>,
    tars: Vec<Vec<u8>>,
}

impl ImageWriter {
    /// An image without layers, with these defaults for its containers.
    pub fn new(config: ContainerConfig) -> Self {
        Self {
            config,
            ..Self::default()
        }
    }

    /// Makes the image for this machine, in place of the one that makes it.
    pub fn platform(&mut self, platform: Platform) -> &mut Self {
        self.platform = Some(platform);
        self
    }

    /// Adds a layer on top.
    ///
    /// # Errors
    /// Errors of the compressor.
    pub fn layer(&mut self, tar: Vec<u8>, compression: Compression) -> Result<&mut Self> {
        let (media_type, blob) = match compression {
            Compression::None => (media_type::LAYER, tar.clone()),
            Compression::Gzip => {
                let mut encoder =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(&tar)?;
                (media_type::LAYER_GZIP, encoder.finish()?)
            }
            Compression::Zstd => (media_type::LAYER_ZSTD, zstd::encode_all(tar.as_slice(), 0)?),
        };
        self.diff_ids.push(digest_of(&tar));
        self.layers.push((descriptor(media_type, &blob), blob));
        self.tars.push(tar);
        Ok(self)
    }

    /// The image configuration, as it is written.
    ///
    /// # Errors
    /// None in practice: the types always serialize.
    pub fn config_json(&self) -> Result<Vec<u8>> {
        let platform = self.platform.clone().unwrap_or_else(Platform::native);
        Ok(serde_json::to_vec(&ImageConfig {
            architecture: platform.architecture,
            os: platform.os,
            variant: platform.variant,
            config: self.config.clone(),
            rootfs: RootFs {
                kind: "layers".into(),
                diff_ids: self.diff_ids.clone(),
            },
            ..ImageConfig::default()
        })?)
    }

    /// Writes a tar file with an OCI image layout.
    ///
    /// # Errors
    /// Errors of the stream.
    pub fn write_layout<W: Write>(&self, name: Option<&Reference>, output: W) -> Result<W> {
        let config = self.config_json()?;
        let manifest = serde_json::to_vec(&Manifest::new(
            descriptor(media_type::CONFIG, &config),
            self.layers.iter().map(|(d, _)| d.clone()).collect(),
        ))?;
        let mut entry = descriptor(media_type::MANIFEST, &manifest);
        entry.annotations = name
            .map(|n| BTreeMap::from([(ANNOTATION_REF_NAME.to_owned(), n.to_string())]))
            .unwrap_or_default();
        let index = Index::new(vec![entry]);
        let layout = ImageLayout {
            image_layout_version: "1.0.0".into(),
        };

        let mut tar = Writer::new(output);
        add(&mut tar, "oci-layout", &serde_json::to_vec(&layout)?)?;
        add(&mut tar, "index.json", &serde_json::to_vec(&index)?)?;
        let blobs = self.layers.iter().map(|(_, blob)| blob);
        for blob in [&manifest, &config].into_iter().chain(blobs) {
            add(
                &mut tar,
                &format!("blobs/sha256/{}", digest_of(blob).hex()),
                blob,
            )?;
        }
        tar.finish()
    }

    /// Writes a docker archive. Its layers are not compressed.
    ///
    /// # Errors
    /// Errors of the stream.
    pub fn write_docker<W: Write>(&self, name: Option<&Reference>, output: W) -> Result<W> {
        let config = self.config_json()?;
        let image = ArchiveImage {
            config: format!("{}.json", digest_of(&config).hex()),
            repo_tags: name
                .map(|n| format!("{}:{}", n.familiar_name(), n.tag().unwrap_or("latest")))
                .into_iter()
                .collect(),
            layers: self
                .diff_ids
                .iter()
                .map(|d| format!("{}/layer.tar", d.hex()))
                .collect(),
        };
        let mut tar = Writer::new(output);
        for (path, layer) in image.layers.iter().zip(&self.tars) {
            add(&mut tar, path, layer)?;
        }
        add(&mut tar, &image.config, &config)?;
        add(&mut tar, "manifest.json", &serde_json::to_vec(&[image])?)?;
        tar.finish()
    }
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor::new(media_type, digest_of(bytes), bytes.len() as u64)
}

fn add<W: Write>(tar: &mut Writer<W>, path: &str, mut bytes: &[u8]) -> Result<()> {
    tar.append(
        &Entry {
            size: bytes.len() as u64,
            ..Entry::new(Kind::Regular, path)
        },
        &mut bytes,
    )
}
