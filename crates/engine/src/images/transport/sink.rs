//! Images in files, written: layouts, archives and `dir:`.

use crate::images::ImagesError;
use crate::images::transport::files::{DIR_TARGET, DIR_VERSION, Names};
use crate::images::transport::output::Output;
use crate::images::transport::{Bytes, Sink};
use carrack_registry::{Document, DocumentKind, Pushed};
use carrack_spec::Reference;
use carrack_spec::image::{
    ANNOTATION_IMAGE_NAME, ANNOTATION_REF_NAME, ArchiveImage, Descriptor, ImageLayout, Index, parse,
};
use carrack_store::Store;
use serde::Serialize;
use std::io::Read;
use std::path::{Path, PathBuf};

const LAYOUT_VERSION: &str = "1.0.0";

/// An image in the making, in files.
pub(super) struct FilesSink {
    output: Output,
    form: Form,
    path: PathBuf,
}

enum Form {
    /// A layout, with the name of the image in it, and the index that was there.
    Layout {
        name: Option<String>,
        index: Box<Index>,
    },
    /// A docker archive, which is a layout as well, with the name of the image.
    Docker { name: Option<Reference> },
    /// `dir:`.
    Dir,
}

impl FilesSink {
    /// A layout in a directory, which is made, or gets the image in addition.
    pub(super) fn layout(path: &Path, name: Option<String>) -> Result<Self, ImagesError> {
        let at = path.join("index.json");
        let index = match std::fs::read(&at) {
            Ok(bytes) => parse::<Index>(&bytes).map_err(|source| ImagesError::BadFile {
                path: at.clone(),
                source,
            })?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let others = |entry: &std::fs::DirEntry| {
                    !matches!(entry.file_name().to_str(), Some("blobs" | "oci-layout"))
                };
                let mut entries = std::fs::read_dir(path).into_iter().flatten().flatten();
                if entries.any(|e| others(&e)) {
                    return Err(ImagesError::NotOurs(path.to_owned()));
                }
                Index::new(Vec::new())
            }
            Err(source) => return Err(ImagesError::Read { path: at, source }),
        };
        let index = Box::new(index);
        Self::new(path, Output::directory(path)?, Form::Layout { name, index })
    }

    /// A layout in a new tar file.
    pub(super) fn layout_archive(
        store: &Store,
        path: &Path,
        name: Option<String>,
    ) -> Result<Self, ImagesError> {
        let index = Box::new(Index::new(Vec::new()));
        Self::new(
            path,
            Output::tar(store, path)?,
            Form::Layout { name, index },
        )
    }

    /// A docker archive in a new tar file.
    pub(super) fn docker_archive(
        store: &Store,
        path: &Path,
        name: Option<&str>,
    ) -> Result<Self, ImagesError> {
        let parse = |name: &str| {
            name.parse().map_err(|source| ImagesError::Reference {
                name: name.to_owned(),
                source,
            })
        };
        let name = name.map(parse).transpose()?;
        Self::new(path, Output::tar(store, path)?, Form::Docker { name })
    }

    /// A `dir:` directory; an image that is there is replaced.
    pub(super) fn dir(path: &Path) -> Result<Self, ImagesError> {
        let failed = |source| ImagesError::Read {
            path: path.to_owned(),
            source,
        };
        let entries: Vec<_> = match std::fs::read_dir(path) {
            Ok(entries) => entries.collect::<Result<_, _>>().map_err(failed)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(failed(e)),
        };
        let version = std::fs::read_to_string(path.join("version")).unwrap_or_default();
        if !entries.is_empty() && !version.starts_with(DIR_VERSION) {
            return Err(ImagesError::NotOurs(path.to_owned()));
        }
        for entry in entries {
            let at = entry.path();
            std::fs::remove_file(&at).map_err(ImagesError::write(&at))?;
        }
        Self::new(path, Output::directory(path)?, Form::Dir)
    }

    fn new(path: &Path, output: Output, form: Form) -> Result<Self, ImagesError> {
        let sink = Self {
            output,
            form,
            path: path.to_owned(),
        };
        match sink.form {
            Form::Dir => {
                let text = format!("{DIR_VERSION}1.1\n");
                let size = text.len() as u64;
                sink.output.put("version", size, &mut text.as_bytes())?;
            }
            Form::Layout { .. } | Form::Docker { .. } => {
                let image_layout_version = LAYOUT_VERSION.to_owned();
                let layout = ImageLayout {
                    image_layout_version,
                };
                put_json(&sink.output, "oci-layout", &layout)?;
            }
        }
        Ok(sink)
    }

    fn names(&self) -> Names {
        match self.form {
            Form::Layout { .. } | Form::Docker { .. } => Names::Layout,
            Form::Dir => Names::Dir,
        }
    }
}

