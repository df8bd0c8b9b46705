//! The format `npy`: one array per split, and a CSV file with the keys of its rows; or one array per row if
//! rows differ in shape.

use std::fs;
use std::path::Path;

use wavemill_store::tensors;

use super::content::{Content, ExportedSplit};
use super::error::ExportError;
use super::keys::{KeyTable, Keys, key_columns};
use super::output::OutFile;
use super::reader::{Reader, Tensors};
use super::{Format, npy};

/// Writes the arrays and CSV files of all exported splits below `folder`.
///
/// # Errors
/// [`ExportError`] if rows cannot be read or a file cannot be written.
pub(super) fn write(
    content: &Content<'_>,
    reader: &Reader<'_>,
    folder: &Path,
) -> Result<(), ExportError> {
    for split in &content.splits {
        if content.is_ragged() {
            array_a_row(content, split, reader, folder)?;
        } else {
            array_a_split(content, split, reader, folder)?;
        }
    }
    Ok(())
}

fn array_a_split(
    content: &Content<'_>,
    split: &ExportedSplit,
    reader: &Reader<'_>,
    folder: &Path,
) -> Result<(), ExportError> {
    let mut array = OutFile::create(&folder.join(format!("{}.npy", split.name)))?;
    array.put(&header(content, split))?;
    let mut table = table(content, split, folder)?;

    reader.split(split, &columns(content), |batch| {
        let keys = Keys::from_batch(batch, content)?;
        let tensors = Tensors::from_batch(batch, content)?;
        for row in 0..batch.num_rows() {
            // This call only checks that the shape of the tensor matches its values.
            tensors.shape(row)?;
            array.put(&tensors.bytes(row))?;
            table.row(&keys, row, None)?;
        }
        reader.done(batch.num_rows());
        Ok(())
    })?;

    array.finish()?;
    table.finish()
}

fn array_a_row(
    content: &Content<'_>,
    split: &ExportedSplit,
    reader: &Reader<'_>,
    folder: &Path,
) -> Result<(), ExportError> {
    let of_split = folder.join(&split.name);
    fs::create_dir(&of_split).map_err(ExportError::io_at(&of_split, "create the folder"))?;
    let mut table = table(content, split, folder)?;
    let descr = content.tensor.dtype.numpy_name();

    reader.split(split, &columns(content), |batch| {
        let keys = Keys::from_batch(batch, content)?;
        let tensors = Tensors::from_batch(batch, content)?;
        for row in 0..batch.num_rows() {
            let name = format!("{}.npy", keys.file_name(row));
            let mut array = OutFile::create(&of_split.join(&name))?;
            array.put(&npy::header(descr, &tensors.shape(row)?))?;
            array.put(&tensors.bytes(row))?;
            array.finish()?;
            table.row(&keys, row, Some(&format!("{}/{name}", split.name)))?;
        }
        reader.done(batch.num_rows());
        Ok(())
    })?;
    table.finish()
}

/// Returns the npy header of the array with all rows of a split.
fn header(content: &Content<'_>, split: &ExportedSplit) -> Vec<u8> {
    let mut shape = vec![split.rows as usize];
    shape.extend(content.tensor.shape.iter().flatten());
    npy::header(content.tensor.dtype.numpy_name(), &shape)
}

fn table(
    content: &Content<'_>,
    split: &ExportedSplit,
    folder: &Path,
) -> Result<KeyTable, ExportError> {
    let path = folder.join(format!("{}.csv", split.name));
    KeyTable::create(&path, content, content.is_ragged(), Format::Npy)
}

/// Returns the names of the key columns and the tensor columns.
pub(super) fn columns(content: &Content<'_>) -> Vec<String> {
    let mut columns = key_columns(content);
    columns.extend(tensors::columns(content.feature));
    columns
}
