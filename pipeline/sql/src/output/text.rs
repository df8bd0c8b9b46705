//! Writes results as CSV and as JSON lines. Lists become JSON in both. Tensors are refused with a hint.

use std::io::Write;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, SchemaRef};
use arrow::json::writer::{EncoderOptions, LineDelimited, NullableEncoder, make_encoder};
use arrow::json::{Writer, WriterBuilder};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::{Format, Sink, SqlError};
use crate::tensor::TensorType;

/// Format of values without a JSON encoder. A date or a time that has no text is an error instead of a value.
const PLAIN: FormatOptions = FormatOptions::new().with_null("").with_display_error(false);

/// Refuses columns of bytes, which have no text representation, even if they have no tensor metadata.
fn refuse_tensors(schema: &SchemaRef, format: Format) -> Result<(), SqlError> {
    match schema.fields().iter().find(|field| is_bytes(field)) {
        Some(field) => Err(SqlError::Usage(format!(
            "column '{name}' contains tensors, which {format} cannot show: select tensor({name}) or tensor_mean({name}), \
             or use --format arrow or parquet",
            name = field.name()
        ))),
        None => Ok(()),
    }
}

/// Reports whether a column contains bytes or tensors. A list can be a tensor as well.
fn is_bytes(field: &Field) -> bool {
    let is_binary = matches!(
        field.data_type(),
        DataType::FixedSizeBinary(_) | DataType::Binary | DataType::LargeBinary
    );
    is_binary || TensorType::from_field(field).is_some()
}

/// Writes results as CSV, each result with its own header.
pub(super) struct CsvSink<W: Write> {
    out: csv::Writer<W>,
}

impl<W: Write> CsvSink<W> {
    pub(super) fn new(out: W) -> Self {
        Self {
            // Flexible, because consecutive results can have different numbers of columns.
            out: csv::WriterBuilder::new().flexible(true).from_writer(out),
        }
    }
}

impl<W: Write> Sink for CsvSink<W> {
    fn begin(&mut self, schema: &SchemaRef) -> Result<(), SqlError> {
        refuse_tensors(schema, Format::Csv)?;
        // The results of DDL and SET have no columns, and therefore no header.
        if !schema.fields().is_empty() {
            self.out
                .write_record(schema.fields().iter().map(|field| field.name()))
                .map_err(csv_error)?;
        }
        Ok(())
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), SqlError> {
        let schema = batch.schema();
        let options = EncoderOptions::default();
        let mut columns = Vec::with_capacity(batch.num_columns());
        for (field, array) in schema.fields().iter().zip(batch.columns()) {
            columns.push(CsvColumn::new(field, array, &options)?);
        }

        let mut cell = Vec::new();
        for row in 0..batch.num_rows() {
            for column in &mut columns {
                cell.clear();
                column.write(row, &mut cell)?;
                self.out.write_field(&cell).map_err(csv_error)?;
            }
            self.out.write_record(None::<&[u8]>).map_err(csv_error)?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SqlError> {
        Ok(self.out.flush()?)
    }
}

/// Refuses dates and times that have no text, for which Arrow's JSON encoder writes an error as the value.
fn require_texts(array: &ArrayRef) -> Result<(), SqlError> {
    if !has_times(array.data_type()) {
        return Ok(());
    }
    let formatter = ArrayFormatter::try_new(array, &PLAIN)?;
    let mut text = String::new();
    for row in 0..array.len() {
        text.clear();
        formatter.value(row).write(&mut text)?;
    }
    Ok(())
}

/// Reports whether values of a type are or contain dates or times.
fn has_times(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => has_times(field.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| has_times(field.data_type())),
        DataType::Dictionary(_, values) => has_times(values),
        other => other.is_temporal(),
    }
}

enum CsvColumn<'a> {
    Json(NullableEncoder<'a>),
    /// The formatter, and the text of the current value.
    Plain(ArrayFormatter<'a>, String),
}

impl<'a> CsvColumn<'a> {
    fn new(
        field: &'a FieldRef,
        array: &'a ArrayRef,
        options: &'a EncoderOptions,
    ) -> Result<Self, SqlError> {
        Ok(if array.data_type().is_nested() {
            require_texts(array)?;
            Self::Json(make_encoder(field, array.as_ref(), options)?)
        } else {
            Self::Plain(ArrayFormatter::try_new(array, &PLAIN)?, String::new())
        })
    }

    fn write(&mut self, row: usize, cell: &mut Vec<u8>) -> Result<(), SqlError> {
        match self {
            // Skip the encoder for a null: it would write the bytes stored there, but a null is an empty field in CSV.
            Self::Json(encoder) if encoder.is_null(row) => {}
            Self::Json(encoder) => encoder.encode(row, cell),
            Self::Plain(formatter, text) => {
                text.clear();
                formatter.value(row).write(text)?;
                cell.extend_from_slice(text.as_bytes());
            }
        }
        Ok(())
    }
}

fn csv_error(error: csv::Error) -> SqlError {
    match error.into_kind() {
        // Keep the error's kind, by which a full disk and a closed pipe are recognized.
        csv::ErrorKind::Io(error) => SqlError::Output(error),
        other => SqlError::Failed(format!("{other:?}")),
    }
}

/// Writes results as JSON lines: one object per row, including nulls.
pub(super) struct JsonSink<W: Write> {
    out: Writer<W, LineDelimited>,
}

impl<W: Write> JsonSink<W> {
    pub(super) fn new(out: W) -> Self {
        Self {
            out: WriterBuilder::new().with_explicit_nulls(true).build(out),
        }
    }
}

impl<W: Write> Sink for JsonSink<W> {
    fn begin(&mut self, schema: &SchemaRef) -> Result<(), SqlError> {
        refuse_tensors(schema, Format::Json)
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), SqlError> {
        batch.columns().iter().try_for_each(require_texts)?;
        Ok(self.out.write(batch)?)
    }

    fn finish(&mut self) -> Result<(), SqlError> {
        self.out.finish()?;
        // Arrow's writer does not flush the underlying writer.
        Ok(self.out.get_mut().flush()?)
    }
}
