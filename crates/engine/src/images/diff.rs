//! `image diff`: what an image changes in the image below, or in another one.

use crate::{Engine, EngineError};
use carrack_spec::Digest;
use carrack_store::{Change, LayerChanges, Lease};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

impl Engine {
    /// Paths that are new, other or gone in `image`, beside `other` or itself without its highest layer. A
    /// path is another when a layer that `other` does not have touches it.
    ///
    /// # Errors
    /// An image is not there or damaged.
    pub fn image_diff(
        &self,
        image: &str,
        other: Option<&str>,
    ) -> Result<BTreeMap<PathBuf, Change>, EngineError> {
        let store = self.store();
        let image = store.find_image(image)?;
        let below: Vec<Digest> = match other {
            Some(other) => store.find_image(other)?.layers,
            None => {
                let all = image.layers.len();
                image
                    .layers
                    .iter()
                    .take(all.saturating_sub(1))
                    .cloned()
                    .collect()
            }
        };
        let lease = store.lease()?;
        let both = image.layers.iter().zip(&below);
        let common = both.take_while(|(a, b)| a == b).count();
        let mut before = BTreeSet::new();
        layer_on(&lease, below.iter().take(common), &mut before)?;
        let mut after = before.clone();
        layer_on(&lease, below.iter().skip(common), &mut before)?;
        let touched = layer_on(&lease, image.layers.iter().skip(common), &mut after)?;
        let mut changes = BTreeMap::new();
        for path in before.union(&after) {
            let change = match (before.contains(path), after.contains(path)) {
                (false, _) => Change::Added,
                (_, false) => Change::Deleted,
                _ if touched.contains(path) => Change::Changed,
                _ => continue,
            };
            changes.insert(path.clone(), change);
        }
        Ok(changes)
    }
}

/// Puts layers on a set of paths; what they touch.
fn layer_on<'a>(
    lease: &Lease,
    layers: impl Iterator<Item = &'a Digest>,
    paths: &mut BTreeSet<PathBuf>,
) -> Result<BTreeSet<PathBuf>, EngineError> {
    let mut touched = BTreeSet::new();
    for layer in layers {
        let changes = lease.store().layer_changes(lease, layer);
        let changes = changes.map_err(carrack_store::ImageError::from)?;
        put_on(changes, paths, &mut touched);
    }
    Ok(touched)
}

/// Puts one layer on a set of paths.
fn put_on(changes: LayerChanges, paths: &mut BTreeSet<PathBuf>, touched: &mut BTreeSet<PathBuf>) {
    // What a layer hides was there before it.
    for path in &changes.emptied {
        take_below(paths, path);
    }
    for (path, change) in &changes.paths {
        // Only a directory keeps what is in it.
        if *change != Change::Changed {
            take_below(paths, path);
            paths.remove(path);
        }
    }
    for (path, change) in changes.paths {
        if change != Change::Deleted {
            paths.insert(path.clone());
        }
        touched.insert(path);
    }
}

fn take_below(paths: &mut BTreeSet<PathBuf>, path: &Path) {
    // Paths are ordered part by part: what is below follows.
    let there = paths.range(path.to_owned()..);
    let below = there.take_while(|p| p.starts_with(path));
    let below: Vec<PathBuf> = below.filter(|p| *p != path).cloned().collect();
    for path in below {
        paths.remove(&path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_hides_deletes_and_replaces() {
        let set = |text: &str| -> BTreeSet<PathBuf> {
            text.split_whitespace().map(PathBuf::from).collect()
        };
        let mut paths = set("a a/x a-b d d/e d/e/f gone gone/x kept r r/x");
        let mut touched = BTreeSet::new();
        let changes = LayerChanges {
            paths: BTreeMap::from([
                ("a".into(), Change::Changed),
                ("a/new".into(), Change::Added),
                ("gone".into(), Change::Deleted),
                ("r".into(), Change::Added),
            ]),
            emptied: set("a d/e"),
        };
        put_on(changes, &mut paths, &mut touched);
        assert_eq!(paths, set("a a/new a-b d d/e kept r"));
        assert_eq!(touched, set("a a/new gone r"));
        let changes = LayerChanges {
            emptied: BTreeSet::from([PathBuf::new()]),
            ..LayerChanges::default()
        };
        put_on(changes, &mut paths, &mut touched);
        assert!(paths.is_empty());
    }
}
