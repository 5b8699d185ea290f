//! Loads the images of an archive: an OCI image layout or a docker archive.
//!
//! An archive that has `manifest.json` is read as a docker archive (newer docker writes both forms into
//! one archive, and its tags stand there), otherwise through `index.json`. Layers that the store has are
//! not read again; the others are unpacked several at a time. Nothing appears before everything of an
//! image is verified and durable (see the crate's head for the order).

use crate::archive::{Archive, ArchiveError};
use crate::blobs::{BlobError, verify};
use crate::digesting::digest_of;
use crate::images::ImageError;
use crate::images::ImageRecord;
use crate::ingest::{Ingested, LayerSource, Progress};
use crate::layers::LayerError;
use crate::lease::Lease;
use crate::store::{Store, StoreError};
use carrack_spec::image::{
    self, ArchiveImage, DOCUMENT_BYTES_MAX, Descriptor, ImageConfig, Index, Manifest, Platform,
};
use carrack_spec::runtime::ParseError;
use carrack_spec::{Algorithm, Digest, Reference, ReferenceError};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Deepest nesting of indexes that is followed.
const INDEX_DEPTH_MAX: u32 = 4;
/// Most images that one archive may hold.
const IMAGES_MAX: usize = 1000;

/// What to load.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// A directory or tar file; standard input when absent.
    pub path: Option<PathBuf>,
    /// Name for the image, in place of those that the archive has; for an archive of one image.
    pub name: Option<Reference>,
    /// The machine that images are for; this one when absent.
    pub platform: Option<Platform>,
}

/// How a load gets on. Layers have the numbers that they have in the image's list, where each stands once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadEvent {
    /// The layers of the next image: digest and size as they are in the archive.
    Layers(Vec<(Digest, u64)>),
    /// A layer is taken in.
    Layer(usize, Progress),
}

/// One image that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Its records, one a name.
    pub records: Vec<ImageRecord>,
    /// Layers that were unpacked.
    pub unpacked: usize,
    /// Layers that the store had already.
    pub shared: usize,
}

