//! A rank's part of one global batch: tensors in host memory, and everything else that is known of its rows.

use std::sync::Arc;

use crossbeam_channel::Sender;
use tch::{Device, Kind, Tensor};

use super::{Dataset, DatasetError};
use crate::ffi::HostBuffer;

/// Rows in a batch's order: first the rank's own, then partners for mix-up that are another rank's.
#[derive(Debug)]
pub struct Batch {
    pub(super) index: u64,
    pub(super) global_rows: usize,
    pub(super) dataset: Arc<Dataset>,
    pub(super) rows: Vec<u32>,
    pub(super) keys: Vec<u64>,
    /// Frames of each row in host memory; empty where all have the same.
    pub(super) filled: Vec<i64>,
    pub(super) n_own: usize,
    pub(super) partners: Option<Vec<i64>>,
    pub(super) damaged: Vec<DatasetError>,
    /// Goes back to the readers when the batch is dropped; `None` where the model sees no spectrogram.
    pub(super) buffer: Option<HostBuffer>,
    pub(super) pool: Sender<HostBuffer>,
}

impl Batch {
    /// Number of the global batch in its epoch, from 0.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// Rows of the global batch, over all ranks, damaged ones included.
    #[must_use]
    pub const fn global_rows(&self) -> usize {
        self.global_rows
    }

    /// The rank's own rows, the first of [`Self::rows`]; 0 where a last batch has fewer rows than there are ranks.
    #[must_use]
    pub const fn n_own(&self) -> usize {
        self.n_own
    }

    /// All rows here, as numbers into [`Dataset::rows`]: own ones, then partners that are another rank's.
    #[must_use]
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// [`crate::rng::row_key`] of each of [`Self::rows`].
    #[must_use]
    pub fn keys(&self) -> &[u64] {
        &self.keys
    }

    /// Mix-up partner of each own row, as a place in [`Self::rows`].
    #[must_use]
    pub fn partners(&self) -> Option<&[i64]> {
        self.partners.as_deref()
    }

    /// Own rows that are missing here because their row group is damaged, each with its error; `data.skip_damaged` only.
    #[must_use]
    pub fn damaged(&self) -> &[DatasetError] {
        &self.damaged
    }

    /// `[rows, bands, frames]` of `kind` on `device`, normalised and cut or padded as configured; memory of its own.
    /// `[rows, 0, 0]` where the dataset was opened for a model that sees none: then no tensor was read.
    ///
    /// # Errors
    /// [`DatasetError::Torch`].
    pub fn spectrogram(&self, device: Device, kind: Kind) -> Result<Tensor, DatasetError> {
        let (form, n) = (&self.dataset.form, self.rows.len() as i64);
        let Some(buffer) = &self.buffer else { return Ok(Tensor::f_zeros([n, 0, 0], (kind, device))?) };
        let (stored, shape) = form.host(n);
        form.tensor(&buffer.view(stored, &shape), &self.filled, device, kind)
    }

    /// `[rows]` i64: class of each row in the target of that number; -1 for an unlabelled one.
    ///
    /// # Errors
    /// [`DatasetError::Torch`].
    pub fn labels(&self, target: usize, device: Device) -> Result<Tensor, DatasetError> {
        let target = &self.dataset.targets[target];
        let labels: Vec<i64> = self.rows.iter().map(|&row| target.label(&self.dataset.rows, row)).collect();
        Ok(Tensor::f_from_slice(&labels)?.f_to_device(device)?)
    }

    /// `[rows, classes]` f32 of 0 and 1; all 0 for an unlabelled row.
    ///
    /// # Errors
    /// [`DatasetError::Torch`].
    pub fn multi_hot(&self, target: usize, device: Device) -> Result<Tensor, DatasetError> {
        let target = &self.dataset.targets[target];
        let classes = target.classes().len();
        let mut hot = vec![0.0_f32; self.rows.len() * classes];
        for (place, &row) in self.rows.iter().enumerate() {
            target.labels(&self.dataset.rows, row).for_each(|class| hot[place * classes + class as usize] = 1.0);
        }
        let shape = [self.rows.len() as i64, classes as i64];
        Ok(Tensor::f_from_slice(&hot)?.f_view(shape)?.f_to_device(device)?)
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            // A loader that is gone needs it no longer.
            let _ = self.pool.send(buffer);
        }
    }
}
