//! Parts of tensors: ranges of a dimension, and values along one brought to one.
//!
//! Both give tensors again, with a type of their own, so that every function over tensors takes them. What decides that
//! type (the axis, the range) has to be known when the query is planned, and so is a constant.

use std::ops::Range;

use arrow::array::{ArrayRef, BinaryBuilder, FixedSizeBinaryBuilder};
use arrow::error::ArrowError;
use datafusion::common::{Result, ScalarValue, plan_err};
use wavemill_schemas::recipe::Dtype;

use super::tensor::TensorType;

/// A dimension by its number from 0, by its number from the end (-1 is the last), or by its name.
///
/// # Errors
/// No constant, or no such dimension; also where the metadata of a user's own file give no dimensions.
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
                "{function} needs its axis as a constant: a number from 0, or a name out of {names}"
            );
        }
    };

    // A file's metadata may also have more names than dimensions.
    match found.filter(|axis| *axis < dims) {
        Some(axis) => Ok(axis),
        None if dims == 0 => plan_err!("{function}: no such axis: this tensor has no dimensions"),
        None => plan_err!(
            "{function}: no such axis: this tensor has 0 to {}, by name {names}",
            dims - 1
        ),
    }
}

/// A range of one dimension, as it was written: from `start`, up to but without `end`; negative numbers count from the end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slice {
    pub axis: usize,
    start: i64,
    end: Option<i64>,
}

impl Slice {
    /// Of the arguments behind the tensor: axis, start, and perhaps end.
    ///
    /// # Errors
    /// No constants, no such axis, or nothing in the range.
    pub(super) fn of(tensor: &TensorType, arguments: &[Option<&ScalarValue>]) -> Result<Self> {
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

        // Told while planning where the length is known. Where it differs from row to row, a row that is too short
        // gives an empty tensor.
        if let Some(n) = tensor.shape[axis].filter(|n| slice.range(*n).is_empty()) {
            if n == 0 {
                return plan_err!("tensor_slice: this axis has no values");
            }
            let end = end.map_or_else(|| "the end".to_owned(), |end| end.to_string());
            return plan_err!(
                "tensor_slice: nothing lies from {start} to {end}: this axis has 0 to {}",
                n - 1
            );
        }
        Ok(slice)
    }

    /// The type of what is left of `tensor`; its values stay as they are stored.
    pub(super) fn result(&self, tensor: &TensorType) -> TensorType {
        let mut result = tensor.clone();
        result.shape[self.axis] = tensor.shape[self.axis].map(|n| self.range(n).len());
        result
    }

    /// The places of a dimension of `n`.
    fn range(&self, n: usize) -> Range<usize> {
        let start = from_start(self.start, n);
        let end = self.end.map_or(n, |end| from_start(end, n));
        // The two may cross, as 2 to -2 of three places do: nothing lies between them then.
        start..end.max(start)
    }

    /// Appends what is left of one row's bytes.
    pub(super) fn cut(&self, bytes: &[u8], shape: &[usize], dtype: Dtype, out: &mut Vec<u8>) {
        let range = self.range(shape[self.axis]);
        // Row-major: a step on the axis passes over all that lies behind it, and each `whole` holds the axis once.
        let step: usize = shape[self.axis + 1..].iter().product::<usize>() * dtype.bytes();
        let whole = shape[self.axis] * step;

        // `chunks_exact` refuses 0: then the row has no values, and nothing of it is left.
        if whole > 0 {
            bytes.chunks_exact(whole).for_each(|part| {
                out.extend_from_slice(&part[range.start * step..range.end * step])
            });
        }
    }
}

/// A place of a dimension of `n`, counted from its start; what lies outside it is brought to its ends.
fn from_start(place: i64, n: usize) -> usize {
    let place = if place < 0 { place + n as i64 } else { place };
    place.clamp(0, n as i64) as usize
}

/// The type of `tensor` with one value along `axis`: f32, the other dimensions.
///
/// # Errors
/// A tensor of one dimension, which has nothing left.
pub(super) fn without_axis(function: &str, tensor: &TensorType, axis: usize) -> Result<TensorType> {
    if tensor.shape.len() < 2 {
        return plan_err!(
            "{function}: this tensor has one dimension: {function}(x) gives its one value"
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

/// Brings the values along `axis` to `one` each; gives the results as bytes.
pub(super) fn along(
    values: &[f32],
    shape: &[usize],
    axis: usize,
    one: impl Fn(&mut dyn Iterator<Item = f32>) -> f32,
) -> Vec<u8> {
    let n = shape[axis];
    // Row-major: the values along the axis lie a step apart.
    let step: usize = shape[axis + 1..].iter().product();

    let mut out = Vec::with_capacity(values.len() / n.max(1) * 4);
    // `max`, since a dimension behind the axis may be empty: there are no values then, but the size must not be 0.
    for part in values.chunks_exact((n * step).max(1)) {
        for at in 0..step {
            let mut line = part[at..].iter().step_by(step).copied();
            out.extend_from_slice(&one(&mut line).to_le_bytes());
        }
    }
    out
}

/// Rows of tensors under construction, all of one length where the type says so.
pub(super) enum TensorBuilder {
    /// Of equal length.
    Fixed(FixedSizeBinaryBuilder),
    /// Of several.
    Binary(BinaryBuilder),
}

impl TensorBuilder {
    /// For values of `tensor`, as [`TensorType::field`] types their column.
    pub(super) fn new(tensor: &TensorType) -> Self {
        match tensor
            .row_bytes()
            .and_then(|bytes| i32::try_from(bytes).ok())
        {
            Some(bytes) => Self::Fixed(FixedSizeBinaryBuilder::new(bytes)),
            None => Self::Binary(BinaryBuilder::new()),
        }
    }

    /// # Errors
    /// A length that is not the type's.
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
