//! Manifest lists in the making: which images, for which machines, a list will name when it is pushed.
//!
//! One small JSON file a list (`lists/HEX.json`, named by the sha256 of the list's reference; HEX is the
//! list's id), replaced by rename under the meta lock, so that changes of several processes follow each
//! other. The names of lists and those of images are apart: where either will do, an image goes first (see
//! [`Store::find_named`]).
//!
//! A member is an image of this store, whose documents and layers stay as long as the list names it, or one
//! in another place, of which nothing is kept but where it is.

use crate::digesting::digest_of;
use crate::durable::{self, remove_path};
use crate::gc;
use crate::gc::Reclaimed;
use crate::images::{By, ImageError, ImageRecord};
use crate::lease::Lease;
use crate::store::{Store, StoreError};
use carrack_spec::image::{self, Descriptor, Index};
use carrack_spec::{Digest, Reference};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Format of the records this build writes; another number is an error, never a guess.
const RECORD_VERSION: u32 = 1;
/// Shortest prefix of a list's id that is taken for one.
const ID_PREFIX_MIN: usize = 4;
/// Most members of a list.
pub const LIST_MEMBERS_MAX: usize = 1000;

/// A manifest list in the making.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageList {
    version: u32,
    /// Full text of its name.
    pub reference: String,
    /// Annotations of the list itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Its images, in the order in which they were added.
    pub members: Vec<ListMember>,
    /// When it was last changed, seconds since the epoch.
    pub changed: u64,
}

/// One image of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListMember {
    /// What it was added as.
    pub name: String,
    /// Its manifest, the machine it is for, and its annotations in the list.
    pub descriptor: Descriptor,
    /// Where it is.
    pub source: MemberSource,
}

/// Where an image of a list is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MemberSource {
    /// In this store.
    Store(Box<ImageRecord>),
    /// Elsewhere: a place with its transport, as a person types it.
    Place(String),
}

impl ImageList {
    /// A list without members.
    pub fn new(name: &Reference) -> Self {
        Self {
            version: RECORD_VERSION,
            reference: name.to_string(),
            annotations: BTreeMap::new(),
            members: Vec::new(),
            changed: crate::images::now(),
        }
    }

    /// What commands call it besides its name.
    pub fn id(&self) -> String {
        digest_of(self.reference.as_bytes()).hex().to_owned()
    }

    /// The name to show: the reference without the defaults.
    pub fn name(&self) -> String {
        crate::images::familiar(&self.reference)
    }

    /// The index as it is now.
    pub fn index(&self) -> Index {
        let members = self.members.iter().map(|m| m.descriptor.clone());
        let mut index = Index::new(members.collect());
        index.annotations.clone_from(&self.annotations);
        index
    }

    /// The images of this store that it names.
    pub(crate) fn images(&self) -> impl Iterator<Item = &ImageRecord> {
        self.members.iter().filter_map(|m| match &m.source {
            MemberSource::Store(record) => Some(&**record),
            MemberSource::Place(_) => None,
        })
    }

    /// The member of this digest, or that was added under this name.
    ///
    /// # Errors
    /// [`ImageError::NoMember`], [`ImageError::SeveralMembers`].
    pub fn member(&mut self, wanted: &str) -> Result<&mut ListMember, ImageError> {
        let list = self.name();
        let is_meant = |member: &&mut ListMember| {
            let digest = &member.descriptor.digest;
            member.name == wanted || digest.hex() == wanted || digest.to_string() == wanted
        };
        let mut found = self.members.iter_mut().filter(is_meant);
        let image = wanted.to_owned();
        match (found.next(), found.next()) {
            (Some(member), None) => Ok(member),
            (None, _) => Err(ImageError::NoMember { list, image }),
            (Some(_), Some(_)) => Err(ImageError::SeveralMembers { list, image }),
        }
    }

    /// Adds members; one with the digest of another takes its place.
    fn add(&mut self, members: Vec<ListMember>) -> Result<(), ImageError> {
        for new in members {
            let same = |old: &&mut ListMember| old.descriptor.digest == new.descriptor.digest;
            match self.members.iter_mut().find(same) {
                Some(old) => *old = new,
                None => self.members.push(new),
            }
        }
        match self.members.len() <= LIST_MEMBERS_MAX {
            true => Ok(()),
            false => Err(ImageError::ListFull(self.name())),
        }
    }
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// An image.
    Image(Box<ImageRecord>),
    /// A manifest list.
    List(ImageList),
}

