//! Conversion of a batch's rows and labels to tensors.

use tch::{Device, Kind, Tensor};
use wavemill_loader::Form;

use super::{Batch, DatasetError, form, matrix, refused};

/// Returns the features of a batch's rows `[rows, bands, frames]` of `kind` on `device`, normalised and cropped or
/// padded as configured, in newly allocated memory. Pictures are `[rows, channels, height, width]`. If the dataset was
/// opened for a model that reads no spectrogram, returns `[rows, 0, 0]`; no features were read then.
///
/// # Errors
/// [`DatasetError::Other`] if libtorch fails.
pub fn spectrogram(batch: &Batch, device: Device, kind: Kind) -> Result<Tensor, DatasetError> {
    values(batch, batch.dataset().form(), device, kind)
}

/// Returns the rows' features as [`spectrogram`] does, in host memory and without normalisation.
///
/// # Errors
/// [`DatasetError::Other`] if libtorch fails.
pub fn stored(batch: &Batch, kind: Kind) -> Result<Tensor, DatasetError> {
    let form = batch.dataset().form().without_normalisation();
    values(batch, &form, Device::Cpu, kind)
}

/// Returns the labels of each row for the target with index `target`, in host memory: the class ids as `[rows]` i64, -1
/// for an unlabelled row; of a multi-label target `[rows, classes]` f32, 1 for a class of the row, else 0.
///
/// # Errors
/// [`DatasetError::Other`] if libtorch fails.
pub fn labels(batch: &Batch, target: usize) -> Result<Tensor, DatasetError> {
    let of_target = &batch.dataset().targets()[target];
    let labels = if of_target.is_multi() {
        let shape = [batch.rows.len(), of_target.classes().len()];
        matrix(&batch.class_sets(target), shape, Kind::Float, Device::Cpu)
    } else {
        Tensor::f_from_slice(&batch.class_ids(target))
    };
    labels.map_err(refused)
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
