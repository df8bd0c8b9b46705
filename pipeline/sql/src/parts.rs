//! Parts of tensors: ranges of a dimension, and reductions along a dimension.
//!
//! The results are tensors with their own type, so every function over tensors accepts them. The arguments that
//! determine the type (the axis, the range) must be constants because they have to be known when the query is planned.

use std::ops::Range;

use arrow::array::{ArrayRef, BinaryBuilder, FixedSizeBinaryBuilder};
use arrow::error::ArrowError;
use datafusion::common::{Result, ScalarValue, plan_err};
use wavemill_schemas::recipe::Dtype;

use super::tensor::TensorType;

/// Resolves a dimension given by its number from 0, by its negative number from the end (-1 is the last), or by its
/// name.
///
/// # Errors
/// If the argument is not a constant or names no dimension. Tensors of a user's own file may have no dimensions.
pub(super) fn axis(
    function: &str,
    tensor: &TensorType,
    given: Option<&ScalarValue>,
) -> Result<usize> {
    let dims = tensor.shape.len();
    let names = tensor.dim_names.join(", ");

    let found = match given {
        Some(ScalarValue::Int64(Some(number))) => {
            let from_start = if *number < 0 {
                number + dims as i64
            } else {
                *number
            };
            usize::try_from(from_start).ok()
        }
        Some(ScalarValue::Utf8(Some(name)) | ScalarValue::Utf8View(Some(name))) => {
            tensor.dim_names.iter().position(|known| known == name)
        }
        _ => {
            return plan_err!(
                "{function} needs a constant axis: a number from 0, or one of the names {names}"
            );
        }
    };

    // The metadata of a user's own file may also contain more names than dimensions.
    match found.filter(|axis| *axis < dims) {
        Some(axis) => Ok(axis),
        None if dims == 0 => plan_err!("{function}: no such axis: this tensor has no dimensions"),
        None => plan_err!(
            "{function}: no such axis: this tensor has axes 0 to {}, named {names}",
            dims - 1
        ),
    }
}

/// A range of one dimension as written in the query, from `start` up to but excluding `end`. Negative numbers count
/// from the end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slice {
    pub axis: usize,
    start: i64,
    end: Option<i64>,
}

impl Slice {
    /// Creates the range from the arguments after the tensor: axis, start, and optionally end.
    ///
    /// # Errors
    /// If an argument is not a constant, the axis is unknown, or the range is empty.
    pub(super) fn from_arguments(
        tensor: &TensorType,
        arguments: &[Option<&ScalarValue>],
    ) -> Result<Self> {
        let axis = axis("tensor_slice", tensor, arguments.first().copied().flatten())?;
        let Some(Some(ScalarValue::Int64(Some(start)))) = arguments.get(1) else {
            return plan_err!(
                "tensor_slice needs start and end as constants: tensor_slice(x, axis, start, end)"
            );
        };

        let end = match arguments.get(2) {
            None | Some(Some(ScalarValue::Null | ScalarValue::Int64(None))) => None,
            Some(Some(ScalarValue::Int64(Some(end)))) => Some(*end),
            _ => {
                return plan_err!(
                    "tensor_slice needs start and end as constants: tensor_slice(x, axis, start, end)"
                );
            }
        };

        let slice = Self {
            axis,
            start: *start,
            end,
        };

        // An empty range is an error during planning if the length is known. If the length varies, a row that is too
        // short results in an empty tensor.
        if let Some(n) = tensor.shape[axis].filter(|n| slice.range(*n).is_empty()) {
            if n == 0 {
                return plan_err!("tensor_slice: this axis has no values");
            }
            let end = end.map_or_else(|| "the end".to_owned(), |end| end.to_string());
            return plan_err!(
                "tensor_slice: the range {start} to {end} is empty: this axis has positions 0 to {}",
                n - 1
            );
        }
        Ok(slice)
    }

    /// Returns the type of the part of `tensor` that is in the range. The stored values are unchanged.
    pub(super) fn result(&self, tensor: &TensorType) -> TensorType {
        let mut result = tensor.clone();
        result.shape[self.axis] = tensor.shape[self.axis].map(|n| self.range(n).len());
        result
    }

