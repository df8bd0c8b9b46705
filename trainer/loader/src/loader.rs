//! Iterates over the batches of one epoch in order; reader threads prepare them ahead of time.
//!
//! Thread i of n reads batches i, i + n, …, and sends them through its own queue, so batches need not be sorted. Host
//! memory of dropped batches is reused, also in the next epoch.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Select, Sender, bounded, unbounded};
use wavemill_schemas::exit::PlainError;
use wavemill_schemas::text::panic_message;

use crate::form::Form;
use crate::page::Scratch;
use crate::pages::RowToRead;
use crate::plan::LoaderPlan;
use crate::{Batch, BatchMemory, Dataset, DatasetError, HostMemory, Split, order};

/// Number of rows that a reader thread reads from an object store at the same time.
const ROWS_AHEAD: usize = 32;

/// An iterator over one rank's batches of an epoch, in order. It ends after the first error.
///
/// If the iterator is dropped early, it stops the reader threads and waits until each has finished its current row.
#[derive(Debug)]
pub struct Loader<M: HostMemory = Vec<u8>> {
    shared: Arc<ReaderContext<M>>,
    queues: Vec<Receiver<Result<Batch<M>, DatasetError>>>,
    threads: Vec<Option<JoinHandle<()>>>,
    /// Number of batches that were returned.
    n_returned: u64,
    /// Number of batches that will have been returned at the end.
    n_to_return: u64,
}

/// State shared by the reader threads of an epoch.
#[derive(Debug)]
struct ReaderContext<M: HostMemory> {
    dataset: Arc<Dataset<M>>,
    plan: LoaderPlan,
    order: Vec<u32>,
    stop: AtomicBool,
    /// Number of bytes for one batch, including the mix-up partners of its rows.
    memory_bytes: usize,
    /// Number of times that host memory was requested from the dataset.
    n_taken: AtomicUsize,
    /// Channel from which the host memory of dropped batches is received.
    used: Receiver<M>,
    pool: Sender<M>,
}

impl<M: HostMemory> Loader<M> {
    /// Starts the reader threads of an epoch.
    ///
    /// # Errors
    /// [`DatasetError::Unfit`] if the rows cannot be cropped or bucketed as planned; [`DatasetError::Other`] if a
    /// thread cannot be started.
    pub fn start(dataset: &Arc<Dataset<M>>, plan: LoaderPlan) -> Result<Self, DatasetError> {
        plan.check(dataset)?;
        let mut order = if plan.shuffle {
            let groups = match plan.split {
                Split::Training => dataset.training_groups(plan.seed, plan.epoch),
                split => dataset.groups(split),
            };
            order::shuffled(&groups, plan.seed, plan.epoch, dataset.shuffle_window)
        } else {
            // Evaluation reads the rows in manifest order.
            dataset.groups(plan.split).concat()
        };
        if plan.buckets > 1 {
            let frames = &dataset.rows.frames;
            order = order::bucketed(&order, frames, plan.buckets, plan.batch_size.max(1));
        }
        Self::over(dataset, plan, order)
    }

    /// Reads `rows` in this order on the calling thread. Only the plan's frames are used, with their seed and epoch.
    ///
    /// # Errors
    /// [`DatasetError::Unfit`] if the rows cannot be cropped as planned, and the errors of reading.
    pub fn read(
        dataset: &Arc<Dataset<M>>,
        plan: &LoaderPlan,
        rows: &[u32],
    ) -> Result<Batch<M>, DatasetError> {
        plan.check(dataset)?;
        let plan = LoaderPlan {
            frames: plan.frames,
            seed: plan.seed,
            epoch: plan.epoch,
            batch_size: rows.len().max(1),
            ..LoaderPlan::default()
        };
        let pool = dataset.reads.clone();
        let shared = ReaderContext::new(dataset, plan, rows.to_vec(), pool)?;
        let mut scratch = Scratch::new().map_err(no_thread)?;
        let batch = shared.batch(0, &mut scratch)?;
        Ok(batch.expect("only dropping a loader stops its readers"))
    }

