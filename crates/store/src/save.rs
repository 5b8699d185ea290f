//! Writes images out: an OCI image layout (directory or tar file) or a docker archive, one or several
//! images in one, each layer once.
//!
//! Layers are written uncompressed unless asked otherwise: that is what the store makes at the speed of
//! the disk. A manifest whose layers are in the form that is written stays as it is, byte for byte; else it
//! names the new forms, and only its digest changes, never the image's id.
//!
//! The docker archive is an OCI image layout as well, as newer docker writes it, so whoever reads
//! either form can read it.

use crate::blobs::BlobError;
use crate::compress::compress;
use crate::digesting::digest_of;
use crate::images::{ImageError, ImageRecord};
use crate::layers::LayerError;
use crate::lease::Lease;
use crate::newfile::NewFile;
use crate::store::{Store, StoreError};
use crate::tar::{Entry, Kind, Writer};
use crate::write::Compression;
use carrack_spec::image::{
    self, ANNOTATION_IMAGE_NAME, ANNOTATION_REF_NAME, ArchiveImage, Descriptor, ImageLayout, Index,
    Manifest, media_type,
};
use carrack_spec::{Digest, Reference};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// An OCI image layout.
    Oci,
    /// A docker archive that is an OCI image layout as well.
    Docker,
}

/// How to write images.
#[derive(Debug, Clone, Copy)]
pub struct SaveOptions {
    /// What is written.
    pub form: Form,
    /// How layers are compressed.
    pub compression: Compression,
}

/// Images that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// An image cannot be found or read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A layer cannot be made again.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// A document cannot be read.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The output cannot be written.
    #[error("cannot write the archive")]
    Output(#[source] std::io::Error),
    /// The directory holds something else.
    #[error("{0} is neither empty nor an OCI image layout")]
    NoLayout(PathBuf),
}

/// Where files of a layout go.
trait Target {
    fn has(&self, name: &str) -> bool;
    fn put(&mut self, name: &str, size: u64, content: &mut dyn Read) -> std::io::Result<()>;
}

impl Store {
    /// Writes images as one tar file.
    ///
    /// # Errors
    /// [`SaveError`]; what was written is useless then.
    pub fn save(
        &self,
        images: &[ImageRecord],
        options: SaveOptions,
        output: impl Write,
    ) -> Result<(), SaveError> {
        let mut target = Archive {
            tar: Writer::new(output),
            names: BTreeSet::new(),
        };
        let index = self.save_to(images, options, &mut target)?;
        put_json(&mut target, "index.json", &index)?;
        target.tar.finish().map(drop).map_err(SaveError::Output)
    }

