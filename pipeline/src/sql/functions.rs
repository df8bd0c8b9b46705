//! SQL functions over tensors: `tensor, tensor_shape, tensor_mean, tensor_min, tensor_max, tensor_at`.
//!
//! A tensor's type lies in the metadata of its column, which DataFusion carries through plans as far as the column
//! itself goes. An expression that builds a new value out of it (an aggregate, `CASE`) loses it: that is an error that
//! says so when the query is planned, never a wrong number.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float32Builder, Float64Builder, Int32Array, ListArray};
use arrow::array::{Float32Array, builder::NullBufferBuilder};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::tensor::{TensorColumn, TensorType};

/// All functions, ready to be registered.
pub fn all() -> impl Iterator<Item = ScalarUDF> {
    use Kind::{At, Max, Mean, Min, Shape, Values};
    [Values, Shape, Mean, Min, Max, At].into_iter().map(|kind| ScalarUDF::new_from_impl(TensorFunction::new(kind)))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Values,
    Shape,
    Mean,
    Min,
    Max,
    At,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TensorFunction {
    kind: Kind,
    signature: Signature,
}

impl TensorFunction {
    fn new(kind: Kind) -> Self {
        let signature = match kind {
            Kind::At => Signature::user_defined(Volatility::Immutable),
            _ => Signature::any(1, Volatility::Immutable),
        };
        Self { kind, signature }
    }

    fn tensor_type(&self, field: &Field) -> Result<TensorType> {
        match TensorType::of(field) {
            Some(tensor) => Ok(tensor),
            None => plan_err!(
                "{0} needs a tensor column, and '{1}' is none (or lost its type in an expression): apply {0} to the \
                 feature column itself, in an inner query if need be",
                self.name(),
                field.name()
            ),
        }
    }
}

impl ScalarUDFImpl for TensorFunction {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Values => "tensor",
            Kind::Shape => "tensor_shape",
            Kind::Mean => "tensor_mean",
            Kind::Min => "tensor_min",
            Kind::Max => "tensor_max",
            Kind::At => "tensor_at",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(match self.kind {
            Kind::Values => DataType::List(item(DataType::Float32)),
            Kind::Shape => DataType::List(item(DataType::Int32)),
            Kind::Mean => DataType::Float64,
            Kind::Min | Kind::Max | Kind::At => DataType::Float32,
        })
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let tensor = self.tensor_type(&args.arg_fields[0])?;
        let (indices, dims) = (args.arg_fields.len() - 1, tensor.shape.len());
        if self.kind == Kind::At && indices != dims {
            return plan_err!(
                "tensor_at needs {dims} indices for this tensor of {}, not {indices}",
                dims_text(&tensor)
            );
        }
        Ok(Arc::new(Field::new(self.name(), self.return_type(&[])?, true)))
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types.split_first() {
            Some((tensor, indices)) if !indices.is_empty() => {
                Ok(std::iter::once(tensor.clone()).chain(indices.iter().map(|_| DataType::Int64)).collect())
            }
            _ => plan_err!("tensor_at needs a tensor and an index for each of its dimensions: tensor_at(x, i, j)"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let tensor = self.tensor_type(&args.arg_fields[0])?;
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let Some(column) = TensorColumn::new(&arrays[0]) else {
            return exec_err!("{} cannot read tensors out of {}", self.name(), arrays[0].data_type());
        };
        let rows = Rows { column, tensor, len: arrays[0].len() };
        let result: ArrayRef = match self.kind {
            Kind::Values => Arc::new(rows.values()?),
            Kind::Shape => Arc::new(rows.shapes()?),
            Kind::Mean => Arc::new(rows.means()),
            Kind::Min => Arc::new(rows.fold(f32::min)),
            Kind::Max => Arc::new(rows.fold(f32::max)),
            Kind::At => Arc::new(rows.at(&arrays[1..])),
        };
        Ok(ColumnarValue::Array(result))
    }
}

fn item(data_type: DataType) -> FieldRef {
    Arc::new(Field::new("item", data_type, false))
}

fn dims_text(tensor: &TensorType) -> String {
    if tensor.dim_names.is_empty() { "no named dimensions".to_owned() } else { tensor.dim_names.join(" × ") }
}

/// The tensors of one batch.
struct Rows<'a> {
    column: TensorColumn<'a>,
    tensor: TensorType,
    len: usize,
}

impl Rows<'_> {
    /// Calls `each` with the values of every row (`None`: null), through one buffer.
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
        let total = (0..self.len).filter(|&row| !self.column.is_null(row)).map(|row| self.n_values(row)).sum();
        let (mut values, mut lengths) = (Vec::with_capacity(total), Vec::with_capacity(self.len));
        let mut nulls = NullBufferBuilder::new(self.len);
        for row in 0..self.len {
            let (start, null) = (values.len(), self.column.is_null(row));
            if !null {
                self.column.read(row, &self.tensor, &mut values);
            }
            nulls.append(!null);
            lengths.push(values.len() - start);
        }
        if i32::try_from(values.len()).is_err() {
            return exec_err!("tensor(x) of one batch has over 2^31 values: select fewer rows or tensor_at");
        }
        let offsets = OffsetBuffer::from_lengths(lengths);
        let values = Arc::new(Float32Array::from(values));
        Ok(ListArray::try_new(item(DataType::Float32), offsets, values, nulls.finish())?)
    }

    fn shapes(&self) -> Result<ListArray> {
        let dims = self.tensor.shape.len();
        let mut values = Vec::with_capacity(self.len * dims);
        let mut nulls = NullBufferBuilder::new(self.len);
        for row in 0..self.len {
            let null = self.column.is_null(row);
            nulls.append(!null);
            if null {
                values.extend(std::iter::repeat_n(0, dims));
                continue;
            }
            match self.tensor.shape_of(self.n_values(row)) {
                Some(shape) => values.extend(shape.iter().map(|&n| n as i32)),
                None => return exec_err!("the shape does not follow from the bytes: use the column <feature>_shape"),
            }
        }
        let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(dims, self.len));
        Ok(ListArray::try_new(item(DataType::Int32), offsets, Arc::new(Int32Array::from(values)), nulls.finish())?)
    }

    /// Means, summed in f64; null where there are no values.
    fn means(&self) -> arrow::array::Float64Array {
        let mut means = Float64Builder::with_capacity(self.len);
        self.for_each(|values| {
            let mean = values.filter(|v| !v.is_empty()).map(|v| sum(v) / v.len() as f64);
            means.append_option(mean);
        });
        means.finish()
    }

    fn fold(&self, pick: impl Fn(f32, f32) -> f32) -> Float32Array {
        let mut picked = Float32Builder::with_capacity(self.len);
        self.for_each(|values| picked.append_option(values.and_then(|v| v.iter().copied().reduce(&pick))));
        picked.finish()
    }

    /// One value a row by 0-based indices; null where an index is null or out of range.
    fn at(&self, indices: &[ArrayRef]) -> Float32Array {
        let indices: Vec<_> = indices.iter().map(|array| array.as_primitive::<Int64Type>()).collect();
        let mut picked = Float32Builder::with_capacity(self.len);
        let mut row = 0;
        self.for_each(|values| {
            let index = |dim: usize| indices[dim].is_valid(row).then(|| indices[dim].value(row));
            let value = values.and_then(|v| v.get(flat_index(&self.tensor.shape_of(v.len())?, index)?).copied());
            picked.append_option(value);
            row += 1;
        });
        picked.finish()
    }

    fn n_values(&self, row: usize) -> usize {
        self.column.n_values(row, &self.tensor)
    }
}

fn sum(values: &[f32]) -> f64 {
    values.iter().map(|&v| f64::from(v)).sum()
}

/// Row-major position of an index; `None` where one is out of range.
fn flat_index(shape: &[usize], index: impl Fn(usize) -> Option<i64>) -> Option<usize> {
    shape.iter().enumerate().try_fold(0, |flat, (dim, &n)| {
        let i = usize::try_from(index(dim)?).ok().filter(|&i| i < n)?;
        Some(flat * n + i)
    })
}
