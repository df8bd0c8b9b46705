//! Read-only tables over the user's own files, for one session.

use std::fmt::{Display, Write};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::csv::reader::Format;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::arrow::error::ArrowError;
use datafusion::common::DataFusionError;
use datafusion::prelude::{CsvReadOptions, JsonReadOptions, ParquetReadOptions, SessionContext};
use parquet::file::reader::{ChunkReader, Length};
use wavemill_runtime::parquet_footer;

use super::SqlError;

/// Number of rows of a text file from which the column types are inferred.
const TYPED_ROWS: usize = 100_000;

/// Extensions of the files that can be tables.
const EXTENSIONS: [&str; 6] = ["csv", "tsv", "parquet", "json", "jsonl", "ndjson"];

/// Registers `file` as table `name`. The file extension determines the format: CSV, TSV, Parquet, or JSON with one
/// object per line. `file` may be a pattern such as `scores/*.parquet`, for all files of one format that match it.
///
/// # Errors
/// [`SqlError::Usage`] if the name is invalid or taken, or if the file is missing, has an unknown extension, or
/// cannot be read.
pub(super) fn add(ctx: &SessionContext, name: &str, file: &Path) -> Result<(), SqlError> {
    // DataFusion registers asynchronously. One thread is enough, because no query is running yet.
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        let path = check(ctx, name, file)?;
        let files = matches(&path).map_err(|detail| refusal(name, file, &detail))?;
        register(ctx, name, &files)
            .await
            .map_err(|error| refusal(name, file, &error))
    })
}

/// Returns a name for the table of a file, if the file's extension is that of a table.
pub(super) fn name_for(file: &str) -> Option<String> {
    let extension = Path::new(file).extension()?.to_str()?.to_lowercase();
    if !EXTENSIONS.contains(&&*extension) {
        return None;
    }
    let stem = Path::new(file).file_stem()?.to_str()?.to_lowercase();
    let name = stem.replace(
        |c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit(),
        "_",
    );
    Some(if is_name(&name) {
        name
    } else {
        format!("_{name}")
    })
}

/// Reports whether a path is a pattern for several files. A file with such a name is not a pattern.
fn is_pattern(path: &Path) -> bool {
    path.to_string_lossy().contains(['*', '?', '[']) && !path.exists()
}

/// Returns the files that match a path.
fn matches(path: &Path) -> Result<Vec<PathBuf>, String> {
    if !is_pattern(path) {
        return Ok(vec![path.to_owned()]);
    }
    let found = glob::glob(&path.to_string_lossy()).map_err(|error| error.to_string())?;
    let mut files = Vec::new();
    for file in found {
        let file = file.map_err(|error| error.to_string())?;
        if file.is_file() {
            files.push(file);
        }
    }
    match files.is_empty() {
        true => Err("no file matches this".to_owned()),
        false => Ok(files),
    }
}

/// Refuses text files whose first lines differ, because their columns are read by position.
fn require_equal_headers(files: &[PathBuf]) -> Result<(), String> {
    let header = |file: &PathBuf| {
        let mut line = Vec::new();
        let read =
            File::open(file).and_then(|file| BufReader::new(file).read_until(b'\n', &mut line));
        read.map_err(|error| format!("{}: {error}", file.display()))?;
        Ok::<_, String>(line.trim_ascii_end().to_owned())
    };

    let Some((first, others)) = files.split_first() else {
        return Ok(());
    };
    let columns = header(first)?;
    for file in others {
        if header(file)? != columns {
            let (first, file) = (first.display(), file.display());
            return Err(format!("the columns of {file} are not those of {first}"));
        }
    }
    Ok(())
}

/// Refuses Parquet files whose footers could end the process while DataFusion reads them.
fn require_footers(files: &[PathBuf]) -> Result<(), String> {
    for path in files {
        let refused = |error: &dyn Display| format!("{}: {error}", path.display());
        let file = File::open(path).map_err(|error| refused(&error))?;
        parquet_footer::check(file.len(), |start, n| file.get_bytes(start, n).ok())
            .map_err(|error| refused(&error))?;
    }
    Ok(())
}

/// Returns the absolute path of `file` if it can be a table and `name` is a valid new name.
fn check(ctx: &SessionContext, name: &str, file: &Path) -> Result<PathBuf, SqlError> {
    if !is_name(name) {
        return Err(refusal(
            name,
            file,
            "the name must consist of lower-case letters, digits and _, and not start with a digit",
        ));
    }
    if ctx.table_exist(name)? {
        return Err(refusal(
            name,
            file,
            "there is a table of this name: choose another one",
        ));
    }

    // A file URL needs an absolute path.
    let path =
        std::path::absolute(file).map_err(|error| refusal(name, file, &error.to_string()))?;
    // Each file of a pattern is a file.
    if is_pattern(&path) {
        return Ok(path);
    }
    let metadata = std::fs::metadata(&path)
        .map_err(|error| refusal(name, file, &format!("cannot open it: {error}")))?;
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
    SqlError::Usage(format!("--table {name}={}: {detail}", file.display()))
}

