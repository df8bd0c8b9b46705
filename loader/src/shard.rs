//! One Parquet file of a feature, opened once: footer, page index, and the checks that its manifest entry allows.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::PageIndexPolicy;
use wavemill_schemas::manifest::{FeatureEntry, FileEntry};
use wavemill_schemas::tables;

use crate::{DatasetError, Store};

/// A feature's file.
#[derive(Debug)]
pub(crate) struct Shard {
    /// Where.
    pub path: PathBuf,
    /// Open for reading by position.
    pub file: File,
    /// Footer and offset index.
    pub metadata: ArrowReaderMetadata,
    /// Size.
    pub bytes: u64,
    /// The hash that its content is compared with before its first tensor is read; `None` if it is not compared.
    pub blake3: Option<String>,
}

impl Shard {
    /// Opens the file of `entry` and compares it with the manifest: length, rows of each row group, feature.
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
        // A file that is gone is damage, which `data.skip_damaged` passes over; a refusal of the system is not.
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

        // The offset index says where pages are. The column index holds bounds of their values, and nobody here asks
        // for them. A file without an offset index is refused by `Pages::locate`, which names the row group.
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

        // A file of equal length and layout may still hold a feature that other options made.
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

    /// [`DatasetError::Damaged`] of one of its row groups.
    pub(crate) fn damaged(&self, row_group: usize, problem: impl Into<String>) -> DatasetError {
        damaged(&self.path, row_group, problem)
    }
}

/// [`DatasetError::Damaged`].
pub(crate) fn damaged(path: &Path, row_group: usize, problem: impl Into<String>) -> DatasetError {
    DatasetError::Damaged {
        path: path.to_owned(),
        row_group,
        problem: problem.into(),
    }
}

/// The id in the metadata of the tensor column; `None` where there is none.
fn feature_id(metadata: &ArrowReaderMetadata, column: &str) -> Option<String> {
    let field = metadata.schema().field_with_name(column).ok()?;
    let tensor: serde_json::Value =
        serde_json::from_str(field.metadata().get(tables::TENSOR_KEY)?).ok()?;
    Some(tensor.get("feature_id")?.as_str()?.to_owned())
}
