//! `cosine_similarity(a, b)`: how similar two tensors are, for queries such as "tracks like this one".

use std::sync::Arc;

use arrow::array::Float64Builder;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use super::tensor::{TensorColumn, TensorType};

/// Returns the function, ready for registration in DataFusion.
pub(super) fn cosine_similarity() -> ScalarUDF {
    ScalarUDF::new_from_impl(CosineSimilarity {
        // DataFusion only calls `coerce_types` with this signature.
        signature: Signature::user_defined(Volatility::Immutable),
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CosineSimilarity {
    signature: Signature,
}

impl ScalarUDFImpl for CosineSimilarity {
    fn name(&self) -> &'static str {
        "cosine_similarity"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [_, _] => Ok(types.to_vec()),
            _ => plan_err!("cosine_similarity takes two tensors: cosine_similarity(x, y)"),
        }
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        for field in args.arg_fields {
            if TensorType::from_field(field).is_none() {
                return plan_err!(
                    "cosine_similarity needs two tensor columns, but '{}' is not one (or lost its type in an \
                     expression): apply it to the feature columns themselves",
                    field.name()
                );
            }
        }
        Ok(Arc::new(Field::new(self.name(), DataType::Float64, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let columns = [0, 1].map(|n| {
            let tensor = TensorType::from_field(&args.arg_fields[n]);
            TensorColumn::new(&arrays[n]).zip(tensor)
        });
        let [Some((a, a_type)), Some((b, b_type))] = columns else {
            return exec_err!("cosine_similarity cannot read these tensors");
        };

        let n_rows = arrays[0].len();
        let mut similarities = Float64Builder::with_capacity(n_rows);
        let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
        for row in 0..n_rows {
            if a.is_null(row) || b.is_null(row) {
                similarities.append_null();
                continue;
            }
            of_a.clear();
            of_b.clear();
            a.read(row, &a_type, &mut of_a);
            b.read(row, &b_type, &mut of_b);
            if of_a.len() != of_b.len() {
                return exec_err!(
                    "cosine_similarity: tensors of {} and {} values: compare tensors of one shape, such as their means \
                     over the frames",
                    of_a.len(),
                    of_b.len()
                );
            }
            similarities.append_option(similarity(&of_a, &of_b));
        }
        Ok(ColumnarValue::Array(Arc::new(similarities.finish())))
    }
}

/// Returns the cosine of the angle between two vectors, from -1 to 1; `None` if one of them is zero.
fn similarity(a: &[f32], b: &[f32]) -> Option<f64> {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b);
        products.map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    (lengths > 0.0).then(|| (dot(a, b) / lengths).clamp(-1.0, 1.0))
}
