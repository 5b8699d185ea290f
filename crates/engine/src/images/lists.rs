//! Manifest lists: made of images of the store and of other places, and pushed.
//!
//! What a person adds is looked for in the store first, then in the registries; a place with its transport is
//! taken as it is. An image of another place is not fetched: the list keeps where it is, by digest, and a push
//! passes its bytes through. An image of the store is pushed as `push` does it, so its manifest may become
//! another one; the index that goes last names what was really pushed.

use crate::images::copy::below;
use crate::images::pull::{in_turn, is_image_config};
use crate::images::push::Push;
use crate::images::transport::{self, Place, RegistrySource, Source};
use crate::images::{Access, ImagesError, ManifestFormat, PushOptions, Pushed, TransferEvent};
use crate::{Engine, EngineError};
use carrack_registry::{Document, DocumentKind};
use carrack_spec::image::{self, Descriptor, ImageConfig, Index, Platform, media_type};
use carrack_spec::{Digest, Reference};
use carrack_store::{
    BlobError, ImageError, ImageList, ImageRecord, Lease, ListMember, MemberSource, Named,
};
use std::path::Path;

/// What a list says about an image besides its digest. What is absent stays as the image has it.
#[derive(Debug, Clone, Default)]
pub struct MemberOptions {
    /// Operating system.
    pub os: Option<String>,
    /// `GOARCH`.
    pub architecture: Option<String>,
    /// For example `v7`.
    pub variant: Option<String>,
    /// Version of the operating system.
    pub os_version: Option<String>,
    /// What the image needs of the operating system.
    pub os_features: Vec<String>,
    /// What the image needs of the processor.
    pub features: Vec<String>,
    /// Annotations of the image in the list.
    pub annotations: Vec<(String, String)>,
}

impl MemberOptions {
    fn names_a_machine(&self) -> bool {
        self.os.is_some() || self.architecture.is_some() || self.variant.is_some()
    }

    fn platform(&self, platform: &mut Platform) {
        let words = [
            (&self.os, &mut platform.os),
            (&self.architecture, &mut platform.architecture),
            (&self.variant, &mut platform.variant),
            (&self.os_version, &mut platform.os_version),
        ];
        for (new, old) in words {
            if let Some(new) = new {
                old.clone_from(new);
            }
        }
        for (new, old) in [
            (&self.os_features, &mut platform.os_features),
            (&self.features, &mut platform.features),
        ] {
            if !new.is_empty() {
                old.clone_from(new);
            }
        }
    }

    fn apply(&self, descriptor: &mut Descriptor) {
        let mut platform = descriptor.platform.take().unwrap_or_default();
        self.platform(&mut platform);
        descriptor.platform = Some(platform).filter(|p| *p != Platform::default());
        descriptor.annotations.extend(self.annotations.clone());
    }
}

impl Engine {
    /// Makes a list of these images, or with `amend` adds them to the one that there may be. With `all`, an
    /// image for several machines is added for each of them, otherwise for this one.
    ///
    /// # Errors
    /// [`ImagesError`]; nothing is made then.
    pub fn create_list(
        &self,
        access: &Access,
        name: &Reference,
        images: &[String],
        (all, amend): (bool, bool),
    ) -> Result<ImageList, EngineError> {
        // A name that is taken is told before registries are asked.
        let there = || self.store().find_list(&name.to_string());
        if let Some(there) = (!amend).then(there).and_then(Result::ok) {
            return Err(ImageError::ListExists(there.name()).into());
        }
        let lease = self.store().lease()?;
        let mut members = Vec::new();
        for image in images {
            members.extend(self.members(access, image, all, &MemberOptions::default())?);
        }
        Ok(self.store().create_list(&lease, name, members, amend)?)
    }

    /// Adds images to a list. What `options` says of the machine also chooses from an image for several.
    ///
    /// # Errors
    /// [`ImagesError`]; the list is as it was.
    pub fn add_to_list(
        &self,
        access: &Access,
        list: &str,
        images: &[String],
        all: bool,
        options: &MemberOptions,
    ) -> Result<ImageList, EngineError> {
        // A name that is no list's is told before registries are asked.
        self.store().find_list(list)?;
        let lease = self.store().lease()?;
        let mut members = Vec::new();
        for image in images {
            members.extend(self.members(access, image, all, options)?);
        }
        Ok(self.store().add_to_list(&lease, list, members)?)
    }

