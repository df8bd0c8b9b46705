//! Conversion of a batch's rows and labels to tensors.

use tch::{Device, Kind, Tensor};

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
        let n_rows = self.rows().len();
        let spectrogram = match self.memory() {
            Some(memory) => {
                let form = self.dataset().form();
                form::spectrogram(form, memory, n_rows, self.filled(), device, kind)
            }
            None => Tensor::f_zeros([n_rows as i64, 0, 0], (kind, device)),
        };
        spectrogram.map_err(refused)
    }

    fn labels(&self, target: usize, device: Device) -> Result<Tensor, DatasetError> {
        Tensor::f_from_slice(&self.class_ids(target))
            .and_then(|labels| ffi::send(&labels, device))
            .map_err(refused)
    }

    fn multi_hot(&self, target: usize, device: Device) -> Result<Tensor, DatasetError> {
        let n_classes = self.dataset().targets()[target].classes().len();
        let shape = [self.rows().len(), n_classes];
        matrix(&self.class_sets(target), shape, Kind::Float, device).map_err(refused)
    }
}
