//! Tensors in the columns of a store's files.

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::Int32Type;
use parquet::errors::ParquetError;
use wavemill_schemas::manifest::FeatureEntry;
use wavemill_schemas::tables::shape_column;
use wavemill_schemas::tensor_arrays::tensor_bytes;

use super::Tensor;

/// Returns the columns that contain the tensors of a feature: the values, and the shapes if they differ.
pub fn columns(feature: &FeatureEntry) -> Vec<String> {
    let mut columns = vec![feature.name.clone()];
    if feature.shape.contains(&None) {
        columns.push(shape_column(&feature.name));
    }
    columns
}

/// Returns the feature's tensor of each row of `batch`, which has its [`columns`].
///
/// # Errors
/// [`ParquetError`] if the columns are absent or have other types than those of a store.
pub fn read(batch: &RecordBatch, feature: &FeatureEntry) -> Result<Vec<Tensor>, ParquetError> {
    let values = batch.column_by_name(&feature.name);
    let values = values.ok_or_else(|| unexpected("tensors"))?;
    let shapes = batch.column_by_name(&shape_column(&feature.name));
    let mut tensors = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let shape = match shapes {
            Some(shapes) => stored_shape(shapes, row),
            None => fixed_shape(feature),
        };
        tensors.push(Tensor {
            bytes: tensor_bytes(values, row)
                .ok_or_else(|| unexpected("tensors"))?
                .to_vec(),
            shape: shape.ok_or_else(|| unexpected("shapes"))?,
        });
    }
    Ok(tensors)
}

fn fixed_shape(feature: &FeatureEntry) -> Option<Vec<usize>> {
    feature.shape.iter().copied().collect()
}

fn stored_shape(shapes: &ArrayRef, row: usize) -> Option<Vec<usize>> {
    let shape = shapes.as_list_opt::<i32>()?.value(row);
    let dims = shape.as_primitive_opt::<Int32Type>()?.values();
    Some(dims.iter().map(|&n| n as usize).collect())
}

fn unexpected(what: &str) -> ParquetError {
    ParquetError::General(format!("{what} are not of the types that a store has"))
}
