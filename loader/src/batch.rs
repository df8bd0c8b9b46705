//! One rank's part of a global batch: rows in host memory, with their labels and metadata.

use std::sync::Arc;

use crossbeam_channel::Sender;

use crate::{Dataset, DatasetError, HostMemory};

/// The rows of a batch: first the rank's own rows, then those mix-up partners that belong to other ranks.
#[derive(Debug)]
pub struct Batch<M: HostMemory = Vec<u8>> {
    pub(crate) index: u64,
    pub(crate) global_rows: usize,
    pub(crate) dataset: Arc<Dataset<M>>,
    pub(crate) rows: Vec<u32>,
    pub(crate) keys: Vec<u64>,
    pub(crate) filled: Vec<i64>,
    pub(crate) n_own: usize,
    pub(crate) partners: Option<Vec<i64>>,
    pub(crate) damaged: Vec<DatasetError>,
    pub(crate) memory: Option<M>,
    /// Receives the memory when the batch is dropped.
    pub(crate) pool: Sender<M>,
}

impl<M: HostMemory> Batch<M> {
    /// Returns the index of the global batch in its epoch, starting at 0.
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// Returns the number of rows in the global batch over all ranks, including damaged rows.
    pub const fn global_rows(&self) -> usize {
        self.global_rows
    }

    /// Returns the number of the rank's own rows, which come first in [`Self::rows`]; 0 if the last batch has fewer
    /// rows than there are ranks.
    pub const fn n_own(&self) -> usize {
        self.n_own
    }

    /// Returns the dataset that the batch was read from.
    pub fn dataset(&self) -> &Dataset<M> {
        &self.dataset
    }

    /// Returns the indices into [`Dataset::rows`] of all rows in the batch: own rows, then partners that belong to
    /// other ranks.
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// Returns the [`wavemill_schemas::rng::row_key`] of each of [`Self::rows`].
    pub fn keys(&self) -> &[u64] {
        &self.keys
    }

    /// Returns the mix-up partner of each own row, as an index into [`Self::rows`].
    pub fn partners(&self) -> Option<&[i64]> {
        self.partners.as_deref()
    }

    /// Returns the errors of own rows that are missing because their row group is damaged; empty unless
    /// `data.skip_damaged` is set.
    pub fn damaged(&self) -> &[DatasetError] {
        &self.damaged
    }

    /// Returns the stored bytes of [`Self::rows`], one row after another in the dataset's [`Form`](crate::Form); the
    /// bytes after the last row are undefined. Returns `None` if the dataset was opened for a model without spectrogram
    /// input, so that no tensor was read.
    pub const fn memory(&self) -> Option<&M> {
        self.memory.as_ref()
    }

    /// Returns the number of frames that each row has in [`Self::memory`] before the padding; empty if all rows have
    /// the same number.
    pub fn filled(&self) -> &[i64] {
        &self.filled
    }

    /// Returns the class of each row for the target with this index; -1 for unlabelled rows.
    pub fn class_ids(&self, target: usize) -> Vec<i64> {
        let target = &self.dataset.targets[target];
        self.rows
            .iter()
            .map(|&row| target.label(&self.dataset.rows, row))
            .collect()
    }

    /// Returns a row-major `[rows, classes]` matrix: 1 for each class that a row has, else 0; all 0 for an unlabelled
    /// row.
    pub fn class_sets(&self, target: usize) -> Vec<f32> {
        let target = &self.dataset.targets[target];
        let n_classes = target.classes().len();

        let mut sets = vec![0.0; self.rows.len() * n_classes];
        for (place, &row) in self.rows.iter().enumerate() {
            for class in target.labels(&self.dataset.rows, row) {
                sets[place * n_classes + class as usize] = 1.0;
            }
        }
        sets
    }
}

impl<M: HostMemory> Drop for Batch<M> {
    fn drop(&mut self) {
        // A device may still be copying from memory that is not reusable. Only the library that lent the memory knows
        // when the copy is complete.
        let reusable = self.memory.take().filter(HostMemory::is_reusable);
        if let Some(memory) = reusable {
            // Sending fails if the loader was dropped and no longer needs the memory.
            let _ = self.pool.send(memory);
        }
    }
}
