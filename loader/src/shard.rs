//! One Parquet file of a feature, opened once: footer, page index, and comparison with its entry in the manifest.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::PageIndexPolicy;
use wavemill_schemas::manifest::{FeatureEntry, FileEntry};
use wavemill_schemas::tables;

use crate::{DatasetError, Store};

/// An open Parquet file of a feature.
#[derive(Debug)]
pub(crate) struct Shard {
    /// The path of the file.
    pub path: PathBuf,
    /// The file handle, for positional reads.
    pub file: File,
    /// Parquet footer and offset index.
    pub metadata: ArrowReaderMetadata,
    /// The size of the file in bytes.
    pub bytes: u64,
    /// The hash with which the file's content is compared before its first tensor is read; `None` if it is not
    /// compared.
    pub blake3: Option<String>,
}

impl Shard {
    /// Opens the file of `entry` and compares its length, its rows per row group and its feature with the manifest.
    ///
    /// # Errors
    /// [`DatasetError::Damaged`] if the file is missing or differs from the manifest, [`DatasetError::Store`] if it
    /// cannot be read.
    pub(crate) fn open(
        store: &Store,
        entry: &FileEntry,
        feature: &FeatureEntry,
    ) -> Result<Self, DatasetError> {
        let path = store.path(entry)?;
        // A missing file is damage, which `data.skip_damaged` skips; other operating system errors are not skipped.
        let file = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(DatasetError::changed(&path, "missing"));
            }
            other => other.map_err(DatasetError::io_at(&path, "open"))?,
        };

        let bytes = file
            .metadata()
            .map_err(DatasetError::io_at(&path, "read the length of"))?
            .len();
        if bytes != entry.bytes {
            let problem = format!("{bytes} bytes, not {}", entry.bytes);
            return Err(DatasetError::changed(&path, problem));
        }

        // Read the offset index, which contains the positions of pages, but not the column index with the bounds of
        // values. `Pages::locate` rejects a file without an offset index.
        let options = ArrowReaderOptions::new()
            .with_column_index_policy(PageIndexPolicy::Skip)
            .with_offset_index_policy(PageIndexPolicy::Optional);
        let metadata =
            ArrowReaderMetadata::load(&file, options).map_err(DatasetError::parquet_at(&path))?;

        let groups: Vec<u64> = metadata
            .metadata()
            .row_groups()
            .iter()
            .map(|g| g.num_rows() as u64)
            .collect();
        if groups != entry.row_groups {
            let problem = "other row groups than in the manifest";
            return Err(DatasetError::changed(&path, problem));
        }

        // A file with the same length and layout may still contain a feature that was extracted with other options.
        if feature_id(&metadata, &feature.name).as_deref() != Some(&feature.feature_id) {
            let problem = format!("not of feature {} {}", feature.name, feature.feature_id);
            return Err(DatasetError::changed(&path, problem));
        }

        Ok(Self {
            path,
            file,
            metadata,
            bytes,
            blake3: store.checks_shards().then(|| entry.blake3.clone()),
        })
    }
}

/// Returns the feature id in the metadata of the tensor column, if present.
fn feature_id(metadata: &ArrowReaderMetadata, column: &str) -> Option<String> {
    let field = metadata.schema().field_with_name(column).ok()?;
    let tensor: serde_json::Value =
        serde_json::from_str(field.metadata().get(tables::TENSOR_KEY)?).ok()?;
    Some(tensor.get("feature_id")?.as_str()?.to_owned())
}