    /// Returns the range as positions from the start of a dimension of length `n`.
    fn range(&self, n: usize) -> Range<usize> {
        let start = from_start(self.start, n);
        let end = self.end.map_or(n, |end| from_start(end, n));
        // The start may be after the end, such as 2 and -2 in a dimension of 3. The range is empty then.
        start..end.max(start)
    }

    /// Appends the bytes of one row that are in the range to `out`.
    pub(super) fn cut(&self, bytes: &[u8], shape: &[usize], dtype: Dtype, out: &mut Vec<u8>) {
        let range = self.range(shape[self.axis]);
        // Row-major: `step` is the size in bytes of one position on the axis, and `whole` that of the complete axis.
        let step: usize = shape[self.axis + 1..].iter().product::<usize>() * dtype.bytes();
        let whole = shape[self.axis] * step;

        // `chunks_exact` panics for 0. In that case the row has no values, and there are no bytes to append.
        if whole > 0 {
            bytes.chunks_exact(whole).for_each(|part| {
                out.extend_from_slice(&part[range.start * step..range.end * step])
            });
        }
    }
}

/// Converts a position to one from the start of a dimension of length `n`, and clamps it to the dimension.
fn from_start(place: i64, n: usize) -> usize {
    let place = if place < 0 { place + n as i64 } else { place };
    place.clamp(0, n as i64) as usize
}

/// Returns the type of `tensor` after reducing `axis` to one value: f32 with the other dimensions.
///
/// # Errors
/// An error for a tensor of one dimension, because no dimension would remain.
pub(super) fn without_axis(function: &str, tensor: &TensorType, axis: usize) -> Result<TensorType> {
    if tensor.shape.len() < 2 {
        return plan_err!(
            "{function}: this tensor has only one dimension: {function}(x) returns its value"
        );
    }

    let mut result = TensorType {
        dtype: Dtype::F32,
        scale: None,
        ..tensor.clone()
    };
    result.shape.remove(axis);
    if axis < result.dim_names.len() {
        result.dim_names.remove(axis);
    }
    Ok(result)
}

/// Reduces the values of a tensor along `axis` with `one`, and returns the results as f32 bytes.
pub(super) fn along(
    values: &[f32],
    shape: &[usize],
    axis: usize,
    one: impl Fn(&mut dyn Iterator<Item = f32>) -> f32,
) -> Vec<u8> {
    let n = shape[axis];
    // Row-major: adjacent values along the axis are `step` values apart.
    let step: usize = shape[axis + 1..].iter().product();

    let mut out = Vec::with_capacity(values.len() / n.max(1) * 4);
    // The chunk size must not be 0, but without `max` it would be if the axis or one after it is empty.
    for part in values.chunks_exact((n * step).max(1)) {
        for at in 0..step {
            let mut line = part[at..].iter().step_by(step).copied();
            out.extend_from_slice(&one(&mut line).to_le_bytes());
        }
    }
    out
}

/// Builder of a column of tensors. All rows have the same length if the type has a fixed size.
pub(super) enum TensorBuilder {
    /// Builder for rows of the same length.
    Fixed(FixedSizeBinaryBuilder),
    /// Builder for rows of different lengths.
    Binary(BinaryBuilder),
}

impl TensorBuilder {
    /// Creates a builder for values of type `tensor`, for a column with the type of [`TensorType::field`].
    pub(super) fn new(tensor: &TensorType) -> Self {
        match tensor
            .row_bytes()
            .and_then(|bytes| i32::try_from(bytes).ok())
        {
            Some(bytes) => Self::Fixed(FixedSizeBinaryBuilder::new(bytes)),
            None => Self::Binary(BinaryBuilder::new()),
        }
    }

    /// Appends a row with these bytes, or null.
    ///
    /// # Errors
    /// If the type has a fixed size and the number of bytes differs from it.
    pub(super) fn append(&mut self, row: Option<&[u8]>) -> Result<(), ArrowError> {
        match (self, row) {
            (Self::Fixed(builder), Some(bytes)) => builder.append_value(bytes)?,
            (Self::Fixed(builder), None) => builder.append_null(),
            (Self::Binary(builder), row) => builder.append_option(row),
        }
        Ok(())
    }

    pub(super) fn finish(self) -> ArrayRef {
        match self {
            Self::Fixed(mut builder) => std::sync::Arc::new(builder.finish()),
            Self::Binary(mut builder) => std::sync::Arc::new(builder.finish()),
        }
    }
}
