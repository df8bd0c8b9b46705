//! List of the tracks that a run was trained on, because the test split of another version may contain some of them.
//!
//! `training.parquet`, in the run's folder, has a row for each track of the training split: `track_id`, `artist_id`,
//! `audio_blake3`.

use std::collections::{BTreeSet, HashSet};
use std::fmt::Display;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wavemill_loader::{Dataset, Split};
use wavemill_schemas::durable::if_there;
use wavemill_schemas::run::RunDir;
use wavemill_scores::metrics::Member;

/// Version of the format of `training.parquet`. Increase it when the columns change.
const FORMAT: u32 = 1;
/// Key in the Parquet metadata of `training.parquet` under which the JSON [`Metadata`] is stored.
const METADATA_KEY: &str = "wavemill";

/// A track that a run was trained on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct TrainedTrack {
    track_id: i64,
    /// Id of the track's artist; `None` if unknown.
    artist_id: Option<i64>,
    /// blake3 hash of the track's audio; `None` if unknown.
    audio_blake3: Option<Box<str>>,
}

/// The tracks that a run was trained on, ordered by track id.
///
/// A track has several entries if its audio or artist differs between versions of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrainingList {
    tracks: BTreeSet<TrainedTrack>,
}

/// Metadata stored in `training.parquet`.
#[derive(Serialize, Deserialize)]
struct Metadata {
    format: u32,
    /// Hash of the listed values, because Parquet does not detect changed bytes.
    blake3: String,
}

impl TrainingList {
    /// Lists the tracks in the training split of a dataset.
    pub fn from_dataset<M>(data: &Dataset<M>) -> Self {
        let rows = data.rows();
        let mut seen = HashSet::new();
        let mut tracks = BTreeSet::new();
        for row in data.rows_of(Split::Training) {
            let row = row as usize;
            // List a track once, although it may have rows for several segments and tempo-stretched copies.
            if !seen.insert(rows.track_ids[row]) {
                continue;
            }
            let hash = &rows.audio_blake3s[row];
            tracks.insert(TrainedTrack {
                track_id: rows.track_ids[row],
                artist_id: rows.artist_ids[row],
                audio_blake3: Some(hash.clone()).filter(|hash| !hash.is_empty()),
            });
        }
        Self { tracks }
    }

    /// Reads the list from a run's folder. Returns `None` if the run has none, as runs by older versions of wavemill.
    ///
    /// # Errors
    /// The list cannot be read; the message begins with the file's path as given in `shown`.
    pub fn read(run: &RunDir, shown: &Path) -> Result<Option<Self>, String> {
        let path = run.training_list();
        let file = if_there(File::open(&path));
        let file = file.map_err(|error| format!("cannot read {}: {error}", shown.display()))?;
        let Some(file) = file else { return Ok(None) };
        // The Parquet reader panics on some damaged pages, so panics are reported as damage.
        match catch_unwind(AssertUnwindSafe(|| Self::from_parquet(file, shown))) {
            Ok(read) => read.map(Some),
            Err(_panic) => Err(damaged(shown, "its pages cannot be read")),
        }
    }