    /// Starts reader threads for the rows `order`.
    fn over(
        dataset: &Arc<Dataset<M>>,
        mut plan: LoaderPlan,
        order: Vec<u32>,
    ) -> Result<Self, DatasetError> {
        // The fields of a plan are public; a batch size or stride of 0 would cause a division by zero.
        plan.batch_size = plan.batch_size.max(1);
        plan.stride = plan.stride.max(1);
        let end = order::n_batches(order.len(), plan.batch_size, plan.drop_last);
        let first = plan.first_batch.min(end);
        let n_to_return = (end - first).div_ceil(plan.stride);

        // More threads than batches would have nothing to do.
        let n_left = usize::try_from(n_to_return).unwrap_or(usize::MAX);
        let n_readers = plan.readers.clamp(1, n_left.max(1));
        // While its queue is full, a reader has one more finished batch.
        let ahead = (plan.prefetch_batches / n_readers).saturating_sub(1);
        let stride = plan.stride;
        // The channel is unbounded but short: the number of memory buffers is limited by the batches ahead and in use.
        let shared = Arc::new(ReaderContext::new(dataset, plan, order, unbounded())?);

        // Create the loader before its threads: if a thread cannot be started, dropping the loader stops the running
        // threads.
        let mut loader = Self {
            shared,
            queues: Vec::new(),
            threads: Vec::new(),
            n_returned: 0,
            n_to_return,
        };
        for reader in 0..n_readers {
            let (sender, queue) = bounded(ahead);
            let shared = Arc::clone(&loader.shared);
            // `Iterator::next` receives from the readers in turn, so each one must read every n-th of the batches to
            // return.
            let turns = (reader as u64..n_to_return).step_by(n_readers);
            let numbers = turns.map(move |turn| first + turn * stride);
            let thread = std::thread::Builder::new()
                .name(format!("reader-{reader}"))
                .spawn(move || shared.read(numbers, &sender))
                .map_err(no_thread)?;
            loader.queues.push(queue);
            loader.threads.push(Some(thread));
        }
        Ok(loader)
    }

    /// Returns the number of batches in the whole epoch, including those before `first_batch`.
    pub fn n_batches(&self) -> u64 {
        let ReaderContext { order, plan, .. } = &*self.shared;
        order::n_batches(order.len(), plan.batch_size, plan.drop_last)
    }

    /// Waits at most `timeout` until `next` returns without waiting, and reports whether it does. A caller can thereby
    /// notice between two waits that it has been interrupted.
    pub fn wait(&self, timeout: Duration) -> bool {
        if self.n_returned == self.n_to_return {
            return true;
        }
        let mut select = Select::new();
        select.recv(&self.queues[self.reader()]);
        select.ready_timeout(timeout).is_ok()
    }

    /// Returns the index of the thread that reads the next batch: threads take turns.
    fn reader(&self) -> usize {
        (self.n_returned % self.queues.len() as u64) as usize
    }

    /// Returns the error of a reader thread that ended without sending a batch.
    fn panic_of(&mut self, reader: usize) -> DatasetError {
        // The queue is closed, so the thread has ended or is about to end: joining it does not block.
        let message = match self.threads[reader].take().map(JoinHandle::join) {
            Some(Err(payload)) => panic_message(payload.as_ref())
                .unwrap_or("no message")
                .to_owned(),
            _ => "it ended early".to_owned(),
        };
        PlainError::failed(format!("a reader thread panicked: {message}")).into()
    }
}

/// Returns the error for a reader thread that cannot be started.
fn no_thread(error: io::Error) -> DatasetError {
    PlainError::failed("cannot start a reader thread")
        .caused_by(error)
        .into()
}

/// Returns the maximum number of rows of this rank in a batch; at least 1.
fn rows_max(plan: &LoaderPlan, n_rows: usize) -> usize {
    // `order::slice` gives each rank at most `batch_size / world_size` rows, rounded up.
    let own = plan.batch_size.min(n_rows).div_ceil(plan.world_size);
    // The mix-up partner of each row may belong to another rank and must then be read, too.
    let has_partners = plan.mixup && plan.world_size > 1;
    let rows = if has_partners { 2 * own } else { own };
    rows.max(1)
}

