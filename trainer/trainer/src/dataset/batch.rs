//! Conversion of a batch's rows and labels to tensors.

use tch::{Device, Kind, Tensor};
use wavemill_loader::Form;

use super::{Batch, DatasetError, form, matrix, refused};
use crate::ffi;

/// Tensors of a batch: the rows' features and labels.
pub trait BatchTensors {
    /// Returns the rows' features `[rows, bands, frames]` of `kind` on `device`, normalised and cropped or padded as
    /// configured, in newly allocated memory. Pictures are `[rows, channels, height, width]`. If the dataset was opened
    /// for a model that reads no spectrogram, returns `[rows, 0, 0]`; no features were read then.
    ///
    /// # Errors
    /// [`DatasetError::Other`] if libtorch fails.
    fn spectrogram(&self, device: Device, kind: Kind) -> Result<Tensor, DatasetError>;

    /// Returns the rows' features as [`Self::spectrogram`] does, in host memory and without normalisation.
    ///
    /// # Errors
    /// [`DatasetError::Other`] if libtorch fails.
    fn stored(&self, kind: Kind) -> Result<Tensor, DatasetError>;

    /// Returns the class id of each row for the target with index `target`, as `[rows]` i64; -1 for an unlabelled row.
    ///
    /// # Errors
    /// [`DatasetError::Other`] if libtorch fails.
    fn labels(&self, target: usize, device: Device) -> Result<Tensor, DatasetError>;

    /// Returns the labels of each row as `[rows, classes]` f32: 1 for a class of the row, else 0; all 0 if unlabelled.
    ///
    /// # Errors
    /// [`DatasetError::Other`] if libtorch fails.
    fn multi_hot(&self, target: usize, device: Device) -> Result<Tensor, DatasetError>;
}

impl BatchTensors for Batch {
    fn spectrogram(&self, device: Device, kind: Kind) -> Result<Tensor, DatasetError> {
        values(self, self.dataset().form(), device, kind)
    }

    fn stored(&self, kind: Kind) -> Result<Tensor, DatasetError> {
        let form = self.dataset().form().without_normalisation();
        values(self, &form, Device::Cpu, kind)
    }

    fn labels(&self, target: usize, device: Device) -> Result<Tensor, DatasetError> {
        Tensor::f_from_slice(&self.class_ids(target))
            .and_then(|labels| ffi::send(&labels, device))
            .map_err(refused)
    }

    fn multi_hot(&self, target: usize, device: Device) -> Result<Tensor, DatasetError> {
        let n_classes = self.dataset().targets()[target].classes().len();
        let shape = [self.rows.len(), n_classes];
        matrix(&self.class_sets(target), shape, Kind::Float, device).map_err(refused)
    }
}

/// Returns the rows of a batch in `form`.
fn values(batch: &Batch, form: &Form, device: Device, kind: Kind) -> Result<Tensor, DatasetError> {
    let n_rows = batch.rows.len();
    let values = match batch.memory() {
        Some(memory) => form::spectrogram(form, memory, n_rows, &batch.filled, device, kind),
        None => Tensor::f_zeros([n_rows as i64, 0, 0], (kind, device)),
    };
    values.map_err(refused)
}