    /// Converts each listed track to a [`Member`], for comparison with the tracks of a test split.
    pub fn members(&self) -> Vec<Member<'_>> {
        let mut members = Vec::with_capacity(self.tracks.len());
        for track in &self.tracks {
            members.push(Member {
                track_id: track.track_id,
                artist_id: track.artist_id,
                album_id: None,
                audio_blake3: track.audio_blake3.as_deref(),
                near_group: None,
            });
        }
        members
    }

    /// Adds the tracks of another list.
    pub fn add(&mut self, other: Self) {
        self.tracks.extend(other.tracks);
    }

    /// Reports whether the other list contains all tracks of this one.
    pub fn is_within(&self, other: &Self) -> bool {
        self.tracks.is_subset(&other.tracks)
    }

    /// Returns the blake3 hash of all listed values, in hexadecimal.
    fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for track in &self.tracks {
            hasher.update(&track.track_id.to_le_bytes());
            hasher.update(&[u8::from(track.artist_id.is_some())]);
            hasher.update(&track.artist_id.unwrap_or_default().to_le_bytes());
            // The text's length precedes the text, so that different lists never produce the same bytes to hash.
            let recording = track.audio_blake3.as_deref().unwrap_or_default();
            hasher.update(&(recording.len() as u64).to_le_bytes());
            hasher.update(recording.as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }

    /// Encodes the list as a Parquet file.
    ///
    /// # Errors
    /// Errors of the Parquet writer.
    pub fn to_parquet(&self) -> Result<Vec<u8>, ParquetError> {
        let fields = vec![
            Field::new("track_id", DataType::Int64, false),
            Field::new("artist_id", DataType::Int64, true),
            Field::new("audio_blake3", DataType::Utf8, true),
        ];
        let track_ids = self.tracks.iter().map(|track| track.track_id);
        let artist_ids = self.tracks.iter().map(|track| track.artist_id);
        let recordings = self
            .tracks
            .iter()
            .map(|track| track.audio_blake3.as_deref());
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(track_ids)),
            Arc::new(artist_ids.collect::<Int64Array>()),
            Arc::new(recordings.collect::<StringArray>()),
        ];
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;

        let metadata = Metadata {
            format: FORMAT,
            blake3: self.hash(),
        };
        // Serializing [`Metadata`], a number and a string, cannot fail.
        let json = serde_json::to_string(&metadata).unwrap_or_default();
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
            .set_key_value_metadata(Some(vec![KeyValue::new(METADATA_KEY.to_owned(), json)]))
            .build();

        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, rows.schema(), Some(properties))?;
        writer.write(&rows)?;
        writer.close()?;
        Ok(bytes)
    }

    fn from_parquet(file: File, path: &Path) -> Result<Self, String> {
        let builder =
            ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| damaged(path, error))?;

        let metadata: Metadata = metadata_of(&builder, METADATA_KEY)
            .map_err(|_| damaged(path, "it does not say what it is"))?;
        if metadata.format > FORMAT {
            return Err(format!(
                "{}: format {}; this `wavemill train` reads up to {FORMAT}: use a newer one",
                path.display(),
                metadata.format
            ));
        }

        let batches = builder.build().map_err(|error| damaged(path, error))?;
        let mut list = Self::default();
        for batch in batches {
            let batch = batch.map_err(|error| damaged(path, error))?;
            list.append(&batch)
                .map_err(|problem| damaged(path, problem))?;
        }
        if list.hash() != metadata.blake3 {
            return Err(damaged(path, "other values than were written"));
        }
        Ok(list)
    }

    /// Adds the rows of a batch to the list, or returns a description of the batch's fault.
    fn append(&mut self, batch: &RecordBatch) -> Result<(), String> {
        let track_ids = column(batch, "track_id", &DataType::Int64)?.as_primitive::<Int64Type>();
        let artist_ids = column(batch, "artist_id", &DataType::Int64)?.as_primitive::<Int64Type>();
        let recordings = column(batch, "audio_blake3", &DataType::Utf8)?.as_string::<i32>();

        for row in 0..batch.num_rows() {
            let artist_id = artist_ids.is_valid(row).then(|| artist_ids.value(row));
            let recording = recordings.is_valid(row).then(|| recordings.value(row));
            self.tracks.insert(TrainedTrack {
                track_id: track_ids.value(row),
                artist_id,
                audio_blake3: recording.map(Box::from),
            });
        }
        Ok(())
    }
}

/// Returns the result of `read`, which reads a Parquet file: its reader panics on some damaged pages, and a panic
/// becomes an error.
pub(crate) fn catch_reader_panic<T, E: From<&'static str>>(
    read: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let read = catch_unwind(AssertUnwindSafe(read));
    read.unwrap_or_else(|_panic| Err("its pages cannot be read".into()))
}

/// Parses the metadata under `key` of a Parquet file, which are JSON.
pub(crate) fn metadata_of<T: DeserializeOwned>(
    file: &ParquetRecordBatchReaderBuilder<File>,
    key: &str,
) -> serde_json::Result<T> {
    let pairs = file.metadata().file_metadata().key_value_metadata();
    let pair = pairs.into_iter().flatten().find(|pair| pair.key == key);
    let text = pair.and_then(|pair| pair.value.as_deref());
    serde_json::from_str(text.unwrap_or_default())
}

/// Returns the column with name `name` and type `wanted`, or an error message.
fn column<'a>(
    batch: &'a RecordBatch,
    name: &str,
    wanted: &DataType,
) -> Result<&'a ArrayRef, String> {
    batch
        .column_by_name(name)
        .filter(|column| column.data_type() == wanted)
        .ok_or_else(|| format!("no column {name} of {wanted}"))
}

fn damaged(path: &Path, problem: impl Display) -> String {
    format!(
        "{} is damaged ({problem}): restore it from a copy of the run",
        path.display()
    )
}
