//! `push`: an image of the store to a registry, or to any other place.
//!
//! The store keeps layers unpacked. For each layer, several at once:
//!
//! 1. The compressed forms known of it are asked for at the destination, the one of the image's manifest
//!    first; a registry also takes them from other repositories of its own.
//! 2. When it has none, the layer's archive is made again, compressed and sent in one pass. The same archive
//!    gives the same bytes each time, so the next push finds them.
//!
//! When every layer is there in the form that the image's manifest names, that manifest is pushed as it is,
//! and its digest stays; otherwise a new one is made. The image's id never changes. The manifest goes last.

use crate::images::copy::BLOBS_AT_ONCE_MAX;
use crate::images::events::Telling;
use crate::images::transport::{self, Bytes, Place, Sink};
use crate::images::{Access, ImagesError, LayerEvent, TransferEvent};
use crate::{Engine, EngineError};
use carrack_registry::Pushed as Sent;
use carrack_registry::{Document, DocumentKind};
use carrack_spec::image::{Descriptor, Manifest, media_type};
use carrack_spec::{Digest, Reference};
use carrack_store::{Compression, ImageRecord, LayerReader, Lease, Named, compress_at, several};
use std::collections::BTreeMap;
use std::io::{BufWriter, Read, Write};

/// Bytes between the compressor and the connection.
const PIPE_BYTES: usize = 256 << 10;

/// Which documents are pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManifestFormat {
    /// OCI's.
    Oci,
    /// Docker's, schema 2.
    Docker,
}

/// How to push.
#[derive(Debug, Clone, Copy, Default)]
pub struct PushOptions {
    /// How layers are compressed. Without a wish any form that the destination has will do, and gzip else.
    pub compression: Option<Compression>,
    /// A level; then layers are always compressed anew.
    pub level: Option<i32>,
    /// Push the index that the image came from, with the images for all machines.
    pub all: bool,
    /// Documents of that format, also where the image's own manifest could stay.
    pub format: Option<ManifestFormat>,
}

/// What was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Where it is now.
    pub place: Place,
    /// Digest of its manifest there, or of the index.
    pub digest: Digest,
    /// Manifests pushed, indexes not counted.
    pub manifests: usize,
}

impl Engine {
    /// Pushes an image, or a manifest list with all its images, to where its name says when there is no other
    /// place.
    ///
    /// # Errors
    /// [`ImagesError`]; the name there leads to what it led to before.
    pub fn push(
        &self,
        access: &Access,
        image: &str,
        place: Option<Place>,
        options: &PushOptions,
        tell: &(dyn Fn(TransferEvent) + Sync),
    ) -> Result<Pushed, EngineError> {
        let pushed = match self.store().find_named(image)? {
            Named::Image(record) => self.push_record(access, *record, place, options, tell),
            Named::List(list) => {
                let all = true;
                let options = PushOptions { all, ..*options };
                self.send_list(access, &list, place, &options, tell)
            }
        };
        Ok(pushed?)
    }

    fn push_record(
        &self,
        access: &Access,
        record: ImageRecord,
        place: Option<Place>,
        options: &PushOptions,
        tell: &(dyn Fn(TransferEvent) + Sync),
    ) -> Result<Pushed, ImagesError> {
        let place = match (place, &record.reference) {
            (Some(place), _) => place,
            (None, Some(name)) => Place::Registry(name.clone()),
            (None, None) => return Err(ImagesError::NoName(record.id.short().to_owned())),
        };
        if options.all && self.target(&record)?.kind() == DocumentKind::Index {
            return self.push_index(access, &record, place, options, tell);
        }
        let lease = self.store().lease()?;
        if let Some(missing) = lease.protect_blobs([&record.manifest, &record.id])? {
            return Err(carrack_store::BlobError::Missing(missing.clone()).into());
        }
        let mounts = self.mountable(&record, &place)?;
        let sink = transport::sink(&place, access, self.store(), mounts)?;
        let push = Push::new(&lease, &*sink, &place, options);
        let document = push.image(&record, tell)?;
        let digest = document.digest().clone();
        sink.finish(&document)?;
        Ok(Pushed {
            place,
            digest,
            manifests: 1,
        })
    }

