//! The columns of all rows of a feature, apart from the tensors, read once and stored as a struct of arrays in manifest
//! order.
//!
//! In other modules, a row is identified by its index in this order. The rows of a row group are contiguous.

use std::collections::HashMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::{
    Array, ArrayRef, AsArray, PrimitiveArray, RecordBatch, RecordBatchReader, StringArray,
};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Float32Type, Int32Type, Int64Type};
use arrow::error::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::ColumnChunkMetaData;
use wavemill_schemas::manifest::FeatureEntry;
use wavemill_schemas::tables;
use wavemill_schemas::text::panic_message;

use crate::DatasetError;
use crate::shard::Shard;
use wavemill_schemas::rng;

/// Names of the columns of every row, apart from its tensor and its targets.
const SMALL_COLUMNS: [&str; 9] = [
    "clip_key",
    "track_id",
    "segment",
    "offset_s",
    "variant",
    "genres_all",
    "artist_id",
    "album_id",
    "audio_blake3",
];

/// A Parquet row group of a file in the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowGroup {
    /// Index of the file among the feature's files that were read.
    pub file: u32,
    /// Index of the row group within the file, starting at 0.
    pub number: u32,
    /// The rows of the row group, as indices over all rows.
    pub rows: Range<u32>,
}

/// Columns of all rows of a feature, in all splits.
#[derive(Debug, Default)]
pub struct Rows {
    /// Path of each row's clip below the audio root.
    pub clip_keys: Vec<Box<str>>,
    /// The track number in the data set, or the hash of the clip's path.
    pub track_ids: Vec<i64>,
    /// Index of the row's segment within the clip, starting at 0.
    pub segments: Vec<i32>,
    /// The start of the segment in the clip, in seconds; 0 for a picture.
    pub offsets_s: Vec<f32>,
    /// The tempo of the row; 1.0 is the recorded tempo.
    pub variants: Vec<f32>,
    /// The id of the row's artist; `None` if unknown.
    pub artist_ids: Vec<Option<i64>>,
    /// The id of the row's album; `None` if unknown.
    pub album_ids: Vec<Option<i64>>,
    /// The hash of the recording, which identifies copies under two ids; empty for a picture.
    pub audio_blake3s: Vec<Box<str>>,
    /// Groups of near copies, by `clip_key`; empty if the store has no table of them.
    pub(crate) near_groups: HashMap<String, String>,
    /// Class ids by target of the manifest, then by row; -1 for unlabelled rows.
    pub targets: Vec<Vec<i32>>,
    /// The [`rng::row_key`] of each row.
    pub keys: Vec<u64>,
    /// The index of each row's row group in [`Self::groups`].
    pub group_of: Vec<u32>,
    /// The row groups in manifest order.
    pub groups: Vec<RowGroup>,
    /// Number of frames of each row's tensor if rows differ in length, else empty.
    pub frames: Vec<u32>,
    genres: Vec<i32>,
    genres_end: Vec<u32>,
}

