//! Several layers at once, from wherever their bytes come.

use crate::images::ImagesError;
use carrack_store::{Ingested, LayerSource, Lease, Progress};
use std::sync::Mutex;

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
    let queue = Mutex::new(layers.iter().enumerate());
    let next = || queue.lock().ok().and_then(|mut queue| queue.next());
    let work = || -> Result<Vec<(usize, Ingested)>, ImagesError> {
        let mut finished = Vec::new();
        while let Some((n, layer)) = next() {
            let tell = |p| progress(n, p);
            let ingested = lease.store().ingest(lease, layer, || open(n), &tell);
            match ingested {
                Ok(ingested) => {
                    done(n, &ingested);
                    finished.push((n, ingested));
                }
                Err(error) => {
                    while next().is_some() {}
                    return Err(error.into());
                }
            }
        }
        Ok(finished)
    };
    let threads = layers.len().min(LAYERS_AT_ONCE_MAX);
    let mut all = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut all = Vec::new();
        for worker in workers {
            match worker.join() {
                Ok(finished) => all.extend(finished?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok::<_, ImagesError>(all)
    })?;
    all.sort_by_key(|(n, _)| *n);
    Ok(all.into_iter().map(|(_, ingested)| ingested).collect())
}
