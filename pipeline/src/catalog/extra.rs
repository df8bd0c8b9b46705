//! FMA's further files as tables: `features.csv` (950 MB of numbers), `echonest.csv`, the raw API dumps.
//!
//! They are streamed, never held whole: a run copies them to Parquet, a dry run does not touch them.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use wavemill_schemas::reject::Reject;

use super::CatalogError;
use super::csv_text::{Header, TextReader};
use super::engine::Engine;
use super::load::without_line;
use super::types::{Kind, Typer};
use crate::source::metadata::Files;

/// One table, batch by batch, in the file's order.
pub struct ExtraTable {
    name: String,
    reader: TextReader<Box<dyn Read + Send>>,
    typer: Typer,
    rejects: Vec<Reject>,
}

/// The further tables of `metadata` (a folder or zip), by name: `fma_features`, `echonest`, `raw_albums`, ….
///
/// # Errors
/// `Source` when a file cannot be opened, `Header` and `DuplicateColumn` when its header is not FMA's.
pub fn extra_tables(metadata: &Path) -> Result<Vec<ExtraTable>, CatalogError> {
    // No query runs here: the engine compiles the columns' types.
    let engine = Engine::new(0)?;
    let files = Files::open(metadata)?;
    let named = files.names().filter_map(|file| Some((table_name(file)?, file)));
    named.map(|(name, file)| ExtraTable::open(&engine, name, file, files.read(file)?)).collect()
}

/// Table of a file; `None` for one that is no further table.
fn table_name(file: &str) -> Option<String> {
    match file {
        "features.csv" => Some("fma_features".to_owned()),
        "echonest.csv" => Some("echonest".to_owned()),
        _ => file.strip_suffix(".csv").filter(|stem| stem.starts_with("raw_")).map(str::to_owned),
    }
}

impl ExtraTable {
    fn open(engine: &Engine, name: String, file: &str, input: Box<dyn Read + Send>) -> Result<Self, CatalogError> {
        let header = if name.starts_with("raw_") { Header::Line } else { Header::Levels };
        let reader = TextReader::open(file, input, header)?;
        let required = (header == Header::Levels).then_some("track_id");
        let typer = Typer::new(&engine.context, file, reader.schema(), |column| kind(&name, column), required)?;
        Ok(Self { name, reader, typer, rejects: Vec::new() })
    }

    /// The table's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Columns of every batch.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        let fields = self.typer.schema().fields().iter().skip(1).cloned();
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// Records counted out so far, by line.
    #[must_use]
    pub fn rejects(&self) -> Vec<Reject> {
        let mut rejects = [self.rejects.as_slice(), &self.reader.rejects].concat();
        rejects.sort_by_key(|reject| reject.line);
        rejects
    }

    /// The whole table, for a step that names it.
    pub(super) fn read_whole(self) -> Result<RecordBatch, CatalogError> {
        let schema = self.schema();
        let batches = self.collect::<Result<Vec<_>, _>>()?;
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
fn kind(table: &str, column: &str) -> Kind {
    let echonest_text = column.contains("_metadata_") && !column.ends_with("itude");
    match (table, column) {
        ("fma_features" | "echonest", "track_id") => Kind::Int,
        ("fma_features", _) => Kind::Float32,
        ("echonest", _) if !echonest_text => Kind::Float,
        _ => Kind::Text,
    }
}
