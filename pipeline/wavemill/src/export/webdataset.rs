//! The format `webdataset`: tar files of samples, as the Python package `webdataset` reads them
//! (<https://github.com/webdataset/webdataset>). One tar file per file of the store.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use wavemill_schemas::columns::KEY_COLUMNS;
use wavemill_schemas::manifest::FileEntry;
use wavemill_schemas::text::counted;

use super::arrays;
use super::content::{Content, ExportedSplit};
use super::error::ExportError;
use super::keys::{Keys, heading, key_names, require_distinct};
use super::output::OutFile;
use super::reader::{Reader, Tensors};
use super::{Format, names, npy};

/// Permissions of the members. Together with a time of 0 they make equal exports have equal bytes.
const MODE: u32 = 0o644;

/// Writes the tar files of all exported splits into `folder`. Returns notes for users.
///
/// # Errors
/// [`ExportError`] if rows cannot be read, a file cannot be written, or two fields of a sample would have one name.
pub(super) fn write(
    content: &Content<'_>,
    reader: &Reader<'_>,
    folder: &Path,
) -> Result<Vec<String>, ExportError> {
    require_distinct(&heading(content), Format::Webdataset)?;

    let mut unlabelled = 0;
    for split in &content.splits {
        let mut rows = 0;
        for (number, file) in content.files(split).enumerate() {
            let mut shard = Shard::create(folder, split, number, rows)?;
            shard.write(content, reader, file)?;
            rows = shard.rows;
            unlabelled += shard.unlabelled;
            shard.finish()?;
        }
    }

    let mut notes = Vec::new();
    if let Some(target) = content.target {
        notes.push(format!("cls is the class id of {}", target.name));
    }
    if unlabelled > 0 {
        let samples = counted(unlabelled, "sample");
        notes.push(format!("{samples} without a class, and so without cls"));
    }
    Ok(notes)
}

/// A tar file that is being written.
struct Shard {
    path: PathBuf,
    tar: tar::Builder<OutFile>,
    /// Start of the names of all samples. Contains no dot, because the name of a sample ends at its first dot.
    split: String,
    /// Number of the split's rows that are in this and earlier tar files.
    rows: u64,
    /// Number of rows of this tar file that have no class.
    unlabelled: u64,
}

impl Shard {
    fn create(
        folder: &Path,
        split: &ExportedSplit,
        number: usize,
        rows: u64,
    ) -> Result<Self, ExportError> {
        let path = folder.join(format!("{}-{number:06}.tar", split.name));
        Ok(Self {
            tar: tar::Builder::new(OutFile::create(&path)?),
            path,
            split: split.name.replace('.', "_"),
            rows,
            unlabelled: 0,
        })
    }

    /// Writes a sample for each row of `file`.
    fn write(
        &mut self,
        content: &Content<'_>,
        reader: &Reader<'_>,
        file: &FileEntry,
    ) -> Result<(), ExportError> {
        let descr = content.tensor.dtype.numpy_name();
        reader.file(file, &arrays::columns(content), |batch| {
            let keys = Keys::from_batch(batch, content)?;
            let tensors = Tensors::from_batch(batch, content)?;
            for row in 0..batch.num_rows() {
                let shape = tensors.shape(row)?;
                let values = tensors.bytes(row);
                if content.feature.is_original() {
                    // The bytes are a file of the archive, so readers decode it by its own extension.
                    let extension = match names::extension(keys.clip_key.value(row)) {
                        none if none.is_empty() => ".bin".to_owned(),
                        extension => extension,
                    };
                    self.member(&extension, &[], &values)?;
                } else {
                    self.member(".npy", &npy::header(descr, &shape), &values)?;
                }

                match keys.class(content, row)? {
                    Some(id) => self.member(".cls", &[], id.to_string().as_bytes())?,
                    None => self.unlabelled += 1,
                }

                let about = about(&keys, row)?;
                self.member(".json", &[], about.to_string().as_bytes())?;
                self.rows += 1;
            }
            reader.done(batch.num_rows());
            Ok(())
        })
    }

    /// Appends a file of the current sample, which consists of `head` and `body`.
    fn member(&mut self, extension: &str, head: &[u8], body: &[u8]) -> Result<(), ExportError> {
        let mut header = tar::Header::new_gnu();
        header.set_size((head.len() + body.len()) as u64);
        header.set_mode(MODE);
        header.set_mtime(0);

        let name = format!("{}-{:09}{extension}", self.split, self.rows);
        self.tar
            .append_data(&mut header, name, head.chain(body))
            .map_err(ExportError::io_at(&self.path, "write"))
    }

    fn finish(self) -> Result<(), ExportError> {
        let ended = self.tar.into_inner();
        ended
            .map_err(ExportError::io_at(&self.path, "write"))?
            .finish()
    }
}

/// Returns the keys of a row, and its class and class id for each target.
fn about(keys: &Keys<'_>, row: usize) -> Result<Value, ExportError> {
    let mut about = Map::new();
    let values: [Value; KEY_COLUMNS.len()] = [
        json!(keys.clip_key.value(row)),
        json!(keys.track_id.value(row)),
        json!(keys.segment.value(row)),
        json!(keys.offset_s.value(row)),
        json!(keys.variant.value(row)),
    ];
    about.extend(key_names().zip(values));
    for classes in &keys.targets {
        let target = classes.target;
        let id = classes.id(row)?;
        let class = id.map(|id| target.classes[id].as_str());
        about.insert(target.name.clone(), json!(class));
        about.insert(format!("{}_id", target.name), json!(id));
    }
    Ok(about.into())
}
