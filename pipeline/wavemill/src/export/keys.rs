//! Keys and classes of rows, and the CSV file that lists them.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use arrow::array::{
    Array, ArrowPrimitiveType, AsArray, Float32Array, Int32Array, Int64Array, PrimitiveArray,
    RecordBatch, StringArray,
};
use arrow::datatypes::{Float32Type, Int32Type, Int64Type};
use wavemill_schemas::columns::KEY_COLUMNS;
use wavemill_schemas::manifest::TargetEntry;

use super::content::Content;
use super::error::ExportError;
use super::{Format, names};

/// Returns the names of the columns that identify a row.
pub(super) fn key_names() -> impl Iterator<Item = String> {
    KEY_COLUMNS.iter().map(|column| column.name.to_owned())
}

/// Returns the names of the columns of [`Keys`].
pub(super) fn key_columns(content: &Content<'_>) -> Vec<String> {
    let targets = content.targets.iter().map(|target| target.name.clone());
    key_names().chain(targets).collect()
}

/// Returns the names of the keys, and of the class and its id for each target.
pub(super) fn heading(content: &Content<'_>) -> Vec<String> {
    let mut names: Vec<String> = key_names().collect();
    for target in content.targets {
        names.push(target.name.clone());
        names.push(format!("{}_id", target.name));
    }
    names
}

/// Values of the key columns and class ids, for the rows of a batch.
pub(super) struct Keys<'b> {
    pub clip_key: &'b StringArray,
    pub track_id: &'b Int64Array,
    pub segment: &'b Int32Array,
    pub offset_s: &'b Float32Array,
    pub variant: &'b Float32Array,
    pub targets: Vec<Classes<'b>>,
}

impl<'b> Keys<'b> {
    /// Reads the keys and classes of a batch that contains [`key_columns`].
    ///
    /// # Errors
    /// [`ExportError::rows`] if a column is missing or has another type.
    pub(super) fn from_batch(
        batch: &'b RecordBatch,
        content: &'b Content<'_>,
    ) -> Result<Self, ExportError> {
        let mut targets = Vec::with_capacity(content.targets.len());
        for target in content.targets {
            targets.push(Classes::from_batch(batch, target)?);
        }
        Ok(Self {
            clip_key: text(batch, "clip_key")?,
            track_id: numbers::<Int64Type>(batch, "track_id")?,
            segment: numbers::<Int32Type>(batch, "segment")?,
            offset_s: numbers::<Float32Type>(batch, "offset_s")?,
            variant: numbers::<Float32Type>(batch, "variant")?,
            targets,
        })
    }

    /// Returns the class id of a row for the target whose classes are used as folder names.
    ///
    /// # Errors
    /// [`ExportError::rows`] if the class id is not in the manifest.
    pub(super) fn class(
        &self,
        content: &Content<'_>,
        row: usize,
    ) -> Result<Option<usize>, ExportError> {
        let wanted = content.target.map(|target| &target.name);
        let mut targets = self.targets.iter();
        match targets.find(|classes| Some(&classes.target.name) == wanted) {
            Some(classes) => classes.id(row),
            None => Ok(None),
        }
    }

    /// Returns the name of a row's file, without its extension.
    pub(super) fn file_name(&self, row: usize) -> String {
        names::of_row(
            self.clip_key.value(row),
            self.segment.value(row),
            self.variant.value(row),
        )
    }
}

/// Class ids of the rows of a batch, for one target.
pub(super) struct Classes<'b> {
    pub target: &'b TargetEntry,
    ids: &'b Int32Array,
}

impl<'b> Classes<'b> {
    /// Reads the class ids of a target from a batch.
    ///
    /// # Errors
    /// [`ExportError::rows`] if the column is missing or has another type.
    pub(super) fn from_batch(
        batch: &'b RecordBatch,
        target: &'b TargetEntry,
    ) -> Result<Self, ExportError> {
        let ids = numbers::<Int32Type>(batch, &target.name)?;
        Ok(Self { target, ids })
    }

    /// Returns the class id of a row, which is an index into the manifest's list of classes; `None` if unlabelled.
    ///
    /// # Errors
    /// [`ExportError::rows`] if the class id is not in the manifest.
    pub(super) fn id(&self, row: usize) -> Result<Option<usize>, ExportError> {
        if self.ids.is_null(row) {
            return Ok(None);
        }
        let id = self.ids.value(row);
        let place = usize::try_from(id).ok();
        let place = place.filter(|place| *place < self.target.classes.len());
        place.map(Some).ok_or_else(|| {
            let name = &self.target.name;
            ExportError::rows(format!("{name} {id} is not a class in the manifest"))
        })
    }
}

