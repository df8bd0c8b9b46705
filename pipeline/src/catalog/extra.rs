//! FMA's further files as tables: `features.csv` (950 MB of numbers), `echonest.csv`, the raw API dumps.
//!
//! They are streamed, never held whole: a run copies them to Parquet, a dry run does not touch them.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use wavemill_schemas::reject::Reject;

use super::CatalogError;
use super::csv_text::{Header, TextReader};
use super::engine::Engine;
use super::load::{stop_here, without_line};
use super::types::{ColumnKind, Typer};
use crate::course::Course;
use crate::source::SourceError;
use crate::source::metadata::Files;

/// One table, batch by batch, in the file's order.
pub struct ExtraTable {
    name: String,
    reader: TextReader<Box<dyn Read + Send>>,
    typer: Typer,
    rejects: Vec<Reject>,
}

/// The further tables of `metadata` (a folder or zip), by name: `fma_features`, `echonest`, `raw_albums`, …, less those
/// that cannot be opened, of which [`clean`](super::clean) warns.
///
/// # Errors
/// `Source` and `Csv` when the machine fails to read a file.
pub fn extra_tables(metadata: &Path) -> Result<Vec<ExtraTable>, CatalogError> {
    Ok(open_all(metadata)?
        .into_iter()
        .filter_map(|(_, table)| table.ok())
        .collect())
}

/// Name and table of every further file, or why there is none: a header at fault is the file's own matter.
pub(super) fn open_all(metadata: &Path) -> Result<Vec<NamedTable>, CatalogError> {
    // No query runs here: the engine compiles the columns' types.
    let engine = Engine::new(0, Arc::default())?;
    let files = Files::open(metadata)?;
    let mut tables = Vec::new();

    for file in files.names() {
        let Some(name) = table_name(file) else {
            continue;
        };
        tables.push(match ExtraTable::open(&engine, &name, file, &files) {
            Err(error) if !is_own_fault(&error) => return Err(error),
            table => (name, table),
        });
    }
    Ok(tables)
}

/// A further file's table by its name.
pub(super) type NamedTable = (String, Result<ExtraTable, CatalogError>);

/// Whether the file is at fault, the same today and tomorrow, and not the disk.
fn is_own_fault(error: &CatalogError) -> bool {
    match error {
        CatalogError::Header { .. }
        | CatalogError::HeaderEncoding { .. }
        | CatalogError::DuplicateColumn { .. } => true,
        CatalogError::TooManyColumns { .. } | CatalogError::LongHeader { .. } => true,
        CatalogError::Source(SourceError::Open { source, .. }) => {
            source.kind() == io::ErrorKind::Unsupported
        }
        CatalogError::Source(
            SourceError::EncryptedFile { .. } | SourceError::Duplicates { .. },
        ) => true,
        _ => false,
    }
}

/// Table of a file; `None` for one that is no further table. It names a file of the store, and so has no folder in it:
/// an archive may call its entries anything.
pub(super) fn table_name(file: &str) -> Option<String> {
    match file {
        "features.csv" => Some("fma_features".to_owned()),
        "echonest.csv" => Some("echonest".to_owned()),
        _ => {
            let stem = file
                .strip_suffix(".csv")
                .filter(|stem| stem.starts_with("raw_"));
            stem.filter(|stem| stem.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
                .map(str::to_owned)
        }
    }
}

impl ExtraTable {
    fn open(engine: &Engine, name: &str, file: &str, files: &Files) -> Result<Self, CatalogError> {
        // FMA's dumps have one header line, but for `raw_echonest.csv`.
        let is_raw = name.starts_with("raw_");
        let header = if is_raw {
            Header::of(file, files.read(file)?)?
        } else {
            Header::Levels
        };
        // Opened once more: a look at the header has read from the first reader.
        let reader = TextReader::open(file, files.read(file)?, header)?;

        let required = (!is_raw).then_some("track_id");
        let typer = Typer::new(
            &engine.context,
            file,
            reader.form().schema(),
            |column| kind(name, column),
            required,
        )?;

        Ok(Self {
            name: name.to_owned(),
            reader,
            typer,
            rejects: Vec::new(),
        })
    }

    /// The table's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Columns of every batch.
    pub fn schema(&self) -> SchemaRef {
        // Without the line, which is first.
        let fields = self.typer.schema().fields().iter().skip(1).cloned();
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// Records counted out so far, by line.
    pub fn rejects(&self) -> Vec<Reject> {
        // Those of typing, and those of parsing.
        let mut rejects = [self.rejects.as_slice(), &self.reader.counted.rejects].concat();
        rejects.sort_by_key(|reject| reject.line);
        rejects
    }

    /// The whole table, for a step that names it.
    pub(super) fn read_whole(self, course: &Course) -> Result<RecordBatch, CatalogError> {
        let schema = self.schema();
        let mut batches = Vec::new();
        for batch in self {
            batches.push(batch?);
            stop_here(course)?;
        }
        Ok(concat_batches(&schema, &batches)?)
    }
}

impl Iterator for ExtraTable {
    type Item = Result<RecordBatch, CatalogError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.reader.next_batch().transpose()?;
        Some(batch.and_then(|text| without_line(&self.typer.typed(&text, &mut self.rejects)?)))
    }
}

/// Raw dumps stay text, as published: their numbers and dates come in several forms.
fn kind(table: &str, column: &str) -> ColumnKind {
    // Latitude and longitude are the only numbers among the metadata.
    let echonest_text = column.contains("_metadata_") && !column.ends_with("itude");
    match (table, column) {
        ("fma_features" | "echonest", "track_id") => ColumnKind::Int,
        ("fma_features", _) => ColumnKind::Float32,
        ("echonest", _) if !echonest_text => ColumnKind::Float,
        _ => ColumnKind::Text,
    }
}
