//! Creates stores that conform to the store's format, for the tests of this module and for `tests/real/memory.rs`.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, FixedSizeBinaryBuilder, Int64Array, RecordBatch, StringArray,
};
use arrow::datatypes::{Schema, SchemaRef};
use half::f16;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use serde_json::json;
use wavemill_schemas::FORMAT_VERSION;
use wavemill_schemas::canonical;
use wavemill_schemas::clip::ClipRow;
use wavemill_schemas::columns::RowFacts;
use wavemill_schemas::manifest::{
    Counts, Engine, FeatureEntry, FileEntry, Identity, Manifest, Scale, TargetEntry,
};
use wavemill_schemas::recipe::{Dtype, Layout};
use wavemill_schemas::row_arrays::{self, Row};
use wavemill_schemas::tables::{feature_schema, rejects_schema};
use wavemill_store::Store;

#[cfg(test)]
use super::{Limits, Session, open};

/// Number of rows in a row group. It is small, so that a file has several row groups.
const ROW_GROUP_ROWS: usize = 64;

/// Limits of a session in tests.
#[cfg(test)]
pub(crate) const LIMITS: Limits = Limits {
    memory_bytes: 1 << 30,
    threads: 2,
    allow_write: false,
};

/// Opens a store with [`LIMITS`].
#[cfg(test)]
pub(crate) fn session(store: &TestStore) -> Session {
    session_within(store, LIMITS)
}

#[cfg(test)]
pub(crate) fn session_within(store: &TestStore, limits: Limits) -> Session {
    open(&store.handle(), &store.manifest, limits).expect("the store opens")
}

/// A store under construction.
pub struct TestStore {
    /// The store's folder. It is removed on drop.
    pub folder: tempfile::TempDir,
    /// Manifest of the files written so far.
    pub manifest: Manifest,
}

/// A clip whose row [`TestStore::write_feature`] writes.
#[derive(Clone)]
pub struct Clip {
    /// Number of the clip, from which its keys and ids are derived.
    pub id: i64,
    /// Class id of the clip.
    pub genre: Option<i32>,
    /// Hash of the clip's audio. Equal for duplicates.
    pub hash: String,
    /// Bytes of the stored tensor.
    pub tensor: Vec<u8>,
}

impl TestStore {
    /// Returns the store that the folder contains.
    pub fn handle(&self) -> Store {
        Store::at(self.folder.path())
    }
}

impl Clip {
    /// Creates clip `id` of class `id % 3` with `values` as its f16 tensor.
    pub fn f16(id: i64, values: &[f32]) -> Self {
        let tensor = values
            .iter()
            .flat_map(|&v| f16::from_f32(v).to_le_bytes())
            .collect();

        Self {
            id,
            genre: Some((id % 3) as i32),
            hash: format!("{id:064x}"),
            tensor,
        }
    }

    fn row(&self) -> ClipRow {
        let id = self.id;
        ClipRow {
            clip_key: format!("000/{id:06}.mp3"),
            track_id: id,
            targets: vec![self.genre],
            genres_all: vec![id as i32],
            artist_id: Some(id / 2),
            album_id: Some(id / 3),
            ..ClipRow::default()
        }
    }

    fn facts(&self) -> RowFacts {
        RowFacts {
            variant: 1.0,
            duration_s: 20.0 + self.id as f32 / 100.0,
            audio_blake3: self.hash.as_str().into(),
            ..RowFacts::default()
        }
    }
}

/// Creates the description of a feature, such as `f16[2,3]`.
pub fn feature(name: &str, dtype: &str, shape: &[Option<usize>]) -> FeatureEntry {
    FeatureEntry {
        name: name.to_owned(),
        feature_id: format!("id-of-{name}"),
        dtype: dtype.to_owned(),
        scale: (dtype == "u8").then_some(Scale {
            factor: 0.5,
            offset: -1.0,
        }),
        shape: shape.to_vec(),
        dim_names: vec!["mel".to_owned(), "frame".to_owned()],
        sample_rate_hz: Some(22_050),
        hop_length: Some(512),
        preset: "librosa".to_owned(),
        columns: None,
    }
}

impl Default for TestStore {
    fn default() -> Self {
        Self::new()
    }
}

impl TestStore {
    /// Creates a store without files. Its classes are Folk, Jazz and Rock.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let classes = ["Folk", "Jazz", "Rock"].map(str::to_owned).to_vec();
        let recipe = json!({ "name": "test", "catalog": { "dataset": "fma" }, "features": [] });