/// Returns the string column `name` of a batch.
///
/// # Errors
/// [`ExportError::rows`] if the column is missing or has another type.
fn text<'b>(batch: &'b RecordBatch, name: &str) -> Result<&'b StringArray, ExportError> {
    let column = batch.column_by_name(name);
    let column = column.and_then(|column| column.as_string_opt::<i32>());
    column.ok_or_else(|| other_type(name))
}

/// Returns the numeric column `name` of a batch.
///
/// # Errors
/// [`ExportError::rows`] if the column is missing or has another type.
pub(super) fn numbers<'b, T: ArrowPrimitiveType>(
    batch: &'b RecordBatch,
    name: &str,
) -> Result<&'b PrimitiveArray<T>, ExportError> {
    let column = batch.column_by_name(name);
    let column = column.and_then(|column| column.as_primitive_opt::<T>());
    column.ok_or_else(|| other_type(name))
}

fn other_type(column: &str) -> ExportError {
    ExportError::rows(format!(
        "its column {column} does not have the expected type"
    ))
}

/// A CSV file of keys and classes, with one line per row of the export.
pub(super) struct KeyTable {
    path: PathBuf,
    writer: csv::Writer<File>,
}

impl KeyTable {
    /// Creates the file. If `has_files` is set, each row has a file of its own, whose path is written to the last
    /// column.
    ///
    /// # Errors
    /// [`ExportError::unfit`] if two columns have the same name; [`ExportError::Io`] if the file cannot be created.
    pub(super) fn create(
        path: &Path,
        content: &Content<'_>,
        has_files: bool,
        format: Format,
    ) -> Result<Self, ExportError> {
        let mut heading = heading(content);
        if has_files {
            heading.push("file".to_owned());
        }
        require_distinct(&heading, format)?;

        let file = File::create_new(path).map_err(ExportError::io_at(path, "create"))?;
        let mut table = Self {
            path: path.to_owned(),
            writer: csv::Writer::from_writer(file),
        };
        table.record(&heading)?;
        Ok(table)
    }

    /// Appends the line of a row to the CSV file, with the path of its `file` if it has one.
    ///
    /// # Errors
    /// [`ExportError::rows`] if a class id is not in the manifest; [`ExportError::Io`] if the line cannot be written.
    pub(super) fn row(
        &mut self,
        keys: &Keys<'_>,
        row: usize,
        file: Option<&str>,
    ) -> Result<(), ExportError> {
        let values: [String; KEY_COLUMNS.len()] = [
            keys.clip_key.value(row).to_owned(),
            keys.track_id.value(row).to_string(),
            keys.segment.value(row).to_string(),
            keys.offset_s.value(row).to_string(),
            keys.variant.value(row).to_string(),
        ];
        let mut record = Vec::from(values);
        for classes in &keys.targets {
            match classes.id(row)? {
                Some(id) => {
                    record.push(classes.target.classes[id].clone());
                    record.push(id.to_string());
                }
                // An unlabelled row has empty values in both columns of the target: class and id.
                None => record.extend([String::new(), String::new()]),
            }
        }

        record.extend(file.map(str::to_owned));
        self.record(&record)
    }

    fn record(&mut self, record: &[String]) -> Result<(), ExportError> {
        let written = self.writer.write_record(record);
        written.map_err(|error| {
            let source = match error.into_kind() {
                csv::ErrorKind::Io(source) => source,
                other => io::Error::other(format!("{other:?}")),
            };
            ExportError::io_at(&self.path, "write")(source)
        })
    }

    /// Flushes the CSV file.
    ///
    /// # Errors
    /// [`ExportError::Io`] if the file cannot be written.
    pub(super) fn finish(mut self) -> Result<(), ExportError> {
        self.writer
            .flush()
            .map_err(ExportError::io_at(&self.path, "write"))
    }
}

/// Refuses duplicate column names, because one of the columns would be lost.
///
/// # Errors
/// [`ExportError::unfit`] if two columns have the same name.
pub(super) fn require_distinct(names: &[String], format: Format) -> Result<(), ExportError> {
    for (place, name) in names.iter().enumerate() {
        if names[..place].contains(name) {
            let problem =
                format!("two columns would be named {name} because of the targets' names");
            return Err(ExportError::unfit(&format.name(), problem));
        }
    }
    Ok(())
}