    /// Repositories of the destination's registry that may have layers of the image: its other names, and
    /// the images that share layers with it.
    pub(super) fn mountable(
        &self,
        record: &ImageRecord,
        place: &Place,
    ) -> Result<Vec<String>, ImagesError> {
        let Place::Registry(name) = place else {
            return Ok(Vec::new());
        };
        let Ok(to) = name.parse::<Reference>() else {
            return Ok(Vec::new());
        };
        let mut images = self.store().images()?;
        images.sort_by_key(|other| std::cmp::Reverse(shared(record, other)));
        let mut names: Vec<String> = Vec::new();
        for other in images.iter().filter(|other| shared(record, other) > 0) {
            let parsed = other.reference.as_ref().map(|r| r.parse::<Reference>());
            if let Some(Ok(name)) = parsed
                && name.host() == to.host()
                && !names.iter().any(|n| n == name.path())
            {
                names.push(name.path().to_owned());
            }
        }
        Ok(names)
    }
}

/// How many layers two images have in common.
fn shared(one: &ImageRecord, other: &ImageRecord) -> usize {
    let both = one.layers.iter().zip(&other.layers);
    both.take_while(|(a, b)| a == b).count()
}

/// One push.
pub(super) struct Push<'a> {
    lease: &'a Lease,
    sink: &'a dyn Sink,
    usual: Compression,
    options: &'a PushOptions,
}

impl<'a> Push<'a> {
    pub(super) fn new(
        lease: &'a Lease,
        sink: &'a dyn Sink,
        place: &Place,
        options: &'a PushOptions,
    ) -> Self {
        let usual = match place {
            Place::DockerArchive(..) => Compression::None,
            _ => Compression::Gzip,
        };
        Self {
            lease,
            sink,
            usual,
            options,
        }
    }

    /// Sends all that an image's manifest names; the manifest for it, which is not sent.
    pub(super) fn image(
        &self,
        record: &ImageRecord,
        tell: &(dyn Fn(TransferEvent) + Sync),
    ) -> Result<Document, ImagesError> {
        let store = self.lease.store();
        let manifest = store.image_manifest(record)?;
        let layers = self.layers(record, &manifest, tell)?;
        let config = store.blob(&record.id)?;
        self.config(&record.id, &config)?;
        let own = store.blob(&record.manifest)?;
        let size = config.len() as u64;
        document(&manifest, own, layers, size, self.options.format)
    }

    /// Sees to it that each layer is there; in which forms.
    fn layers(
        &self,
        record: &ImageRecord,
        manifest: &Manifest,
        tell: &(dyn Fn(TransferEvent) + Sync),
    ) -> Result<Vec<Descriptor>, ImagesError> {
        let mut distinct: BTreeMap<&Digest, usize> = BTreeMap::new();
        let mut plain = Vec::new();
        for (n, diff_id) in record.layers.iter().enumerate() {
            let size = self.lease.store().layer_info(diff_id)?.archive;
            plain.push(Descriptor::new(media_type::LAYER, diff_id.clone(), size));
            distinct.entry(diff_id).or_insert(n);
        }
        tell(TransferEvent::Layers(plain.clone()));
        let is_first = |(n, layer): &(usize, &Descriptor)| distinct.get(&layer.digest) == Some(n);
        let first: Vec<_> = plain.iter().enumerate().filter(is_first).collect();
        let sent = several(&first, BLOBS_AT_ONCE_MAX, |_, (n, plain)| {
            let own = manifest.layers.get(*n);
            let layer = |event| tell(TransferEvent::Layer(*n, event));
            self.layer(plain, own, &layer).map(|sent| (*n, sent))
        })?;
        let sent: BTreeMap<usize, Descriptor> = sent.into_iter().collect();
        let forms = record.layers.iter().filter_map(|diff_id| {
            let n = distinct.get(diff_id)?;
            sent.get(n).cloned()
        });
        Ok(forms.collect())
    }

    fn layer(
        &self,
        plain: &Descriptor,
        own: Option<&Descriptor>,
        tell: &(dyn Fn(LayerEvent) + Sync),
    ) -> Result<Descriptor, ImagesError> {
        for form in self.forms(&plain.digest, own) {
            match self.sink.obtain(&form)? {
                None => {}
                Some(Sent::Mounted) => {
                    tell(LayerEvent::Mounted);
                    return Ok(form);
                }
                Some(_) => {
                    tell(LayerEvent::Done { existed: true });
                    return Ok(form);
                }
            }
        }
        let moved = |bytes| tell(LayerEvent::Moved(bytes));
        let compression = self.options.compression.unwrap_or(self.usual);
        let sent = match compression {
            Compression::None => {
                self.sink
                    .put(plain, &|from| self.plain(plain, from, &moved))?;
                plain.clone()
            }
            compression => {
                let stream = Telling {
                    input: self.open(&plain.digest)?,
                    bytes: 0,
                    tell: &moved,
                };
                self.compressed(stream, compression)?
            }
        };
        self.lease
            .store()
            .add_layer_form(self.lease, &plain.digest, &sent)?;
        tell(LayerEvent::Done { existed: false });
        Ok(sent)
    }

