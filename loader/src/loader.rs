//! Batches of one epoch, in order, made ahead by reader threads.
//!
//! Thread i of n makes batches i, i + n, …, and hands them over through a queue of its own, so that nothing is sorted and
//! nothing locked between them. Host memory goes round: what a batch leaves behind, a reader fills again, in the next
//! epoch too.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use wavemill_schemas::text::panic_words;

use crate::page::Scratch;
use crate::{Batch, Dataset, DatasetError, HostMemory, Side, order};

/// What an epoch reads, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoaderPlan {
    /// Which rows.
    pub side: Side,
    /// Training order, over windows of `data.shuffle_window` row groups; else the manifest's order.
    pub shuffle: bool,
    /// Of the order and of partners.
    pub seed: u64,
    /// From 0.
    pub epoch: u64,
    /// Rows of a global batch.
    pub batch_size: usize,
    /// Whether the last batch is left out where it is smaller.
    pub drop_last: bool,
    /// Whether rows have partners, which are read too where they are another rank's.
    pub mixup: bool,
    /// Of this process.
    pub rank: usize,
    /// Ranks in all.
    pub world_size: usize,
    /// Global batch to begin with: what came before is not read.
    pub first_batch: u64,
    /// Threads that read.
    pub readers: usize,
    /// Batches that may wait ready; at least one a reader.
    pub prefetch_batches: usize,
    /// Whether host memory is page-locked, for a CUDA device.
    pub pinned: bool,
}

impl Default for LoaderPlan {
    /// All training rows once, in manifest order, in batches of 16 for one rank, by one reader, two batches ahead.
    fn default() -> Self {
        Self {
            side: Side::Training,
            shuffle: false,
            seed: 0,
            epoch: 0,
            batch_size: 16,
            drop_last: false,
            mixup: false,
            rank: 0,
            world_size: 1,
            first_batch: 0,
            readers: 1,
            prefetch_batches: 2,
            pinned: false,
        }
    }
}

/// An epoch's batches for one rank, an iterator in their order; ends with the first error.
///
/// Dropped early, it stops its threads and waits for them: at most the row that each is reading.
#[derive(Debug)]
pub struct Loader<M: HostMemory = Vec<u8>> {
    shared: Arc<ReaderContext<M>>,
    queues: Vec<Receiver<Result<Batch<M>, DatasetError>>>,
    threads: Vec<Option<JoinHandle<()>>>,
    next: u64,
    end: u64,
}

/// What the readers have in common.
#[derive(Debug)]
struct ReaderContext<M: HostMemory> {
    dataset: Arc<Dataset<M>>,
    plan: LoaderPlan,
    order: Vec<u32>,
    stop: AtomicBool,
    /// Of one batch, partners of its rows included.
    memory_bytes: usize,
    /// How often memory was asked of the dataset.
    n_taken: AtomicUsize,
    /// Memory of batches that were dropped.
    used: Receiver<M>,
    pool: Sender<M>,
}

impl<M: HostMemory> Loader<M> {
    /// Starts the readers.
    ///
    /// # Errors
    /// [`DatasetError::Thread`].
    pub fn start(dataset: &Arc<Dataset<M>>, plan: LoaderPlan) -> Result<Self, DatasetError> {
        let groups = dataset.groups(plan.side);
        let order = if plan.shuffle {
            order::shuffled(&groups, plan.seed, plan.epoch, dataset.shuffle_window)
        } else {
            order::in_order(&groups)
        };
        Self::over(dataset, plan, order)
    }

    /// Starts readers over the rows `order`.
    fn over(
        dataset: &Arc<Dataset<M>>,
        mut plan: LoaderPlan,
        order: Vec<u32>,
    ) -> Result<Self, DatasetError> {
        // The fields of a plan are public: 0 rows a batch would divide by zero below.
        plan.batch_size = plan.batch_size.max(1);
        let end = order::n_batches(order.len(), plan.batch_size, plan.drop_last);
        let next = plan.first_batch.min(end);

        // More readers than batches would only start threads that have nothing to do.
        let n_left = usize::try_from(end - next).unwrap_or(usize::MAX);
        let n_readers = plan.readers.clamp(1, n_left.max(1));
        // A reader holds one more, finished, while its queue is full.
        let ahead = (plan.prefetch_batches / n_readers).saturating_sub(1);

        // Unbounded, but never long: it holds only memory that `memory` handed out, and that is as much as is ahead and
        // in hand.
        let (pool, used) = unbounded();
        let shared = Arc::new(ReaderContext {
            dataset: Arc::clone(dataset),
            memory_bytes: rows_max(&plan, order.len()) * dataset.pages.row_bytes(),
            plan,
            order,
            stop: AtomicBool::new(false),
            n_taken: AtomicUsize::new(0),
            used,
            pool,
        });

        // The loader exists before its threads: if the system refuses one of them, dropping the loader stops those that
        // run.
        let mut loader = Self {
            shared,
            queues: Vec::new(),
            threads: Vec::new(),
            next,
            end,
        };
        for reader in 0..n_readers {
            let (sender, queue) = bounded(ahead);
            let shared = Arc::clone(&loader.shared);
            // `Iterator::next` asks the readers in turn from `next` on. So these must be every n-th batch, counted from
            // there.
            let numbers = (next + reader as u64..end).step_by(n_readers);
            let thread = std::thread::Builder::new()
                .name(format!("reader-{reader}"))
                .spawn(move || shared.read(numbers, &sender))
                .map_err(|source| DatasetError::Thread { source })?;
            loader.queues.push(queue);
            loader.threads.push(Some(thread));
        }
        Ok(loader)
    }

