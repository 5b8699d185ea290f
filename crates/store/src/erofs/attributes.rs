//! Extended attributes: names split into the format's prefixes, equal ones shared, frequent names shortened.

use super::format::{
    ATTRIBUTE_ALIGN, ATTRIBUTE_ENTRY_BYTES, ATTRIBUTE_HEADER_BYTES, FILTER_SEED, LONG_PREFIX,
    LONG_PREFIX_TABLE_BYTES_MAX, LONG_PREFIXES_MAX, SHARED_MAX,
};
use super::hash::xxh32;
use super::tree::{
    ATTRIBUTE_BYTES_MAX, Content, Inode, Limit, NAME_BYTES_MAX, ObjectId, object_path,
};
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

const TRUSTED: u8 = 4;
/// Prefixes with their numbers. An access list has nothing after its prefix.
const PREFIXES: [(&[u8], u8); 5] = [
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", TRUSTED),
    (b"security.", 6),
];
/// Bytes of a redirect: a slash and [`object_path`] of a file without holes.
const REDIRECT_BYTES: usize = 66;
/// Version, length, flags, algorithm.
const VERITY_HEADER: [u8; 4] = [0, 36, 0, 1];

/// A name without its short prefix. The two parts are always split in the same place, so equal names
/// are equal values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Name<'a> {
    prefix: u8,
    escape: &'static [u8],
    rest: &'a [u8],
}

impl Name<'_> {
    fn len(&self) -> usize {
        self.escape.len() + self.rest.len()
    }

    fn bytes(&self) -> Vec<u8> {
        [self.escape, self.rest].concat()
    }

    fn filter_bit(&self) -> u32 {
        let seed = FILTER_SEED + u32::from(self.prefix);
        1 << (xxh32(&self.bytes(), seed) % 32)
    }
}

/// A value, made when it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Value<'a> {
    Given(&'a [u8]),
    Redirect(&'a ObjectId),
    Metacopy(Option<&'a [u8; 32]>),
}

impl Value<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Given(bytes) => bytes.len(),
            Self::Redirect(object) => REDIRECT_BYTES + usize::from(object.sparse),
            Self::Metacopy(None) => 0,
            Self::Metacopy(Some(digest)) => VERITY_HEADER.len() + digest.len(),
        }
    }

    fn append(&self, out: &mut Vec<u8>) {
        match self {
            Self::Given(bytes) => out.extend_from_slice(bytes),
            Self::Redirect(object) => {
                out.push(b'/');
                out.extend_from_slice(object_path(object).as_bytes());
            }
            Self::Metacopy(None) => {}
            Self::Metacopy(Some(digest)) => {
                out.extend_from_slice(&VERITY_HEADER);
                out.extend_from_slice(*digest);
            }
        }
    }
}

/// A name with its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Attribute<'a> {
    name: Name<'a>,
    value: Value<'a>,
}

/// Puts the attributes of `inode` into `list`, in the order in which they are written.
pub(super) fn list<'a>(inode: &'a Inode, list: &mut Vec<Attribute<'a>>) -> Result<(), Limit> {
    list.clear();
    if let Content::Pooled { object, verity, .. } = &inode.content {
        let own = |rest, value| Attribute {
            name: Name {
                prefix: TRUSTED,
                escape: b"",
                rest,
            },
            value,
        };
        let verity = verity.as_deref();
        list.push(own(b"overlay.metacopy", Value::Metacopy(verity)));
        list.push(own(b"overlay.redirect", Value::Redirect(object)));
    }
    for (name, value) in &inode.attributes {
        if value.len() > ATTRIBUTE_BYTES_MAX {
            return Err(Limit::AttributeValue);
        }
        list.push(Attribute {
            name: split(name).ok_or(Limit::AttributeName)?,
            value: Value::Given(value),
        });
    }
    Ok(())
}

/// Whether the format has attributes of this name.
pub fn has_attribute(name: &[u8]) -> bool {
    split(name).is_some()
}

/// Upper bound of what the attributes of one inode take, whatever is shared.
pub(super) fn bytes_max(attributes: &[Attribute<'_>]) -> u64 {
    let none = BTreeMap::new();
    let entries = attributes
        .iter()
        .map(|a| entry_bytes(a, &none))
        .sum::<u64>();
    ATTRIBUTE_HEADER_BYTES + entries
}

fn split(full: &[u8]) -> Option<Name<'_>> {
    let (rest, prefix) = PREFIXES
        .iter()
        .find_map(|&(prefix, number)| Some((full.strip_prefix(prefix)?, number)))?;
    let whole = matches!(prefix, 2 | 3);
    let (escape, rest): (&'static [u8], _) = match rest.strip_prefix(b"overlay.") {
        Some(rest) if prefix == TRUSTED => (b"overlay.overlay.", rest),
        _ => (b"", rest),
    };
    let fits = rest.is_empty() == whole && full.len() <= NAME_BYTES_MAX && !rest.contains(&0);
    fits.then_some(Name {
        prefix,
        escape,
        rest,
    })
}

/// Which attributes are shared, and where; which names have a prefix of their own.
#[derive(Debug, Default)]
pub(super) struct Sharing<'a> {
    /// In the order in which they are written; the value is the offset within the area in units of four bytes.
    shared: BTreeMap<Attribute<'a>, u32>,
    prefixes: BTreeMap<Name<'a>, u8>,
    pub(super) area: Vec<u8>,
}