    /// The forms that would do, the best first.
    fn forms(&self, diff_id: &Digest, own: Option<&Descriptor>) -> Vec<Descriptor> {
        let wanted = self.options.compression;
        if self.options.level.is_some() && wanted != Some(Compression::None) {
            return Vec::new();
        }
        let known = self.lease.store().layer_forms(diff_id);
        let mut forms: Vec<Descriptor> = Vec::new();
        for form in own.into_iter().chain(&known) {
            let fits = wanted.is_none_or(|wanted| wanted == compression_of(&form.media_type));
            if fits && !forms.iter().any(|f| f.digest == form.digest) {
                forms.push(form.clone());
            }
        }
        forms
    }

    fn open(&self, diff_id: &Digest) -> Result<LayerReader, ImagesError> {
        Ok(self.lease.store().open_layer(self.lease, diff_id)?)
    }

    /// The archive of a layer from an offset on.
    fn plain<'b>(
        &self,
        plain: &Descriptor,
        from: u64,
        moved: &'b (dyn Fn(u64) + Sync),
    ) -> std::io::Result<Bytes<'b>> {
        let mut input = self.open(&plain.digest).map_err(std::io::Error::other)?;
        std::io::copy(&mut (&mut input).take(from), &mut std::io::sink())?;
        Ok(Box::new(Telling {
            input,
            bytes: from,
            tell: moved,
        }))
    }

    /// Compresses a stream on a thread of its own while it is sent.
    fn compressed(
        &self,
        stream: impl Read + Send,
        compression: Compression,
    ) -> Result<Descriptor, ImagesError> {
        let level = self.options.level;
        let kind = match compression {
            Compression::None => media_type::LAYER,
            Compression::Gzip => media_type::LAYER_GZIP,
            Compression::Zstd => media_type::LAYER_ZSTD,
        };
        let (reader, writer) = std::io::pipe().map_err(ImagesError::Pipe)?;
        std::thread::scope(|scope| {
            let work = scope.spawn(move || {
                let mut buffer = BufWriter::with_capacity(PIPE_BYTES, writer);
                compress_at(level, stream, compression, &mut buffer)?;
                buffer.flush()
            });
            let mut reader = Piped {
                pipe: reader,
                work: Some(work),
            };
            self.sink.put_stream(kind, &mut reader)
        })
    }

    fn config(&self, id: &Digest, bytes: &[u8]) -> Result<(), ImagesError> {
        let blob = Descriptor::new(media_type::CONFIG, id.clone(), bytes.len() as u64);
        if self.sink.obtain(&blob)?.is_some() {
            return Ok(());
        }
        self.sink.put(&blob, &|from| {
            let from = usize::try_from(from).unwrap_or(usize::MAX);
            Ok(Box::new(bytes.get(from..).unwrap_or_default()))
        })
    }
}

/// What another thread writes; its failure is the reader's, so that a stream that broke off is not taken
/// for one that ended.
struct Piped<'s> {
    pipe: std::io::PipeReader,
    work: Option<std::thread::ScopedJoinHandle<'s, std::io::Result<()>>>,
}

impl Read for Piped<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let got = self.pipe.read(buf)?;
        if got > 0 || buf.is_empty() {
            return Ok(got);
        }
        match self.work.take().map(std::thread::ScopedJoinHandle::join) {
            Some(Ok(done)) => done.map(|()| 0),
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(0),
        }
    }
}

/// How a layer of this type is compressed.
fn compression_of(kind: &str) -> Compression {
    match kind.rsplit(['+', '.']).next() {
        Some("gzip") => Compression::Gzip,
        Some("zstd") => Compression::Zstd,
        _ => Compression::None,
    }
}