/// An archive whose images cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The archive cannot be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Neither `manifest.json` nor `index.json` is there.
    #[error("{0} is neither an OCI image layout (index.json) nor a docker archive (manifest.json)")]
    NoImage(PathBuf),
    /// A document of the archive is malformed.
    #[error("bad document {name:?} in the archive")]
    Document {
        /// Its path in the archive.
        name: String,
        /// What is wrong with it.
        #[source]
        source: ParseError,
    },
    /// A name in the archive is no reference.
    #[error("the archive names an image {name:?}")]
    Name {
        /// The name.
        name: String,
        /// Why it is no reference.
        #[source]
        source: ReferenceError,
    },
    /// A new name was given, but there are several images.
    #[error("the archive has {0} images; a name can be given to a single one only")]
    SeveralImages(usize),
    /// No manifest fits the machine.
    #[error("the image is made for {found}, not for {wanted}; --platform chooses another")]
    Platform {
        /// What the archive has.
        found: String,
        /// What was looked for.
        wanted: String,
    },
    /// Configuration and manifest disagree on the layers, or there are too many.
    #[error(
        "the image has {layers} layers and {diff_ids} diff ids; both must be the same and at most {}",
        image::LAYERS_MAX
    )]
    LayerCount {
        /// In the manifest.
        layers: usize,
        /// In the configuration.
        diff_ids: usize,
    },
    /// A manifest for an image without one cannot be made.
    #[error("cannot make a manifest for the image")]
    Manifest(#[source] std::io::Error),
    /// Too many images, or indexes nested too deeply.
    #[error("the archive has too many images or indexes within indexes")]
    TooMany,
    /// A document does not have the digest it is named by.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// An image cannot be kept.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A layer cannot be stored.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The store's directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An image of the archive, all documents read and verified.
struct Plan {
    names: Vec<Reference>,
    config_bytes: Vec<u8>,
    config: ImageConfig,
    manifest_bytes: Option<Vec<u8>>,
    /// Path in the archive and the descriptor that names it, in the order of the configuration's diff ids.
    layers: Vec<(String, Option<Descriptor>)>,
}

impl Store {
    /// Loads every image of an archive; of an image for several machines, the one that fits the wanted machine
    /// best.
    ///
    /// # Errors
    /// [`LoadError`]; images before the bad one stay loaded, nothing of the bad one appears.
    pub fn load(&self, options: &LoadOptions) -> Result<Vec<Loaded>, LoadError> {
        self.load_telling(options, &|_| {})
    }

    /// As [`Store::load`], and tells how it gets on.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub fn load_telling(
        &self,
        options: &LoadOptions,
        tell: &(dyn Fn(LoadEvent) + Sync),
    ) -> Result<Vec<Loaded>, LoadError> {
        let lease = self.lease()?;
        let archive = Archive::open(self, options.path.as_deref())?;
        let host = options.platform.clone().unwrap_or_else(Platform::native);
        let mut plans = match (archive.has("manifest.json"), archive.has("index.json")) {
            (true, _) => docker_plans(&archive, &host)?,
            (false, true) => layout_plans(&archive, &host)?,
            (false, false) => return Err(LoadError::NoImage(archive.path().to_owned())),
        };
        if let Some(name) = &options.name {
            match plans.as_mut_slice() {
                [plan] => plan.names = vec![name.clone()],
                plans => return Err(LoadError::SeveralImages(plans.len())),
            }
        }
        plans
            .iter()
            .map(|plan| self.carry_out(&lease, &archive, plan, tell))
            .collect()
    }

    fn carry_out(
        &self,
        lease: &Lease,
        archive: &Archive,
        plan: &Plan,
        tell: &(dyn Fn(LoadEvent) + Sync),
    ) -> Result<Loaded, LoadError> {
        let id = digest_of(&plan.config_bytes);
        self.put_blob(lease, &id, &plan.config_bytes)?;
        let layers = self.layers_of_plan(lease, archive, plan, tell)?;
        let manifest = match &plan.manifest_bytes {
            Some(bytes) => bytes.clone(),
            None => plain_manifest(plan, &id, &layers)?,
        };
        let digest = digest_of(&manifest);
        self.put_blob(lease, &digest, &manifest)?;
        let parsed: Manifest = image::parse(&manifest).map_err(|source| LoadError::Document {
            name: digest.to_string(),
            source,
        })?;
        let media_type = match parsed.media_type.as_str() {
            "" => image::media_type::MANIFEST,
            known => known,
        };
        let target = Descriptor::new(media_type, digest.clone(), manifest.len() as u64);
        let size = layers.values().map(|l| l.info.bytes).sum();
        let record = |name| {
            let (target, manifest) = (target.clone(), digest.clone());
            ImageRecord::new(name, target, manifest, id.clone(), &plan.config, size)
        };
        let records: Vec<ImageRecord> = match plan.names.as_slice() {
            [] => vec![record(None)],
            names => names.iter().map(|n| record(Some(n))).collect(),
        };
        for record in &records {
            self.put_image(lease, record)?;
        }
        let unpacked = layers.values().filter(|l| l.blob.is_some()).count();
        Ok(Loaded {
            records,
            unpacked,
            shared: layers.len() - unpacked,
        })
    }

    /// Takes each layer of an image in once.
    fn layers_of_plan(
        &self,
        lease: &Lease,
        archive: &Archive,
        plan: &Plan,
        tell: &(dyn Fn(LoadEvent) + Sync),
    ) -> Result<BTreeMap<Digest, Ingested>, LoadError> {
        let mut seen = BTreeSet::new();
        let wanted = plan.config.rootfs.diff_ids.iter().zip(&plan.layers);
        let wanted: Vec<_> = wanted.filter(|(id, _)| seen.insert(*id)).collect();
        let mut layers = Vec::new();
        for (diff_id, (name, blob)) in &wanted {
            let (_, size) = archive.open_file(name)?;
            let digest = blob.as_ref().map_or(*diff_id, |blob| &blob.digest);
            layers.push((digest.clone(), size));
        }
        tell(LoadEvent::Layers(layers));
        let source =
            |(diff_id, (_, blob)): &(&Digest, &(String, Option<Descriptor>))| LayerSource {
                diff_id: Some((*diff_id).clone()),
                blob: blob.clone(),
            };
        let sources: Vec<LayerSource> = wanted.iter().map(source).collect();
        let open = |n: usize| {
            let (_, (name, _)) = wanted.get(n).ok_or(std::io::ErrorKind::NotFound)?;
            let opened = archive.open_file(name).map_err(std::io::Error::other);
            opened.map(|(stream, _)| stream)
        };
        let progress = |n, progress| tell(LoadEvent::Layer(n, progress));
        let layers = self.ingest_all(lease, &sources, open, progress)?;
        Ok(layers.into_iter().map(|l| (l.diff_id.clone(), l)).collect())
    }
}

