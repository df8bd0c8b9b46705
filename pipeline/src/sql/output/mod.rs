//! Where results go: tables for people, CSV and JSON lines for scripts, Arrow and Parquet for programs.
//!
//! A sink gets one batch at a time and keeps none: the memory of a result does not grow with its rows.

mod binary;
mod table;
mod tensors;
mod text;

use std::fmt;
use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::SqlError;

/// How results are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns for a person; long values are cut.
    #[default]
    Table,
    /// CSV with a header; lists as JSON.
    Csv,
    /// One JSON object a line.
    Json,
    /// An Arrow IPC stream; tensors are `arrow.fixed_shape_tensor`.
    Arrow,
    /// A Parquet file; tensors as in the store.
    Parquet,
}

impl Format {
    /// True where the result is no text, and so nothing for a terminal.
    pub const fn is_binary(self) -> bool {
        matches!(self, Self::Arrow | Self::Parquet)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Table => "table",
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Arrow => "arrow",
            Self::Parquet => "parquet",
        })
    }
}

/// Takes results: `begin`, batches, `finish`; again for each statement.
pub(crate) trait Sink {
    /// A result with these columns starts.
    ///
    /// # Errors
    /// Columns that the format cannot show, or a failing writer.
    fn begin(&mut self, schema: &SchemaRef) -> Result<(), SqlError>;

    /// Its next rows.
    ///
    /// # Errors
    /// A failing writer.
    fn write(&mut self, batch: &RecordBatch) -> Result<(), SqlError>;

    /// From now on a line a value, or a line a row; for tables alone.
    fn expand(&mut self, _expanded: bool) {}

    /// It is complete.
    ///
    /// # Errors
    /// A failing writer.
    fn finish(&mut self) -> Result<(), SqlError>;
}

/// A sink that writes `format` to `out`.
pub(crate) fn sink<'a, W: Write + Send + 'a>(format: Format, out: W) -> Box<dyn Sink + 'a> {
    match format {
        Format::Table => Box::new(table::TableSink::new(out)),
        Format::Csv => Box::new(text::CsvSink::new(out)),
        Format::Json => Box::new(text::JsonSink::new(out)),
        Format::Arrow => Box::new(binary::ArrowSink::new(out)),
        Format::Parquet => Box::new(binary::ParquetSink::new(out)),
    }
}
