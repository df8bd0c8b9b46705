//! Work that falls into independent parts, on several threads; results come in the order of the parts.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

/// What `worker` gives on each of `threads` threads, one of which is the caller's; on fewer, where the system starts no
/// more.
///
/// # Errors
/// The first of the workers'; the others still end by themselves.
pub fn on_threads<T: Send, E: Send>(threads: usize, worker: impl Fn() -> Result<T, E> + Sync) -> Result<Vec<T>, E> {
    std::thread::scope(|scope| {
        let spawn = |_| std::thread::Builder::new().spawn_scoped(scope, &worker).ok();
        let others: Vec<_> = (1..threads).map_while(spawn).collect();
        let mine = std::iter::once(worker());
        let others = others.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        mine.chain(others).collect()
    })
}

/// `part(0)`, `part(1)`, … up to `n`, each done by whichever thread is free.
///
/// # Errors
/// One of the parts'.
pub fn in_parts<T: Send, E: Send>(
    threads: usize,
    n: usize,
    part: impl Fn(usize) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let next = AtomicUsize::new(0);
    let done = on_threads(threads.min(n), || {
        let free = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|index| *index < n);
        std::iter::from_fn(free).map(|index| Ok((index, part(index)?))).collect::<Result<Vec<_>, _>>()
    })?;
    let mut done: Vec<_> = done.into_iter().flatten().collect();
    done.sort_unstable_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

/// A batch made column by column.
///
/// # Errors
/// `column`'s, and where its columns do not fit `schema`.
pub fn by_column(
    threads: usize,
    schema: SchemaRef,
    column: impl Fn(usize) -> Result<ArrayRef, ArrowError> + Sync,
) -> Result<RecordBatch, ArrowError> {
    let columns = in_parts(threads, schema.fields().len(), column)?;
    RecordBatch::try_new(Arc::clone(&schema), columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_in_order_and_an_error_is_passed_on() {
        for threads in [1, 3, 200] {
            let squares = in_parts(threads, 100, |index| Ok::<_, usize>(index * index)).unwrap();
            assert!(squares.iter().enumerate().all(|(index, square)| *square == index * index) && squares.len() == 100);
            let odd = in_parts(threads, 10, |index| if index == 7 { Err(index) } else { Ok(()) });
            assert_eq!(odd, Err(7));
        }
        assert!(in_parts(2, 0, |_| Err::<(), _>(0)).unwrap().is_empty());
    }
}