/// Returns an error's message without advice about the store, because the user's file does not belong to the store.
fn detail_of(error: DataFusionError) -> String {
    match SqlError::from(error) {
        SqlError::Unreadable(detail) | SqlError::Failed(detail) => detail,
        other => other.to_string(),
    }
}

/// Registers files of one format as a table, which nothing can be inserted into.
async fn register(ctx: &SessionContext, name: &str, files: &[PathBuf]) -> Result<(), String> {
    let extension = files[0].extension().unwrap_or_default();
    if files.iter().any(|file| file.extension() != Some(extension)) {
        return Err("the files have several extensions".to_owned());
    }
    // DataFusion skips files without the expected extension, and it expects `.csv` for TSV files as well.
    let end = format!(".{}", extension.to_string_lossy());
    let urls: Vec<String> = files.iter().map(|file| file_url(file)).collect();

    let kind = extension.to_string_lossy().to_lowercase();
    let rows = match kind.as_str() {
        "csv" | "tsv" => {
            require_equal_headers(files)?;
            let delimiter = if kind == "tsv" { b'\t' } else { b',' };
            let schema = csv_schema(files, delimiter)
                .map_err(|error| detail_of(DataFusionError::from(error)))?;
            let options = CsvReadOptions::new()
                .delimiter(delimiter)
                .file_extension(&end)
                .schema(&schema)
                // Otherwise DataFusion divides large files at any line end, also within a value.
                .newlines_in_values(true);
            ctx.read_csv(urls, options).await
        }
        "parquet" => {
            require_footers(files)?;
            let options = ParquetReadOptions::default().file_extension(&end);
            ctx.read_parquet(urls, options).await
        }
        "json" | "jsonl" | "ndjson" => {
            let options = JsonReadOptions::default()
                .file_extension(&end)
                .schema_infer_max_records(TYPED_ROWS);
            ctx.read_json(urls, options).await
        }
        _ => {
            let supported = EXTENSIONS.join(", .");
            return Err(format!(
                "unknown file extension, supported are .{supported}"
            ));
        }
    };
    let view = rows.map_err(detail_of)?.into_view();
    ctx.register_table(name, view).map_err(detail_of)?;
    Ok(())
}

/// Returns the columns of CSV files, with types that fit the first [`TYPED_ROWS`] rows of each. DataFusion itself reads
/// parts of a file that may end within a value.
fn csv_schema(files: &[PathBuf], delimiter: u8) -> Result<Schema, ArrowError> {
    let format = Format::default()
        .with_header(true)
        .with_delimiter(delimiter);

    let mut columns: Vec<FieldRef> = Vec::new();
    for file in files {
        let (schema, _) = format.infer_schema(File::open(file)?, Some(TYPED_ROWS))?;
        // The files have equal headers.
        for (index, field) in schema.fields().iter().enumerate() {
            match columns.get_mut(index) {
                Some(column) => {
                    let common = common_type(column.data_type(), field.data_type());
                    *column = Arc::new(Field::new(column.name(), common, true));
                }
                None => columns.push(Arc::clone(field)),
            }
        }
    }
    Ok(Schema::new(columns))
}

/// Returns the type of a column that has one of these types in a file, and the other one in another file. Values of
/// different kinds are texts.
fn common_type(one: &DataType, other: &DataType) -> DataType {
    match (one, other) {
        (DataType::Null, _) => other.clone(),
        (_, DataType::Null) => one.clone(),
        _ if one == other => one.clone(),
        (DataType::Int64, DataType::Float64) | (DataType::Float64, DataType::Int64) => {
            DataType::Float64
        }
        _ => DataType::Utf8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_several_csv_files_have_a_type_for_all() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["id,score,name,x\n1,0.5,7,\n", "id,score,name,x\n2,1,b,3\n"];
        let files: Vec<PathBuf> = (0..)
            .zip(files)
            .map(|(n, text)| {
                let path = folder.path().join(format!("{n}.csv"));
                std::fs::write(&path, text).unwrap();
                path
            })
            .collect();

        let schema = csv_schema(&files, b',').unwrap();
        let types: Vec<_> = schema
            .fields()
            .iter()
            .map(|field| field.data_type())
            .collect();
        let want = [
            DataType::Int64,
            DataType::Float64,
            DataType::Utf8,
            DataType::Int64,
        ];
        assert_eq!(types, want.iter().collect::<Vec<_>>());
    }

    #[test]
    fn parquet_footer_that_ends_the_process_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.parquet");
        // A schema of a root and a column, and 2³¹ - 1 row groups.
        let footer = b"\x15\x04\x19\x2c\x48\x01r\x15\x02\x00\x15\x02\x25\x00\x18\x01c\x00\
            \x16\x00\x19\xfc\xff\xff\xff\xff\x07";
        let bytes = (footer.len() as u32).to_le_bytes();
        std::fs::write(&path, [b"PAR1", &footer[..], &bytes, b"PAR1"].concat()).unwrap();

        let error = add(&SessionContext::new(), "t", &path).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("--table t=") && text.contains("its footer is not"),
            "{text}"
        );
    }
}
