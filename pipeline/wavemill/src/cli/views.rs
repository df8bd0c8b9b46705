//! Views over the files of a version, for engines that read Parquet.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use clap::ValueEnum;
use wavemill_schemas::manifest::{FileEntry, Manifest, TargetEntry};
use wavemill_schemas::text::shown;
use wavemill_terminal::exit::UsageError;

use crate::quote::{identifier, literal};

/// Prefix of the tables whose views are in the schema `raw`.
const RAW_PREFIX: &str = "raw_";

/// Engines for which views can be printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Engine {
    // A doc comment here would lengthen the help of all options.
    Duckdb,
}

/// Returns the statements that create a view for each table of a version, named as in `wavemill sql`. `place` is the path
/// or the address of the store.
///
/// # Errors
/// [`UsageError`] if the path cannot be written in DuckDB's SQL.
pub(super) fn duckdb(
    place: &Path,
    version: u64,
    manifest: &Manifest,
) -> Result<String, UsageError> {
    let is_odd = |c: char| matches!(c, '*' | '?' | '[' | '=') || c.is_control();
    if place.to_str().is_none_or(|place| place.contains(is_odd)) {
        return Err(UsageError(format!(
            "--views: DuckDB takes `*`, `?`, `[` and `=` in {} for patterns and columns: choose a folder without them",
            shown(&place.to_string_lossy())
        )));
    }

    let mut tables: BTreeMap<String, Vec<&FileEntry>> = BTreeMap::new();
    for file in &manifest.files {
        tables.entry(file.table_name()).or_default().push(file);
    }

    let mut script = format!("-- Version {version} of {}\n", place.display());
    if tables.keys().any(|name| name.starts_with(RAW_PREFIX)) {
        script += "CREATE SCHEMA IF NOT EXISTS raw;\n";
    }
    for (name, files) in tables {
        let view = match name.strip_prefix(RAW_PREFIX) {
            Some(raw) => format!("raw.{}", identifier(raw)),
            None => identifier(&name),
        };
        let paths: Vec<String> = files
            .iter()
            .map(|file| literal(&place.join(&file.path).to_string_lossy()))
            .collect();
        // The folder of a feature's file names the split.
        let is_feature = files.iter().any(|file| file.feature.is_some());
        let (columns, options) = match is_feature {
            true => (
                class_columns(&manifest.targets),
                ", hive_partitioning = true, hive_types_autocast = false",
            ),
            false => (String::new(), ""),
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            script,
            "CREATE OR REPLACE VIEW {view} AS SELECT *{columns} FROM read_parquet([{}]{options});",
            paths.join(", ")
        );
    }
    Ok(script)
}

/// Returns the columns with the names of the classes, as in `wavemill sql`.
fn class_columns(targets: &[TargetEntry]) -> String {
    let mut columns = String::new();
    for target in targets {
        let classes: Vec<String> = target.classes.iter().map(|class| literal(class)).collect();
        let (id, name) = (identifier(&target.name), identifier(&target.name_column()));
        columns += &format!(", [{}][{id} + 1] AS {name}", classes.join(", "));
    }
    columns
}
