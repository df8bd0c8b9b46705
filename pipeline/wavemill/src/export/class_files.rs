//! One file per row, in one folder per class: the common part of the formats `png` and `wav`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use arrow::array::{AsArray, BooleanArray, Float32Array, RecordBatch};
use arrow::datatypes::Float32Type;
use wavemill_schemas::manifest::TargetEntry;

use super::content::{Content, ExportedSplit};
use super::error::ExportError;
use super::keys::{KeyTable, Keys, numbers};
use super::output::write_new;
use super::reader::{Reader, Tensors};
use super::{Format, arrays, names};

/// Name of the folder for rows without a class.
const UNLABELLED: &str = "unlabelled";

/// Name of the column with the duration of the clip before padding.
const DURATION: &str = "duration_s";
/// Name of the column that is true if all samples are zero.
const SILENT: &str = "silent";

/// Rows of a batch, with the columns from which their files are made.
pub(super) struct Rows<'b> {
    pub keys: Keys<'b>,
    pub tensors: Tensors<'b>,
    pub duration_s: &'b Float32Array,
    pub silent: &'b BooleanArray,
}

impl<'b> Rows<'b> {
    fn from_batch(batch: &'b RecordBatch, content: &'b Content<'_>) -> Result<Self, ExportError> {
        let silent = batch.column_by_name(SILENT);
        let silent = silent.and_then(|column| column.as_boolean_opt());
        Ok(Self {
            keys: Keys::from_batch(batch, content)?,
            tensors: Tensors::from_batch(batch, content)?,
            duration_s: numbers::<Float32Type>(batch, DURATION)?,
            silent: silent
                .ok_or_else(|| ExportError::rows("its column silent contains no booleans"))?,
        })
    }
}

/// Writes one file per row below `folder`; `make` returns the bytes of a row's file. Returns notes for users.
///
/// # Errors
/// [`ExportError`] if rows cannot be read or a file cannot be written.
pub(super) fn write(
    content: &Content<'_>,
    reader: &Reader<'_>,
    folder: &Path,
    format: Format,
    mut make: impl FnMut(&Rows<'_>, usize) -> Result<Vec<u8>, ExportError>,
) -> Result<Vec<String>, ExportError> {
    let classes = content.target.map_or(&[][..], |target| &target.classes);
    let folders = names::of_classes(classes, &[UNLABELLED]);
    let mut missing = Vec::new();
    for split in &content.splits {
        let mut files = SplitFiles {
            content,
            format,
            folders: &folders,
            folder: folder.join(&split.name),
            made: BTreeSet::new(),
        };
        files.write(split, reader, folder, &mut make)?;
        let absent = folders.iter().filter(|name| !files.made.contains(*name));
        missing.extend(absent.map(|name| format!("{}/{name}", split.name)));
    }

    let mut notes = Vec::new();
    if let Some(target) = content.target {
        let path = folder.join("classes.csv");
        let table = table_of_classes(target, &folders).map_err(ExportError::io_at(&path, "write"));
        write_new(&path, &table?)?;
        notes.push(format!(
            "folders are classes of {}; classes.csv has their ids",
            target.name
        ));
    }
    if !missing.is_empty() {
        // `ImageFolder` numbers the folders that it finds, so a missing folder changes the class numbers.
        notes.push(format!(
            "a split without a folder for each class: numbers that a loader gives to folders differ between splits; missing: {}",
            missing.join(", ")
        ));
    }
    Ok(notes)
}

/// Returns a CSV file with the columns id, class and folder.
fn table_of_classes(target: &TargetEntry, folders: &[String]) -> csv::Result<Vec<u8>> {
    let mut table = csv::Writer::from_writer(Vec::new());
    table.write_record(["id", "class", "folder"])?;
    for (id, (class, name)) in target.classes.iter().zip(folders).enumerate() {
        table.write_record([&id.to_string(), class, name])?;
    }
    let written = table.into_inner();
    written.map_err(|error| error.into_error().into())
}

/// Writes the files of one split.
struct SplitFiles<'a> {
    content: &'a Content<'a>,
    format: Format,
    /// Names of the class folders, in the order of class ids.
    folders: &'a [String],
    folder: PathBuf,
    /// Names of the class folders that have been created.
    made: BTreeSet<String>,
}

impl SplitFiles<'_> {
    fn write(
        &mut self,
        split: &ExportedSplit,
        reader: &Reader<'_>,
        root: &Path,
        make: &mut impl FnMut(&Rows<'_>, usize) -> Result<Vec<u8>, ExportError>,
    ) -> Result<(), ExportError> {
        fs::create_dir(&self.folder)
            .map_err(ExportError::io_at(&self.folder, "create the folder"))?;
        let content = self.content;
        let path = root.join(format!("{}.csv", split.name));
        let mut table = KeyTable::create(&path, content, true, self.format)?;

        let mut columns = arrays::columns(content);
        columns.extend([DURATION, SILENT].map(str::to_owned));
        reader.split(split, &columns, |batch| {
            let rows = Rows::from_batch(batch, content)?;
            for row in 0..batch.num_rows() {
                // The stop request is checked for each row, because computing a sound takes a second or more.
                reader.go_on()?;
                let name = self.name(&rows.keys, row)?;
                let bytes = make(&rows, row)?;
                write_new(&self.folder.join(&name), &bytes)?;
                table.row(&rows.keys, row, Some(&format!("{}/{name}", split.name)))?;
                reader.done(1);
            }
            Ok(())
        })?;
        table.finish()
    }

    /// Returns the path of a row's file below the folder of its split, and creates the class folder if necessary.
    fn name(&mut self, keys: &Keys<'_>, row: usize) -> Result<String, ExportError> {
        let class = keys.class(self.content, row)?;
        let class = class.map_or(UNLABELLED, |id| &self.folders[id]);
        if self.made.insert(class.to_owned()) {
            let path = self.folder.join(class);
            fs::create_dir(&path).map_err(ExportError::io_at(&path, "create the folder"))?;
        }
        let name = keys.file_name(row);
        Ok(format!("{class}/{name}.{}", self.format.name()))
    }
}
