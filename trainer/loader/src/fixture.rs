//! Small stores for tests and benches, written in the format of `wavemill extract`: same schema, pages, tables and
//! manifest.
//!
//! This file uses nothing else of this crate, so that a bench can include it as a file. Classes can be learned from the
//! tensors and from `fma_features`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, FixedSizeBinaryArray, Float64Array, Int64Array, ListArray,
    RecordBatch, StringArray,
};
use arrow::buffer::{Buffer, OffsetBuffer};
use arrow::datatypes::{Field, Schema, SchemaRef};
use half::f16;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use wavemill_reader::layout;
use wavemill_schemas::clip::ClipRow;
use wavemill_schemas::columns::RowFacts;
use wavemill_schemas::manifest::{
    Counts, Engine, FeatureEntry, FileEntry, Identity, Manifest, Scale, Stats, TargetEntry,
};
use wavemill_schemas::recipe::{Compression, Dtype, Layout, Recipe, ShardSpec};
use wavemill_schemas::row_arrays::{self, Row};
use wavemill_schemas::split::Split;
use wavemill_schemas::{FORMAT_VERSION, canonical, tables, tensor_arrays};

/// The name of the feature.
pub(crate) const FEATURE: &str = "log_mel";

/// Identifies one row by its clip, segment and tempo.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowId {
    /// Index of the row's clip, starting at 0.
    pub clip: usize,
    /// Index of the segment in the clip, starting at 0.
    pub segment: usize,
    /// The tempo of the row: 1.0, or 1.15 for stretched copies of training clips.
    pub variant: f32,
}

/// The properties of a small store for tests.
#[derive(Clone, Debug)]
pub(crate) struct Fixture {
    /// Number of clips. Under the rule `split_stratified`, of every ten clips one is for validation and the next one is
    /// for test.
    pub clips: usize,
    /// Number of rows per clip.
    pub segments: usize,
    /// Number of classes: clip i has class i mod `classes`.
    pub classes: usize,
    /// Number of classes and genres inserted before the others and called `new 0` and so on: the other classes keep
    /// their names, but their ids change.
    pub in_front: usize,
    /// One in this many clips has the first inserted class and its genre; 0 for no clips.
    pub of_new: usize,
    /// Number of artists: clip i is by artist i mod `artists`. Under the recipe's rule, the last two artists are in
    /// validation and test.
    pub artists: usize,
    /// Number of bands and frames of a row.
    pub shape: [usize; 2],
    /// The stored number type of the tensors.
    pub dtype: Dtype,
    /// The compression of Parquet pages.
    pub compression: Compression,
    /// The layout of the tensor column in Parquet.
    pub layout: Layout,
    /// True if frames are stored before bands.
    pub frames_first: bool,
    /// True if the feature consists of samples: the frames of its only band.
    pub samples: bool,
    /// Height and width if the feature consists of pictures: the bands are channels, and the frames pixels.
    pub picture: Option<[usize; 2]>,
    /// True if rows differ in length: clip i has i mod 4 fewer frames.
    pub ragged: bool,
    /// True if training clips are stored twice, the second time at tempo 1.15.
    pub stretched: bool,
    /// True if the recipe's split rule is `segment_stretched`, with copies at another tempo in all splits.
    pub copies_everywhere: bool,
    /// One in this many clips has no label; 0 if all clips are labelled.
    pub unlabelled: usize,
    /// A user-defined column in `tracks`, such as `split_mood`, with the values of `split_stratified`.
    pub own_column: Option<&'static str>,
    /// Number of clips, from the first on, that `fma_features` contains.
    pub published: usize,
    /// Number of clips per file.
    pub shard_clips: usize,
    /// Number of rows per Parquet row group.
    pub row_group_rows: usize,
    /// Function that computes the values of a row, band by band, from 0 to 1.
    pub values: fn(&Fixture, RowId) -> Vec<f32>,
}

impl Default for Fixture {
    fn default() -> Self {
        Self {
            clips: 96,
            segments: 1,
            classes: 3,
            in_front: 0,
            of_new: 0,
            artists: 12,
            shape: [6, 10],
            dtype: Dtype::F16,
            compression: Compression::Zstd,
            layout: Layout::Binary,
            frames_first: false,
            samples: false,
            picture: None,
            ragged: false,
            stretched: false,
            copies_everywhere: false,
            unlabelled: 0,
            own_column: None,
            published: usize::MAX,
            shard_clips: 20,
            row_group_rows: 8,
            values: learnable,
        }
    }
}

