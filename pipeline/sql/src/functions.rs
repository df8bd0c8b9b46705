//! SQL functions over tensors: `tensor, tensor_shape, tensor_mean, tensor_min, tensor_max, tensor_at, tensor_slice`.
//!
//! A tensor's type is stored in the metadata of its column, and DataFusion keeps this metadata as long as the column
//! itself is passed on. An expression that computes a new value from it (an aggregate, `CASE`) loses the type. This is
//! reported as an error during planning and never results in a wrong number.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float32Builder, Float64Builder, Int32Array, Int64Array, ListArray,
};
use arrow::array::{Float32Array, builder::NullBufferBuilder};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    TypeSignature, Volatility,
};

use super::parts::{self, Slice, TensorBuilder};
use super::tensor::{TensorColumn, TensorType};

/// Returns all scalar functions over tensors, ready for registration in DataFusion.
pub(super) fn all() -> impl Iterator<Item = ScalarUDF> {
    use TensorOp::{At, Max, Mean, Min, Shape, Slice, Values};
    [Values, Shape, Mean, Min, Max, At, Slice]
        .into_iter()
        .map(|kind| ScalarUDF::new_from_impl(TensorFunction::new(kind)))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum TensorOp {
    Values,
    Shape,
    Mean,
    Min,
    Max,
    At,
    Slice,
}

impl TensorOp {
    /// Reduces the values of a line along an axis to one value. `f32::min` and `f32::max` ignore NaN, the initial value
    /// of the folds.
    fn reduce(self, line: &mut dyn Iterator<Item = f32>) -> f32 {
        match self {
            Self::Min => line.fold(f32::NAN, f32::min),
            Self::Max => line.fold(f32::NAN, f32::max),
            // The mean of an empty line would be 0 / 0. `Rows::along` returns null for it and does not call `reduce`.
            _ => {
                let mut sum = 0.0;
                let mut n = 0_u32;
                for value in line {
                    sum += f64::from(value);
                    n += 1;
                }
                (sum / f64::from(n)) as f32
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TensorFunction {
    kind: TensorOp,
    signature: Signature,
}

impl TensorFunction {
    fn new(kind: TensorOp) -> Self {
        let signature = match kind {
            // The number of arguments varies. DataFusion only calls `coerce_types` with this signature.
            TensorOp::At | TensorOp::Slice => Signature::user_defined(Volatility::Immutable),
            // One argument reduces the whole tensor, and two arguments reduce it along an axis.
            TensorOp::Mean | TensorOp::Min | TensorOp::Max => Signature::one_of(
                vec![TypeSignature::Any(1), TypeSignature::Any(2)],
                Volatility::Immutable,
            ),
            TensorOp::Values | TensorOp::Shape => Signature::any(1, Volatility::Immutable),
        };
        Self { kind, signature }
    }
}

/// Returns the type of the tensors of a column, to which the function `name` is applied.
pub(super) fn tensor_type(name: &str, field: &Field) -> Result<TensorType> {
    match TensorType::from_field(field) {
        Some(tensor) => Ok(tensor),
        None => plan_err!(
            "{name} needs a tensor column, but '{}' is not one (or lost its type in an expression): apply {name} to \
             the feature column itself, in a subquery if necessary",
            field.name()
        ),
    }
}

impl TensorFunction {
    /// Returns the type of a result if it is a tensor, else `None`. `constants` are the arguments after the tensor.
    fn new_tensor(
        &self,
        tensor: &TensorType,
        constants: &[Option<&ScalarValue>],
    ) -> Result<Option<TensorType>> {
        match (self.kind, constants) {
            (TensorOp::Slice, _) => Ok(Some(
                Slice::from_arguments(tensor, constants)?.result(tensor),
            )),
            (TensorOp::Mean | TensorOp::Min | TensorOp::Max, [given]) => {
                let axis = parts::axis(self.name(), tensor, *given)?;
                Ok(Some(parts::without_axis(self.name(), tensor, axis)?))
            }
            _ => Ok(None),
        }
    }

    /// Computes the mean, minimum or maximum along an axis.
    fn along(&self, rows: &Rows<'_>, given: Option<&ScalarValue>) -> Result<ArrayRef> {
        let axis = parts::axis(self.name(), &rows.tensor, given)?;
        let result = parts::without_axis(self.name(), &rows.tensor, axis)?;
        rows.along(&result, axis, |line| self.kind.reduce(line))
    }
}

fn constant(value: &ColumnarValue) -> Option<&ScalarValue> {
    match value {
        ColumnarValue::Scalar(scalar) => Some(scalar),
        ColumnarValue::Array(_) => None,
    }
}

impl ScalarUDFImpl for TensorFunction {
    fn name(&self) -> &'static str {
        match self.kind {
            TensorOp::Values => "tensor",
            TensorOp::Shape => "tensor_shape",
            TensorOp::Mean => "tensor_mean",
            TensorOp::Min => "tensor_min",
            TensorOp::Max => "tensor_max",
            TensorOp::At => "tensor_at",
            TensorOp::Slice => "tensor_slice",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    // If the result type depends on an argument, DataFusion uses `return_field_from_args` instead.
    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(match self.kind {
            TensorOp::Values => DataType::List(item(DataType::Float32)),
            TensorOp::Shape => DataType::List(item(DataType::Int32)),
            TensorOp::Mean => DataType::Float64,
            TensorOp::Min | TensorOp::Max | TensorOp::At => DataType::Float32,
            TensorOp::Slice => {
                return plan_err!("the type of tensor_slice follows from its column");
            }
        })
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let tensor = tensor_type(self.name(), &args.arg_fields[0])?;
        let indices = args.arg_fields.len() - 1;
        let dims = tensor.shape.len();
        if self.kind == TensorOp::At && indices != dims {
            return plan_err!(
                "tensor_at needs {dims} indices for this tensor of {}, not {indices}",
                dims_text(&tensor)
            );
        }

        let field = match self.new_tensor(&tensor, &args.scalar_arguments[1..])? {
            Some(result) => result.field(self.name()),
            None => Field::new(self.name(), self.return_type(&[])?, true),
        };
        Ok(Arc::new(field))
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        if self.kind == TensorOp::Slice {
            // Do not cast the arguments: a cast would hide that they are constants.
            return match types.len() {
                3 | 4 => Ok(types.to_vec()),
                _ => plan_err!(
                    "tensor_slice takes a tensor, an axis and a range: tensor_slice(x, axis, start, end)"
                ),
            };
        }

        match types.split_first() {
            Some((tensor, indices)) if !indices.is_empty() => {
                // Indices of every integer type are cast to i64, the only type that `Rows::at` reads.
                let mut coerced = vec![DataType::Int64; types.len()];
                coerced[0] = tensor.clone();
                Ok(coerced)
            }
            _ => plan_err!(
                "tensor_at needs a tensor and an index for each of its dimensions: tensor_at(x, i, j)"
            ),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let tensor = tensor_type(self.name(), &args.arg_fields[0])?;
        // Expand constants to arrays of equal values, so that there is only one way to read an index.
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let Some(column) = TensorColumn::new(&arrays[0]) else {
            return exec_err!(
                "{} cannot read tensors from {}",
                self.name(),
                arrays[0].data_type()
            );
        };

        let rows = Rows {
            column,
            tensor,
            len: arrays[0].len(),
        };
        let constants: Vec<Option<&ScalarValue>> = args.args[1..].iter().map(constant).collect();

        // A range or an axis determines the result type. It is a constant and is not read row by row.
        if self.kind == TensorOp::Slice {
            let slice = Slice::from_arguments(&rows.tensor, &constants)?;
            return Ok(ColumnarValue::Array(rows.slices(slice)?));
        }

        // Compute a mean, minimum or maximum along an axis. Without an axis, the code below reduces the whole tensor.
        if self.kind != TensorOp::At && !constants.is_empty() {
            return Ok(ColumnarValue::Array(self.along(&rows, constants[0])?));
        }

        let result: ArrayRef = match self.kind {
            TensorOp::Values => Arc::new(rows.values()?),
            TensorOp::Shape => Arc::new(rows.shapes()?),
            TensorOp::Mean => Arc::new(rows.means()),
            TensorOp::Min => Arc::new(rows.fold(f32::min)),
            TensorOp::Max => Arc::new(rows.fold(f32::max)),
            TensorOp::At => Arc::new(rows.at(&arrays[1..])),
            TensorOp::Slice => return exec_err!("tensor_slice returns tensors"),
        };
        Ok(ColumnarValue::Array(result))
    }
}

fn item(data_type: DataType) -> FieldRef {
    Arc::new(Field::new("item", data_type, false))
}

fn dims_text(tensor: &TensorType) -> String {
    if tensor.dim_names.is_empty() {
        "no named dimensions".to_owned()
    } else {
        tensor.dim_names.join(" × ")
    }
}

/// Column of tensors in one record batch.
struct Rows<'a> {
    column: TensorColumn<'a>,
    tensor: TensorType,
    len: usize,
}

impl Rows<'_> {
    /// Calls `each` with the values of every row (`None` for null). All rows share one buffer.
    fn for_each(&self, mut each: impl FnMut(Option<&[f32]>)) {
        let mut values = Vec::new();
        for row in 0..self.len {
            if self.column.is_null(row) {
                each(None);
                continue;
            }
            values.clear();
            self.column.read(row, &self.tensor, &mut values);
            each(Some(&values));
        }
    }

    fn values(&self) -> Result<ListArray> {
        let total = (0..self.len)
            .filter(|&row| !self.column.is_null(row))
            .map(|row| self.n_values(row))
            .sum();
        // Allocate the final size: a growing vector holds its content twice while it is moved.
        let mut values = Vec::with_capacity(total);
        let mut lengths = Vec::with_capacity(self.len);
        let mut nulls = NullBufferBuilder::new(self.len);
        for row in 0..self.len {
            let start = values.len();
            let null = self.column.is_null(row);
            if !null {
                self.column.read(row, &self.tensor, &mut values);
            }
            nulls.append(!null);
            lengths.push(values.len() - start);
        }

        // The offsets of an Arrow list are i32.
        if i32::try_from(values.len()).is_err() {
            return exec_err!(
                "tensor(x) of one batch has over 2^31 values: select fewer rows or tensor_at"
            );
        }

        let offsets = OffsetBuffer::from_lengths(lengths);
        let values = Arc::new(Float32Array::from(values));
        Ok(ListArray::try_new(
            item(DataType::Float32),
            offsets,
            values,
            nulls.finish(),
        )?)
    }

    fn shapes(&self) -> Result<ListArray> {
        let dims = self.tensor.shape.len();
        let mut values = Vec::with_capacity(self.len * dims);
        let mut nulls = NullBufferBuilder::new(self.len);

        for row in 0..self.len {
            let null = self.column.is_null(row);
            nulls.append(!null);
            if null {
                // Null rows have the same length as all others, so the offsets are constant.
                values.extend(std::iter::repeat_n(0, dims));
                continue;
            }
            match self.tensor.shape_of(self.n_values(row)) {
                Some(shape) => values.extend(shape.iter().map(|&n| n as i32)),
                None => {
                    return exec_err!(
                        "the shape cannot be derived from the bytes: use the column <feature>_shape"
                    );
                }
            }
        }

        let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(dims, self.len));
        Ok(ListArray::try_new(
            item(DataType::Int32),
            offsets,
            Arc::new(Int32Array::from(values)),
            nulls.finish(),
        )?)
    }

    /// Returns the mean of the values in each row, summed in f64. Null if a row has no values.
    fn means(&self) -> arrow::array::Float64Array {
        let mut means = Float64Builder::with_capacity(self.len);
        self.for_each(|values| {
            let mean = values
                .filter(|v| !v.is_empty())
                .map(|v| sum(v) / v.len() as f64);
            means.append_option(mean);
        });
        means.finish()
    }

    fn fold(&self, pick: impl Fn(f32, f32) -> f32) -> Float32Array {
        let mut picked = Float32Builder::with_capacity(self.len);
        self.for_each(|values| {
            picked.append_option(values.and_then(|v| v.iter().copied().reduce(&pick)))
        });
        picked.finish()
    }

    /// Returns one value per row at 0-based indices. Null if an index is null or out of range.
    fn at(&self, indices: &[ArrayRef]) -> Float32Array {
        let indices: Vec<&Int64Array> = indices
            .iter()
            .map(|array| array.as_primitive::<Int64Type>())
            .collect();

        let mut picked = Float32Builder::with_capacity(self.len);
        let mut row = 0;
        self.for_each(|values| {
            picked.append_option(values.and_then(|values| self.value_at(values, &indices, row)));
            row += 1;
        });
        picked.finish()
    }

    /// Returns the value at the indices in `row`, or `None` if an index is null or out of range.
    fn value_at(&self, values: &[f32], indices: &[&Int64Array], row: usize) -> Option<f32> {
        let shape = self.tensor.shape_of(values.len())?;
        let mut at = 0; // row-major
        for (&n, indices) in shape.iter().zip(indices) {
            let index = indices.is_valid(row).then(|| indices.value(row))?;
            let index = usize::try_from(index).ok().filter(|&index| index < n)?;
            at = at * n + index;
        }
        values.get(at).copied()
    }

    /// Returns a part of the tensor in each row: a range of one dimension.
    fn slices(&self, slice: Slice) -> Result<ArrayRef> {
        let mut builder = TensorBuilder::new(&slice.result(&self.tensor));
        let mut cut = Vec::new();
        for row in 0..self.len {
            let shape = self.shape_of(row);
            cut.clear();
            if let Some(shape) = &shape {
                slice.cut(&self.column.bytes(row), shape, self.tensor.dtype, &mut cut);
            }
            builder.append(shape.map(|_| cut.as_slice()))?;
        }
        Ok(builder.finish())
    }

    /// Returns tensors of type `result`, in which `one` has reduced the values of each row along `axis`.
    fn along(
        &self,
        result: &TensorType,
        axis: usize,
        one: impl Fn(&mut dyn Iterator<Item = f32>) -> f32,
    ) -> Result<ArrayRef> {
        let mut builder = TensorBuilder::new(result);
        let mut values = Vec::new();
        for row in 0..self.len {
            // The mean of no values is null.
            let Some(shape) = self.shape_of(row).filter(|shape| shape[axis] > 0) else {
                builder.append(None)?;
                continue;
            };

            values.clear();
            self.column.read(row, &self.tensor, &mut values);
            builder.append(Some(&parts::along(&values, &shape, axis, &one)))?;
        }
        Ok(builder.finish())
    }

    /// Returns the shape of the tensor in a row, or `None` for null or if the shape does not follow from its length.
    fn shape_of(&self, row: usize) -> Option<Vec<usize>> {
        if self.column.is_null(row) {
            return None;
        }
        self.tensor.shape_of(self.n_values(row))
    }

    fn n_values(&self, row: usize) -> usize {
        self.column.n_values(row, &self.tensor)
    }
}

fn sum(values: &[f32]) -> f64 {
    values.iter().map(|&v| f64::from(v)).sum()
}