    /// Says more, or something else, about an image of a list.
    ///
    /// # Errors
    /// There is no such list, or it has no such image.
    pub fn annotate_member(
        &self,
        list: &str,
        image: &str,
        options: &MemberOptions,
    ) -> Result<ImageList, EngineError> {
        let wanted = self.member_name(list, image)?;
        Ok(self.store().change_list(list, |list| {
            options.apply(&mut list.member(&wanted)?.descriptor);
            Ok(())
        })?)
    }

    /// Adds annotations to a list itself.
    ///
    /// # Errors
    /// There is no such list.
    pub fn annotate_list(
        &self,
        list: &str,
        annotations: &[(String, String)],
    ) -> Result<ImageList, EngineError> {
        Ok(self.store().change_list(list, |list| {
            list.annotations.extend(annotations.iter().cloned());
            Ok(())
        })?)
    }

    /// Takes an image out of a list, and away what nothing else needs of it.
    ///
    /// # Errors
    /// There is no such list, or it has no such image.
    pub fn remove_member(&self, list: &str, image: &str) -> Result<ImageList, EngineError> {
        let wanted = self.member_name(list, image)?;
        let changed = self.store().change_list(list, |list| {
            let digest = list.member(&wanted)?.descriptor.digest.clone();
            list.members.retain(|m| m.descriptor.digest != digest);
            Ok(())
        })?;
        self.store().collect_garbage()?;
        Ok(changed)
    }