    /// Writes images into a directory with an OCI image layout, which is made, or gets them in addition.
    ///
    /// # Errors
    /// [`SaveError`]; the layout's index is as before then.
    pub fn save_layout(
        &self,
        images: &[ImageRecord],
        compression: Compression,
        directory: &Path,
    ) -> Result<(), SaveError> {
        std::fs::create_dir_all(directory.join("blobs/sha256")).map_err(SaveError::Output)?;
        let mut target = Directory(directory.to_owned());
        let mut index = match std::fs::read(directory.join("index.json")) {
            Ok(bytes) => image::parse::<Index>(&bytes)
                .map_err(|_| SaveError::NoLayout(directory.to_owned()))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let others = std::fs::read_dir(directory).map_err(SaveError::Output)?;
                if others.flatten().any(|e| e.file_name() != "blobs") {
                    return Err(SaveError::NoLayout(directory.to_owned()));
                }
                Index::new(Vec::new())
            }
            Err(e) => return Err(SaveError::Output(e)),
        };
        let form = Form::Oci;
        let options = SaveOptions { form, compression };
        let new = self.save_to(images, options, &mut target)?;
        let name = |d: &Descriptor| d.annotations.get(ANNOTATION_REF_NAME).cloned();
        for descriptor in new.manifests {
            index.manifests.retain(|d| match name(&descriptor) {
                None => d.digest != descriptor.digest,
                named => name(d) != named,
            });
            index.manifests.push(descriptor);
        }
        put_json(&mut target, "index.json", &index)
    }

    /// Everything but `index.json`.
    fn save_to(
        &self,
        images: &[ImageRecord],
        options: SaveOptions,
        target: &mut impl Target,
    ) -> Result<Index, SaveError> {
        let lease = self.lease()?;
        let layout = ImageLayout {
            image_layout_version: "1.0.0".into(),
        };
        put_json(target, "oci-layout", &layout)?;
        let mut layers = BTreeMap::new();
        let mut manifests = Vec::new();
        let mut docker: Vec<ArchiveImage> = Vec::new();
        for record in images {
            for diff_id in &record.layers {
                if !layers.contains_key(diff_id) {
                    let written = self.save_layer(&lease, diff_id, options.compression, target)?;
                    layers.insert(diff_id.clone(), written);
                }
            }
            let config = self.blob(&record.id)?;
            put_blob(target, &record.id, &config)?;
            manifests.push(self.save_manifest(record, &layers, config.len() as u64, target)?);
            let paths = record.layers.iter().filter_map(|l| layers.get(l));
            let image = ArchiveImage {
                config: blob_name(&record.id),
                repo_tags: docker_tag(record).into_iter().collect(),
                layers: paths.map(|d| blob_name(&d.digest)).collect(),
            };
            match docker.iter_mut().find(|i| i.config == image.config) {
                Some(same) => same.repo_tags.extend(image.repo_tags),
                None => docker.push(image),
            }
        }
        if options.form == Form::Docker {
            put_json(target, "manifest.json", &docker)?;
        }
        Ok(Index::new(manifests))
    }

    fn save_layer(
        &self,
        lease: &Lease,
        diff_id: &Digest,
        compression: Compression,
        target: &mut impl Target,
    ) -> Result<Descriptor, SaveError> {
        let mut stream = self.open_layer(lease, diff_id)?;
        let failed = |e| LayerError::Export(diff_id.clone(), e);
        if compression == Compression::None {
            let size = self.layer_info(diff_id)?.archive;
            let descriptor = Descriptor::new(media_type::LAYER, diff_id.clone(), size);
            let name = blob_name(diff_id);
            if !target.has(&name) {
                target.put(&name, size, &mut stream).map_err(failed)?;
            }
            return Ok(descriptor);
        }
        // The size comes before the bytes.
        let mut file = self.unnamed_file()?;
        let descriptor = compress(stream, compression, &file).map_err(failed)?;
        let name = blob_name(&descriptor.digest);
        if !target.has(&name) {
            file.rewind().map_err(SaveError::Output)?;
            target
                .put(&name, descriptor.size, &mut file)
                .map_err(SaveError::Output)?;
        }
        self.add_layer_form(lease, diff_id, &descriptor)?;
        Ok(descriptor)
    }

    fn save_manifest(
        &self,
        record: &ImageRecord,
        layers: &BTreeMap<Digest, Descriptor>,
        config_size: u64,
        target: &mut impl Target,
    ) -> Result<Descriptor, SaveError> {
        let mut bytes = self.blob(&record.manifest)?;
        let mut manifest = self.image_manifest(record)?;
        let written: Vec<_> = record.layers.iter().filter_map(|l| layers.get(l)).collect();
        let same = manifest.layers.len() == written.len()
            && manifest
                .layers
                .iter()
                .zip(&written)
                .all(|(a, b)| a.digest == b.digest);
        if !same {
            let config = Descriptor::new(media_type::CONFIG, record.id.clone(), config_size);
            let annotations = std::mem::take(&mut manifest.annotations);
            let layers = written.into_iter().cloned().collect();
            manifest = Manifest::new(config, layers);
            manifest.annotations = annotations;
            bytes = serde_json::to_vec(&manifest).map_err(|e| SaveError::Output(e.into()))?;
        }
        let digest = digest_of(&bytes);
        put_blob(target, &digest, &bytes)?;
        let media_type = match manifest.media_type.as_str() {
            "" => media_type::MANIFEST,
            known => known,
        };
        let mut descriptor = Descriptor::new(media_type, digest, bytes.len() as u64);
        descriptor.platform = Some(record.platform.clone());
        if let Some(name) = &record.reference {
            descriptor.annotations.extend([
                (ANNOTATION_REF_NAME.to_owned(), name.clone()),
                (ANNOTATION_IMAGE_NAME.to_owned(), name.clone()),
            ]);
        }
        Ok(descriptor)
    }
}

/// `NAME:TAG` as docker writes it; a name by digest is none there.
fn docker_tag(record: &ImageRecord) -> Option<String> {
    let reference: Reference = record.reference.as_ref()?.parse().ok()?;
    let tag = reference.tag()?;
    Some(format!("{}:{tag}", reference.familiar_name()))
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

fn put_blob(target: &mut impl Target, digest: &Digest, bytes: &[u8]) -> Result<(), SaveError> {
    let name = blob_name(digest);
    if target.has(&name) {
        return Ok(());
    }
    let mut content = bytes;
    target
        .put(&name, bytes.len() as u64, &mut content)
        .map_err(SaveError::Output)
}

fn put_json(
    target: &mut impl Target,
    name: &str,
    document: &impl serde::Serialize,
) -> Result<(), SaveError> {
    let bytes = serde_json::to_vec(document).map_err(|e| SaveError::Output(e.into()))?;
    target
        .put(name, bytes.len() as u64, &mut bytes.as_slice())
        .map_err(SaveError::Output)
}

struct Archive<W: Write> {
    tar: Writer<W>,
    names: BTreeSet<String>,
}

impl<W: Write> Target for Archive<W> {
    fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    fn put(&mut self, name: &str, size: u64, mut content: &mut dyn Read) -> std::io::Result<()> {
        let entry = Entry {
            size,
            ..Entry::new(Kind::Regular, name)
        };
        self.tar.append(&entry, &mut content)?;
        // A layer's stream compares its digest at its end.
        if content.read(&mut [0])? != 0 {
            let text = format!("{name} has more than {size} bytes");
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, text));
        }
        self.names.insert(name.to_owned());
        Ok(())
    }
}

struct Directory(PathBuf);

impl Target for Directory {
    fn has(&self, name: &str) -> bool {
        self.0.join(name).is_file()
    }

    /// In one step: a layout that somebody reads is complete at any time.
    fn put(&mut self, name: &str, _size: u64, content: &mut dyn Read) -> std::io::Result<()> {
        let mut file = NewFile::create(&self.0.join(name))?;
        crate::copy::copy(content, &mut file)?;
        file.file().sync_all()?;
        file.commit()
    }
}