impl<'a> Sharing<'a> {
    /// From the attributes of all inodes that are written.
    pub(super) fn of(
        inodes: impl Iterator<Item = &'a Inode> + Clone,
        long_prefixes: bool,
    ) -> Result<Self, Limit> {
        let again = repeated(inodes.clone())?;
        let mut users: HashMap<Attribute<'a>, u32> = HashMap::new();
        let mut names: BTreeMap<Name<'a>, usize> = BTreeMap::new();
        let mut one = Vec::new();
        for inode in inodes {
            list(inode, &mut one)?;
            for attribute in &one {
                let users = match again.binary_search(&hash(attribute)) {
                    Ok(_) => users.entry(*attribute).or_default(),
                    Err(_) => &mut 0,
                };
                *users += 1;
                if *users == 1 {
                    *names.entry(attribute.name).or_default() += 1;
                }
            }
        }
        let mut sharing = Self::default();
        for (attribute, users) in users {
            if users > 1 {
                sharing.shared.insert(attribute, 0);
            }
        }
        if long_prefixes {
            let mut room = LONG_PREFIX_TABLE_BYTES_MAX;
            for (name, uses) in names {
                let bytes = prefix_bytes(&name);
                let pays = (uses - 1) * name.len() > 2 * ATTRIBUTE_ENTRY_BYTES as usize;
                if pays && bytes <= room && sharing.prefixes.len() < LONG_PREFIXES_MAX {
                    room -= bytes;
                    let number = sharing.prefixes.len() as u8;
                    sharing.prefixes.insert(name, number);
                }
            }
        }
        let mut area = Vec::new();
        for (attribute, at) in &mut sharing.shared {
            *at = u32::try_from(area.len() as u64 / ATTRIBUTE_ALIGN).map_err(|_| Limit::Image)?;
            append(attribute, &sharing.prefixes, &mut area);
        }
        sharing.area = area;
        Ok(sharing)
    }

    /// The table of long prefixes: of each its length in two bytes, then the prefix; aligned to four bytes.
    pub(super) fn prefix_table(&self) -> (u8, Vec<u8>) {
        let mut table = Vec::new();
        for name in self.prefixes.keys() {
            table.extend_from_slice(&(1 + name.len() as u16).to_le_bytes());
            table.push(name.prefix);
            table.extend_from_slice(&name.bytes());
            pad(&mut table);
        }
        (self.prefixes.len() as u8, table)
    }

    fn is_shared(&self, attribute: &Attribute<'a>, before: usize) -> Option<u32> {
        let at = self.shared.get(attribute)?;
        (before < SHARED_MAX).then_some(*at)
    }

    /// Bytes that the attributes of an inode take behind its head.
    pub(super) fn bytes(&self, attributes: &[Attribute<'a>]) -> u64 {
        if attributes.is_empty() {
            return 0;
        }
        let (mut bytes, mut shared) = (ATTRIBUTE_HEADER_BYTES, 0);
        for attribute in attributes {
            bytes += match self.is_shared(attribute, shared) {
                Some(_) => {
                    shared += 1;
                    4
                }
                None => entry_bytes(attribute, &self.prefixes),
            };
        }
        bytes
    }

    /// Appends what [`Sharing::bytes`] measured.
    pub(super) fn append(&self, attributes: &[Attribute<'a>], out: &mut Vec<u8>) {
        if attributes.is_empty() {
            return;
        }
        let absent = attributes
            .iter()
            .fold(u32::MAX, |bits, a| bits & !a.name.filter_bit());
        out.extend_from_slice(&absent.to_le_bytes());
        let count_at = out.len();
        out.extend_from_slice(&[0; 8]);
        let mut own = Vec::new();
        let mut shared = 0;
        for attribute in attributes {
            match self.is_shared(attribute, shared) {
                Some(at) => {
                    shared += 1;
                    out.extend_from_slice(&at.to_le_bytes());
                }
                None => append(attribute, &self.prefixes, &mut own),
            }
        }
        out[count_at] = shared as u8;
        out.append(&mut own);
    }
}

/// Hashes that more than one attribute has, in their order: another one is nowhere twice. Nearly every file
/// has one of its own, and eight bytes are a tenth of what it takes itself.
fn repeated<'a>(inodes: impl Iterator<Item = &'a Inode>) -> Result<Vec<u64>, Limit> {
    let mut hashes = Vec::new();
    let mut one = Vec::new();
    for inode in inodes {
        list(inode, &mut one)?;
        hashes.extend(one.iter().map(hash));
    }
    hashes.sort_unstable();
    let mut again: Vec<u64> = hashes
        .windows(2)
        .filter(|pair| pair[0] == pair[1])
        .map(|pair| pair[0])
        .collect();
    again.dedup();
    Ok(again)
}

fn hash(attribute: &Attribute<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    attribute.hash(&mut hasher);
    hasher.finish()
}

fn entry_bytes(attribute: &Attribute<'_>, prefixes: &BTreeMap<Name<'_>, u8>) -> u64 {
    let name = match prefixes.contains_key(&attribute.name) {
        true => 0,
        false => attribute.name.len(),
    };
    (ATTRIBUTE_ENTRY_BYTES + (name + attribute.value.len()) as u64)
        .next_multiple_of(ATTRIBUTE_ALIGN)
}

fn append(attribute: &Attribute<'_>, prefixes: &BTreeMap<Name<'_>, u8>, out: &mut Vec<u8>) {
    let name = &attribute.name;
    let (index, name) = match prefixes.get(name) {
        Some(number) => (LONG_PREFIX | number, Vec::new()),
        None => (name.prefix, name.bytes()),
    };
    // Lengths were checked by `list`.
    out.extend_from_slice(&[name.len() as u8, index]);
    out.extend_from_slice(&(attribute.value.len() as u16).to_le_bytes());
    out.extend_from_slice(&name);
    attribute.value.append(out);
    pad(out);
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(ATTRIBUTE_ALIGN as usize), 0);
}

fn prefix_bytes(name: &Name<'_>) -> usize {
    (3 + name.len()).next_multiple_of(ATTRIBUTE_ALIGN as usize)
}
