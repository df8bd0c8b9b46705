//! A rank's part of one global batch: rows in host memory, and everything else that is known of them.

use std::sync::Arc;

use crossbeam_channel::Sender;

use crate::{Dataset, DatasetError, HostMemory};

/// Rows in a batch's order: first the rank's own, then partners for mix-up that are another rank's.
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
    /// Where memory goes when the batch is dropped.
    pub(crate) pool: Sender<M>,
}

impl<M: HostMemory> Batch<M> {
    /// Number of the global batch in its epoch, from 0.
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// Rows of the global batch, over all ranks, damaged ones included.
    pub const fn global_rows(&self) -> usize {
        self.global_rows
    }

    /// The rank's own rows, the first of [`Self::rows`]; 0 where a last batch has fewer rows than there are ranks.
    pub const fn n_own(&self) -> usize {
        self.n_own
    }

    /// What it is a batch of.
    pub fn dataset(&self) -> &Dataset<M> {
        &self.dataset
    }

    /// All rows here, as numbers into [`Dataset::rows`]: own ones, then partners that are another rank's.
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// [`wavemill_schemas::rng::row_key`] of each of [`Self::rows`].
    pub fn keys(&self) -> &[u64] {
        &self.keys
    }

    /// Mix-up partner of each own row, as a place in [`Self::rows`].
    pub fn partners(&self) -> Option<&[i64]> {
        self.partners.as_deref()
    }

    /// Own rows that are missing here because their row group is damaged, each with its error; `data.skip_damaged` only.
    pub fn damaged(&self) -> &[DatasetError] {
        &self.damaged
    }

    /// The stored bytes of [`Self::rows`], one row after another in the dataset's [`Form`](crate::Form); what follows
    /// them means nothing. `None` where the dataset was opened for a model that sees no spectrogram: then none was read.
    pub const fn memory(&self) -> Option<&M> {
        self.memory.as_ref()
    }

    /// Frames that each row has in [`Self::memory`], before the padding; empty where all rows have the same.
    pub fn filled(&self) -> &[i64] {
        &self.filled
    }

    /// Class of each row in the target of that number; -1 for an unlabelled one.
    pub fn class_ids(&self, target: usize) -> Vec<i64> {
        let target = &self.dataset.targets[target];
        self.rows
            .iter()
            .map(|&row| target.label(&self.dataset.rows, row))
            .collect()
    }

    /// `[rows, classes]`, row by row: 1 for each class that a row has, else 0; all 0 for an unlabelled row.
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
        // A device may still be copying from memory that is not reusable. Who lent it knows when that is done; we do not.
        let reusable = self.memory.take().filter(HostMemory::is_reusable);
        if let Some(memory) = reusable {
            // A loader that is gone needs it no longer.
            let _ = self.pool.send(memory);
        }
    }
}
