//! A batch's rows and labels as tensors.

use tch::{Device, Kind, Tensor};

use super::{Batch, DatasetError, form, matrix, refused};
use crate::ffi;

/// What a batch is to a model.
pub trait BatchTensors {
    /// `[rows, bands, frames]` of `kind` on `device`, normalised and cut or padded as configured; memory of its own.
    /// Pictures are `[rows, channels, height, width]`. `[rows, 0, 0]` where the dataset was opened for a model that sees
    /// none: then no tensor was read.
    ///
    /// # Errors
    /// [`DatasetError::Library`].
    fn spectrogram(&self, device: Device, kind: Kind) -> Result<Tensor, DatasetError>;

    /// `[rows]` i64: class of each row in the target of that number; -1 for an unlabelled one.
    ///
    /// # Errors
    /// [`DatasetError::Library`].
    fn labels(&self, target: usize, device: Device) -> Result<Tensor, DatasetError>;

    /// `[rows, classes]` f32 of 0 and 1; all 0 for an unlabelled row.
    ///
    /// # Errors
    /// [`DatasetError::Library`].
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