/// The manifest of an image that came without one: its layers uncompressed, which is what the store
/// can always give out.
fn plain_manifest(
    plan: &Plan,
    id: &Digest,
    layers: &BTreeMap<Digest, Ingested>,
) -> Result<Vec<u8>, LoadError> {
    let layer = |diff_id: &Digest| {
        let size = layers.get(diff_id).map_or(0, |l| l.info.archive);
        Descriptor::new(image::media_type::LAYER, diff_id.clone(), size)
    };
    let size = plan.config_bytes.len() as u64;
    let config = Descriptor::new(image::media_type::CONFIG, id.clone(), size);
    let layers = plan.config.rootfs.diff_ids.iter().map(layer).collect();
    let manifest = Manifest::new(config, layers);
    serde_json::to_vec(&manifest).map_err(|e| LoadError::Manifest(e.into()))
}

fn docker_plans(archive: &Archive, host: &Platform) -> Result<Vec<Plan>, LoadError> {
    let images: Vec<ArchiveImage> = document(archive, "manifest.json")?.0;
    if images.len() > IMAGES_MAX {
        return Err(LoadError::TooMany);
    }
    let mut plans = Vec::new();
    for image in images {
        let (config, config_bytes): (ImageConfig, _) = document(archive, &image.config)?;
        let names = image
            .repo_tags
            .iter()
            .map(|t| name(t))
            .collect::<Result<_, _>>()?;
        let layers = image.layers.into_iter().map(|path| (path, None)).collect();
        let plan = Plan {
            names,
            config_bytes,
            config,
            manifest_bytes: None,
            layers,
        };
        plans.push(checked(plan, host)?);
    }
    Ok(plans)
}

fn layout_plans(archive: &Archive, host: &Platform) -> Result<Vec<Plan>, LoadError> {
    let index: Index = document(archive, "index.json")?.0;
    if index.manifests.len() > IMAGES_MAX {
        return Err(LoadError::TooMany);
    }
    let mut named: Vec<(Vec<Reference>, &Descriptor)> = Vec::new();
    for descriptor in &index.manifests {
        named.push((layout_names(archive, descriptor)?, descriptor));
    }
    let distance = |descriptor: &Descriptor| match &descriptor.platform {
        // A variant that this machine is not known to have goes last.
        Some(made_for) => host
            .distance(made_for)
            .or(made_for.runs_on(host).then_some(u32::MAX)),
        // Its configuration says more.
        None => Some(0),
    };
    // Entries of one name are one image for several machines. So are those without a name, of which several
    // for one machine are several images.
    let is_best = |(names, descriptor): &(Vec<Reference>, &Descriptor)| {
        let same = named.iter().filter(|(others, _)| others == names);
        let best = same.filter_map(|(_, other)| distance(other)).min();
        best.is_some() && distance(descriptor) == best
    };
    let mut wanted: Vec<_> = named.iter().filter(|entry| is_best(entry)).collect();
    // The first of equals, as a pull takes it.
    let mut seen = BTreeSet::new();
    wanted.retain(|(names, _)| names.is_empty() || seen.insert(names.clone()));
    if wanted.is_empty() && !named.is_empty() {
        return Err(no_platform(&index, host));
    }
    wanted
        .into_iter()
        .map(|(names, descriptor)| layout_plan(archive, descriptor, names.clone(), host, 0))
        .collect()
}

fn no_platform(index: &Index, wanted: &Platform) -> LoadError {
    let found = index.manifests.iter().map(|d| match &d.platform {
        Some(platform) => shown(platform),
        None => shown(&Platform::default()),
    });
    LoadError::Platform {
        found: found.collect::<Vec<_>>().join(", "),
        wanted: shown(wanted),
    }
}