/// A list and the file it is in.
type Found = (PathBuf, ImageList);

impl Store {
    /// All lists, by name.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn lists(&self) -> Result<Vec<ImageList>, ImageError> {
        let (found, bad) = self.list_records()?;
        if let Some(error) = bad.into_iter().next() {
            return Err(error);
        }
        let mut lists: Vec<ImageList> = found.into_iter().map(|(_, list)| list).collect();
        lists.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(lists)
    }

    /// The list of this name, or with this id or the start of it.
    ///
    /// # Errors
    /// [`ImageError::NoList`], or the records cannot be read.
    pub fn find_list(&self, name: &str) -> Result<ImageList, ImageError> {
        Ok(self.found_list(name)?.1)
    }

    /// What a name stands for where an image or a list will do: the image of that name, else the list of that
    /// name, else the image with that id or the start of it, else such a list.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], [`ImageError::Ambiguous`], or the records cannot be read.
    pub fn find_named(&self, name: &str) -> Result<Named, ImageError> {
        let image = self.find_image_by(name);
        let by_name = matches!(image, Ok((_, By::Name)));
        if !by_name && let Some((_, list)) = self.list_called(name)? {
            return Ok(Named::List(list));
        }
        match image {
            Ok((record, _)) => Ok(Named::Image(Box::new(record))),
            Err(ImageError::NotFound(name)) => match self.find_list(&name) {
                Err(ImageError::NoList(_)) => Err(ImageError::NotFound(name)),
                list => list.map(Named::List),
            },
            Err(error) => Err(error),
        }
    }

    /// Makes a list with these members, or adds them to the one of that name when there may be one.
    ///
    /// # Errors
    /// [`ImageError::ListExists`]; something of a member is missing; the record cannot be written.
    pub fn create_list(
        &self,
        lease: &Lease,
        name: &Reference,
        members: Vec<ListMember>,
        amend: bool,
    ) -> Result<ImageList, ImageError> {
        self.protect_members(lease, &members)?;
        let _held = self.removing()?;
        let list = ImageList::new(name);
        let path = self.list_path(&list);
        let mut list = match read(&path)? {
            None => list,
            Some(there) if amend => there,
            Some(there) => return Err(ImageError::ListExists(there.name())),
        };
        list.add(members)?;
        self.write_list(lease, &path, list)
    }

    /// Adds members to a list; one with the digest of another takes its place.
    ///
    /// # Errors
    /// As [`Store::create_list`], and [`ImageError::NoList`].
    pub fn add_to_list(
        &self,
        lease: &Lease,
        name: &str,
        members: Vec<ListMember>,
    ) -> Result<ImageList, ImageError> {
        self.protect_members(lease, &members)?;
        self.edit_list(lease, name, |list| list.add(members))
    }

    /// Changes a list; nobody else changes it meanwhile. `change` must add no member.
    ///
    /// # Errors
    /// Those of `change`; then the list is as it was.
    pub fn change_list(
        &self,
        name: &str,
        change: impl FnOnce(&mut ImageList) -> Result<(), ImageError>,
    ) -> Result<ImageList, ImageError> {
        let lease = self.lease()?;
        self.edit_list(&lease, name, change)
    }

    /// Removes a list, and what only it needed.
    ///
    /// # Errors
    /// [`ImageError::NoList`], or something cannot be removed.
    pub fn remove_list(&self, name: &str) -> Result<(ImageList, Reclaimed), ImageError> {
        self.sweep();
        let lease = self.lease()?;
        let held = self.removing()?;
        let (path, list) = self.found_list(name)?;
        remove_path(&path).map_err(StoreError::io("remove", &path))?;
        let trash: gc::Trash = self.take_unreachable(&lease, &held)?;
        drop(held);
        durable::sync_directory(&self.path("lists"))?;
        Ok((list, trash.empty()?))
    }

    /// All lists in no order, and the records that cannot be read.
    pub(crate) fn list_records(&self) -> Result<(Vec<Found>, Vec<ImageError>), StoreError> {
        let directory = self.path("lists");
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Default::default()),
            Err(e) => return Err(StoreError::io("list", directory)(e)),
        };
        let (mut found, mut bad) = (Vec::new(), Vec::new());
        for entry in entries {
            let path = entry.map_err(StoreError::io("list", &directory))?.path();
            if path.extension().is_none_or(|end| end != "json") {
                continue;
            }
            match read(&path) {
                // It went away meanwhile.
                Ok(None) => {}
                Ok(Some(list)) => found.push((path, list)),
                Err(error) => bad.push(error),
            }
        }
        Ok((found, bad))
    }

    /// Takes members out of a list whose file is at `path`; for the holder of the removing lock.
    pub(crate) fn drop_members(
        &self,
        lease: &Lease,
        (path, mut list): Found,
        lost: &[Digest],
    ) -> Result<(), ImageError> {
        list.members
            .retain(|member| !lost.contains(&member.descriptor.digest));
        self.write_list(lease, &path, list).map(drop)
    }

    fn edit_list(
        &self,
        lease: &Lease,
        name: &str,
        change: impl FnOnce(&mut ImageList) -> Result<(), ImageError>,
    ) -> Result<ImageList, ImageError> {
        let _held = self.removing()?;
        let (path, mut list) = self.found_list(name)?;
        change(&mut list)?;
        self.write_list(lease, &path, list)
    }

    fn protect_members(&self, lease: &Lease, members: &[ListMember]) -> Result<(), ImageError> {
        for member in members {
            let MemberSource::Store(record) = &member.source else {
                continue;
            };
            lease.protect_image(record)?;
        }
        Ok(())
    }

    /// The list of this name.
    fn list_called(&self, name: &str) -> Result<Option<Found>, ImageError> {
        for text in [name.to_owned(), format!("localhost/{name}")] {
            let Ok(reference) = text.parse::<Reference>() else {
                continue;
            };
            let path = self.list_path(&ImageList::new(&reference));
            if let Some(list) = read(&path)? {
                return Ok(Some((path, list)));
            }
        }
        Ok(None)
    }

    fn found_list(&self, name: &str) -> Result<Found, ImageError> {
        if let Some(found) = self.list_called(name)? {
            return Ok(found);
        }
        let no_list = || ImageError::NoList(name.to_owned());
        if name.len() < ID_PREFIX_MIN {
            return Err(no_list());
        }
        let mut hits = self.list_records()?.0.into_iter();
        let mut fitting = hits
            .by_ref()
            .filter(|(_, list)| list.id().starts_with(name));
        match (fitting.next(), fitting.next()) {
            (Some(found), None) => Ok(found),
            (Some(_), Some(_)) => Err(ImageError::Ambiguous(name.to_owned())),
            (None, _) => Err(no_list()),
        }
    }

    fn list_path(&self, list: &ImageList) -> PathBuf {
        self.path("lists").join(list.id()).with_extension("json")
    }

    fn write_list(
        &self,
        lease: &Lease,
        path: &Path,
        list: ImageList,
    ) -> Result<ImageList, ImageError> {
        let list = ImageList {
            changed: crate::images::now(),
            ..list
        };
        let failed = |e: serde_json::Error| StoreError::io("write", path)(e.into());
        let text = serde_json::to_vec(&list).map_err(failed)?;
        let directory = self.path("lists");
        std::fs::create_dir_all(&directory)
            .map_err(StoreError::io("make the directory", &directory))?;
        durable::write(&lease.temporary(), path, &text)?;
        Ok(list)
    }
}

/// A list's record; none when there is no such file.
fn read(path: &Path) -> Result<Option<ImageList>, ImageError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(StoreError::io("read", path)(e).into()),
    };
    let path = path.to_owned();
    match image::parse::<ImageList>(&bytes) {
        Ok(list) if list.version == RECORD_VERSION => Ok(Some(list)),
        Ok(ImageList { version, .. }) => Err(ImageError::Version { path, version }),
        Err(source) => Err(ImageError::Record { path, source }),
    }
}