/// Returns the values of a row in which the bands of its class are louder. The rest is noise that depends only on clip,
/// segment and tempo.
pub(crate) fn learnable(fixture: &Fixture, row: RowId) -> Vec<f32> {
    let [bands, frames] = [fixture.shape[0], fixture.frames(row.clip)];
    let key = format!("{} {} {}", row.clip, row.segment, row.variant);

    let class = row.clip % fixture.classes;
    let mut state = canonical::hash("fixture", 0, &key) | 1;
    let mut values = Vec::with_capacity(bands * frames);
    for i in 0..bands * frames {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let noise = (state >> 40) as f32 / (1_u64 << 24) as f32;
        let is_loud = i / frames % fixture.classes == class;
        values.push(if is_loud { 0.5 } else { 0.2 } + 0.4 * noise);
    }
    values
}

impl Fixture {
    /// Returns the number of frames in each row of a clip.
    pub(crate) fn frames(&self, clip: usize) -> usize {
        self.shape[1] - if self.ragged { clip % 4 } else { 0 }
    }

    /// Returns the key of a clip, its path below the audio root.
    pub(crate) fn clip_key(clip: usize) -> String {
        format!("{:03}/{clip:06}.mp3", clip / 1000)
    }

    fn artist(&self, clip: usize) -> usize {
        clip % self.artists
    }

    fn class(&self, clip: usize) -> Option<i32> {
        let unlabelled = self.unlabelled > 0 && clip % self.unlabelled == self.unlabelled - 1;
        (!unlabelled).then_some(self.place(clip) as i32)
    }

    /// Returns the index of a clip's class among all classes.
    fn place(&self, clip: usize) -> usize {
        if self.of_new > 0 && clip % self.of_new == self.of_new - 1 {
            return 0;
        }
        self.in_front + clip % self.classes
    }

    /// Returns the split of a clip under the recipe's rule, `artist`.
    pub(crate) fn split_by_artist(&self, clip: usize) -> Split {
        Split::ALL[(self.artist(clip) + 3).saturating_sub(self.artists)]
    }

    /// Returns the split of a clip under the rule `split_stratified`.
    pub(crate) fn split_stratified(clip: usize) -> Split {
        Split::ALL[(clip % 10).saturating_sub(7)]
    }

    /// Returns the bytes of a row's tensor as stored in Parquet.
    pub(crate) fn stored(&self, row: RowId) -> Vec<u8> {
        let [bands, frames] = [self.shape[0], self.frames(row.clip)];
        let values = (self.values)(self, row);
        let ordered = (0..values.len()).map(|i| match self.frames_first {
            true => values[i % bands * frames + i / bands],
            false => values[i],
        });
        match self.dtype {
            Dtype::F16 => ordered
                .flat_map(|x| f16::from_f32(x).to_le_bytes())
                .collect(),
            Dtype::F32 => ordered.flat_map(f32::to_le_bytes).collect(),
            Dtype::U8 => ordered.map(|x| (x * 255.0).round() as u8).collect(),
            Dtype::S16 => ordered
                .flat_map(|x| ((x * 32_767.0).round() as i16).to_le_bytes())
                .collect(),
        }
    }

    /// Writes version 1 of a test store to `root`.
    pub(crate) fn write(&self, root: &Path) -> Manifest {
        let mut files = self.tables(root);
        let feature = self.feature();
        let targets = self.targets();
        let schema =
            tables::feature_schema(&feature, &targets, self.layout, self.dtype).expect("a schema");

        for split in Split::ALL {
            let clips: Vec<usize> = (0..self.clips)
                .filter(|&clip| self.split_by_artist(clip) == split)
                .collect();

            for (shard, clips) in clips.chunks(self.shard_clips).enumerate() {
                let name = split.name();
                let path =
                    format!("data/fixture/features/{FEATURE}/split={name}/{shard:05}.parquet");
                let rows = self.rows_of(clips, split);

                let groups: Vec<RecordBatch> = rows
                    .chunks(self.row_group_rows)
                    .map(|rows| self.batch(&schema, rows))
                    .collect();
                let mut entry = write_file(
                    root,
                    &path,
                    &schema,
                    self.properties(&feature, &schema),
                    &groups,
                );
                entry.feature = Some(FEATURE.to_owned());
                entry.split = Some(name.to_owned());
                files.push(entry);
            }
        }

        let manifest = self.manifest(feature, targets, files);
        let folder = root.join("_wavemill/versions");
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(
            folder.join("00000001.json"),
            manifest.to_json().expect("JSON"),
        )
        .expect("room");

        manifest
    }

