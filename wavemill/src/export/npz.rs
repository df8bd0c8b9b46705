//! `npz`: a zip of arrays a side, which NumPy opens with `allow_pickle=False`.
//!
//! An array begins with the number of its rows, and entries of a zip follow one another. So each array is one pass over
//! the files, which reads its column alone.

use std::io::Write;
use std::path::{Path, PathBuf};

use arrow::array::{ArrowPrimitiveType, RecordBatch};
use arrow::datatypes::{Float32Type, Int32Type, Int64Type};
use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::content::{Content, Side};
use super::error::ExportError;
use super::keys::{Classes, numbers, require_distinct, text};
use super::output::OutFile;
use super::reader::{Reader, Tensors, tensor_columns};
use super::{Format, arrays, npy};

/// An entry of this size and more is written as zip64. Somewhat below 4 GiB, because deflating may add a little.
const ZIP64_BYTES: u64 = 0xF000_0000;

/// The id of a row without a class. NumPy's integers have no null.
const UNLABELLED: i32 = -1;

/// Bytes of a character: NumPy's text is UTF-32.
const CHAR_BYTES: usize = 4;

/// Writes all sides below `folder`.
///
/// # Errors
/// [`ExportError`].
pub(super) fn write(
    content: &Content<'_>,
    reader: &Reader<'_>,
    folder: &Path,
) -> Result<(), ExportError> {
    require_distinct(&entries(content), Format::Npz.name())?;

    for side in &content.sides {
        let path = folder.join(format!("{}.npz", side.name));
        let mut npz = Npz {
            zip: ZipWriter::new(OutFile::create(&path)?),
            path,
            content,
            side,
            reader,
        };

        npz.feature()?;
        npz.clip_keys()?;
        npz.column::<Int64Type>("track_id", "<i8")?;
        npz.column::<Int32Type>("segment", "<i4")?;
        npz.column::<Float32Type>("offset_s", "<f4")?;
        npz.column::<Float32Type>("variant", "<f4")?;
        npz.targets()?;

        npz.finish()?;
    }
    Ok(())
}

/// Names of all arrays.
fn entries(content: &Content<'_>) -> Vec<String> {
    let mut entries = arrays::columns(content);
    for target in content.targets {
        entries.push(classes_entry(&target.name));
    }
    entries
}

/// The array of a target's class names.
fn classes_entry(target: &str) -> String {
    format!("classes_{target}")
}

/// The file of one side.
struct Npz<'a> {
    zip: ZipWriter<OutFile>,
    path: PathBuf,
    content: &'a Content<'a>,
    side: &'a Side<'a>,
    reader: &'a Reader<'a>,
}