        let mut manifest = Manifest {
            format_version: FORMAT_VERSION,
            plan_id: String::new(),
            identity: Identity {
                recipe: String::new(),
                rows: String::new(),
                inputs: String::new(),
                engine: String::new(),
                limit: None,
                sides: None,
                models: None,
                parent: None,
            },
            engine: Engine {
                numerics: 1,
                backend: "cpu".to_owned(),
                level: "scalar".to_owned(),
                decoder: "none".to_owned(),
                target: "test".to_owned(),
                libc: "none".to_owned(),
                writer: "none".to_owned(),
                models: None,
            },
            recipe: serde_json::from_value(recipe).expect("a minimal recipe"),
            targets: vec![TargetEntry {
                name: "genre".to_owned(),
                classes,
                counts: BTreeMap::new(),
            }],
            features: Vec::new(),
            files: Vec::new(),
            shards: BTreeMap::new(),
            counts: Counts::default(),
            stats: BTreeMap::new(),
        };
        manifest.identity.recipe = canonical::id(&manifest.recipe).expect("JSON");
        manifest.identity.engine = canonical::id(&manifest.engine).expect("JSON");
        manifest.plan_id = manifest.identity.plan_id().expect("JSON");

        Self { folder, manifest }
    }

    /// Creates the store of most tests: three features of nine clips in three splits, tracks, rejects and a raw table.
    ///
    /// Clip i has genre i % 3. Its `log_mel` is `f16[2,3]` with i, i + 1, …; `ragged` is `f32[2,?]` with i % 3 + 1 frames
    /// of 0.5; `quant` is `u8[2,2]` with i, i, i, i, where value = stored / 2 − 1. Clips 1 and 4 have equal audio.
    pub fn small() -> Self {
        let mut store = Self::new();
        let splits = ["training", "validation", "none"];
        for (s, split) in splits.iter().enumerate() {
            let ids = s as i64 * 3..s as i64 * 3 + 3;
            let clips = ids.map(|id| {
                let values = [0., 1., 2., 3., 4., 5.].map(|v| v + id as f32);
                same_audio_as_1(Clip::f16(id, &values))
            });
            let clips: Vec<Clip> = clips.collect();

            let log_mel = feature("log_mel", "f16", &[Some(2), Some(3)]);
            store.write_feature(&log_mel, split, &clips);

            let ragged_clips = with_tensors(&clips, |id| {
                let n_frames = id as usize % 3 + 1;
                0.5f32.to_le_bytes().repeat(2 * n_frames)
            });
            let ragged = feature("ragged", "f32", &[Some(2), None]);
            store.write_feature(&ragged, split, &ragged_clips);

            let quant = feature("quant", "u8", &[Some(2), Some(2)]);
            let quant_clips = with_tensors(&clips, |id| vec![id as u8; 4]);
            store.write_feature(&quant, split, &quant_clips);
        }

        store.write_tracks(9);
        store.write_rejects();
        store.write_all_tracks_and_genres();

        store.write_columns("raw_tracks", [("html", text("<b>a</b>"))]);
        store
    }

    /// Writes a metadata table into one file.
    pub fn write_table(&mut self, table: &str, batch: &RecordBatch) {
        let path = format!("data/{}/{table}/00000.parquet", self.manifest.plan_id);
        let entry = write_file(
            self.folder.path(),
            &path,
            &batch.schema(),
            std::slice::from_ref(batch),
            None,
        );

        self.manifest.files.push(FileEntry {
            table: Some(table.to_owned()),
            ..entry
        });
    }

    fn write_columns<const N: usize>(&mut self, table: &str, columns: [(&str, ArrayRef); N]) {
        let batch = RecordBatch::try_from_iter(columns);
        self.write_table(table, &batch.expect("equal lengths"));
    }

    /// Writes the table `tracks(track_id, track_title, track_genre_top, set_split)` with `n` tracks.
    pub fn write_tracks(&mut self, n: i64) {
        let genre = |id: i64| ["Folk", "Jazz", "Rock"][id as usize % 3].to_owned();
        let columns = [
            ("track_id", ids(0..n)),
            ("track_title", texts(n, |id| format!("title {id}"))),
            ("track_genre_top", texts(n, genre)),
            ("set_split", texts(n, |_| "training".to_owned())),
        ];
        self.write_columns("tracks", columns);
    }

    /// Writes ten parsed tracks, the last of which was dropped by the cleaning step `labelled`, and genres 0 to 8.
    fn write_all_tracks_and_genres(&mut self) {
        let dropped_by = (0..10).map(|id| (id == 9).then_some("labelled"));
        let dropped_by: ArrayRef = Arc::new(dropped_by.collect::<StringArray>());
        let columns = [("track_id", ids(0..10)), ("dropped_by", dropped_by)];
        self.write_columns("tracks_all", columns);

        let titles = texts(9, |id| format!("Genre {id}"));
        self.write_columns("genres", [("genre_id", ids(0..9)), ("title", titles)]);
    }

    fn write_rejects(&mut self) {
        let schema = rejects_schema();

        let given = [
            text("000/000099.mp3"),
            Arc::new(Int64Array::from(vec![99])),
            text("decode"),
            text("damaged"),
            text("cut"),
        ];
        // The remaining columns are null: the clip's offset, line, column and length.
        let nulls = schema.fields()[given.len()..]
            .iter()
            .map(|field| arrow::array::new_null_array(field.data_type(), 1));
        let columns = given.into_iter().chain(nulls).collect();

        self.write_table(
            "rejects",
            &RecordBatch::try_new(schema, columns).expect("the contract's columns"),
        );
    }

    /// Writes a shard of `entry`'s feature and adds the feature to the manifest.
    pub fn write_feature(&mut self, entry: &FeatureEntry, split: &str, clips: &[Clip]) {
        if !self.manifest.features.contains(entry) {
            self.manifest.features.push(entry.clone());
        }

        let dtype: Dtype = serde_json::from_value(json!(entry.dtype)).expect("a dtype");
        let schema =
            feature_schema(entry, &self.manifest.targets, Layout::Binary, dtype).expect("a schema");

        let number = self
            .manifest
            .files
            .iter()
            .filter(|file| file.split.as_deref() == Some(split))
            .count();
        let path = format!(
            "data/{}/features/{}/split={split}/{number:05}.parquet",
            self.manifest.plan_id, entry.name
        );

        let batches: Vec<RecordBatch> = clips
            .chunks(ROW_GROUP_ROWS)
            .map(|chunk| feature_batch(&schema, entry, chunk))
            .collect();
        let file = write_file(
            self.folder.path(),
            &path,
            &schema,
            &batches,
            Some(&entry.name),
        );

        self.manifest.files.push(FileEntry {
            feature: Some(entry.name.clone()),
            split: Some(split.to_owned()),
            ..file
        });
    }
}