    /// The index or manifest of a name: of a list, of an image in the store, else of a registry or any other
    /// place.
    ///
    /// # Errors
    /// Nobody has it.
    pub fn inspect_manifest(&self, access: &Access, name: &str) -> Result<Document, EngineError> {
        if let Some(place) = Place::with_transport(name).map_err(ImagesError::from)? {
            let source = transport::source(&place, access, self.store())?;
            return Ok(source.target()?);
        }
        match self.store().find_list(name) {
            Ok(list) => return Ok(document(&list.index(), None)?),
            Err(ImageError::NoList(_)) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(record) = self.in_store(name)? {
            return Ok(self.target(&record)?);
        }
        Ok(in_turn(access, name, |reference| {
            RegistrySource::new(access, reference.clone())?.target()
        })?)
    }

    /// Pushes a list, with [`PushOptions::all`] its images too, to where its name says when there is no other
    /// place.
    ///
    /// # Errors
    /// [`ImagesError`]; the name there leads to what it led to before.
    pub fn push_list(
        &self,
        access: &Access,
        list: &str,
        place: Option<Place>,
        options: &PushOptions,
        tell: &(dyn Fn(TransferEvent) + Sync),
    ) -> Result<Pushed, EngineError> {
        let list = self.store().find_list(list)?;
        Ok(self.send_list(access, &list, place, options, tell)?)
    }

    /// The image that a container is made of: the one of this name, or of a manifest list the one for this
    /// machine.
    ///
    /// # Errors
    /// There is none; [`ImagesError::MemberElsewhere`] when the list's image is not in the store.
    pub fn image_to_run(&self, name: &str) -> Result<ImageRecord, EngineError> {
        let list = match self.store().find_named(name)? {
            Named::Image(record) => return Ok(*record),
            Named::List(list) => list,
        };
        if list.members.is_empty() {
            return Err(ImagesError::EmptyList(list.name()).into());
        }
        let index = document(&list.index(), None)?;
        let chosen = index
            .choose(&Platform::native())
            .map_err(ImagesError::from)?;
        let member = list.members.iter().find(|m| m.descriptor == chosen);
        match member.map(|member| &member.source) {
            Some(MemberSource::Store(record)) => Ok((**record).clone()),
            Some(MemberSource::Place(place)) => {
                let pulled = self.in_store(chosen.digest.hex())?;
                let elsewhere = || ImagesError::MemberElsewhere {
                    list: list.name(),
                    place: place.clone(),
                };
                Ok(pulled.ok_or_else(elsewhere)?)
            }
            None => Err(ImageError::NotFound(name.to_owned()).into()),
        }
    }

    pub(super) fn send_list(
        &self,
        access: &Access,
        list: &ImageList,
        place: Option<Place>,
        options: &PushOptions,
        tell: &(dyn Fn(TransferEvent) + Sync),
    ) -> Result<Pushed, ImagesError> {
        if list.members.is_empty() {
            return Err(ImagesError::EmptyList(list.name()));
        }
        let place = place.unwrap_or_else(|| Place::Registry(list.reference.clone()));
        let index = (list.index(), None);
        self.send_members(access, &list.members, index, place, options, tell)
    }

    /// Pushes an image of the store with the index that it came from: the image that is here from the
    /// store, those for other machines from where it was pulled.
    pub(super) fn push_index(
        &self,
        access: &Access,
        record: &ImageRecord,
        place: Place,
        options: &PushOptions,
        tell: &(dyn Fn(TransferEvent) + Sync),
    ) -> Result<Pushed, ImagesError> {
        let target = self.target(record)?;
        let members = self.stored_members(record, true, &MemberOptions::default())?;
        let index = (target.index()?, Some(target));
        self.send_members(access, &members, index, place, options, tell)
    }

    /// Sends the members, and an index of what they have become; `own` when that is what it says.
    fn send_members(
        &self,
        access: &Access,
        members: &[ListMember],
        (mut index, own): (Index, Option<Document>),
        place: Place,
        options: &PushOptions,
        tell: &(dyn Fn(TransferEvent) + Sync),
    ) -> Result<Pushed, ImagesError> {
        if let Place::DockerArchive(path, _) = &place {
            return Err(ImagesError::SingleOnly(path.clone()));
        }
        let lease = self.store().lease()?;
        let mounts = self.mountable_members(members, &place)?;
        let sink = transport::sink(&place, access, self.store(), mounts)?;
        let push = Push::new(&lease, &*sink, &place, options);
        let mut manifests = 0;
        let pairs = members.iter().zip(&mut index.manifests);
        for (member, descriptor) in pairs.take_while(|_| options.all) {
            tell(TransferEvent::Manifest(descriptor.clone()));
            let document = match &member.source {
                MemberSource::Store(record) => {
                    protect(&lease, record)?;
                    manifests += 1;
                    push.image(record, tell)?
                }
                MemberSource::Place(text) => {
                    let source = transport::source(&text.parse()?, access, self.store())?;
                    let document = member_of(&*source, descriptor)?;
                    manifests += below(&*source, &*sink, &document, 0, tell)?;
                    document
                }
            };
            let new = document.descriptor();
            descriptor.media_type = new.media_type;
            descriptor.digest = new.digest;
            descriptor.size = new.size;
            sink.put_manifest(&document)?;
        }
        let made = document(&index, options.format)?;
        let target = match own {
            Some(own) if made.index()? == own.index()? => own,
            _ => made,
        };
        let digest = target.digest().clone();
        sink.finish(&target)?;
        Ok(Pushed {
            place,
            digest,
            manifests,
        })
    }

    /// Repositories of the destination's registry that may have blobs of a list's images.
    fn mountable_members(
        &self,
        members: &[ListMember],
        place: &Place,
    ) -> Result<Vec<String>, ImagesError> {
        let mut names: Vec<String> = Vec::new();
        for member in members {
            let found = match (&member.source, place) {
                (MemberSource::Store(record), place) => self.mountable(record, place)?,
                (MemberSource::Place(text), Place::Registry(to)) => {
                    let from = text.strip_prefix("docker://").unwrap_or_default();
                    match (from.parse::<Reference>(), to.parse::<Reference>()) {
                        (Ok(from), Ok(to)) if from.host() == to.host() => {
                            vec![from.path().to_owned()]
                        }
                        _ => Vec::new(),
                    }
                }
                (MemberSource::Place(_), _) => Vec::new(),
            };
            let new = found.into_iter().filter(|name| !names.contains(name));
            names.extend(new.collect::<Vec<_>>());
        }
        Ok(names)
    }

    /// The digest of a member that a person names: by digest, as it was added, or as the store calls it.
    fn member_name(&self, list: &str, image: &str) -> Result<String, EngineError> {
        let mut list = self.store().find_list(list)?;
        let unknown = match list.member(image) {
            Ok(member) => return Ok(member.descriptor.digest.to_string()),
            Err(error) => error,
        };
        let record = self.in_store(image)?.map(|r| r.manifest.to_string());
        match record.map(|manifest| list.member(&manifest)) {
            Some(Ok(member)) => Ok(member.descriptor.digest.to_string()),
            _ => Err(unknown.into()),
        }
    }

    /// What a name adds to a list.
    fn members(
        &self,
        access: &Access,
        name: &str,
        all: bool,
        options: &MemberOptions,
    ) -> Result<Vec<ListMember>, ImagesError> {
        let mut members = match Place::with_transport(name)? {
            Some(Place::Registry(name)) => remote_members(access, &name, all, options)?,
            Some(place) => {
                let source = transport::source(&place, access, self.store())?;
                let place = absolute(place)?.to_string();
                members_of(&*source, all, options, &|_| place.clone())?
            }
            None => match self.in_store(name)? {
                Some(record) => self.stored_members(&record, all, options)?,
                None => remote_members(access, name, all, options)?,
            },
        };
        for member in &mut members {
            name.clone_into(&mut member.name);
            options.apply(&mut member.descriptor);
        }
        Ok(members)
    }

    /// An image of the store; of an image for several machines the store has the one for this machine, and
    /// the others are in the registry that it came from.
    fn stored_members(
        &self,
        record: &ImageRecord,
        all: bool,
        options: &MemberOptions,
    ) -> Result<Vec<ListMember>, ImagesError> {
        let target = self.target(record)?;
        let index = match target.kind() {
            DocumentKind::Index => target.index()?.manifests,
            DocumentKind::Manifest => Vec::new(),
        };
        let manifest = self.store().blob(&record.manifest)?;
        let manifest = Document::new("", manifest)?;
        let own = match index.iter().find(|d| d.digest == record.manifest) {
            Some(descriptor) => descriptor.clone(),
            None => Descriptor {
                platform: Some(record.platform.clone()),
                ..manifest.descriptor()
            },
        };
        let descriptors = match index.is_empty() {
            true => vec![own],
            false if all => index,
            // The one that is here is meant, whatever machine it is for.
            false if !options.names_a_machine() => vec![own],
            false => vec![target.choose(&wanted(options))?],
        };
        let mut stored = record.clone();
        stored.target = manifest.descriptor();
        let member = |descriptor: Descriptor| {
            let source = match descriptor.digest == record.manifest {
                true => MemberSource::Store(Box::new(stored.clone())),
                false => MemberSource::Place(elsewhere(record, &descriptor.digest)?),
            };
            Ok(ListMember {
                name: String::new(),
                descriptor,
                source,
            })
        };
        descriptors.into_iter().map(member).collect()
    }

    /// What the name of an image in the store leads to.
    pub(super) fn target(&self, record: &ImageRecord) -> Result<Document, ImagesError> {
        let bytes = self.store().blob(&record.target.digest)?;
        Ok(Document::new(&record.target.media_type, bytes)?)
    }

    /// The image of this name in the store, if there is one.
    fn in_store(&self, name: &str) -> Result<Option<ImageRecord>, ImagesError> {
        match self.store().find_image(name) {
            Ok(record) => Ok(Some(record)),
            Err(ImageError::NotFound(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn protect(lease: &Lease, record: &ImageRecord) -> Result<(), ImagesError> {
    match lease.protect_blobs([&record.manifest, &record.id])? {
        Some(missing) => Err(BlobError::Missing(missing.clone()).into()),
        None => Ok(()),
    }
}

/// The manifest of another machine than this one, of an image that was pulled.
fn elsewhere(record: &ImageRecord, digest: &Digest) -> Result<String, ImagesError> {
    let name = record.reference.as_ref().and_then(|r| r.parse().ok());
    match name {
        Some(name) => Ok(by_digest(&name, digest)),
        None => Err(ImagesError::NoName(record.id.short().to_owned())),
    }
}

fn by_digest(name: &Reference, digest: &Digest) -> String {
    format!("docker://{}/{}@{digest}", name.host(), name.path())
}

fn remote_members(
    access: &Access,
    name: &str,
    all: bool,
    options: &MemberOptions,
) -> Result<Vec<ListMember>, ImagesError> {
    in_turn(access, name, |reference| {
        let source = RegistrySource::new(access, reference.clone())?;
        members_of(&source, all, options, &|d| by_digest(reference, d))
    })
}

/// What an image in another place adds to a list.
fn members_of(
    source: &dyn Source,
    all: bool,
    options: &MemberOptions,
    place: &dyn Fn(&Digest) -> String,
) -> Result<Vec<ListMember>, ImagesError> {
    let target = source.target()?;
    let descriptors = match target.kind() {
        DocumentKind::Manifest => vec![Descriptor {
            platform: made_for(source, &target)?,
            ..target.descriptor()
        }],
        DocumentKind::Index if all => target.index()?.manifests,
        DocumentKind::Index => vec![target.choose(&wanted(options))?],
    };
    let member = |descriptor: Descriptor| ListMember {
        name: String::new(),
        source: MemberSource::Place(place(&descriptor.digest)),
        descriptor,
    };
    Ok(descriptors.into_iter().map(member).collect())
}

/// The machine whose image is taken from several.
fn wanted(options: &MemberOptions) -> Platform {
    let mut host = Platform::native();
    options.platform(&mut host);
    host.normalised()
}

/// The machine that a manifest's configuration names; none when it is no image's.
fn made_for(source: &dyn Source, document: &Document) -> Result<Option<Platform>, ImagesError> {
    let config = document.manifest()?.config;
    if !is_image_config(&config.media_type) {
        return Ok(None);
    }
    let bytes = transport::small(source, &config)?;
    let parsed: ImageConfig = image::parse(&bytes).map_err(|source| ImagesError::Document {
        digest: config.digest,
        source,
    })?;
    Ok(Some(Platform {
        architecture: parsed.architecture,
        os: parsed.os,
        variant: parsed.variant,
        ..Platform::default()
    }))
}

/// A member's manifest: what the place itself leads to, or what its index names.
fn member_of(source: &dyn Source, wanted: &Descriptor) -> Result<Document, ImagesError> {
    let target = source.target()?;
    match *target.digest() == wanted.digest {
        true => Ok(target),
        false => source.manifest(wanted),
    }
}

/// The place from anywhere: a list is pushed from other directories than it was made in.
fn absolute(place: Place) -> Result<Place, ImagesError> {
    let path = |path: &Path| {
        std::path::absolute(path).map_err(|source| ImagesError::Read {
            path: path.to_owned(),
            source,
        })
    };
    Ok(match place {
        Place::Registry(name) => Place::Registry(name),
        Place::Layout(at, name) => Place::Layout(path(&at)?, name),
        Place::LayoutArchive(at, name) => Place::LayoutArchive(path(&at)?, name),
        Place::DockerArchive(at, name) => Place::DockerArchive(path(&at)?, name),
        Place::Dir(at) => Place::Dir(path(&at)?),
    })
}

/// The index as a document. Docker's lists have no annotations.
fn document(index: &Index, format: Option<ManifestFormat>) -> Result<Document, ImagesError> {
    let mut index = index.clone();
    match format {
        None => {}
        Some(ManifestFormat::Oci) => media_type::INDEX.clone_into(&mut index.media_type),
        Some(ManifestFormat::Docker) => {
            media_type::DOCKER_LIST.clone_into(&mut index.media_type);
            index.annotations.clear();
            for descriptor in &mut index.manifests {
                descriptor.annotations.clear();
            }
        }
    }
    let bytes = serde_json::to_vec(&index).map_err(|e| BlobError::Write(e.into()))?;
    Ok(Document::new(&index.media_type, bytes)?)
}
