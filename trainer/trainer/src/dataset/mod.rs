//! Rows of a store as tensors: wavemill-loader reads rows into libtorch's memory, and this module converts them to the
//! inputs of a model.
//!
//! wavemill-loader handles row order, files and labels. Augmentation, mixing and models are implemented elsewhere.

mod batch;
mod form;
mod spec;

#[cfg(test)]
#[path = "../../../loader/src/fixture.rs"]
pub(crate) mod fixture;
#[cfg(test)]
#[path = "../../../loader/src/testing.rs"]
mod testing;
#[cfg(test)]
mod tests;

use tch::kind::Element;
use tch::{Device, Kind, TchError, Tensor};
use wavemill_schemas::exit::PlainError;

pub use batch::{labels, spectrogram, stored};
pub use spec::inputs_of_rows;
pub use wavemill_loader::{
    DatasetError, GENRES_ALL, InputSpec, LoaderPlan, MetadataColumn, ModelSignature, Needs,
    RowFrames, RowKind, Split, Store, StorePlace, Target, n_batches,
};

use crate::ffi::{self, HostBuffer};
use crate::models::{Dims, Inputs};

/// A dataset whose batches are stored in libtorch's memory.
pub type Dataset = wavemill_loader::Dataset<HostBuffer>;

/// A batch of rows stored in libtorch's memory.
pub type Batch = wavemill_loader::Batch<HostBuffer>;

/// Loads the batches of an epoch into libtorch's memory.
pub type Loader = wavemill_loader::Loader<HostBuffer>;

/// Returns the sizes of inputs and outputs for which a model on a dataset is built.
pub fn dims(data: &Dataset) -> Dims {
    let heads = data.targets().iter().map(|target| {
        let n_classes = target.classes().len() as i64;
        (target.name().to_owned(), n_classes)
    });

    let form = data.form();
    let published = data.input_spec().metadata.len() as i64;

    let (bands, frames, channels, metadata) = match form.kind {
        RowKind::Spectrogram => (form.bands, form.frames, None, published),
        RowKind::Picture { height, width } => (height, width, Some(form.bands as i64), published),
        // A feature of statistics replaces the published metadata columns.
        RowKind::Columns if data.needs().spectrogram() => (0, 0, None, form.bands as i64),
        RowKind::Columns | RowKind::Samples => (0, 0, None, published),
    };

    Dims {
        bands: bands as i64,
        frames: frames as i64,
        channels,
        metadata,
        vocabulary: data.input_spec().vocabulary(),
        heads: heads.collect(),
    }
}

/// Returns the inputs of a model for the rows of a batch, in `kind` on `device`. [`Needs`] selects the inputs.
///
/// # Errors
/// [`DatasetError::Other`] if libtorch fails.
pub fn inputs(batch: &Batch, device: Device, kind: Kind) -> Result<Inputs, DatasetError> {
    let data = batch.dataset();
    let n_rows = batch.rows.len();
    let values = spectrogram(batch, device, kind)?;
    let mut inputs = match batch.memory() {
        Some(_) => form::inputs(data.form(), values).map_err(refused)?,
        None => Inputs {
            spectrogram: values,
            metadata: None,
            ids: None,
        },
    };

    if let Some(values) = data.metadata_of(&batch.rows) {
        let shape = [n_rows, data.input_spec().metadata.len()];
        inputs.metadata = Some(matrix(&values, shape, kind, device).map_err(refused)?);
    }
    if let Some(known) = data.ids_of(&batch.rows) {
        inputs.ids = Some(matrix(&known, [n_rows, 2], Kind::Int64, device).map_err(refused)?);
    }
    Ok(inputs)
}

/// Creates a matrix of `shape` and `kind` on `device` from row-major values.
fn matrix<T: Element>(
    values: &[T],
    shape: [usize; 2],
    kind: Kind,
    device: Device,
) -> Result<Tensor, TchError> {
    // Values are converted on the host before they are sent, so that the device receives a single copy.
    let host = Tensor::f_from_slice(values)?.f_view(shape.map(|n| n as i64))?;
    ffi::send(&host.f_to_kind(kind)?, device)
}

/// Converts an error of libtorch to an error of wavemill-loader.
fn refused(error: TchError) -> DatasetError {
    PlainError::failed("libtorch").caused_by(error).into()
}
