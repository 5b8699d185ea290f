//! Reads a layer's recipe as the archive it came from, with holes where the pool has the bytes.

use super::layer::LayerTree;
use super::objects::from_bytes;
use crate::driver::DriverError;
use crate::erofs::{Content, ObjectId};
use crate::recipe::{Recipe, Step};
use crate::store::StoreError;
use crate::tar::{Entry, Kind, Reader};
use std::cell::Cell;
use std::fs::File;
use std::io::{BufRead, Read};
use std::path::Path;
use std::rc::Rc;

/// What stands for bytes of the pool. Its size only decides how often it is handed out.
static HOLE: [u8; 64 << 10] = [0; 64 << 10];

/// Calls `each` for the entries of the layer at `layer`, with what regular files have in them.
pub(super) fn entries(
    layer: &Path,
    mut each: impl FnMut(&Entry, Content) -> Result<(), DriverError>,
) -> Result<(), DriverError> {
    let damaged = |what: String| DriverError::Damaged {
        path: layer.to_owned(),
        what,
    };
    let path = layer.join("recipe");
    let file = File::open(&path).map_err(StoreError::io("open", &path))?;
    let unreadable = |e: std::io::Error| damaged(format!("its recipe cannot be read ({e})"));
    let recipe = Recipe::new(file).map_err(unreadable)?;
    let key = Rc::new(Cell::new(None));
    let mut reader = Reader::new(Replay {
        recipe,
        literal: Vec::new(),
        at: 0,
        hole: 0,
        key: key.clone(),
    });
    loop {
        let next = reader
            .next_entry()
            .map_err(|e| damaged(format!("its recipe is no archive ({e})")))?;
        let Some(entry) = next else {
            return Ok(());
        };
        let mut content = Content::Inline([].into());
        if entry.kind == Kind::Regular && entry.size > 0 {
            reader.fill_buf().map(|_| ()).map_err(unreadable)?;
            content = match key.take() {
                Some(object) => Content::Pooled {
                    size: entry.size,
                    object,
                    verity: None,
                },
                None if super::unpack::is_pooled(&entry) => {
                    return Err(damaged("an entry has no object".into()));
                }
                None => {
                    let mut bytes = Vec::with_capacity(entry.size as usize);
                    reader.read_to_end(&mut bytes).map_err(unreadable)?;
                    Content::Inline(bytes.into())
                }
            };
        }
        each(&entry, content)?;
        key.take();
    }
}

/// The tree of the layer at `layer`.
pub(super) fn tree(layer: &Path) -> Result<LayerTree, DriverError> {
    let mut tree = LayerTree::new();
    entries(layer, |entry, content| Ok(tree.apply(entry, content)?))?;
    Ok(tree)
}

struct Replay {
    recipe: Recipe<File>,
    literal: Vec<u8>,
    at: usize,
    /// Bytes of a hole that are left.
    hole: u64,
    /// Of the last hole.
    key: Rc<Cell<Option<ObjectId>>>,
}

impl BufRead for Replay {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        while self.hole == 0 && self.at >= self.literal.len() {
            match self.recipe.step()? {
                None => return Ok(&[]),
                Some(Step::Literal(bytes)) => {
                    self.literal = bytes;
                    self.at = 0;
                }
                Some(Step::Content { key, segments }) => {
                    let object = from_bytes(&key);
                    let mut lengths = segments.iter().map(|s| s.length);
                    let length = lengths.try_fold(0_u64, |sum, n| sum.checked_add(n));
                    let (Some(object), Some(length)) = (object, length) else {
                        return Err(std::io::ErrorKind::InvalidData.into());
                    };
                    self.key.set(Some(object));
                    self.hole = length;
                }
            }
        }
        if self.hole > 0 {
            let n = HOLE
                .len()
                .min(usize::try_from(self.hole).unwrap_or(usize::MAX));
            return Ok(&HOLE[..n]);
        }
        Ok(self.literal.get(self.at..).unwrap_or_default())
    }

    fn consume(&mut self, n: usize) {
        match self.hole {
            0 => self.at += n,
            _ => self.hole -= n as u64,
        }
    }
}

impl Read for Replay {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let bytes = self.fill_buf()?;
        let n = bytes.len().min(buf.len());
        if let Some((to, from)) = buf.get_mut(..n).zip(bytes.get(..n)) {
            to.copy_from_slice(from);
        }
        self.consume(n);
        Ok(n)
    }
}
