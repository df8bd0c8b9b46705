//! One Parquet file of a feature, opened once: footer, page index, and the checks against its manifest entry.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::PageIndexPolicy;
use wavemill_schemas::manifest::{FeatureEntry, FileEntry};
use wavemill_schemas::tables;

use crate::{DatasetError, Store};

/// A file of a feature.
#[derive(Debug)]
pub(crate) struct Shard {
    /// The path of the file.
    pub path: PathBuf,
    /// The file, open for positional reads.
    pub file: File,
    /// Footer and offset index.
    pub metadata: ArrowReaderMetadata,
    /// The size of the file in bytes.
    pub bytes: u64,
    /// The hash that the content is compared with before its first tensor is read; `None` if it is not compared.
    pub blake3: Option<String>,
}

impl Shard {
    /// Opens the file of `entry` and compares its length, its rows per row group and its feature with the manifest.
    ///
    /// # Errors
    /// [`DatasetError::Changed`], [`DatasetError::Parquet`], [`DatasetError::Io`], [`DatasetError::Outside`].
    pub(crate) fn open(
        store: &Store,
        entry: &FileEntry,
        feature: &FeatureEntry,
    ) -> Result<Self, DatasetError> {
        let path = store.path(entry)?;
        let changed = |problem: String| DatasetError::Changed {
            path: path.clone(),
            problem,
        };
        // A missing file is damage, which `data.skip_damaged` skips; other system errors are not.
        let file = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(changed("missing".to_owned()));
            }
            other => other.map_err(DatasetError::io_at(&path, "open"))?,
        };

        let bytes = file
            .metadata()
            .map_err(DatasetError::io_at(&path, "read the length of"))?
            .len();
        if bytes != entry.bytes {
            return Err(changed(format!("{bytes} bytes, not {}", entry.bytes)));
        }

        // The offset index contains the positions of pages. The column index contains bounds of their values, which are
        // not needed. `Pages::locate` rejects a file without an offset index and names the row group.
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
            return Err(changed("other row groups than in the manifest".to_owned()));
        }

        // A file of equal length and layout may still contain a feature made with other options.
        if feature_id(&metadata, &feature.name).as_deref() != Some(&feature.feature_id) {
            return Err(changed(format!(
                "not of feature {} {}",
                feature.name, feature.feature_id
            )));
        }

        Ok(Self {
            path,
            file,
            metadata,
            bytes,
            blake3: store.checks_shards().then(|| entry.blake3.clone()),
        })
    }

    /// Returns [`DatasetError::Damaged`] for one of the file's row groups.
    pub(crate) fn damaged(&self, row_group: usize, problem: impl Into<String>) -> DatasetError {
        damaged(&self.path, row_group, problem)
    }
}

/// Creates [`DatasetError::Damaged`].
pub(crate) fn damaged(path: &Path, row_group: usize, problem: impl Into<String>) -> DatasetError {
    DatasetError::Damaged {
        path: path.to_owned(),
        row_group,
        problem: problem.into(),
    }
}

/// Returns the id in the metadata of the tensor column, if present.
fn feature_id(metadata: &ArrowReaderMetadata, column: &str) -> Option<String> {
    let field = metadata.schema().field_with_name(column).ok()?;
    let tensor: serde_json::Value =
        serde_json::from_str(field.metadata().get(tables::TENSOR_KEY)?).ok()?;
    Some(tensor.get("feature_id")?.as_str()?.to_owned())
}