/// The manifest to push: the image's own when it names these layers, else a new one.
fn document(
    manifest: &Manifest,
    own: Vec<u8>,
    layers: Vec<Descriptor>,
    config_size: u64,
    format: Option<ManifestFormat>,
) -> Result<Document, ImagesError> {
    let own_format = match manifest.media_type.as_str() {
        media_type::DOCKER_MANIFEST => ManifestFormat::Docker,
        _ => ManifestFormat::Oci,
    };
    let pairs = || manifest.layers.iter().zip(&layers);
    let same = manifest.layers.len() == layers.len() && pairs().all(|(a, b)| a.digest == b.digest);
    if same && format.is_none_or(|format| format == own_format) {
        return Ok(Document::new(&manifest.media_type, own)?);
    }
    let zstd = layers
        .iter()
        .any(|l| compression_of(&l.media_type) == Compression::Zstd);
    let format = match (format, zstd) {
        (Some(ManifestFormat::Docker), true) => return Err(ImagesError::DockerZstd),
        (Some(format), _) => format,
        (None, true) => ManifestFormat::Oci,
        (None, false) => own_format,
    };
    let (config, kind) = match format {
        ManifestFormat::Oci => (media_type::CONFIG, media_type::MANIFEST),
        ManifestFormat::Docker => (media_type::DOCKER_CONFIG, media_type::DOCKER_MANIFEST),
    };
    let typed = |layer: Descriptor| Descriptor {
        media_type: layer_type(compression_of(&layer.media_type), format).to_owned(),
        urls: Vec::new(),
        ..layer
    };
    let config = Descriptor::new(config, manifest.config.digest.clone(), config_size);
    let mut new = Manifest::new(config, layers.into_iter().map(typed).collect());
    kind.clone_into(&mut new.media_type);
    if format == ManifestFormat::Oci {
        new.annotations.clone_from(&manifest.annotations);
    }
    let bytes = serde_json::to_vec(&new).map_err(|e| carrack_store::BlobError::Write(e.into()))?;
    Ok(Document::new(kind, bytes)?)
}

fn layer_type(compression: Compression, format: ManifestFormat) -> &'static str {
    match (format, compression) {
        (ManifestFormat::Oci, Compression::None) => media_type::LAYER,
        (ManifestFormat::Oci, Compression::Gzip) => media_type::LAYER_GZIP,
        (ManifestFormat::Oci, Compression::Zstd) => media_type::LAYER_ZSTD,
        (ManifestFormat::Docker, Compression::None) => media_type::DOCKER_LAYER,
        (ManifestFormat::Docker, Compression::Gzip) => media_type::DOCKER_LAYER_GZIP,
        (ManifestFormat::Docker, Compression::Zstd) => media_type::DOCKER_LAYER_ZSTD,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compression_is_told_by_the_media_type() {
        for (kind, compression) in [
            (media_type::LAYER, Compression::None),
            (media_type::LAYER_GZIP, Compression::Gzip),
            (media_type::LAYER_ZSTD, Compression::Zstd),
            (media_type::DOCKER_LAYER, Compression::None),
            (media_type::DOCKER_LAYER_GZIP, Compression::Gzip),
            (media_type::DOCKER_LAYER_ZSTD, Compression::Zstd),
        ] {
            assert_eq!(compression_of(kind), compression, "{kind}");
        }
    }

    fn layer(kind: &str, byte: char) -> Descriptor {
        let digest = format!("sha256:{}", byte.to_string().repeat(64));
        Descriptor::new(kind, digest.parse().unwrap(), 5)
    }

    #[test]
    fn the_own_manifest_is_kept_when_it_names_the_layers_that_are_there() {
        let mut own = Manifest::new(
            layer(media_type::DOCKER_CONFIG, 'c'),
            vec![layer(media_type::DOCKER_LAYER_GZIP, 'a')],
        );
        own.media_type = media_type::DOCKER_MANIFEST.to_owned();
        let bytes = serde_json::to_vec_pretty(&own).unwrap();
        let push = |layers: &[Descriptor], format| {
            let made = document(&own, bytes.clone(), layers.to_vec(), 7, format)?;
            Ok::<_, ImagesError>((made.bytes() == bytes, made.manifest()?))
        };
        let same = [layer(media_type::LAYER_GZIP, 'a')];
        let (kept, _) = push(&same, None).unwrap();
        assert!(kept);
        let (kept, made) = push(&[layer(media_type::LAYER_GZIP, 'b')], None).unwrap();
        assert!(!kept);
        assert_eq!(made.media_type, media_type::DOCKER_MANIFEST);
        assert_eq!(made.layers[0].media_type, media_type::DOCKER_LAYER_GZIP);
        let zstd = [layer(media_type::LAYER_ZSTD, 'b')];
        let (_, made) = push(&zstd, None).unwrap();
        assert_eq!(made.media_type, media_type::MANIFEST);
        assert_eq!(made.config.media_type, media_type::CONFIG);
        assert!(push(&zstd, Some(ManifestFormat::Docker)).is_err());
        let (kept, made) = push(&same, Some(ManifestFormat::Oci)).unwrap();
        assert!(!kept);
        assert_eq!(made.layers[0].media_type, media_type::LAYER_GZIP);
    }
}
