//! A script that makes a DuckLake. DuckDB itself writes the metadata, in the format of its own version of DuckLake.
//!
//! A DuckLake owns the files that it is given, and deletes them when no snapshot needs them. It is therefore given hard
//! links, which take no space: the store's own names of the files stay.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::super::error::ExportError;
use super::super::output::write_new;
use super::{CatalogJob, Table};
use crate::quote::{identifier, literal};

/// Writes `ducklake.sql`, and links to the store's files below `data`.
///
/// # Errors
/// [`ExportError::unfit`] for a store in an object store, and [`ExportError::Io`] if a file cannot be written or
/// linked.
pub(super) fn write(
    job: &CatalogJob<'_>,
    tables: &[Table<'_>],
    folder: &Path,
) -> Result<Vec<String>, ExportError> {
    if job.store.remote().is_some() {
        let problem = "a DuckLake could delete the objects of the store; use --format iceberg";
        return Err(ExportError::unfit("ducklake", problem));
    }

    let out = job.out.to_string_lossy();
    if out.contains(['*', '?', '[', '=']) {
        let problem = format!(
            "DuckDB takes `*`, `?`, `[` and `=` in {out} for patterns: choose another --out"
        );
        return Err(ExportError::unfit("ducklake", problem));
    }

    let data = job.out.join("data");
    let mut script = format!(
        "-- Version {} of a wavemill store. Run this script once: duckdb < ducklake.sql\nINSTALL ducklake;\nLOAD ducklake;\nATTACH {} AS wavemill (DATA_PATH {});\nBEGIN;\n",
        job.version,
        literal(&format!(
            "ducklake:{}",
            job.out.join("wavemill.ducklake").display()
        )),
        literal(&data.display().to_string()),
    );
    for table in tables {
        let name = literal(&table.name);
        for (i, file) in table.files.iter().enumerate() {
            link(job, folder, &file.path)?;
            let path = literal(&data.join(&file.path).display().to_string());
            // The names of splits are text, also if they look like numbers or dates.
            let (split, as_text) = match file.feature {
                Some(_) => (
                    ", hive_partitioning => true",
                    ", hive_types_autocast => false",
                ),
                None => ("", ""),
            };
            if i == 0 {
                let table = identifier(&table.name);
                let _ = writeln!(
                    script,
                    "CREATE TABLE wavemill.{table} AS FROM read_parquet({path}{split}{as_text}) LIMIT 0;"
                );
            }
            let _ = writeln!(
                script,
                "CALL ducklake_add_data_files('wavemill', {name}, {path}{split});"
            );
        }
    }
    script += "COMMIT;\n";

    fs::create_dir_all(folder).map_err(ExportError::io_at(folder, "create the folder"))?;
    write_new(&folder.join("ducklake.sql"), script.as_bytes())?;
    Ok(Vec::new())
}

fn link(job: &CatalogJob<'_>, folder: &Path, path: &str) -> Result<(), ExportError> {
    let link = folder.join("data").join(path);
    let parent = link.parent().unwrap_or(folder);
    fs::create_dir_all(parent).map_err(ExportError::io_at(parent, "create the folder"))?;
    let file = job.store.locate(path)?;
    // A deduplication tool may have replaced the file by a symbolic link.
    let file = fs::canonicalize(&file).map_err(ExportError::io_at(&file, "find"))?;
    fs::hard_link(file, &link).map_err(ExportError::io_at(
        &link,
        "link the store's file here (--out must be on the file system of the store)",
    ))
}