impl<M: HostMemory> Iterator for Loader<M> {
    type Item = Result<Batch<M>, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.n_returned == self.n_to_return {
            return None;
        }

        let reader = self.reader();
        let batch = self.queues[reader]
            .recv()
            .unwrap_or_else(|_| Err(self.panic_of(reader)));

        self.n_returned += 1;
        // After an error, discard later batches: a missing batch would change the order.
        if batch.is_err() {
            self.n_to_return = self.n_returned;
        }
        Some(batch)
    }
}

impl<M: HostMemory> Drop for Loader<M> {
    fn drop(&mut self) {
        // `Relaxed` suffices for the flag: no other data depend on it, and a reader that sees it late only reads rows
        // that are discarded.
        self.shared.stop.store(true, Ordering::Relaxed);
        // A reader that is blocked on sending a batch wakes up when its queue is dropped.
        self.queues.clear();
        for thread in self.threads.iter_mut().filter_map(Option::take) {
            // The panic of a reader was already reported by `next`, or its batch was never requested.
            let _ = thread.join();
        }
        // All readers have ended, so none of them has memory that the next epoch could use.
        self.shared.dataset.keep(self.shared.used.try_iter());
    }
}

impl<M: HostMemory> ReaderContext<M> {
    /// Creates the state for reading the rows `order`. Memory of dropped batches goes through the channel.
    ///
    /// # Errors
    /// [`DatasetError::Unfit`] if a batch would be too large for the address space.
    fn new(
        dataset: &Arc<Dataset<M>>,
        plan: LoaderPlan,
        order: Vec<u32>,
        (pool, used): (Sender<M>, Receiver<M>),
    ) -> Result<Self, DatasetError> {
        // The form of all rows of the epoch is that of the batch with the longest rows.
        let form = plan.form_of(&dataset.form, &dataset.rows.frames, &order);
        let rows = rows_max(&plan, order.len());
        let memory_bytes = form.row_bytes().checked_mul(rows);
        let memory_bytes = memory_bytes.ok_or_else(|| {
            let frames = form.host_frames;
            let problem = format!("{rows} rows of {frames} frames are too large");
            DatasetError::unfit("batch_size", problem)
        })?;

        Ok(Self {
            dataset: Arc::clone(dataset),
            memory_bytes,
            plan,
            order,
            stop: AtomicBool::new(false),
            n_taken: AtomicUsize::new(0),
            used,
            pool,
        })
    }

    /// Runs a reader thread: reads the batches with these numbers until one fails or the loader is dropped.
    fn read(
        &self,
        numbers: impl Iterator<Item = u64>,
        queue: &Sender<Result<Batch<M>, DatasetError>>,
    ) {
        let mut scratch = match Scratch::new() {
            Ok(scratch) => scratch,
            Err(source) => {
                // Sending fails if the loader was dropped, so the batch or error is not needed.
                let _ = queue.send(Err(no_thread(source)));
                return;
            }
        };

        for number in numbers {
            scratch.gives_way = !queue.is_empty();
            let Some(batch) = self.batch(number, &mut scratch).transpose() else {
                return;
            };
            let failed = batch.is_err();
            if queue.send(batch).is_err() || failed {
                return;
            }
        }
    }

