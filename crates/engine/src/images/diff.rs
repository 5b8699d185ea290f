//! `image diff`: what an image changes in the image below, or in another one.

use crate::{Engine, EngineError};
use carrack_spec::Digest;
use carrack_store::{Change, Lease};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

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
        // What a layer hides was there before it.
        for (path, _) in changes.iter().filter(|(_, c)| **c == Change::Deleted) {
            paths.retain(|there| !there.starts_with(path));
        }
        for (path, change) in changes {
            if change != Change::Deleted {
                paths.insert(path.clone());
            }
            touched.insert(path);
        }
    }
    Ok(touched)
}
