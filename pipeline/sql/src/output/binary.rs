//! Writes results as an Arrow IPC stream or a Parquet file, including whole tensors.

use std::io::{self, Write};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::writer::StreamWriter;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::tensors::TensorStream;
use super::{Format, Sink, SqlError};
use crate::tensor::TensorType;

/// Size in bytes of a row group of a written Parquet file, as in the store's own files. The writer holds one in memory.
const ROW_GROUP_BYTES: usize = 32 << 20;

/// Writes one result as an Arrow IPC stream.
pub(super) struct ArrowSink<W: Write> {
    state: SingleResult<W, (StreamWriter<W>, TensorStream)>,
}

/// Writes one result as a Parquet file.
pub(super) struct ParquetSink<W: Write + Send> {
    state: SingleResult<W, ArrowWriter<W>>,
}

/// The state of a format that can only contain one result. The writer is taken when the result begins.
enum SingleResult<W, T> {
    Unused(W),
    Open(T),
    Done,
}

impl<W, T> SingleResult<W, T> {
    /// Returns the writer for the first result, and an error for every further result.
    fn start(&mut self, format: Format) -> Result<W, SqlError> {
        // Leave `Done` in the writer's place, so that a second result is refused even if the first one is unfinished.
        match std::mem::replace(self, Self::Done) {
            Self::Unused(out) => Ok(out),
            Self::Open(_) | Self::Done => Err(SqlError::Usage(format!(
                "{format} can contain only one result: give a single query, or --format table, csv or json"
            ))),
        }
    }

    fn open(&mut self) -> Result<&mut T, SqlError> {
        match self {
            Self::Open(writer) => Ok(writer),
            _ => Err(SqlError::Failed(
                "received rows before their schema".to_owned(),
            )),
        }
    }
}

impl<W: Write> ArrowSink<W> {
    pub(super) fn new(out: W) -> Self {
        Self {
            state: SingleResult::Unused(out),
        }
    }
}

impl<W: Write> Sink for ArrowSink<W> {
    fn begin(&mut self, schema: &SchemaRef) -> Result<(), SqlError> {
        let out = self.state.start(Format::Arrow)?;
        let tensors = TensorStream::new(schema);
        self.state = SingleResult::Open((StreamWriter::try_new(out, tensors.schema())?, tensors));
        Ok(())
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), SqlError> {
        let (writer, tensors) = self.state.open()?;
        Ok(writer.write(&tensors.convert(batch)?)?)
    }

    fn finish(&mut self) -> Result<(), SqlError> {
        let (writer, _) = self.state.open()?;
        writer.finish()?;
        Ok(writer.get_mut().flush()?)
    }
}

impl<W: Write + Send> ParquetSink<W> {
    pub(super) fn new(out: W) -> Self {
        Self {
            state: SingleResult::Unused(out),
        }
    }
}

impl<W: Write + Send> Sink for ParquetSink<W> {
    fn begin(&mut self, schema: &SchemaRef) -> Result<(), SqlError> {
        let out = self.state.start(Format::Parquet)?;
        // Columns keep their metadata. The schema's own metadata is dropped, because it may belong to one of several
        // tables.
        let schema = Arc::new(Schema::new(schema.fields().clone()));
        let writer = ArrowWriter::try_new(out, schema.clone(), Some(properties(&schema)))
            .map_err(parquet_error)?;
        self.state = SingleResult::Open(writer);
        Ok(())
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), SqlError> {
        self.state.open()?.write(batch).map_err(parquet_error)
    }

    fn finish(&mut self) -> Result<(), SqlError> {
        let writer = self.state.open()?;
        writer.finish().map_err(parquet_error)?;
        Ok(writer.inner_mut().flush()?)
    }
}

/// Returns writer properties that omit dictionaries and statistics for tensors, where they would only cost time and
/// space, and that limit the size of a row group.
fn properties(schema: &Schema) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        // Without tensors, the rows can be as long: texts and lists.
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES));
    for field in schema.fields() {
        let Some(tensor) = TensorType::from_field(field) else {
            continue;
        };
        let path = ColumnPath::from(field.name().as_str());
        // If the row size varies, use 64 rows: about 40 MB of the usual log-mel.
        let rows = tensor
            .row_bytes()
            .map_or(64, |bytes| (ROW_GROUP_BYTES / bytes.max(1)).max(1));

        properties = properties
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_statistics_enabled(path, EnabledStatistics::None)
            // The writer checks the page size only after each write batch: 1,024 rows of tensors would be one page.
            .set_write_batch_size(1)
            .set_max_row_group_row_count(Some(rows));
    }
    properties.build()
}

fn parquet_error(error: ParquetError) -> SqlError {
    match error {
        // I/O errors of the output are wrapped. Their kind distinguishes a full disk from a closed pipe.
        ParquetError::External(error) => match error.downcast::<io::Error>() {
            Ok(error) => SqlError::Output(*error),
            Err(other) => SqlError::Failed(other.to_string()),
        },
        other => SqlError::Failed(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_groups_of_long_rows_without_tensors_are_limited() {
        let properties = properties(&Schema::empty());
        assert_eq!(properties.max_row_group_bytes(), Some(ROW_GROUP_BYTES));
    }
}
