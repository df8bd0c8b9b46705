//! Output formats of results: tables for people, CSV and JSON lines for scripts, Arrow and Parquet for programs.
//!
//! A sink receives one batch at a time and stores none, so memory does not grow with the number of rows.

mod binary;
mod table;
pub(crate) mod tensors;
mod text;

use std::fmt;
use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::SqlError;

/// Output format of results.
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
    /// Reports whether the format is binary and therefore unsuitable for a terminal.
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

/// Receives results. For each statement `begin`, `write` and `finish` are called in this order.
pub trait Sink {
    /// Begins a result with the columns of `schema`.
    ///
    /// # Errors
    /// If the format cannot represent a column or another result, or the output cannot be written.
    fn begin(&mut self, schema: &SchemaRef) -> Result<(), SqlError>;

    /// Writes the next rows of the result.
    ///
    /// # Errors
    /// If the output cannot be written.
    fn write(&mut self, batch: &RecordBatch) -> Result<(), SqlError>;

    /// Switches between one line per value and one line per row. Only affects tables.
    fn expand(&mut self, _expanded: bool) {}

    /// Completes the result.
    ///
    /// # Errors
    /// If the output cannot be written.
    fn finish(&mut self) -> Result<(), SqlError>;
}

/// Creates a sink that writes `format` to `out`.
pub fn sink<'a, W: Write + Send + 'a>(format: Format, out: W) -> Box<dyn Sink + 'a> {
    match format {
        Format::Table => Box::new(table::TableSink::new(out)),
        Format::Csv => Box::new(text::CsvSink::new(out)),
        Format::Json => Box::new(text::JsonSink::new(out)),
        Format::Arrow => Box::new(binary::ArrowSink::new(out)),
        Format::Parquet => Box::new(binary::ParquetSink::new(out)),
    }
}
