//! Reads columns of the parent's metadata tables.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

use arrow::array::{Array, AsArray, RecordBatch, RecordBatchReader, StringViewArray};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use wavemill_runtime::panics;
use wavemill_schemas::exit::machine_fault;
use wavemill_schemas::manifest::Manifest;
use wavemill_store::{Store, StoreError, leads_nowhere};

/// A table of the parent whose content matches the manifest.
struct ParentTable {
    path: PathBuf,
}

impl ParentTable {
    /// Compares the table's file with its blake3 hash: a wrong value read here would silently move clips.
    ///
    /// # Errors
    /// [`StoreError::Needed`] or [`StoreError::Damaged`] if the table is lost or damaged.
    fn open(store: &Store, manifest: &Manifest, name: &str) -> Result<Self, StoreError> {
        let Some(entry) = manifest.files_of(name).next() else {
            return Err(StoreError::Needed {
                path: store.data(&manifest.plan_id).join(name),
                source: general("the manifest does not list it").into(),
            });
        };

        match store.sound_file(entry)? {
            Some(path) => Ok(Self { path }),
            None => Err(unsound(store.locate(&entry.path)?)),
        }
    }

    /// Reads all rows of the table, with those of the columns `names` that the table has.
    fn read(&self, names: &[&str]) -> Result<RecordBatch, ParquetError> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&self.path)?)?;
        let mask = ProjectionMask::columns(reader.parquet_schema(), names.iter().copied());
        let reader = reader.with_projection(mask).build()?;

        let schema = reader.schema();
        let batches: Vec<RecordBatch> = reader.collect::<Result<_, _>>()?;
        Ok(concat_batches(&schema, &batches)?)
    }

    /// Returns the error for a fault of this table that `source` describes.
    fn needed(&self, source: ParquetError) -> StoreError {
        if let Some(error) = machine_fault(&source) {
            return StoreError::io_at(&self.path, "read")(error);
        }
        StoreError::Needed {
            path: self.path.clone(),
            source: source.into(),
        }
    }
}

/// Returns the error for an unsound file: the system refuses to open the file, or the file's content differs.
fn unsound(path: PathBuf) -> StoreError {
    match File::open(&path) {
        Err(error) if !leads_nowhere(&error) => StoreError::io_at(&path, "open")(error),
        _ => StoreError::Needed {
            path,
            source: general("its content differs from the committed one").into(),
        },
    }
}

/// Reads columns of a version's table and converts all rows with `read`.
///
/// # Errors
/// [`StoreError::Needed`] if the table cannot be read.
pub(crate) fn read_table<T>(
    store: &Store,
    manifest: &Manifest,
    name: &str,
    columns: &[&str],
    read: impl FnOnce(&RecordBatch) -> Result<T, ParquetError>,
) -> Result<T, StoreError> {
    let table = ParentTable::open(store, manifest, name)?;
    let rows = guarded(|| table.read(columns));
    rows.and_then(|rows| read(&rows))
        .map_err(|source| table.needed(source))
}

/// Reads the names of all columns of a version's table, each with its type as Arrow names it.
///
/// # Errors
/// [`StoreError::Needed`] if the table cannot be read.
pub(crate) fn column_types(
    store: &Store,
    manifest: &Manifest,
    name: &str,
) -> Result<BTreeMap<String, String>, StoreError> {
    let table = ParentTable::open(store, manifest, name)?;
    let reader = guarded(|| ParquetRecordBatchReaderBuilder::try_new(File::open(&table.path)?));
    let reader = reader.map_err(|source| table.needed(source))?;
    let fields = reader.schema().fields().iter();
    let types = fields.map(|field| (field.name().clone(), field.data_type().to_string()));
    Ok(types.collect())
}

/// Returns a column of `rows` as text, for any text type.
///
/// # Errors
/// [`ParquetError`] if there is no such column, or it does not contain text.
pub fn text(rows: &RecordBatch, name: &str) -> Result<StringViewArray, ParquetError> {
    let Some(column) = rows.column_by_name(name) else {
        return Err(general(&format!("it has no column {name}")));
    };
    let text = cast(column, &DataType::Utf8View)?;
    Ok(text.as_string_view().clone())
}

/// Returns the text in a row of a column; empty for null.
pub(super) fn text_at(column: &StringViewArray, row: usize) -> &str {
    if column.is_null(row) {
        return "";
    }
    column.value(row)
}

/// Runs a Parquet reader and converts a panic to an error: some readers rely on numbers in a footer without checking
/// them.
pub(super) fn guarded<T>(
    read: impl FnOnce() -> Result<T, ParquetError>,
) -> Result<T, ParquetError> {
    panics::caught(read)
        .unwrap_or_else(|panic| Err(general(&format!("its reader panicked: {}", panic.message))))
}

pub(super) fn general(problem: &str) -> ParquetError {
    ParquetError::General(problem.to_owned())
}