    /// Batches of the whole epoch, those before `first_batch` included.
    pub fn n_batches(&self) -> u64 {
        let ReaderContext { order, plan, .. } = &*self.shared;
        order::n_batches(order.len(), plan.batch_size, plan.drop_last)
    }

    /// Rows that `drop_last` leaves out of this epoch.
    pub fn n_dropped(&self) -> usize {
        let ReaderContext { order, plan, .. } = &*self.shared;
        // Counted over the whole epoch, also if this loader begins in the middle of it.
        if plan.drop_last {
            order.len() % plan.batch_size
        } else {
            0
        }
    }

    /// Why a reader has gone without a batch.
    fn panic_of(&mut self, reader: usize) -> DatasetError {
        // The queue is closed, so the thread has ended or is about to: joining it does not block.
        let message = match self.threads[reader].take().map(JoinHandle::join) {
            Some(Err(payload)) => panic_words(payload.as_ref())
                .unwrap_or("no message")
                .to_owned(),
            _ => "it ended early".to_owned(),
        };
        DatasetError::Panic { message }
    }
}

/// Most rows that a batch can hold here; at least 1.
fn rows_max(plan: &LoaderPlan, n_rows: usize) -> usize {
    // `order::slice` gives no rank more than the quotient rounded up.
    let own = plan.batch_size.min(n_rows).div_ceil(plan.world_size);
    // The partner of each own row may be another rank's, and is then read too.
    let has_partners = plan.mixup && plan.world_size > 1;
    let rows = if has_partners { 2 * own } else { own };
    rows.max(1)
}

impl<M: HostMemory> Iterator for Loader<M> {
    type Item = Result<Batch<M>, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.end {
            return None;
        }

        // Readers share the batches from `first_batch` on, which need not be a multiple of their number.
        let n_given = self.next - self.shared.plan.first_batch;
        let reader = (n_given % self.queues.len() as u64) as usize;
        let batch = self.queues[reader]
            .recv()
            .unwrap_or_else(|_| Err(self.panic_of(reader)));

        self.next += 1;
        // Later batches may be ready. They are not given: behind a hole, the order would not be the plan's.
        if batch.is_err() {
            self.end = self.next;
        }
        Some(batch)
    }
}

impl<M: HostMemory> Drop for Loader<M> {
    fn drop(&mut self) {
        // Relaxed is enough here and where it is read: no other data goes with the flag, and a reader that sees it late
        // only reads rows that nobody takes.
        self.shared.stop.store(true, Ordering::Relaxed);
        // A reader that waits to hand over wakes when its queue is gone.
        self.queues.clear();
        for thread in self.threads.iter_mut().filter_map(Option::take) {
            // A panic was told where its batch was asked for, or nobody asked.
            let _ = thread.join();
        }
        // After the threads have ended, so that none of them still holds memory that the next epoch could use.
        self.shared.dataset.keep(self.shared.used.try_iter());
    }
}

impl<M: HostMemory> ReaderContext<M> {
    /// A reader: makes the batches of these numbers until one fails or nobody wants them.
    fn read(
        &self,
        numbers: impl Iterator<Item = u64>,
        queue: &Sender<Result<Batch<M>, DatasetError>>,
    ) {
        let mut scratch = match Scratch::new() {
            Ok(scratch) => scratch,
            Err(source) => {
                // The loader may be gone already; then nobody wants to know.
                let _ = queue.send(Err(DatasetError::Thread { source }));
                return;
            }
        };

        for number in numbers {
            let Some(batch) = self.batch(number, &mut scratch).transpose() else {
                return;
            };
            let failed = batch.is_err();
            if queue.send(batch).is_err() || failed {
                return;
            }
        }
    }

