//! Rows and labels of a batch as tensors.

use tch::{Device, Kind, Tensor};

use super::{Batch, DatasetError, form, matrix, refused};
use crate::ffi;

/// Conversion of a batch to tensors.
pub trait BatchTensors {
    /// Returns `[rows, bands, frames]` of `kind` on `device`, normalised and cropped or padded as configured, in newly
    /// allocated memory. Pictures are `[rows, channels, height, width]`. If the dataset was opened for a model that
    /// reads no spectrogram, returns `[rows, 0, 0]`, and no tensor was read.
    ///
    /// # Errors
    /// [`DatasetError::Other`].
    fn spectrogram(&self, device: Device, kind: Kind) -> Result<Tensor, DatasetError>;

    /// Returns the class of each row for the target with this index, as `[rows]` i64; -1 for an unlabelled row.
    ///
    /// # Errors
    /// [`DatasetError::Other`].
    fn labels(&self, target: usize, device: Device) -> Result<Tensor, DatasetError>;

    /// Returns `[rows, classes]` f32 of 0 and 1; all 0 for an unlabelled row.
    ///
    /// # Errors
    /// [`DatasetError::Other`].
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
