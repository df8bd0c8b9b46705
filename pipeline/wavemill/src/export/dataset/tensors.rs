//! Converts tensors to nested lists, in which `datasets` stores arrays.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::Field;
use wavemill_schemas::recipe::Dtype;
use wavemill_schemas::tensor_arrays::numbers;

use super::super::error::ExportError;
use super::super::reader::Tensors;

/// Creates a column of the first `n_rows` tensors, with their values as stored.
///
/// # Errors
/// [`ExportError::rows`] if the shape of a tensor does not match its number of values.
pub(super) fn column(
    tensors: &Tensors<'_>,
    n_rows: usize,
    dtype: Dtype,
) -> Result<ArrayRef, ExportError> {
    let mut shapes = Vec::with_capacity(n_rows);
    let mut bytes = Vec::new();
    for row in 0..n_rows {
        shapes.push(tensors.shape(row)?);
        bytes.extend_from_slice(&tensors.bytes(row));
    }
    Ok(nested(numbers(bytes.into(), dtype), &shapes))
}

/// Nests values in lists by the shape of each row. All shapes must have the same rank.
fn nested(values: ArrayRef, shapes: &[Vec<usize>]) -> ArrayRef {
    let rank = shapes.first().map_or(0, Vec::len);
    let mut array = values;
    for axis in (0..rank).rev() {
        let mut lengths = Vec::new();
        for shape in shapes {
            let n_lists: usize = shape[..axis].iter().product();
            lengths.extend(std::iter::repeat_n(shape[axis], n_lists));
        }
        let field = Field::new("item", array.data_type().clone(), true);
        let offsets = OffsetBuffer::from_lengths(lengths);
        array = Arc::new(ListArray::new(Arc::new(field), offsets, array, None));
    }
    array
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{DataType, Float32Type};

    use super::*;

    #[test]
    fn rows_of_two_lengths_keep_their_values_in_order() {
        let bytes: Vec<u8> = (0..10).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let column = nested(numbers(bytes.into(), Dtype::F32), &[vec![2, 3], vec![2, 2]]);
        assert_eq!(column.len(), 2);

        let second = column.as_list::<i32>().value(1);
        assert_eq!(second.len(), 2);

        let line = second.as_list::<i32>().value(1);
        assert_eq!(
            line.as_primitive::<Float32Type>().values().to_vec(),
            [8.0, 9.0]
        );
    }

    #[test]
    fn a_tensor_of_three_dimensions_is_three_lists_deep() {
        let bytes: Vec<u8> = (0..24).collect();
        let column = nested(
            numbers(bytes.into(), Dtype::U8),
            &[vec![3, 2, 2], vec![3, 2, 2]],
        );
        let mut depth = 0;
        let mut inner = column.data_type().clone();
        while let DataType::List(item) = inner {
            inner = item.data_type().clone();
            depth += 1;
        }
        assert_eq!((depth, inner), (3, DataType::UInt8));
    }
}