fn layout_plan(
    archive: &Archive,
    descriptor: &Descriptor,
    names: Vec<Reference>,
    host: &Platform,
    depth: u32,
) -> Result<Plan, LoadError> {
    if depth > INDEX_DEPTH_MAX {
        return Err(LoadError::TooMany);
    }
    let path = blob_path(&descriptor.digest);
    let bytes = archive.read(&path, DOCUMENT_BYTES_MAX as u64)?;
    verify(&descriptor.digest, &bytes)?;
    let bad = |source| LoadError::Document {
        name: path.clone(),
        source,
    };
    // A wrong or missing media type in the descriptor is common; the document's shape decides.
    let index: Index = image::parse(&bytes).map_err(bad)?;
    if !index.manifests.is_empty() {
        let Some(chosen) = index.choose(host) else {
            return Err(no_platform(&index, host));
        };
        return layout_plan(archive, chosen, names, host, depth + 1);
    }
    let manifest: Manifest = image::parse(&bytes).map_err(bad)?;
    let config_path = blob_path(&manifest.config.digest);
    let (config, config_bytes): (ImageConfig, _) = document(archive, &config_path)?;
    verify(&manifest.config.digest, &config_bytes)?;
    let layer = |d: &Descriptor| {
        let known = (d.digest.algorithm() == Algorithm::Sha256).then(|| d.clone());
        (blob_path(&d.digest), known)
    };
    let layers = manifest.layers.iter().map(layer).collect();
    let plan = Plan {
        names,
        config_bytes,
        config,
        manifest_bytes: Some(bytes),
        layers,
    };
    checked(plan, host)
}

fn checked(plan: Plan, host: &Platform) -> Result<Plan, LoadError> {
    let (layers, diff_ids) = (plan.layers.len(), plan.config.rootfs.diff_ids.len());
    if layers != diff_ids || layers > image::LAYERS_MAX {
        return Err(LoadError::LayerCount { layers, diff_ids });
    }
    for diff_id in &plan.config.rootfs.diff_ids {
        if diff_id.algorithm() != Algorithm::Sha256 {
            return Err(BlobError::Algorithm(diff_id.clone()).into());
        }
    }
    let made_for = Platform {
        architecture: plan.config.architecture.clone(),
        os: plan.config.os.clone(),
        variant: plan.config.variant.clone(),
        ..Platform::default()
    };
    match made_for.runs_on(host) {
        true => Ok(plan),
        false => Err(LoadError::Platform {
            found: shown(&made_for),
            wanted: shown(host),
        }),
    }
}

/// The names that a layout gives a manifest. A bare word is a tag without a name: the archive's own
/// name is put before it, under `localhost/`.
fn layout_names(archive: &Archive, descriptor: &Descriptor) -> Result<Vec<Reference>, LoadError> {
    let annotation = |key| descriptor.annotations.get(key).map(String::as_str);
    if let Some(full) = annotation(image::ANNOTATION_IMAGE_NAME) {
        return Ok(vec![name(full)?]);
    }
    match annotation(image::ANNOTATION_REF_NAME) {
        None | Some("") => Ok(Vec::new()),
        Some(word) if word.contains(['/', ':', '@']) => Ok(vec![name(word)?]),
        Some(tag) => {
            let stem = archive
                .path()
                .file_name()
                .and_then(|n| n.to_str())
                .unwrap_or_default();
            let stem = stem
                .split('.')
                .next()
                .unwrap_or_default()
                .to_ascii_lowercase();
            let reference = format!("localhost/{stem}:{tag}").parse();
            // A file name that cannot be an image name leaves the image without one.
            Ok(reference.ok().into_iter().collect())
        }
    }
}

fn name(text: &str) -> Result<Reference, LoadError> {
    text.parse().map_err(|source| LoadError::Name {
        name: text.to_owned(),
        source,
    })
}

fn document<T: DeserializeOwned>(archive: &Archive, name: &str) -> Result<(T, Vec<u8>), LoadError> {
    let bytes = archive.read(name, DOCUMENT_BYTES_MAX as u64)?;
    let parsed = image::parse(&bytes).map_err(|source| LoadError::Document {
        name: name.to_owned(),
        source,
    })?;
    Ok((parsed, bytes))
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

fn shown(platform: &Platform) -> String {
    match *platform == Platform::default() {
        true => "an unknown machine".to_owned(),
        false => platform.to_string(),
    }
}
