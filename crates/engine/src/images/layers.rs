//! Several layers at once, from wherever their bytes come.

use crate::images::ImagesError;
use crate::images::parallel::several;
use carrack_store::{Ingested, LayerSource, Lease, Progress};

/// Most layers taken in at the same time: each has two threads of its own.
const LAYERS_AT_ONCE_MAX: usize = 4;

/// Takes layers in, several at a time; the first failure ends the rest. `open` gives the bytes of the
/// layer with this number, `progress` hears of it.
pub(super) fn ingest<R: std::io::Read>(
    lease: &Lease,
    layers: &[LayerSource],
    open: impl Fn(usize) -> std::io::Result<R> + Sync,
    progress: impl Fn(usize, Progress) + Sync,
    done: impl Fn(usize, &Ingested) + Sync,
) -> Result<Vec<Ingested>, ImagesError> {
    several(layers, LAYERS_AT_ONCE_MAX, |n, layer| {
        let tell = |p| progress(n, p);
        let ingested = lease.store().ingest(lease, layer, || open(n), &tell)?;
        done(n, &ingested);
        Ok(ingested)
    })
}