fn text(value: &str) -> ArrayRef {
    Arc::new(StringArray::from(vec![value]))
}

fn texts(n: i64, of: impl Fn(i64) -> String) -> ArrayRef {
    Arc::new(StringArray::from_iter_values((0..n).map(of)))
}

fn ids(ids: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(ids))
}

/// Returns the clips with the tensors that `of` makes from their numbers.
fn with_tensors(clips: &[Clip], of: impl Fn(i64) -> Vec<u8>) -> Vec<Clip> {
    let mut clips = clips.to_vec();
    clips.iter_mut().for_each(|clip| clip.tensor = of(clip.id));
    clips
}

fn same_audio_as_1(clip: Clip) -> Clip {
    let hash = if clip.id == 4 {
        format!("{:064x}", 1)
    } else {
        clip.hash
    };
    Clip { hash, ..clip }
}

fn feature_batch(schema: &SchemaRef, entry: &FeatureEntry, clips: &[Clip]) -> RecordBatch {
    let clip_rows: Vec<ClipRow> = clips.iter().map(Clip::row).collect();
    let facts: Vec<RowFacts> = clips.iter().map(Clip::facts).collect();
    let rows = clip_rows.iter().zip(&facts);
    let rows: Vec<Row<'_>> = rows.map(|(clip, facts)| Row { clip, facts }).collect();

    let mut columns = row_arrays::arrays(&rows, true);
    columns.extend(tensor_columns(entry, clips));
    RecordBatch::try_new(schema.clone(), columns).expect("the contract's columns")
}

fn tensor_columns(entry: &FeatureEntry, clips: &[Clip]) -> Vec<ArrayRef> {
    let dims: Option<Vec<usize>> = entry.shape.iter().copied().collect();
    if dims.is_some() {
        let mut fixed = FixedSizeBinaryBuilder::new(clips[0].tensor.len() as i32);
        for clip in clips {
            fixed.append_value(&clip.tensor).expect("one length");
        }
        return vec![Arc::new(fixed.finish())];
    }

    let mut bytes = BinaryBuilder::new();
    for clip in clips {
        bytes.append_value(&clip.tensor);
    }
    let shapes = clips.iter().map(|clip| [2, clip.tensor.len() as i32 / 8]);
    vec![Arc::new(bytes.finish()), row_arrays::int_lists(shapes)]
}

fn write_file(
    store: &Path,
    path: &str,
    schema: &Schema,
    batches: &[RecordBatch],
    tensor: Option<&str>,
) -> FileEntry {
    let full = store.join(path);
    std::fs::create_dir_all(full.parent().expect("a file has a folder")).expect("a folder");

    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS));
    if let Some(column) = tensor {
        let column = ColumnPath::from(column);
        properties = properties
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_statistics_enabled(column, EnabledStatistics::None)
            .set_write_batch_size(1)
            .set_data_page_row_count_limit(1);
    }

    let file = File::create(&full).expect("a file");
    let mut writer = ArrowWriter::try_new(file, Arc::new(schema.clone()), Some(properties.build()))
        .expect("a writer");
    for batch in batches {
        writer.write(batch).expect("a batch");
    }

    let metadata = writer.close().expect("a footer");
    let bytes = std::fs::read(&full).expect("the file just written");

    FileEntry {
        table: None,
        feature: None,
        split: None,
        path: path.to_owned(),
        rows: metadata.file_metadata().num_rows() as u64,
        bytes: bytes.len() as u64,
        blake3: blake3::hash(&bytes).to_hex().to_string(),
        row_groups: metadata
            .row_groups()
            .iter()
            .map(|group| group.num_rows() as u64)
            .collect(),
        footer: None,
    }
}
