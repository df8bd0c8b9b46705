//! Catalogues of one version for other engines: table metadata that refers to the store's files, without copies of them.
//!
//! Files of features have no column with their split, which is part of their path (`split=training`). pyarrow, pandas
//! and DataFusion could not read such files if they also had a column `split`. Catalogues state it as the value of a
//! partition instead, and every engine then shows a column.

mod ducklake;
mod iceberg;

use std::path::Path;

use arrow::datatypes::SchemaRef;
use clap::ValueEnum;
use serde::Serialize;
use wavemill_schemas::manifest::{FileEntry, Manifest};
use wavemill_sql::{self as sql, Limits, SqlError};
use wavemill_store::Store;

use super::error::ExportError;

/// Format of a catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CatalogFormat {
    /// One Apache Iceberg table (format version 2) per table of the store
    Iceberg,
    /// A script with which DuckDB creates a DuckLake
    Ducklake,
}

/// A version, and the catalogue to be written for it.
#[derive(Debug)]
pub(crate) struct CatalogJob<'a> {
    /// The store that contains the version.
    pub store: &'a Store,
    /// Number of the version.
    pub version: u64,
    /// Manifest of the version.
    pub manifest: &'a Manifest,
    /// Format of the catalogue.
    pub format: CatalogFormat,
    /// Absolute path that the catalogue's folder will have. Catalogues contain absolute paths.
    pub out: &'a Path,
}

/// The report of a catalogue.
#[derive(Debug, Serialize)]
pub(crate) struct CatalogReport {
    /// Number of the version.
    pub version: u64,
    /// The tables of the catalogue, in the manifest's order.
    pub tables: Vec<TableReport>,
    /// Columns that are not in the catalogue, because its format has no type for them: `table.column: type`.
    pub left_out: Vec<String>,
}

/// A table in a [`CatalogReport`].
#[derive(Debug, Serialize)]
pub(crate) struct TableReport {
    /// Name of the table in the catalogue.
    pub name: String,
    /// Number of its files in the store.
    pub files: usize,
    /// Number of its rows.
    pub rows: u64,
}

/// A table of the version.
struct Table<'a> {
    name: String,
    /// Columns, with `split` after those of the files if the files have a split.
    schema: SchemaRef,
    files: Vec<&'a FileEntry>,
}

/// Writes a catalogue into `folder`, which must not exist yet and is later moved to `job.out`.
///
/// # Errors
/// [`ExportError`] if a file of the store cannot be read, or a file of the catalogue cannot be written.
pub(crate) fn run(job: &CatalogJob<'_>, folder: &Path) -> Result<CatalogReport, ExportError> {
    let tables = tables(job.store, job.manifest)?;
    let left_out = match job.format {
        CatalogFormat::Iceberg => iceberg::write(job, &tables, folder)?,
        CatalogFormat::Ducklake => ducklake::write(job, &tables, folder)?,
    };

    let tables = tables.into_iter().map(|table| TableReport {
        rows: table.files.iter().map(|file| file.rows).sum(),
        files: table.files.len(),
        name: table.name,
    });
    Ok(CatalogReport {
        version: job.version,
        tables: tables.collect(),
        left_out,
    })
}

fn tables<'a>(store: &Store, manifest: &'a Manifest) -> Result<Vec<Table<'a>>, SqlError> {
    let limits = Limits {
        memory_bytes: 1 << 30,
        threads: 1,
        allow_write: false,
    };
    let session = sql::open(store, manifest, limits)?;

    let mut tables: Vec<Table> = Vec::new();
    for file in &manifest.files {
        let name = file.table_name();
        if let Some(table) = tables.iter_mut().find(|table| table.name == name) {
            table.files.push(file);
            continue;
        }
        let in_sql = match name.strip_prefix("raw_") {
            Some(rest) => format!("raw.{rest}"),
            None => name.clone(),
        };
        let schema = session.columns(&in_sql)?;
        tables.push(Table {
            name,
            schema,
            files: vec![file],
        });
    }
    Ok(tables)
}