    /// Reads this rank's part of global batch `number`; returns `None` if the loader is being dropped.
    fn batch(&self, number: u64, scratch: &mut Scratch) -> Result<Option<Batch<M>>, DatasetError> {
        let plan = &self.plan;
        let global = order::batch(&self.order, number, plan.batch_size);
        let own = order::slice(global.len(), plan.rank, plan.world_size);
        // Partners are drawn over the whole global batch, so that they do not depend on the number of ranks.
        let partners = plan.mixup.then(|| self.partners(global, own.clone()));

        let n_own = own.len();
        // The rows of this rank come first, as required by `n_own`. Their partners are only added if they belong to
        // other ranks.
        let mut wanted = global[own].to_vec();
        for &partner in partners.iter().flatten() {
            if !wanted.contains(&partner) {
                wanted.push(partner);
            }
        }

        let mut batch = Batch {
            index: number,
            dataset: Arc::clone(&self.dataset),
            rows: Vec::with_capacity(wanted.len()),
            keys: Vec::new(),
            filled: Vec::new(),
            n_own: 0,
            partners: None,
            damaged: Vec::new(),
            host_frames: 0,
            memory: None,
        };
        // A model that uses only metadata needs no tensors, so no page is read and no memory is allocated.
        if !self.dataset.needs.spectrogram() {
            batch.n_own = n_own;
            batch.rows.clone_from(&wanted);
        } else {
            let form = plan.form_of(&self.dataset.form, &self.dataset.rows.frames, global);
            match self.fill(&mut batch, &form, &wanted, n_own, scratch) {
                Ok(true) => {}
                // Comparing the hash of a file is an error if the loader is dropped meanwhile.
                Err(_) if self.stop.load(Ordering::Relaxed) => return Ok(None),
                Ok(false) => return Ok(None),
                Err(error) => return Err(error),
            }
        }

        // Compute the keys of rows after `fill`, which leaves out damaged rows.
        batch.keys = self.keys(&batch.rows);
        batch.partners = partners.map(|partners| places(&batch, &wanted, &partners));
        Ok(Some(batch))
    }

    /// Returns the mix-up partner of each of this rank's rows in a global batch.
    fn partners(&self, global: &[u32], own: Range<usize>) -> Vec<u32> {
        let partners = order::partners(&self.keys(global), self.plan.seed, self.plan.epoch);
        own.map(|place| global[partners[place]]).collect()
    }

    fn keys(&self, rows: &[u32]) -> Vec<u64> {
        let keys = &self.dataset.rows.keys;
        rows.iter().map(|&row| keys[row as usize]).collect()
    }