    fn rows_of(&self, clips: &[usize], split: Split) -> Vec<RowId> {
        let has_copies = split == Split::Training || self.copies_everywhere;
        let variants: &[f32] = if self.stretched && has_copies {
            &[1.0, 1.15]
        } else {
            &[1.0]
        };

        let mut rows = Vec::new();
        for &clip in clips {
            for &variant in variants {
                rows.extend((0..self.segments).map(|segment| RowId {
                    clip,
                    segment,
                    variant,
                }));
            }
        }
        rows
    }

    fn feature(&self) -> FeatureEntry {
        let frames = (!self.ragged).then_some(self.shape[1]);
        let mut axes = vec![(Some(self.shape[0]), "mel"), (frames, "frame")];
        if self.frames_first {
            axes.reverse();
        }
        if self.samples {
            axes = vec![(frames, "sample")];
        }
        if let Some([height, width]) = self.picture {
            let channels = Some(self.shape[0]);
            axes = vec![
                (channels, "channel"),
                (Some(height), "row"),
                (Some(width), "column"),
            ];
        }

        let factor = match self.dtype {
            Dtype::U8 => Some(1.0 / 255.0),
            Dtype::S16 => Some(1.0 / 32_768.0),
            Dtype::F16 | Dtype::F32 => None,
        };
        FeatureEntry {
            name: FEATURE.to_owned(),
            feature_id: canonical::id(&format!("{:?} {:?}", self.shape, self.dtype))
                .expect("an id"),
            dtype: format!("{:?}", self.dtype).to_lowercase(),
            scale: factor.map(|factor| Scale {
                factor,
                offset: 0.0,
            }),
            shape: axes.iter().map(|(n, _)| *n).collect(),
            dim_names: axes.iter().map(|(_, name)| (*name).to_owned()).collect(),
            sample_rate_hz: Some(22_050),
            hop_length: Some(512),
            preset: "librosa".to_owned(),
            columns: None,
        }
    }

    fn targets(&self) -> Vec<TargetEntry> {
        let in_front = (0..self.in_front).map(|class| format!("new {class}"));
        let classes: Vec<String> = in_front
            .chain((0..self.classes).map(|class| format!("class {class}")))
            .collect();

        let mut counts: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for clip in 0..self.clips {
            let counts = counts
                .entry(self.split_by_artist(clip).name().to_owned())
                .or_insert_with(|| vec![0; classes.len()]);
            if let Some(class) = self.class(clip) {
                counts[class as usize] += 1;
            }
        }

        vec![TargetEntry {
            name: "genre".to_owned(),
            classes,
            counts,
        }]
    }

    fn batch(&self, schema: &SchemaRef, rows: &[RowId]) -> RecordBatch {
        let clips: Vec<ClipRow> = rows.iter().map(|row| self.clip_row(row.clip)).collect();
        let facts: Vec<RowFacts> = rows.iter().map(Self::facts).collect();
        let arrow_rows = clips.iter().zip(&facts);
        let arrow_rows: Vec<Row<'_>> = arrow_rows
            .map(|(clip, facts)| Row { clip, facts })
            .collect();

        let mut columns = row_arrays::arrays(&arrow_rows, true);
        columns.push(self.tensors(rows));
        if self.ragged {
            let shapes = rows.iter().map(|row| self.stored_shape(row.clip));
            columns.push(row_arrays::int_lists(shapes));
        }
        RecordBatch::try_new(Arc::clone(schema), columns).expect("columns of the schema")
    }

    fn clip_row(&self, clip: usize) -> ClipRow {
        // The genres of a clip are the genre of its class and, for even clips, a second genre, which is repeated.
        let mut genres_all = vec![10 + self.place(clip) as i32];
        if clip.is_multiple_of(2) {
            genres_all.extend([99, 99]);
        }
        ClipRow {
            clip_key: Self::clip_key(clip),
            track_id: clip as i64,
            targets: vec![self.class(clip)],
            genres_all,
            artist_id: (clip % 7 != 6).then(|| self.artist(clip) as i64),
            album_id: Some((clip / 2) as i64),
            ..ClipRow::default()
        }
    }

    fn facts(row: &RowId) -> RowFacts {
        RowFacts {
            segment: row.segment as i32,
            offset_s: row.segment as f32,
            variant: row.variant,
            duration_s: 1.0,
            audio_blake3: canonical::id(&row.clip).expect("an id").into(),
            ..RowFacts::default()
        }
    }

