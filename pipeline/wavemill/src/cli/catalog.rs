//! `wavemill catalog`: table metadata with which other engines read a version of a store.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use wavemill_schemas::text::counted;
use wavemill_terminal::exit::UsageError;
use wavemill_terminal::interrupt::PartialFile;

use super::export::NewFolder;
use super::{VersionArgs, print_report};
use crate::export::catalogs::{self, CatalogFormat, CatalogJob, CatalogReport};

const EXAMPLES: &str = "\
Examples:
  wavemill catalog --store store --format iceberg --out lake
  wavemill catalog --store store --format ducklake --out lake
  duckdb < lake/ducklake.sql; duckdb ducklake:lake/wavemill.ducklake

iceberg: a folder per table with its metadata, which refers to the store's files; engines may not delete them. \
ducklake: a script that makes a DuckLake, and hard links to the store's files, because a DuckLake owns its files.

Both contain absolute paths and no data. Keep the version with `wavemill tag`, or `wavemill gc` may remove its files.";

/// Write table metadata for other engines: Apache Iceberg or DuckLake
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CatalogCommand {
    #[command(flatten)]
    read: VersionArgs,
    /// Format: iceberg or ducklake
    #[arg(long, value_enum, hide_possible_values = true)]
    format: CatalogFormat,
    /// Folder to write; it must be new or empty
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print the report as JSON on stdout
    #[arg(long)]
    json: bool,
}

impl CatalogCommand {
    /// Writes the catalogue of the version to the folder `out`.
    ///
    /// # Errors
    /// [`UsageError`] for an invalid `--out`; `StoreError` for an unreadable store; `ExportError` if it cannot be
    /// written.
    pub fn run(&self) -> Result<u8> {
        let (store, version, manifest) = self.read.open_outside(&self.out)?;

        let folder = NewFolder::at(&self.out)?;
        let _removed = PartialFile::at(&folder.part);
        let out = std::path::absolute(&folder.target)?;
        if out.to_str().is_none() || store.place().to_str().is_none() {
            let message = "a catalogue cannot contain a path that is not UTF-8: rename the folder";
            return Err(UsageError(message.to_owned()).into());
        }
        let job = CatalogJob {
            store: &store,
            version,
            manifest: &manifest,
            format: self.format,
            out: &out,
        };
        let report = catalogs::run(&job, &folder.part)
            .map_err(|error| error.about(&folder.part, &self.out))?;
        folder.finish()?;

        print_report(&report, self.json, || self.summary(&report))
    }

    fn summary(&self, report: &CatalogReport) -> String {
        let out = self.out.display();
        let tables = counted(report.tables.len(), "table");
        let mut text = format!("{tables} of version {} in {out}\n", report.version);
        for table in &report.tables {
            text += &format!(
                "  {}: {}, {}\n",
                table.name,
                counted(table.rows, "row"),
                counted(table.files, "file")
            );
        }
        for column in &report.left_out {
            text += &format!("  left out, because the format has no such type: {column}\n");
        }
        text += &match self.format {
            CatalogFormat::Iceberg => {
                format!("in DuckDB: SELECT * FROM iceberg_scan('{out}/tracks')\n")
            }
            CatalogFormat::Ducklake => format!("next: duckdb < {out}/ducklake.sql\n"),
        };
        text
    }
}
