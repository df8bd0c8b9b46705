//! Read-only tables over the user's own files, for one session.

use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use datafusion::common::DataFusionError;
use datafusion::datasource::listing::ListingTable;
use datafusion::prelude::{CsvReadOptions, JsonReadOptions, ParquetReadOptions, SessionContext};

use super::SqlError;

/// Number of rows of a text file from which the column types are inferred.
const TYPED_ROWS: usize = 100_000;

/// Registers `file` as table `name`. The file extension determines the format: CSV, TSV, Parquet, or JSON with one
/// object per line. `file` may be a pattern such as `scores/*.parquet`, for all files of one format that match it.
///
/// # Errors
/// [`SqlError::OwnTable`] if the name is invalid or taken, or if the file is missing, has an unknown extension, or
/// cannot be read.
pub(super) fn add(ctx: &SessionContext, name: &str, file: &Path) -> Result<(), SqlError> {
    // DataFusion registers asynchronously. One thread is enough, because no query is running yet.
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        let path = check(ctx, name, file).await?;
        register(ctx, name, &path)
            .await
            .map_err(|error| match error {
                Some(error) => refusal(name, file, &detail_of(error)),
                None => refusal(
                    name,
                    file,
                    "unknown file extension, supported are .csv, .tsv, .parquet, .json, .jsonl or .ndjson",
                ),
            })?;
        if ctx.table(name).await?.schema().fields().is_empty() {
            ctx.deregister_table(name)?;
            return Err(refusal(name, file, "no file with columns matches this"));
        }
        Ok(())
    })
}

/// Reports whether a path is a pattern for several files. A file with such a name is not a pattern.
fn is_pattern(path: &Path) -> bool {
    path.to_string_lossy().contains(['*', '?', '[']) && !path.exists()
}

/// Returns the absolute path of `file` if it can be a table and `name` is a valid new name.
async fn check(ctx: &SessionContext, name: &str, file: &Path) -> Result<PathBuf, SqlError> {
    if !is_name(name) {
        return Err(refusal(
            name,
            file,
            "the name must consist of lower-case letters, digits and _, and not start with a digit",
        ));
    }
    if ctx.table_exist(name)? {
        // Only the user's tables are of type `ListingTable`. A table that cannot be opened belongs to the store.
        let found = ctx.table_provider(name).await;
        let is_own = found.is_ok_and(|table| table.is::<ListingTable>());
        let detail = if is_own {
            "another --table has this name"
        } else {
            "the store has a table of this name"
        };
        return Err(refusal(name, file, detail));
    }

    // A file URL needs an absolute path.
    let path =
        std::path::absolute(file).map_err(|error| refusal(name, file, &error.to_string()))?;
    if is_pattern(&path) {
        return Ok(path);
    }
    let metadata =
        std::fs::metadata(&path).map_err(|error| refusal(name, file, &error.to_string()))?;
    // A table over a folder could be written to, and a pipe cannot be read more than once.
    if !metadata.is_file() {
        return Err(refusal(name, file, "this is not a file"));
    }
    Ok(path)
}

/// Reports whether SQL accepts `name` as a table name without quotes.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Returns the URL of an absolute path. DataFusion interprets `[`, `*` and `?` in a path as a glob pattern, but not in
/// a URL.
fn file_url(path: &Path) -> String {
    let mut url = "file://".to_owned();
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(&byte) {
            url.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(url, "%{byte:02X}");
        }
    }
    url
}

fn refusal(name: &str, file: &Path, detail: &str) -> SqlError {
    SqlError::OwnTable {
        name: name.to_owned(),
        file: file.to_owned(),
        detail: detail.to_owned(),
    }
}

/// Returns an error's message without advice about the store, because the user's file does not belong to the store.
fn detail_of(error: DataFusionError) -> String {
    match SqlError::from(error) {
        SqlError::Unreadable { detail } | SqlError::Failed { detail } => detail,
        other => other.to_string(),
    }
}

/// Registers the file at `path` as a table. The error is `None` if the file extension is unknown.
async fn register(
    ctx: &SessionContext,
    name: &str,
    path: &Path,
) -> Result<(), Option<DataFusionError>> {
    let extension = path
        .extension()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    // DataFusion skips files without the expected extension, and it expects `.csv` for TSV files as well.
    let end = format!(".{extension}");
    // DataFusion interprets patterns in paths, but not in URLs.
    let url = match is_pattern(path) {
        true => path.to_string_lossy().into_owned(),
        false => file_url(path),
    };

    match extension.to_lowercase().as_str() {
        "csv" | "tsv" => {
            let delimiter = if extension.eq_ignore_ascii_case("tsv") {
                b'\t'
            } else {
                b','
            };
            let options = CsvReadOptions::new()
                .delimiter(delimiter)
                .file_extension(&end);
            ctx.register_csv(name, &url, options.schema_infer_max_records(TYPED_ROWS))
                .await?;
        }
        "parquet" => {
            ctx.register_parquet(
                name,
                &url,
                ParquetReadOptions::default().file_extension(&end),
            )
            .await?;
        }
        "json" | "jsonl" | "ndjson" => {
            let options = JsonReadOptions::default().file_extension(&end);
            ctx.register_json(name, &url, options.schema_infer_max_records(TYPED_ROWS))
                .await?;
        }
        _ => return Err(None),
    }
    Ok(())
}