impl Sink for FilesSink {
    fn obtain(&self, blob: &Descriptor) -> Result<Option<Pushed>, ImagesError> {
        let there = self.output.has(&self.names().blob(&blob.digest));
        Ok(there.then_some(Pushed::Existed))
    }

    fn put<'a>(
        &self,
        blob: &Descriptor,
        open: &(dyn Fn(u64) -> std::io::Result<Bytes<'a>> + Sync),
    ) -> Result<(), ImagesError> {
        let failed = |source| carrack_store::BlobError::Read {
            digest: blob.digest.clone(),
            source,
        };
        let _turn = self.output.turn();
        let mut bytes = open(0).map_err(failed)?;
        let name = self.names().blob(&blob.digest);
        self.output.put(&name, blob.size, &mut bytes)
    }

    fn put_stream(
        &self,
        media_type: &str,
        mut stream: &mut (dyn Read + Send),
    ) -> Result<Descriptor, ImagesError> {
        let names = self.names();
        let (digest, size) = self
            .output
            .put_stream(|digest| names.blob(digest), &mut stream)?;
        Ok(Descriptor::new(media_type, digest, size))
    }

    fn put_manifest(&self, document: &Document) -> Result<(), ImagesError> {
        let name = self.names().manifest(document.digest());
        let size = document.bytes().len() as u64;
        self.output.put(&name, size, &mut document.bytes())
    }

    fn finish(self: Box<Self>, target: &Document) -> Result<(), ImagesError> {
        let mut descriptor = target.descriptor();
        match &self.form {
            Form::Dir => {
                let size = descriptor.size;
                self.output.put(DIR_TARGET, size, &mut target.bytes())?;
            }
            Form::Layout { name, index } => {
                self.put_manifest(target)?;
                let key = ANNOTATION_REF_NAME.to_owned();
                descriptor
                    .annotations
                    .extend(name.clone().map(|name| (key, name)));
                put_json(&self.output, "index.json", &with(index, descriptor))?;
            }
            Form::Docker { name } => {
                if target.kind() == DocumentKind::Index {
                    return Err(ImagesError::SingleOnly(self.path.clone()));
                }
                self.put_manifest(target)?;
                let manifest = target.manifest()?;
                let mut tags = Vec::new();
                if let Some(name) = name {
                    let full = name.to_string();
                    for key in [ANNOTATION_REF_NAME, ANNOTATION_IMAGE_NAME] {
                        descriptor.annotations.insert(key.to_owned(), full.clone());
                    }
                    tags.extend(
                        name.tag()
                            .map(|tag| format!("{}:{tag}", name.familiar_name())),
                    );
                }
                let path = |d: &Descriptor| Names::Layout.blob(&d.digest);
                let image = ArchiveImage {
                    config: path(&manifest.config),
                    repo_tags: tags,
                    layers: manifest.layers.iter().map(path).collect(),
                };
                put_json(&self.output, "manifest.json", &[image])?;
                put_json(&self.output, "index.json", &Index::new(vec![descriptor]))?;
            }
        }
        self.output.finish()
    }
}

/// The index with one more image, which takes its name from another.
fn with(index: &Index, new: Descriptor) -> Index {
    let mut index = index.clone();
    let name = |d: &Descriptor| d.annotations.get(ANNOTATION_REF_NAME).cloned();
    index.manifests.retain(|old| match (name(&new), name(old)) {
        (None, None) => old.digest != new.digest,
        (new, old) => new != old,
    });
    index.manifests.push(new);
    index
}

fn put_json(output: &Output, name: &str, document: &impl Serialize) -> Result<(), ImagesError> {
    let bytes =
        serde_json::to_vec(document).map_err(|e| carrack_store::BlobError::Write(e.into()))?;
    output.put(name, bytes.len() as u64, &mut bytes.as_slice())
}