    /// Reads the tensors of the `wanted` rows, of which the first `n_own` belong to this rank, in `form`. Returns
    /// `false` if the loader was dropped in the meantime.
    fn fill(
        &self,
        batch: &mut Batch<M>,
        form: &Form,
        wanted: &[u32],
        n_own: usize,
        scratch: &mut Scratch,
    ) -> Result<bool, DatasetError> {
        let Dataset { rows, pages, .. } = &*self.dataset;
        let mut memory = BatchMemory::new(self.memory()?, self.pool.clone());
        batch.host_frames = form.host_frames;

        // Use the next slot only after a row was read, so that a damaged row leaves no gap between the others.
        let mut slots = memory
            .get_mut()
            .bytes_mut()
            .chunks_exact_mut(form.row_bytes());
        let mut slot = slots.next();
        for (place, &row) in wanted.iter().enumerate() {
            if place % ROWS_AHEAD == 0 {
                let next = &wanted[place..wanted.len().min(place + ROWS_AHEAD)];
                match pages.read_ahead(rows, next, &mut scratch.ahead, &self.stop) {
                    // Each row is then read by itself.
                    Err(error) if error.is_damage() && self.dataset.skip_damaged => {}
                    read => read?,
                }
            }
            if self.stop.load(Ordering::Relaxed) {
                return Ok(false);
            }

            // Training computes with a thread for each core, and waits in each operation for the last of them. A reader
            // that kept a core for all rows of a batch would delay it.
            if scratch.gives_way {
                std::thread::yield_now();
            }

            let group = &rows.groups[rows.group_of[row as usize] as usize];
            let bytes = slot
                .as_deref_mut()
                .expect("a batch's memory has a slot for each of its rows");
            let to_read = RowToRead {
                row,
                group,
                form,
                excerpt: self.plan.excerpt(rows.keys[row as usize]),
                stop: &self.stop,
            };
            match pages.read(to_read, bytes, scratch) {
                Ok(frames) => {
                    batch.rows.push(row);
                    if form.is_ragged() {
                        batch.filled.push(frames as i64);
                    }
                    batch.n_own += usize::from(place < n_own);
                    slot = slots.next();
                }
                Err(error) if error.is_damage() && self.dataset.skip_damaged => {
                    // Damaged rows of another rank are counted by that rank.
                    if place < n_own {
                        batch.damaged.push(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }

        batch.memory = Some(memory);
        Ok(true)
    }

    /// Returns the host memory of a dropped batch, or memory from the dataset if there is none.
    fn memory(&self) -> Result<M, DatasetError> {
        // All batches of a loader have memory of one size, but not those of single reads.
        let mut used = self.used.try_iter();
        if let Some(memory) = used.find(|memory| memory.size() >= self.memory_bytes) {
            return Ok(memory);
        }
        self.n_taken.fetch_add(1, Ordering::Relaxed);
        self.dataset.memory(self.memory_bytes, self.plan.pinned)
    }
}

/// Returns the index in the batch of each row's partner, for the rows of this rank that could be read. A row whose
/// partner could not be read is its own partner.
fn places<M: HostMemory>(batch: &Batch<M>, wanted: &[u32], partners: &[u32]) -> Vec<i64> {
    let mut places = Vec::with_capacity(batch.n_own);
    // `partners` is indexed by positions in `wanted`, which includes damaged rows. The row's position in `wanted` must
    // therefore be looked up.
    for (place, row) in batch.rows[..batch.n_own].iter().enumerate() {
        let partner = wanted
            .iter()
            .position(|there| there == row)
            .map(|own| partners[own]);
        let partner_place = batch.rows.iter().position(|&there| Some(there) == partner);
        places.push(partner_place.unwrap_or(place) as i64);
    }
    places
}

#[cfg(test)]
mod tests {
    use wavemill_schemas::config::Data;

    use super::*;
    use crate::fixture::Fixture;
    use crate::{Needs, Store};

    fn dataset(folder: &std::path::Path) -> Arc<Dataset> {
        Fixture::default().write(folder);
        Dataset::open(
            Store::open(folder, None).expect("a store"),
            &Data::default(),
            Needs::default(),
        )
        .expect("a dataset")
    }

    #[test]
    fn a_panic_in_a_reader_is_an_error_and_ends_the_epoch() {
        let folder = tempfile::tempdir().expect("a folder");
        let dataset = dataset(folder.path());
        let plan = LoaderPlan {
            batch_size: 2,
            readers: 2,
            ..LoaderPlan::default()
        };
        let loader =
            Loader::over(&dataset, plan, vec![0, 1, 2, u32::MAX, 4, 5, 6, 7]).expect("threads");

        let outcomes: Vec<_> = loader
            .map(|batch| batch.map(|b| b.index).map_err(|e| e.to_string()))
            .collect();

        assert_eq!((outcomes.len(), &outcomes[0]), (2, &Ok(0)));
        assert!(
            outcomes[1]
                .as_ref()
                .is_err_and(|e| e.contains("panicked: index out of bounds")),
            "{outcomes:?}"
        );
    }

    /// Returns the number of memory buffers that earlier epochs left in the dataset.
    fn kept(dataset: &Dataset) -> usize {
        dataset.spare.lock().expect("no panic").len()
    }

    #[test]
    fn host_memory_is_reused_and_prefetch_is_bounded() {
        let folder = tempfile::tempdir().expect("a folder");
        let dataset = dataset(folder.path());
        let plan = LoaderPlan {
            batch_size: 2,
            readers: 2,
            prefetch_batches: 4,
            ..LoaderPlan::default()
        };
        let mut loader = Loader::start(&dataset, plan).expect("threads");

        assert_eq!(
            loader
                .by_ref()
                .filter(|batch| batch.as_ref().is_ok_and(|b| b.n_own == 2))
                .count(),
            40
        );

        // At most four buffers ahead, one in use, and one that a reader requested before the latter was returned.
        let buffers = loader.shared.n_taken.load(Ordering::Relaxed);
        assert!((1..=6).contains(&buffers), "{buffers}");

        drop(loader);
        assert_eq!(kept(&dataset), buffers);

        let plan = LoaderPlan {
            batch_size: 2,
            epoch: 1,
            ..LoaderPlan::default()
        };
        assert_eq!(Loader::start(&dataset, plan).expect("threads").count(), 40);
        assert_eq!(kept(&dataset), buffers, "the next epoch took others");
    }
}