impl Rows {
    /// Creates empty columns for a store with `n_targets` targets.
    pub(crate) fn new(n_targets: usize) -> Self {
        Self {
            targets: vec![Vec::new(); n_targets],
            ..Self::default()
        }
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Reports whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns the index of a row's file among the feature's files that were read.
    pub(crate) fn file_of(&self, row: u32) -> u32 {
        self.groups[self.group_of[row as usize] as usize].file
    }

    /// Returns the group of near copies to which a row's clip belongs.
    pub fn near_group(&self, row: usize) -> Option<&str> {
        self.near_groups
            .get(&*self.clip_keys[row])
            .map(String::as_str)
    }

    /// Returns the ids of all genres of a row.
    pub fn genres(&self, row: usize) -> &[i32] {
        let start = if row == 0 {
            0
        } else {
            self.genres_end[row - 1]
        };
        &self.genres[start as usize..self.genres_end[row] as usize]
    }

    /// Appends the rows of a file of `feature`; appends no rows if reading the file fails.
    ///
    /// # Errors
    /// [`DatasetError::Damaged`] if a column is missing or cannot be decoded, [`DatasetError::Other`].
    pub(crate) fn append(
        &mut self,
        shard: &Shard,
        batch: &RecordBatch,
        file: u32,
        feature: &FeatureEntry,
        targets: &[String],
    ) -> Result<(), DatasetError> {
        let from = Columns { batch, shard };
        let keys = from.text("clip_key")?;
        let tracks = from.numbers::<Int64Type>("track_id")?;
        let segments = from.numbers::<Int32Type>("segment")?;
        let offsets = from.numbers::<Float32Type>("offset_s")?;
        let variants = from.numbers::<Float32Type>("variant")?;
        let artists = from.numbers::<Int64Type>("artist_id")?;
        let albums = from.numbers::<Int64Type>("album_id")?;
        let labels: Vec<_> = targets
            .iter()
            .map(|t| from.numbers::<Int32Type>(t))
            .collect::<Result<_, _>>()?;
        let genres = from.lists("genres_all")?;
        let frames = from.frames(feature)?;
        let audio = from.text("audio_blake3")?;

        // All columns have been read: from here on, no operation can fail.
        for (row, genres) in genres.iter().enumerate() {
            let key = keys.value(row);
            self.clip_keys.push(key.into());
            self.keys
                .push(rng::row_key(key, segments.value(row), variants.value(row)));
            self.genres.extend(genres);
            self.genres_end.push(self.genres.len() as u32);
        }
        self.frames.extend(frames);
        self.track_ids.extend(tracks.values());
        self.segments.extend(segments.values());
        self.offsets_s.extend(offsets.values());
        self.variants.extend(variants.values());
        self.artist_ids.extend(&artists);
        self.album_ids.extend(&albums);
        self.audio_blake3s
            .extend(audio.iter().map(|hash| Box::from(hash.unwrap_or_default())));

        for (ids, labels) in self.targets.iter_mut().zip(&labels) {
            ids.extend(labels.iter().map(|id| id.unwrap_or(-1)));
        }
        self.append_groups(shard, file);
        Ok(())
    }

    fn append_groups(&mut self, shard: &Shard, file: u32) {
        let mut start = self.group_of.len() as u32;
        for (number, group) in (0..).zip(shard.metadata.metadata().row_groups()) {
            // `Shard::open` has compared the rows per row group with the manifest.
            let end = start + group.num_rows() as u32;
            self.group_of.resize(end as usize, self.groups.len() as u32);
            self.groups.push(RowGroup {
                file,
                number,
                rows: start..end,
            });
            start = end;
        }
    }
}

/// Reads the columns of all rows in a file, including those of `targets` but not the tensors.
///
/// # Errors
/// [`DatasetError::Damaged`] if a column cannot be decoded, and errors of reading the file.
pub(crate) fn read(
    shard: &Shard,
    feature: &FeatureEntry,
    targets: &[String],
) -> Result<RecordBatch, DatasetError> {
    let shape = tables::shape_column(&feature.name);
    let mut columns = Vec::new();
    for (place, field) in shard.metadata.schema().fields().iter().enumerate() {
        let is_small = SMALL_COLUMNS.contains(&field.name().as_str()) || *field.name() == shape;
        if is_small || targets.contains(field.name()) {
            columns.push(place);
        }
    }

    let mask = ProjectionMask::roots(shard.metadata.parquet_schema(), columns);
    let chunks = &shard.chunks;
    let groups = shard.metadata.metadata().row_groups().iter();
    let columns = groups.flat_map(|group| group.columns().iter().enumerate());
    let wanted = columns.filter(|(leaf, _)| mask.leaf_included(*leaf));
    chunks.read_ahead(wanted.filter_map(|(_, chunk)| bytes_of(chunk)))?;

    let metadata = shard.metadata.clone();
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(chunks.clone(), metadata)
        .with_projection(mask)
        .build()
        .map_err(|error| chunks.explain(error))?;

    let schema = reader.schema();
    // Parquet's reader panics on some impossible pages.
    let read = catch_unwind(AssertUnwindSafe(|| reader.collect::<Result<Vec<_>, _>>()));
    let batches = read
        .unwrap_or_else(|panic| {
            let message = panic_message(panic.as_ref()).unwrap_or("the reader panicked");
            Err(ArrowError::ParquetError(message.to_owned()))
        })
        .map_err(|error| chunks.explain(error))?;
    concat_batches(&schema, &batches).map_err(|error| chunks.explain(error))
}

/// Returns the position of a column chunk in its file; `None` if its footer is damaged.
fn bytes_of(chunk: &ColumnChunkMetaData) -> Option<Range<u64>> {
    let first = chunk.dictionary_page_offset();
    let start = u64::try_from(first.unwrap_or_else(|| chunk.data_page_offset())).ok()?;
    let bytes = u64::try_from(chunk.compressed_size()).ok()?;
    Some(start..start.checked_add(bytes)?)
}

/// Looks up columns of a file by name and type. Errors name the file.
struct Columns<'a> {
    batch: &'a RecordBatch,
    shard: &'a Shard,
}

impl Columns<'_> {
    fn cast(&self, name: &str, to: &DataType) -> Result<ArrayRef, DatasetError> {
        let column = self
            .batch
            .column_by_name(name)
            .ok_or_else(|| DatasetError::column(&self.shard.file.path, name, "missing"))?;
        cast(column, to)
            .map_err(|e| DatasetError::column(&self.shard.file.path, name, e.to_string()))
    }

    fn numbers<T: ArrowPrimitiveType>(
        &self,
        name: &str,
    ) -> Result<PrimitiveArray<T>, DatasetError> {
        Ok(self.cast(name, &T::DATA_TYPE)?.as_primitive::<T>().clone())
    }

    fn text(&self, name: &str) -> Result<StringArray, DatasetError> {
        Ok(self.cast(name, &DataType::Utf8)?.as_string::<i32>().clone())
    }

    fn lists(&self, name: &str) -> Result<Vec<Vec<i32>>, DatasetError> {
        let column = self.cast(name, &tables::list_of(DataType::Int32))?;
        let mut lists = Vec::with_capacity(column.len());
        for list in column.as_list::<i32>().iter() {
            let numbers = list.map(|list| list.as_primitive::<Int32Type>().values().to_vec());
            lists.push(numbers.unwrap_or_default());
        }
        Ok(lists)
    }

    /// Returns the number of frames of each row, or no numbers if rows do not differ in length.
    fn frames(&self, feature: &FeatureEntry) -> Result<Vec<u32>, DatasetError> {
        let Some(axis) = feature.shape.iter().position(Option::is_none) else {
            return Ok(Vec::new());
        };

        let column = tables::shape_column(&feature.name);
        let mut frames = Vec::new();
        for shape in self.lists(&column)? {
            let length = shape.get(axis).and_then(|&n| u32::try_from(n).ok());
            frames.push(length.ok_or_else(|| {
                let problem = format!("the shape {shape:?} has no length");
                DatasetError::column(&self.shard.file.path, &column, problem)
            })?);
        }
        Ok(frames)
    }
}
