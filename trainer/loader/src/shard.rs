//! One Parquet file of a feature, opened once: footer, page index, and comparison with its entry in the manifest.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::PageIndexPolicy;
use parquet::file::reader::ChunkReader;
use wavemill_reader::hash_reader;
use wavemill_schemas::manifest::{FeatureEntry, FileEntry};
use wavemill_schemas::tables;

use crate::file::{Chunks, FeatureFile};
use crate::{DatasetError, Store};

/// An open Parquet file of a feature.
#[derive(Debug)]
pub(crate) struct Shard {
    /// The file, for reads by offset.
    pub file: Arc<FeatureFile>,
    /// The file for Parquet's readers.
    pub chunks: Chunks,
    /// Parquet footer and offset index.
    pub metadata: ArrowReaderMetadata,
    /// Check of the file's content.
    pub check: Check,
}

/// Comparison of tensors with the bytes that were committed.
#[derive(Debug)]
pub(crate) enum Check {
    /// Not at all.
    None,
    /// The hash of the file, in lower-case hex, before its first tensor is read.
    File(String),
    /// The checksum of each page, of files that are not read as a whole.
    Pages,
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
        let file = Arc::new(store.open_file(entry)?);
        let path = &file.path;
        if file.bytes != entry.bytes {
            let problem = format!("{} bytes, not {}", file.bytes, entry.bytes);
            return Err(DatasetError::changed(path, problem));
        }

        // Read the offset index, which contains the positions of pages, but not the column index with the bounds of
        // values. `Pages::locate` rejects a file without an offset index.
        let options = ArrowReaderOptions::new()
            .with_column_index_policy(PageIndexPolicy::Skip)
            .with_offset_index_policy(PageIndexPolicy::Optional);
        let mut chunks = Chunks::new(&file, 0, Bytes::new());
        if let Some(streamed) = file.in_object_store()
            && let Some(footer) = &entry.footer
        {
            // The checksums of pages do not say which pages belong to the file.
            let range = footer.offset..entry.bytes;
            let is_sound = |chunks: &Chunks| -> Result<bool, DatasetError> {
                chunks.read_ahead(Some(range.clone()))?;
                let length = range.end.saturating_sub(range.start) as usize;
                let bytes = chunks.get_bytes(range.start, length);
                let hash = hash_reader(&*bytes.map_err(|error| chunks.explain(error))?);
                Ok(hash.map_err(DatasetError::io_at(path, "read"))? == footer.blake3)
            };

            let mut sound = is_sound(&chunks)?;
            if !sound && streamed.forget_copy() {
                // The local copy may be damaged, and the object intact.
                chunks = Chunks::new(&file, 0, Bytes::new());
                sound = is_sound(&chunks)?;
            }
            if !sound {
                return Err(DatasetError::changed(path, "its footer differs"));
            }
        }
        // Arrow panics on schemas with types that it does not know.
        let load = AssertUnwindSafe(|| ArrowReaderMetadata::load(&chunks, options));
        let metadata = catch_unwind(load)
            .map_err(|_panic| DatasetError::changed(path, "its schema cannot be read"))?
            .map_err(|error| chunks.explain(error))?;

        let groups: Vec<u64> = metadata
            .metadata()
            .row_groups()
            .iter()
            .map(|g| g.num_rows() as u64)
            .collect();
        if groups != entry.row_groups {
            let problem = "other row groups than in the manifest";
            return Err(DatasetError::changed(path, problem));
        }

        // A file with the same length and layout may still contain a feature that was extracted with other options.
        if feature_id(&metadata, &feature.name).as_deref() != Some(&feature.feature_id) {
            let problem = format!("not of feature {} {}", feature.name, feature.feature_id);
            return Err(DatasetError::changed(path, problem));
        }

        let check = match file.in_object_store() {
            _ if !store.checks_shards() => Check::None,
            Some(_) => Check::Pages,
            None => Check::File(entry.blake3.clone()),
        };
        Ok(Self {
            file,
            chunks,
            metadata,
            check,
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
