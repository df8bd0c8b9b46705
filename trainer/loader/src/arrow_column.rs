//! Reads rows that `pages.rs` cannot copy directly from a page: lz4 compression, lists of values, rows of differing
//! length.
//!
//! Parquet's own Arrow reader reads one row at a time and decodes only the page of that row. This is slower than
//! `pages.rs`, but works for every layout that a recipe can request.

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::Array;
use arrow::buffer::Buffer;
use arrow::datatypes::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
};
use wavemill_schemas::tables::item_type;
use wavemill_schemas::tensor_arrays::tensor_bytes;

use crate::DatasetError;
use crate::file::Chunks;
use crate::form::Form;
use crate::shard::Shard;

/// The tensor column of one file, to be read with Parquet's Arrow reader.
#[derive(Clone, Debug)]
pub(crate) struct ArrowColumn {
    metadata: ArrowReaderMetadata,
    mask: ProjectionMask,
}

impl ArrowColumn {
    /// Creates a reader for a column that exists in the file.
    ///
    /// # Errors
    /// [`DatasetError::Other`] if the column's values are neither bytes nor lists of the feature's type.
    pub(crate) fn new(shard: &Shard, column: &str, form: &Form) -> Result<Self, DatasetError> {
        let found = shard.metadata.schema().column_with_name(column);
        let (place, field) =
            found.ok_or_else(|| DatasetError::column(&shard.file.path, column, "missing"))?;

        let item = item_type(form.stored);
        // A column of bytes can have values of any type. A list must have the feature's type: its values are used as
        // they are stored in memory.
        let fits = match field.data_type() {
            DataType::Binary | DataType::FixedSizeBinary(_) => true,
            DataType::List(of) => *of.data_type() == item,
            _ => false,
        };
        if !fits {
            let problem = format!("{} is not a tensor of {item}", field.data_type());
            return Err(DatasetError::column(&shard.file.path, column, problem));
        }

        let mask = ProjectionMask::roots(shard.metadata.parquet_schema(), [place]);
        Ok(Self {
            metadata: shard.metadata.clone(),
            mask,
        })
    }

    /// Reads one row of a row group of the file `chunks`: the bytes of its tensor, little-endian, in the layout of a
    /// binary column.
    ///
    /// # Errors
    /// A description of the problem with the page.
    pub(crate) fn row(
        &self,
        chunks: Chunks,
        row_group: usize,
        row: usize,
    ) -> Result<Buffer, String> {
        let selection = RowSelection::from(vec![RowSelector::skip(row), RowSelector::select(1)]);
        let mut reader =
            ParquetRecordBatchReaderBuilder::new_with_metadata(chunks, self.metadata.clone())
                .with_projection(self.mask.clone())
                .with_row_groups(vec![row_group])
                .with_row_selection(selection)
                .with_batch_size(1)
                .build()
                .map_err(|e| e.to_string())?;

        // A page with a damaged header may refer to a dictionary that it lacks, which makes the reader panic.
        let batch = catch_unwind(AssertUnwindSafe(|| reader.next()))
            .map_err(|_| "its reader panicked")?
            .ok_or("it has fewer rows")?
            .map_err(|e| e.to_string())?;
        let column = batch
            .columns()
            .first()
            .filter(|column| column.len() == 1 && column.is_valid(0));
        let bytes = column.and_then(|column| tensor_bytes(column, 0));
        Ok(bytes.ok_or("a row without a value")?)
    }
}
