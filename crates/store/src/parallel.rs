//! Several things at once, on a few threads.

use std::sync::Mutex;

/// Does `work` with each item, at most `at_once` at a time; results in the order of the items.
///
/// # Errors
/// The first failure in the order of the items that were begun; after one no further item is begun.
pub fn several<T: Sync, R: Send, E: Send>(
    items: &[T],
    at_once: usize,
    work: impl Fn(usize, &T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let queue = Mutex::new(items.iter().enumerate());
    let next = || queue.lock().ok().and_then(|mut queue| queue.next());
    let run = || {
        let mut finished = Vec::new();
        while let Some((n, item)) = next() {
            match work(n, item) {
                Ok(result) => finished.push((n, result)),
                Err(error) => {
                    while next().is_some() {}
                    return Err(error);
                }
            }
        }
        Ok(finished)
    };
    let threads = items.len().min(at_once);
    let mut all = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        let mut all = Vec::new();
        for worker in workers {
            match worker.join() {
                Ok(finished) => all.extend(finished?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(all)
    })?;
    all.sort_by_key(|(n, _)| *n);
    Ok(all.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn results_keep_their_order_and_a_failure_ends_the_rest() {
        let squares = several(&[3, 1, 2], 2, |_, n| Ok::<_, ()>(n * n));
        assert_eq!(squares, Ok(vec![9, 1, 4]));
        let begun = AtomicUsize::new(0);
        let failed = several(&[0; 100], 1, |n, _| {
            begun.fetch_add(1, Ordering::Relaxed);
            if n == 2 { Err("no") } else { Ok(()) }
        });
        assert_eq!((failed, begun.into_inner()), (Err("no"), 3));
    }
}