    /// Returns the shape of a clip's rows, in the order of the feature's axes.
    fn stored_shape(&self, clip: usize) -> Vec<i32> {
        let [bands, frames] = [self.shape[0] as i32, self.frames(clip) as i32];
        match (self.samples, self.frames_first) {
            (true, _) => vec![frames],
            (false, true) => vec![frames, bands],
            (false, false) => vec![bands, frames],
        }
    }

    fn tensors(&self, rows: &[RowId]) -> ArrayRef {
        let stored: Vec<Vec<u8>> = rows.iter().map(|&row| self.stored(row)).collect();
        if self.layout == Layout::Binary && self.ragged {
            return Arc::new(BinaryArray::from_iter_values(&stored));
        }

        let bytes = Buffer::from_vec(stored.concat());
        if self.layout == Layout::Binary {
            return Arc::new(FixedSizeBinaryArray::new(
                stored[0].len() as i32,
                bytes,
                None,
            ));
        }

        let values = tensor_arrays::numbers(bytes, self.dtype);
        let lengths =
            OffsetBuffer::from_lengths(stored.iter().map(|row| row.len() / self.dtype.bytes()));
        Arc::new(ListArray::new(
            Arc::new(Field::new("item", values.data_type().clone(), false)),
            lengths,
            values,
            None,
        ))
    }

    /// Returns Parquet writer properties as in `wavemill extract`.
    fn properties(&self, feature: &FeatureEntry, schema: &SchemaRef) -> WriterProperties {
        let spec = ShardSpec {
            compression: self.compression,
            layout: self.layout,
            ..ShardSpec::default()
        };
        let properties = layout::properties(feature, self.dtype, &spec, schema.metadata());
        // Write rows one at a time, as `wavemill extract` does.
        properties.into_builder().set_write_batch_size(1).build()
    }

    fn tables(&self, root: &Path) -> Vec<FileEntry> {
        let mut tracks = vec![
            ("clip_key", self.texts(&Self::clip_key)),
            ("track_id", self.ids()),
            ("split_official", self.texts(&|_| "none".to_owned())),
            (
                "split_stratified",
                self.texts(&|clip| Self::split_stratified(clip).name().to_owned()),
            ),
            (
                "split_artist",
                self.texts(&|clip| self.split_by_artist(clip).name().to_owned()),
            ),
        ];
        if let Some(name) = self.own_column {
            let splits = self.texts(&|clip| Self::split_stratified(clip).name().to_owned());
            tracks.push((name, splits));
        }

        let features = [
            ("track_id", self.ids()),
            (
                "chroma_cens_mean_01",
                self.numbers(&|clip| Some(noise(clip))),
            ),
            // The class of a clip can be learned from this column.
            (
                "mfcc_mean_01",
                self.numbers(&|clip| Some(100.0 * (clip % self.classes) as f64 + noise(clip))),
            ),
            (
                "mfcc_mean_02",
                self.numbers(&|clip| (clip % 5 != 4).then_some(noise(clip) - 50.0)),
            ),
            ("mfcc_std_01", self.numbers(&|_| Some(0.1))),
        ]
        .map(|(name, column)| (name, column.slice(0, self.clips.min(self.published))));

        let in_front = (0..self.in_front).map(|class| format!("New {class}"));
        let genres = in_front.chain((0..self.classes).map(|class| format!("Genre {class}")));
        let (ids, titles): (Vec<i64>, Vec<String>) =
            (10..).zip(genres).chain([(99, "Even".to_owned())]).unzip();
        let genres: [(&str, ArrayRef); 2] = [
            ("genre_id", Arc::new(Int64Array::from(ids))),
            ("title", Arc::new(StringArray::from(titles))),
        ];

        vec![
            write_table(root, "tracks", &tracks),
            write_table(root, "fma_features", &features),
            write_table(root, "genres", &genres),
        ]
    }

    /// Creates a table column with one text per clip.
    fn texts(&self, of: &dyn Fn(usize) -> String) -> ArrayRef {
        Arc::new(StringArray::from_iter_values((0..self.clips).map(of)))
    }

    /// Creates a table column with one number per clip.
    fn numbers(&self, of: &dyn Fn(usize) -> Option<f64>) -> ArrayRef {
        Arc::new(Float64Array::from_iter((0..self.clips).map(of)))
    }

    fn ids(&self) -> ArrayRef {
        let ids = (0..self.clips).map(|clip| clip as i64);
        Arc::new(Int64Array::from_iter_values(ids))
    }

