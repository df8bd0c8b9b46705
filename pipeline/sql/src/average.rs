//! The aggregate function `tensor_avg(x)`: the elementwise mean of tensors over rows, such as the mean spectrum of a
//! class.
//!
//! Sums are f64 and the result is f32. The result has a tensor type, so the other functions accept it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, UInt64Type};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
};
use wavemill_schemas::recipe::Dtype;

use super::functions::tensor_type;
use super::tensor::{TensorColumn, TensorType};

const NAME: &str = "tensor_avg";

/// Returns the aggregate function `tensor_avg`, ready for registration in DataFusion.
pub(super) fn tensor_avg() -> AggregateUDF {
    AggregateUDF::new_from_impl(TensorAverage {
        signature: Signature::any(1, Volatility::Immutable),
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TensorAverage {
    signature: Signature,
}

fn mean_of(tensor: &TensorType) -> TensorType {
    TensorType {
        dtype: Dtype::F32,
        scale: None,
        ..tensor.clone()
    }
}

impl AggregateUDFImpl for TensorAverage {
    fn name(&self) -> &'static str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        // Always fail: a data type has no metadata. DataFusion calls `return_field` instead, which gets the column.
        plan_err!("the type of {NAME} follows from its column")
    }

    fn return_field(&self, fields: &[FieldRef]) -> Result<FieldRef> {
        Ok(Arc::new(
            mean_of(&tensor_type(NAME, &fields[0])?).field(self.name()),
        ))
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let tensor = tensor_type(NAME, &args.expr_fields[0])?;
        let result = args.return_field.data_type().clone();
        Ok(Box::new(Average {
            tensor,
            result,
            sums: Vec::new(),
            rows: 0,
        }))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        // Store sums instead of means: partitions differ in their number of rows, so a mean of means would be wrong.
        let sums = Field::new(format!("{}[sums]", args.name), DataType::Binary, true);
        let rows = Field::new(format!("{}[rows]", args.name), DataType::UInt64, true);
        Ok(vec![Arc::new(sums), Arc::new(rows)])
    }
}

#[derive(Debug)]
struct Average {
    tensor: TensorType,
    result: DataType,
    /// Sum of each tensor element over the rows so far. Empty before the first row.
    sums: Vec<f64>,
    rows: u64,
}

impl Average {
    fn add(&mut self, rows: u64, values: impl ExactSizeIterator<Item = f64>) -> Result<()> {
        // The first row determines the number of values that every tensor must have.
        if self.rows == 0 {
            self.sums = vec![0.0; values.len()];
        }
        if self.sums.len() != values.len() {
            return exec_err!(
                "{NAME} needs rows of the same shape, but found rows of {} and of {} values: take equal parts of them \
                 with tensor_slice, or average over an axis with tensor_mean(x, axis)",
                self.sums.len(),
                values.len()
            );
        }

        for (sum, value) in self.sums.iter_mut().zip(values) {
            *sum += value;
        }
        self.rows += rows;
        Ok(())
    }

    fn mean_bytes(&self) -> Vec<u8> {
        let means = self.sums.iter().map(|sum| (sum / self.rows as f64) as f32);
        means.flat_map(f32::to_le_bytes).collect()
    }
}

fn f64_of(bytes: &[u8]) -> f64 {
    // The default is never used: `merge_batch` passes chunks of eight bytes.
    f64::from_le_bytes(bytes.try_into().unwrap_or_default())
}

impl Accumulator for Average {
    fn update_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        let Some(column) = TensorColumn::new(&columns[0]) else {
            return exec_err!("{NAME} cannot read tensors from {}", columns[0].data_type());
        };

        // Copy the tensor type, because `add` borrows the whole of `self`.
        let tensor = self.tensor.clone();
        let mut values = Vec::new(); // one row's values, reused for the next row
        for row in 0..columns[0].len() {
            if !column.is_null(row) {
                values.clear();
                column.read(row, &tensor, &mut values);
                self.add(1, values.iter().map(|value| f64::from(*value)))?;
            }
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let sums = states[0].as_binary::<i32>();
        let rows = states[1].as_primitive::<UInt64Type>();

        for at in 0..sums.len() {
            // A partition without rows has no sums and does not constrain the shape of the tensors.
            if rows.is_valid(at) && rows.value(at) > 0 {
                let bytes = sums.value(at).chunks_exact(8);
                self.add(rows.value(at), bytes.map(f64_of))?;
            }
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let sums = self.sums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
        Ok(vec![
            ScalarValue::Binary(Some(sums)),
            ScalarValue::UInt64(Some(self.rows)),
        ])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        // The mean of no rows is null.
        let bytes = (self.rows > 0).then(|| self.mean_bytes());
        Ok(match self.result {
            DataType::FixedSizeBinary(length) => ScalarValue::FixedSizeBinary(length, bytes),
            _ => ScalarValue::Binary(bytes),
        })
    }

    fn size(&self) -> usize {
        // DataFusion's memory pool counts this size. Every group of a GROUP BY has its own sums.
        size_of_val(self) + self.sums.capacity() * size_of::<f64>()
    }
}