impl Npz<'_> {
    /// The tensors. They are stored as they are: deflate takes long, and leaves most of them.
    fn feature(&mut self) -> Result<(), ExportError> {
        let content = self.content;
        let reader = self.reader;
        let header = arrays::header(content, self.side);
        let row_bytes = content.tensor.row_bytes().unwrap_or_default() as u64;
        let bytes = row_bytes * self.side.rows;
        self.begin(&content.feature.name, CompressionMethod::Stored, bytes)?;
        self.put(&header)?;

        let columns = tensor_columns(content);
        reader.side(self.side, &arrays::as_strs(&columns), |batch| {
            let tensors = Tensors::of(batch, content)?;
            for row in 0..batch.num_rows() {
                // Asked for its check alone.
                tensors.shape(row)?;
                self.put(&tensors.bytes(row))?;
            }
            reader.done(batch.num_rows());
            Ok(())
        })
    }

    fn clip_keys(&mut self) -> Result<(), ExportError> {
        let reader = self.reader;
        let mut longest = 0;
        reader.side(self.side, &["clip_key"], |batch| {
            let keys = text(batch, "clip_key")?.iter().flatten();
            longest = keys.map(n_chars).fold(longest, usize::max);
            Ok(())
        })?;

        self.begin_text("clip_key", self.side.rows as usize, longest)?;
        reader.side(self.side, &["clip_key"], |batch| {
            let mut bytes = Vec::new();
            for key in text(batch, "clip_key")?.iter().flatten() {
                push_utf32(&mut bytes, key, longest);
            }
            self.put(&bytes)
        })
    }

    /// A column without nulls, as it is stored.
    fn column<T: ArrowPrimitiveType>(
        &mut self,
        name: &str,
        descr: &str,
    ) -> Result<(), ExportError> {
        self.numbers(name, descr, size_of::<T::Native>(), |batch, bytes| {
            // Little-endian, as the machines that wavemill runs on.
            let values = numbers::<T>(batch, name)?.values();
            bytes.extend_from_slice(values.inner().as_slice());
            Ok(())
        })
    }

    fn targets(&mut self) -> Result<(), ExportError> {
        for target in self.content.targets {
            self.numbers(&target.name, "<i4", size_of::<i32>(), |batch, bytes| {
                let classes = Classes::of(batch, target)?;
                for row in 0..batch.num_rows() {
                    let id = classes.id(row)?.map_or(UNLABELLED, |id| id as i32);
                    bytes.extend(id.to_le_bytes());
                }
                Ok(())
            })?;

            let longest = target.classes.iter().map(|class| n_chars(class)).max();
            let longest = longest.unwrap_or_default();
            self.begin_text(&classes_entry(&target.name), target.classes.len(), longest)?;
            let mut bytes = Vec::new();
            for class in &target.classes {
                push_utf32(&mut bytes, class, longest);
            }
            self.put(&bytes)?;
        }
        Ok(())
    }

    /// An array of one number a row; `encode` appends those of a batch, which has the column `name` alone.
    fn numbers(
        &mut self,
        name: &str,
        descr: &str,
        bytes_each: usize,
        encode: impl Fn(&RecordBatch, &mut Vec<u8>) -> Result<(), ExportError>,
    ) -> Result<(), ExportError> {
        let rows = self.side.rows;
        let bytes = bytes_each as u64 * rows;
        self.begin(name, CompressionMethod::Deflated, bytes)?;
        self.put(&npy::header(descr, &[rows as usize]))?;
        let reader = self.reader;
        reader.side(self.side, &[name], |batch| {
            let mut bytes = Vec::new();
            encode(batch, &mut bytes)?;
            self.put(&bytes)
        })
    }

    /// Begins an array of `n` texts of at most `longest` characters.
    fn begin_text(&mut self, name: &str, n: usize, longest: usize) -> Result<(), ExportError> {
        // NumPy has no text of no characters.
        let longest = longest.max(1);
        let bytes = (n * longest * CHAR_BYTES) as u64;
        self.begin(name, CompressionMethod::Deflated, bytes)?;
        self.put(&npy::header(&format!("<U{longest}"), &[n]))
    }

    fn begin(
        &mut self,
        name: &str,
        method: CompressionMethod,
        bytes: u64,
    ) -> Result<(), ExportError> {
        let options = SimpleFileOptions::default()
            .compression_method(method)
            .large_file(bytes >= ZIP64_BYTES);
        let begun = self.zip.start_file(format!("{name}.npy"), options);
        begun.map_err(|error| failed(&self.path, error))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ExportError> {
        self.zip
            .write_all(bytes)
            .map_err(ExportError::io_at(&self.path, "write"))
    }

    fn finish(self) -> Result<(), ExportError> {
        let finished = self.zip.finish();
        finished
            .map_err(|error| failed(&self.path, error))?
            .finish()
    }
}

fn failed(path: &Path, error: ZipError) -> ExportError {
    let source = match error {
        // As the system gave it, so that a full disk is known.
        ZipError::Io(source) => source,
        other => other.into(),
    };
    ExportError::io_at(path, "write")(source)
}

fn n_chars(text: &str) -> usize {
    text.chars().count()
}

/// Appends a text as NumPy has it: UTF-32, with zeros up to `longest` characters.
fn push_utf32(bytes: &mut Vec<u8>, text: &str, longest: usize) {
    let longest = longest.max(1);
    let end = bytes.len() + longest * CHAR_BYTES;
    for c in text.chars() {
        bytes.extend(u32::from(c).to_le_bytes());
    }
    bytes.resize(end, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_utf_32_of_one_length() {
        let mut bytes = Vec::new();
        push_utf32(&mut bytes, "ü", 2);
        push_utf32(&mut bytes, "ab", 2);
        push_utf32(&mut bytes, "", 2);
        assert_eq!(bytes.len(), 3 * 2 * CHAR_BYTES);
        assert_eq!(&bytes[..8], [0xfc, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&bytes[8..16], [97, 0, 0, 0, 98, 0, 0, 0]);

        let mut empty = Vec::new();
        push_utf32(&mut empty, "", 0);
        assert_eq!(empty, [0; CHAR_BYTES]);
    }
}
