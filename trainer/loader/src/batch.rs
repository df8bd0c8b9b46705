//! One rank's part of a global batch: tensors of the rows in host memory, with the rows' labels and metadata.

use std::sync::Arc;

use crate::{BatchMemory, Dataset, DatasetError, HostMemory};

/// The rows of a batch: first the rows of this rank, then those mix-up partners that belong to other ranks.
#[derive(Debug)]
pub struct Batch<M: HostMemory = Vec<u8>> {
    /// Index of the global batch in its epoch, starting at 0.
    pub index: u64,
    pub(crate) dataset: Arc<Dataset<M>>,
    /// Indices into [`Dataset::rows`] of all rows in the batch: the rows of this rank, then mix-up partners that belong
    /// to other ranks.
    pub rows: Vec<u32>,
    /// The [`wavemill_schemas::rng::row_key`] of each row in [`Self::rows`].
    pub keys: Vec<u64>,
    /// Number of frames that each row has in [`Self::memory`] before the zero padding; empty if all stored rows have
    /// the same number.
    pub filled: Vec<i64>,
    /// Number of rows in the batch that belong to this rank; they come first in [`Self::rows`]. It is 0 if the last
    /// batch has fewer rows than there are ranks.
    pub n_own: usize,
    /// The mix-up partner of each row of this rank, as an index into [`Self::rows`].
    pub partners: Option<Vec<i64>>,
    /// An error for each row of this rank that is missing because its row group is damaged; empty unless
    /// `data.skip_damaged` is set.
    pub damaged: Vec<DatasetError>,
    /// Number of frames of each row in [`Self::memory`], with the zero padding:
    /// [`Form::host_frames`](crate::Form::host_frames) unless [`LoaderPlan::frames`](crate::LoaderPlan::frames) selects
    /// others.
    pub host_frames: usize,
    pub(crate) memory: Option<BatchMemory<M>>,
}

impl<M: HostMemory> Batch<M> {
    /// Returns the dataset from which the batch was read.
    pub fn dataset(&self) -> &Dataset<M> {
        &self.dataset
    }

    /// Returns the stored bytes of the rows in [`Self::rows`], one row after another in the dataset's
    /// [`Form`](crate::Form) with [`Self::host_frames`]; the bytes after the last row are undefined. Returns `None` if
    /// the model needs no tensors.
    pub fn memory(&self) -> Option<&M> {
        self.memory.as_ref().map(BatchMemory::get)
    }

    /// Takes the memory out of the batch, which then has none.
    pub fn take_memory(&mut self) -> Option<BatchMemory<M>> {
        self.memory.take()
    }

    /// Returns the class of each row for the target with index `target`; -1 for unlabelled rows.
    pub fn class_ids(&self, target: usize) -> Vec<i64> {
        let target = &self.dataset.targets[target];
        self.rows
            .iter()
            .map(|&row| target.label(&self.dataset.rows, row))
            .collect()
    }

    /// Returns a row-major `[rows, classes]` matrix with 1 for each class that a row has, else 0. An unlabelled row has
    /// only zeros.
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