    /// Global batch `number`'s part of this rank; `None` when the loader is being dropped.
    fn batch(&self, number: u64, scratch: &mut Scratch) -> Result<Option<Batch<M>>, DatasetError> {
        let plan = &self.plan;
        let global = order::batch(&self.order, number, plan.batch_size);
        let own = order::slice(global.len(), plan.rank, plan.world_size);
        // Partners are drawn over the whole global batch, so that the number of ranks does not change them.
        let partners = plan.mixup.then(|| self.partners(global, own.clone()));

        let n_own = own.len();
        // Own rows come first, which `n_own` relies on. A partner that is one of them is not read twice.
        let mut wanted = global[own].to_vec();
        for &partner in partners.iter().flatten() {
            if !wanted.contains(&partner) {
                wanted.push(partner);
            }
        }

        let mut batch = Batch {
            index: number,
            global_rows: global.len(),
            dataset: Arc::clone(&self.dataset),
            rows: Vec::with_capacity(wanted.len()),
            keys: Vec::new(),
            filled: Vec::new(),
            n_own: 0,
            partners: None,
            damaged: Vec::new(),
            memory: None,
            pool: self.pool.clone(),
        };
        // A model of metadata alone takes no tensor, so no page is opened and no memory is held for it.
        if !self.dataset.needs.spectrogram() {
            batch.n_own = n_own;
            batch.rows.clone_from(&wanted);
        } else if !self.fill(&mut batch, &wanted, n_own, scratch)? {
            return Ok(None);
        }

        // Only now: `fill` may have left out damaged rows, and keys stand in the order of the rows that are there.
        batch.keys = self.keys(&batch.rows);
        batch.partners = partners.map(|partners| places(&batch, &wanted, &partners));
        Ok(Some(batch))
    }

    /// The mix-up partner of each own row of a global batch.
    fn partners(&self, global: &[u32], own: Range<usize>) -> Vec<u32> {
        let partners = order::partners(&self.keys(global), self.plan.seed, self.plan.epoch);
        own.map(|place| global[partners[place]]).collect()
    }

    fn keys(&self, rows: &[u32]) -> Vec<u64> {
        let keys = &self.dataset.rows.keys;
        rows.iter().map(|&row| keys[row as usize]).collect()
    }

    /// Reads `wanted` rows, of which the first `n_own` are the rank's own. Says whether it was let to the end.
    fn fill(
        &self,
        batch: &mut Batch<M>,
        wanted: &[u32],
        n_own: usize,
        scratch: &mut Scratch,
    ) -> Result<bool, DatasetError> {
        let Dataset { rows, pages, .. } = &*self.dataset;
        let mut memory = self.memory()?;

        // The slot moves on only after a row was read, so that a damaged row leaves no hole among the others.
        let mut slots = memory.bytes_mut().chunks_exact_mut(pages.row_bytes());
        let mut slot = slots.next();
        for (place, &row) in wanted.iter().enumerate() {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(false);
            }

            let group = &rows.groups[rows.group_of[row as usize] as usize];
            let bytes = slot
                .as_deref_mut()
                .expect("a batch's memory has a slot for each of its rows");
            match pages.read(row, group, bytes, scratch) {
                Ok(frames) => {
                    batch.rows.push(row);
                    if self.dataset.form.is_ragged() {
                        batch.filled.push(frames as i64);
                    }
                    batch.n_own += usize::from(place < n_own);
                    slot = slots.next();
                }
                Err(error) if error.is_damage() && self.dataset.skip_damaged => {
                    // Another rank's row is that rank's to count.
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

    /// Memory for a batch: a dropped one's, else the dataset's.
    fn memory(&self) -> Result<M, DatasetError> {
        // What comes back here was handed out by this loader, so it is long enough for its batches.
        if let Ok(used) = self.used.try_recv() {
            return Ok(used);
        }
        self.n_taken.fetch_add(1, Ordering::Relaxed);
        self.dataset.memory(self.memory_bytes, self.plan.pinned)
    }
}

/// Places of the partners of the own rows that could be read; a row whose partner could not is its own.
fn places<M: HostMemory>(batch: &Batch<M>, wanted: &[u32], partners: &[u32]) -> Vec<i64> {
    let mut places = Vec::with_capacity(batch.n_own);
    // `partners` goes by places in `wanted`, and a damaged row is in `wanted` only. So the row is looked up there
    // again.
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
            .map(|batch| batch.map(|b| b.index()).map_err(|e| e.to_string()))
            .collect();
        assert_eq!((outcomes.len(), &outcomes[0]), (2, &Ok(0)));
        assert!(
            outcomes[1]
                .as_ref()
                .is_err_and(|e| e.contains("panicked: index out of bounds")),
            "{outcomes:?}"
        );
    }

    #[test]
    fn host_memory_goes_round_and_no_more_is_made_ahead_than_allowed() {
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
                .filter(|batch| batch.as_ref().is_ok_and(|b| b.n_own() == 2))
                .count(),
            40
        );
        // Four ahead, the one in hand, and one that a reader took before that came back.
        let buffers = loader.shared.n_taken.load(Ordering::Relaxed);
        assert!((1..=6).contains(&buffers), "{buffers}");
        drop(loader);
        let kept = |dataset: &Dataset| dataset.spare.lock().expect("no panic").len();
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