    fn manifest(
        &self,
        feature: FeatureEntry,
        targets: Vec<TargetEntry>,
        files: Vec<FileEntry>,
    ) -> Manifest {
        let split = if self.copies_everywhere {
            "rule = 'segment_stretched'\n[audio]\nsegment_s = 1.0\nsegments_max = 1\nstretch = [1.15]\n"
        } else {
            "rule = 'artist'\n"
        };

        let recipe = format!(
            "name = 'fixture'\n[catalog]\ndataset = 'fma'\n[split]\n{split}\
             [[targets]]\nname = 'genre'\ncolumn = 'track_genre_top'\n\
             [[features]]\nname = 'log_mel'\nop = 'mel'\n"
        );

        let name = String::new;

        let mut manifest = Manifest {
            format_version: FORMAT_VERSION,
            plan_id: name(),
            identity: Identity {
                recipe: name(),
                rows: "0".repeat(64),
                inputs: "0".repeat(64),
                engine: name(),
                limit: None,
                sides: None,
                models: None,
                parent: None,
            },
            engine: Engine {
                numerics: 1,
                backend: name(),
                level: name(),
                decoder: name(),
                target: name(),
                libc: name(),
                writer: "none".to_owned(),
                models: None,
            },
            recipe: Recipe::parse(&recipe, "fixture", &[]).expect("a recipe"),
            targets,
            features: vec![feature],
            files,
            shards: BTreeMap::new(),
            counts: Counts::default(),
            stats: BTreeMap::from([(FEATURE.to_owned(), self.stats())]),
        };
        manifest.identity.recipe = canonical::id(&manifest.recipe).expect("JSON");
        manifest.identity.engine = canonical::id(&manifest.engine).expect("JSON");
        manifest.plan_id = manifest.identity.plan_id().expect("JSON");
        manifest
    }

    /// Computes mean and deviation of each band over the stored values of training rows.
    fn stats(&self) -> Stats {
        let bands = self.shape[0];
        let mut sum = vec![0.0; bands];
        let mut squares = vec![0.0; bands];
        let mut values = 0;
        let training: Vec<usize> = (0..self.clips)
            .filter(|&c| self.split_by_artist(c) == Split::Training)
            .collect();

        for row in self.rows_of(&training, Split::Training) {
            let frames = self.frames(row.clip);
            values += frames as u64;
            for (i, x) in (self.values)(self, row).into_iter().enumerate() {
                sum[i / frames] += f64::from(x);
                squares[i / frames] += f64::from(x) * f64::from(x);
            }
        }

        let mean: Vec<f64> = sum.iter().map(|s| s / values as f64).collect();
        let std = squares
            .iter()
            .zip(&mean)
            .map(|(s, m)| (s / values as f64 - m * m).max(0.0).sqrt())
            .collect();

        Stats { mean, std, values }
    }
}

/// Returns a pseudo-random number from 0 to 1 that depends only on the clip.
fn noise(clip: usize) -> f64 {
    canonical::hash("column", 0, &clip.to_string()) as f64 / u64::MAX as f64
}

fn write_table(root: &Path, table: &str, columns: &[(&str, ArrayRef)]) -> FileEntry {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(n, c)| Field::new(*n, c.data_type().clone(), true))
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(
        Arc::clone(&schema),
        columns.iter().map(|(_, c)| Arc::clone(c)).collect(),
    );

    let path = format!("data/fixture/{table}/{table}.parquet");
    let mut entry = write_file(
        root,
        &path,
        &schema,
        WriterProperties::default(),
        &[batch.expect("columns of one length")],
    );

    entry.table = Some(table.to_owned());
    entry
}

fn write_file(
    root: &Path,
    path: &str,
    schema: &SchemaRef,
    properties: WriterProperties,
    groups: &[RecordBatch],
) -> FileEntry {
    let full = root.join(path);
    fs::create_dir_all(full.parent().expect("a folder above")).expect("a folder");

    let mut writer = ArrowWriter::try_new(
        File::create(&full).expect("a file"),
        Arc::clone(schema),
        Some(properties),
    )
    .expect("a writer");
    for group in groups {
        writer.write(group).expect("room");
        writer.flush().expect("room");
    }
    writer.close().expect("a footer");

    let bytes = fs::read(&full).expect("the file");
    let row_groups: Vec<u64> = groups.iter().map(|g| g.num_rows() as u64).collect();

    FileEntry {
        table: None,
        feature: None,
        split: None,
        path: path.to_owned(),
        rows: row_groups.iter().sum(),
        bytes: bytes.len() as u64,
        blake3: blake3::hash(&bytes).to_hex().to_string(),
        row_groups,
        footer: None,
    }
}
