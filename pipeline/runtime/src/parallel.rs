//! Runs independent parts of work on several threads. Results are in the order of the parts.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Runs `worker` on `threads` threads, including the caller's, and returns the results. Uses fewer threads if the
/// system cannot start as many.
///
/// # Errors
/// The first error of a worker. The other workers are not stopped by the error.
pub fn on_threads<T: Send, E: Send>(
    threads: usize,
    worker: impl Fn() -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    std::thread::scope(|scope| {
        let mut others = Vec::new();
        for _ in 1..threads {
            match std::thread::Builder::new().spawn_scoped(scope, &worker) {
                Ok(thread) => others.push(thread),
                // No further thread can be started: the threads that are running do all the work.
                Err(_) => break,
            }
        }

        let mut results = vec![worker()];
        for thread in others {
            results.push(thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        results.into_iter().collect()
    })
}

/// Computes `part(0)` to `part(n - 1)`, each on the first thread that is free.
///
/// # Errors
/// The error of one of the failed parts.
pub fn in_parts<T: Send, E: Send>(
    threads: usize,
    n: usize,
    part: impl Fn(usize) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let next = AtomicUsize::new(0);
    let by_thread = on_threads(threads.min(n), || {
        let mut done = Vec::new();
        loop {
            // The next part goes to the first free thread.
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= n {
                return Ok(done);
            }
            done.push((index, part(index)?));
        }
    })?;

    let mut done: Vec<_> = by_thread.into_iter().flatten().collect();
    done.sort_unstable_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_arrive_in_order_and_errors_are_returned() {
        for threads in [1, 3, 200] {
            let squares = in_parts(threads, 100, |index| Ok::<_, usize>(index * index)).unwrap();
            assert!(
                squares
                    .iter()
                    .enumerate()
                    .all(|(index, square)| *square == index * index)
                    && squares.len() == 100
            );

            let odd = in_parts(
                threads,
                10,
                |index| if index == 7 { Err(index) } else { Ok(()) },
            );
            assert_eq!(odd, Err(7));
        }

        assert!(in_parts(2, 0, |_| Err::<(), _>(0)).unwrap().is_empty());
    }
}
