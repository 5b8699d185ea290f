//! `images-make DIR`: makes the images that are measured, as OCI image layouts below DIR.
//!
//! Everything is generated and the same on every machine, so nothing is fetched. An image that is there
//! already is kept; the name of DIR should change with [`shapes`]. Layers are compressed with gzip at
//! its usual level, as one stream, as other builders do.
//!
//! `DIR/many` is one layout with [`MANY`] images of one small layer.

mod content;
mod shapes;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use carrack_spec::Digest;
use carrack_spec::image::{
    ANNOTATION_REF_NAME, ContainerConfig, Descriptor, ImageConfig, ImageLayout, Index, Manifest,
    Platform, RootFs, media_type,
};
use content::Vocabulary;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

/// Images in `DIR/many`.
const MANY: usize = 1000;

fn main() -> Result<()> {
    let directory = std::env::args().nth(1);
    let directory = directory.context("usage: images-make DIR")?;
    let directory = Path::new(&directory);
    let vocabulary = Vocabulary::new();
    for (seed, (name, layers)) in shapes::shapes().into_iter().enumerate() {
        whole(directory, name, |layout| {
            let mut image = Vec::new();
            for (number, layer) in layers.iter().enumerate() {
                image.push(layout.layer(|output| {
                    shapes::write(&vocabulary, layer, seed as u64 + 1, number as u64, output)
                })?);
            }
            Ok(vec![layout.image(name, &image)?])
        })?;
    }
    whole(directory, "many", |layout| {
        let (_, shapes) = shapes::shapes().pop().context("no shapes")?;
        let shape = shapes.first().context("no layer")?;
        let layer = layout.layer(|output| shapes::write(&vocabulary, shape, 99, 0, output))?;
        (0..MANY)
            .map(|n| {
                layout.image(
                    &format!("localhost/many/image{n}:v1"),
                    std::slice::from_ref(&layer),
                )
            })
            .collect()
    })
}

/// Makes a layout under a temporary name, so that one with its right name is whole.
fn whole(
    directory: &Path,
    name: &str,
    make: impl FnOnce(&Layout<'_>) -> Result<Vec<Descriptor>>,
) -> Result<()> {
    let path = directory.join(name);
    if path.exists() {
        return Ok(());
    }
    let unfinished = directory.join(format!("{name}.unfinished"));
    let _ = fs::remove_dir_all(&unfinished);
    fs::create_dir_all(unfinished.join("blobs/sha256"))
        .with_context(|| format!("{}", unfinished.display()))?;
    let layout = Layout(&unfinished);
    let index = Index::new(make(&layout)?);
    let version = ImageLayout {
        image_layout_version: "1.0.0".into(),
    };
    fs::write(unfinished.join("index.json"), serde_json::to_vec(&index)?)?;
    fs::write(unfinished.join("oci-layout"), serde_json::to_vec(&version)?)?;
    fs::rename(&unfinished, &path).with_context(|| format!("{}", path.display()))?;
    println!("made {}", path.display());
    Ok(())
}

/// A layout being made.
struct Layout<'a>(&'a Path);

impl Layout<'_> {
    /// Adds a layer; its diff id and its compressed form.
    fn layer(
        &self,
        write: impl FnOnce(
            Hashed<GzEncoder<Hashed<BufWriter<File>>>>,
        ) -> Result<Hashed<GzEncoder<Hashed<BufWriter<File>>>>>,
    ) -> Result<(Digest, Descriptor)> {
        let unnamed = self.0.join("layer");
        let file = Hashed::new(BufWriter::new(File::create(&unnamed)?));
        let encoder = GzEncoder::new(file, flate2::Compression::default());
        let (diff_id, _, encoder) = write(Hashed::new(encoder))?.finish();
        let (digest, size, mut file) = encoder.finish()?.finish();
        file.flush()?;
        fs::rename(&unnamed, self.blob(&digest))?;
        Ok((
            diff_id,
            Descriptor::new(media_type::LAYER_GZIP, digest, size),
        ))
    }

    /// Adds an image of these layers; its manifest.
    fn image(&self, name: &str, layers: &[(Digest, Descriptor)]) -> Result<Descriptor> {
        let host = Platform::native();
        let config = ImageConfig {
            architecture: host.architecture,
            os: host.os,
            config: ContainerConfig {
                labels: BTreeMap::from([("name".to_owned(), name.to_owned())]),
                ..ContainerConfig::default()
            },
            rootfs: RootFs {
                kind: "layers".into(),
                diff_ids: layers.iter().map(|(diff_id, _)| diff_id.clone()).collect(),
            },
            ..ImageConfig::default()
        };
        let config = self.document(media_type::CONFIG, &serde_json::to_vec(&config)?)?;
        let layers = layers.iter().map(|(_, layer)| layer.clone()).collect();
        let manifest = serde_json::to_vec(&Manifest::new(config, layers))?;
        let mut manifest = self.document(media_type::MANIFEST, &manifest)?;
        manifest
            .annotations
            .insert(ANNOTATION_REF_NAME.to_owned(), name.to_owned());
        Ok(manifest)
    }

    fn document(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
        let digest = Digest::from_sha256(Sha256::digest(bytes).into());
        fs::write(self.blob(&digest), bytes)?;
        Ok(Descriptor::new(media_type, digest, bytes.len() as u64))
    }

    fn blob(&self, digest: &Digest) -> std::path::PathBuf {
        self.0.join("blobs/sha256").join(digest.hex())
    }
}

/// A stream that is digested and counted while it is written.
pub struct Hashed<W> {
    output: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Hashed<W> {
    fn new(output: W) -> Hashed<W> {
        Hashed {
            output,
            hash: Sha256::new(),
            bytes: 0,
        }
    }

    fn finish(self) -> (Digest, u64, W) {
        let digest = Digest::from_sha256(self.hash.finalize().into());
        (digest, self.bytes, self.output)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.output.write_all(bytes)?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.output.flush()
    }
}
