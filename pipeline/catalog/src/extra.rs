//! FMA's further files as tables: `features.csv` (950 MB of numbers), `echonest.csv`, the raw API dumps.
//!
//! The files are streamed and never fully in memory. A run copies them to Parquet; a dry run does not read them.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use wavemill_runtime::progress::Progress;
use wavemill_schemas::recipe::CsvSpec;
use wavemill_schemas::reject::Reject;
use wavemill_source::SourceError;
use wavemill_source::metadata::Files;

use super::CatalogError;
use super::csv_text::{Header, TextReader, opened};
use super::engine::Engine;
use super::load::{refuse_rejects, stop_here, without_line};
use super::types::{ColumnKind, Typer};

/// A further table of FMA, which returns batches in the order of its file.
pub struct ExtraTable {
    name: String,
    reader: TextReader<Box<dyn Read + Send>>,
    typer: Typer,
    rejects: Vec<Reject>,
}

/// Opens the further tables of `metadata` (a folder or zip), ordered by name: `fma_features`, `echonest`, `raw_albums`,
/// and so on. Tables that cannot be opened are left out; [`clean`](super::clean) warns of them.
///
/// # Errors
/// `Source` and `Read` if the operating system fails to read a file.
pub fn extra_tables(metadata: &Path) -> Result<Vec<ExtraTable>, CatalogError> {
    Ok(open_all(metadata)?
        .into_iter()
        .filter_map(|(_, table)| table.ok())
        .collect())
}

/// Opens every further file. Returns the table of each file, or the error if the file itself is at fault (its header).
pub(super) fn open_all(metadata: &Path) -> Result<Vec<NamedTable>, CatalogError> {
    // This engine only compiles type conversions; no queries are run.
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

/// Name of a further table, and the table or the error of opening it.
pub(super) type NamedTable = (String, Result<ExtraTable, CatalogError>);

/// Reports whether the error is a permanent fault of the file, as opposed to a failure of the disk.
fn is_own_fault(error: &CatalogError) -> bool {
    match error {
        CatalogError::Header { .. } => true,
        CatalogError::Source(SourceError::Open { source, .. }) => {
            source.kind() == io::ErrorKind::Unsupported
        }
        CatalogError::Source(
            SourceError::EncryptedFile { .. } | SourceError::Duplicates { .. },
        ) => true,
        _ => false,
    }
}

/// Returns the table name of a file, or `None` if the file is not a further table. Table names become file names of the
/// store. They must not contain folders, although an archive may use any names.
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
        // FMA's raw dumps have one header line, except for `raw_echonest.csv`.
        let is_raw = name.starts_with("raw_");
        let open = |header| TextReader::open(file, opened(files, file)?, header);
        let reader = match open(Header::Levels) {
            Err(CatalogError::Header { .. }) if is_raw => open(Header::Line(CsvSpec::default()))?,
            reader => reader?,
        };

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

    /// Returns the name of the further table.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the schema of the table's batches.
    pub fn schema(&self) -> SchemaRef {
        // The schema excludes the line column, which is first.
        let fields = self.typer.schema().fields().iter().skip(1).cloned();
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// Returns the rejects of the table's records so far, ordered by line.
    pub fn rejects(&self) -> Vec<Reject> {
        // Records are rejected by the type conversion or by the parser.
        let mut rejects = [self.rejects.as_slice(), &self.reader.counted.rejects].concat();
        rejects.sort_by_key(|reject| reject.line);
        rejects
    }

    /// Checks that at most `fraction` of the rows read so far are rejected.
    ///
    /// # Errors
    /// `Header` for more rejects.
    pub fn refuse_rejects(&self, fraction: f64) -> Result<(), CatalogError> {
        let (file, rows_read) = (&self.reader.form().file, self.reader.counted.rows_read);
        refuse_rejects(file, &self.rejects(), rows_read, fraction, false)
    }

    /// Reads the whole table, for a cleaning step that names it in its SQL.
    pub(super) fn read_whole(
        mut self,
        progress: &Progress,
        reject_fraction: f64,
    ) -> Result<RecordBatch, CatalogError> {
        let schema = self.schema();
        let mut batches = Vec::new();
        for batch in self.by_ref() {
            batches.push(batch?);
            stop_here(progress)?;
        }
        self.refuse_rejects(reject_fraction)?;
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

/// Returns the type of a column. The raw dumps remain text as published, because their numbers and dates have several
/// formats.
fn kind(table: &str, column: &str) -> ColumnKind {
    // Latitude and longitude are the only numbers among the metadata columns.
    let echonest_text = column.contains("_metadata_") && !column.ends_with("itude");
    match (table, column) {
        ("fma_features" | "echonest", "track_id") => ColumnKind::Int,
        ("fma_features", _) => ColumnKind::Float32,
        ("echonest", _) if !echonest_text => ColumnKind::Float,
        _ => ColumnKind::Text,
    }
}
