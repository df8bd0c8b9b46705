//! Converts stored tensors to `arrow.fixed_shape_tensor`, the extension type for tensors in Arrow streams.
//!
//! The extension's metadata is written by hand, because arrow-schema writes `"permutations":null`, which readers
//! reject. Bytes become lists of numbers without a copy. Tensors with varying lengths stay bytes with
//! `wavemill.tensor`.

use std::sync::Arc;

use arrow::array::{AsArray, FixedSizeListArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use serde_json::json;
use wavemill_schemas::recipe::Dtype;
use wavemill_schemas::tables::item_type;
use wavemill_schemas::tensor_arrays::numbers;

use crate::tensor::TensorType;

/// Name of the extension type.
const EXTENSION: &str = "arrow.fixed_shape_tensor";

/// Converts the tensor columns of batches with the same schema.
pub struct TensorStream {
    schema: SchemaRef,
    /// Value type of the tensors in each column. `None` for columns that are not converted.
    dtypes: Vec<Option<Dtype>>,
}

impl TensorStream {
    /// Creates a converter for batches with the columns of `schema`.
    pub fn new(schema: &Schema) -> Self {
        let mut dtypes = Vec::new();
        let mut fields: Vec<FieldRef> = Vec::new();
        for field in schema.fields() {
            let is_fixed = matches!(field.data_type(), DataType::FixedSizeBinary(_));
            match TensorType::from_field(field).filter(|_| is_fixed) {
                Some(tensor) => {
                    fields.push(Arc::new(extension_field(field, &tensor)));
                    dtypes.push(Some(tensor.dtype));
                }
                None => {
                    fields.push(field.clone());
                    dtypes.push(None);
                }
            }
        }

        Self {
            schema: Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone())),
            dtypes,
        }
    }

    /// Returns the schema of the converted batches.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Converts the tensors of a batch to fixed-size lists that share its bytes.
    ///
    /// # Errors
    /// An error if a column of the batch does not match the schema.
    pub fn convert(&self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let mut columns = batch.columns().to_vec();

        for ((column, dtype), field) in columns
            .iter_mut()
            .zip(&self.dtypes)
            .zip(self.schema.fields())
        {
            if let (Some(dtype), DataType::FixedSizeList(item, n_values)) =
                (dtype, field.data_type())
            {
                // The values of the list share the bytes of the tensor column.
                let (_, bytes, nulls) = column.as_fixed_size_binary().clone().into_parts();
                *column = Arc::new(FixedSizeListArray::try_new(
                    item.clone(),
                    *n_values,
                    numbers(bytes, *dtype),
                    nulls,
                )?);
            }
        }

        // A batch without columns has a number of rows, too.
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
    }
}

fn extension_field(field: &Field, tensor: &TensorType) -> Field {
    let item = item_type(tensor.dtype);
    let n_values: usize = tensor.shape.iter().flatten().product();
    // pyarrow only recognizes the extension if the item is nullable.
    let list = DataType::FixedSizeList(Arc::new(Field::new("item", item, true)), n_values as i32);

    let mut extension = json!({ "shape": tensor.shape });
    if !tensor.dim_names.is_empty() {
        extension["dim_names"] = json!(tensor.dim_names);
    }

    let mut metadata = field.metadata().clone();
    metadata.insert("ARROW:extension:name".to_owned(), EXTENSION.to_owned());
    metadata.insert("ARROW:extension:metadata".to_owned(), extension.to_string());
    Field::new(field.name(), list, field.is_nullable()).with_metadata(metadata)
}
