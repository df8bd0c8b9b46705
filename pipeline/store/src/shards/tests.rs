//! Tests that write encoded shards and read them back.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, RecordBatch};
use arrow::datatypes::{Float16Type, Int32Type};
use half::f16;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::file::metadata::PageIndexPolicy;
use wavemill_schemas::clip::ClipRow;
use wavemill_schemas::columns::RowFacts;
use wavemill_schemas::manifest::{FeatureEntry, FileEntry, TargetEntry};
use wavemill_schemas::recipe::{Compression, Dtype, Layout, ShardSpec};

use super::encode::{Format, RowGroup};
use super::file::{ParquetFile, write_table};
use super::rows::FeatureRow;
use crate::StoreError;
use crate::tensors::Tensor;

const ROWS: usize = 6;
const SHAPE: [usize; 2] = [4, 50];

fn entry(shape: Vec<Option<usize>>) -> FeatureEntry {
    FeatureEntry {
        name: "mel".to_owned(),
        feature_id: "0".repeat(64),
        dtype: "f16".to_owned(),
        scale: None,
        shape,
        dim_names: vec!["mel".to_owned(), "frame".to_owned()],
        sample_rate_hz: Some(22_050),
        hop_length: Some(512),
        preset: "librosa".to_owned(),
        columns: None,
    }
}

fn value(row: usize, i: usize) -> f16 {
    f16::from_f32((row * 1000 + i) as f32 / 8.0)
}

fn clips() -> Vec<ClipRow> {
    let numbers = 0..ROWS;
    numbers
        .map(|i| ClipRow {
            clip_key: format!("000/{i:06}.mp3"),
            track_id: i as i64,
            targets: vec![],
            genres_all: vec![1, i as i32],
            artist_id: (i != 2).then_some(7),
            album_id: None,
            split: "training".to_owned(),
        })
        .collect()
}

fn rows(n_frames: impl Fn(usize) -> usize) -> Vec<FeatureRow> {
    let mut rows = Vec::new();
    for clip in 0..ROWS {
        let shape = [SHAPE[0], n_frames(clip)];
        let bytes = (0..shape[0] * shape[1])
            .flat_map(|i| value(clip, i).to_le_bytes())
            .collect();

        rows.push(FeatureRow {
            clip,
            facts: RowFacts {
                variant: 1.0,
                duration_s: 1.0,
                audio_blake3: "a".repeat(64).into(),
                ..RowFacts::default()
            },
            n_samples: 0,
            permit: None,
            tensors: vec![Tensor {
                bytes,
                shape: shape.to_vec(),
            }],
        });
    }
    rows
}

/// Writes one row group to a file in `folder`.
fn write(folder: &Path, format: Format, rows: Vec<FeatureRow>, clips: &[ClipRow]) -> FileEntry {
    let path = "00000.parquet".to_owned();
    let properties = format.properties.clone();
    let mut file = ParquetFile::create(folder, path, &format.schema, properties).expect("a file");

    let group = RowGroup {
        shard: 0,
        number: 0,
        rows,
        training: true,
        busy: wavemill_runtime::budget::ByteBudget::new(0).busy(),
    };

    let n_given_back = Cell::new(0);
    let give_back = |_| n_given_back.set(n_given_back.get() + 1);
    let encoded = group
        .encode(&[format], clips, "training-00000", &give_back)
        .expect("encodable rows");
    assert_eq!(n_given_back.get(), encoded.rows, "a buffer of each tensor");
    for feature in encoded.features {
        assert!(feature.partial.values > 0);
        file.append_feature(encoded.rows, feature).expect("room");
    }
    file.finish().expect("a finished file")
}

/// Writes one row group and reads it back, with the number of pages of the tensor column.
fn round_trip(
    shape: Vec<Option<usize>>,
    spec: &ShardSpec,
    rows: Vec<FeatureRow>,
) -> (RecordBatch, usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let format = Format::new(entry(shape), Dtype::F16, &[], spec).expect("a schema");
    let tensor = format.schema.index_of("mel").expect("the column");
    let entry = write(folder.path(), format, rows, &clips());
    assert_eq!(
        (entry.rows, entry.row_groups.as_slice()),
        (ROWS as u64, &[ROWS as u64][..])
    );

    let file = std::fs::File::open(folder.path().join("00000.parquet")).expect("the file");
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
    let metadata = ArrowReaderMetadata::load(&file, options).expect("Parquet");

    let pages = metadata.metadata().offset_index().expect("an offset index")[0][tensor]
        .page_locations()
        .len();

    let mut reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata)
        .build()
        .expect("a reader");
    (reader.next().expect("one batch").expect("readable"), pages)
}

#[test]
fn compressed_shards_hold_one_row_a_page_and_plain_ones_a_few() {
    for (compression, want) in [
        (Compression::Zstd, ROWS),
        (Compression::Lz4, ROWS),
        (Compression::None, 2),
    ] {
        let (batch, pages) = round_trip(
            SHAPE.map(Some).to_vec(),
            &ShardSpec {
                compression,
                ..ShardSpec::default()
            },
            rows(|_| SHAPE[1]),
        );
        assert_eq!(pages, want, "{compression:?}");

        let tensors = batch
            .column_by_name("mel")
            .expect("the column")
            .as_fixed_size_binary();

        for row in 0..ROWS {
            let want: Vec<u8> = (0..SHAPE[0] * SHAPE[1])
                .flat_map(|i| value(row, i).to_le_bytes())
                .collect();
            assert_eq!(tensors.value(row), want, "row {row}, {compression:?}");
        }

        assert!(
            batch
                .column_by_name("artist_id")
                .expect("the column")
                .is_null(2)
        );
    }
}

/// Bytes are promised equal for equal engines, and the engine names the Parquet writer and zstd. If a hash changes
/// although neither has another version, raise `NUMERICS_REVISION`. Write the new hashes here in both cases.
#[test]
fn the_bytes_of_a_shard_are_pinned() {
    let fixed = || entry(SHAPE.map(Some).to_vec());
    let ragged = entry(vec![Some(SHAPE[0]), None]);
    let pictures = FeatureEntry {
        dim_names: ["channel", "row", "column"].map(str::to_owned).to_vec(),
        sample_rate_hz: None,
        ..entry(vec![Some(SHAPE[0]), Some(10), Some(5)])
    };
    let spec = |compression, layout| ShardSpec {
        compression,
        layout,
        ..ShardSpec::default()
    };
    let zstd = ShardSpec::default();
    let lz4 = spec(Compression::Lz4, Layout::Binary);
    let plain = spec(Compression::None, Layout::Binary);
    let list = spec(Compression::Zstd, Layout::List);

    let cases = [
        (
            fixed(),
            &zstd,
            "af069a52fe225d3987fac74e392ac480bdd8506f7f4275359964ef5ccb20b218",
        ),
        (
            fixed(),
            &lz4,
            "df0a2c4097fa7a2d2a95bb39fb7fe8281da836f2e5b9fe0ed9ecabfe70300376",
        ),
        (
            fixed(),
            &plain,
            "017c5bedef8ebd854ce94c70ab13968d7adab2828243af58e7689a1d3fa67569",
        ),
        (
            fixed(),
            &list,
            "727a924deef96fb4ca837c42c1cec0f437af01d989b21ed96a1b17a0aec207cc",
        ),
        (
            ragged,
            &plain,
            "2614c4ac2af41f1830e1b16e3a8f1f9eeb19b04de76271124b06c34b40ff267c",
        ),
        (
            pictures,
            &zstd,
            "30240d2582c04daf861ea64eeee3aca679322ed4717dc304f89b498b1af4f99c",
        ),
    ];
    for (number, (entry, spec, expected)) in cases.into_iter().enumerate() {
        let folder = tempfile::tempdir().expect("a folder");
        // The first file has no targets, and the others have one.
        let mut clips = clips();
        let mut targets = Vec::new();
        if number > 0 {
            targets.push(TargetEntry {
                name: "genre".to_owned(),
                classes: vec!["Rock".to_owned()],
                counts: BTreeMap::new(),
            });
            for (i, clip) in clips.iter_mut().enumerate() {
                clip.targets.push((i % 2 == 0).then_some(0));
            }
        }

        let format = Format::new(entry, Dtype::F16, &targets, spec).expect("a schema");
        let blake3 = write(folder.path(), format, rows(|_| SHAPE[1]), &clips).blake3;
        assert_eq!(blake3, expected, "{number}");
    }
}

#[test]
fn ragged_rows_carry_their_shape() {
    let (batch, _) = round_trip(
        vec![Some(SHAPE[0]), None],
        &ShardSpec::default(),
        rows(|row| 10 + row),
    );

    let shapes = batch
        .column_by_name("mel_shape")
        .expect("the column")
        .as_list::<i32>();
    let tensors = batch
        .column_by_name("mel")
        .expect("the column")
        .as_binary::<i32>();

    for row in 0..ROWS {
        let shape = shapes.value(row);
        assert_eq!(
            shape.as_primitive::<Int32Type>().values(),
            &[SHAPE[0] as i32, 10 + row as i32]
        );
        assert_eq!(tensors.value(row).len(), SHAPE[0] * (10 + row) * 2);
    }
}

#[test]
fn the_list_layout_holds_the_same_values() {
    let spec = ShardSpec {
        layout: Layout::List,
        ..ShardSpec::default()
    };
    let (batch, _) = round_trip(SHAPE.map(Some).to_vec(), &spec, rows(|_| SHAPE[1]));

    let lists = batch
        .column_by_name("mel")
        .expect("the column")
        .as_list::<i32>();

    for row in 0..ROWS {
        let list = lists.value(row);
        let values = list.as_primitive::<Float16Type>().values();
        assert!(
            values.iter().enumerate().all(|(i, v)| *v == value(row, i)),
            "row {row}"
        );
    }
}

/// Two processes may write the same file at the same time, on a file system without locks or on several machines.
#[test]
fn a_file_that_two_writers_write_at_once_is_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let batch = RecordBatch::try_from_iter([(
        "number",
        Arc::new(Int32Array::from_iter_values(0..1000)) as ArrayRef,
    )])
    .expect("a batch");
    let write = |rows: &mut dyn Iterator<Item = Result<RecordBatch, StoreError>>| {
        let path = "data/plan/tables/numbers.parquet".to_owned();
        write_table(folder.path(), path, "numbers", batch.schema(), rows)
    };

    // The second writer begins after the first one has begun, and ends before it.
    let mut second = None;
    let mut rows = std::iter::once_with(|| {
        second = Some(write(&mut std::iter::once(Ok(batch.clone()))));
        Ok(batch.clone())
    });
    let first = write(&mut rows).expect("the first writer's file");
    let second = second
        .expect("the second writer has run")
        .expect("its file");
    assert_eq!(first, second);

    let path = folder.path().join(&first.path);
    let hash = wavemill_reader::hash_file(&path).expect("a readable file");
    assert_eq!(hash, first.blake3);

    let folder = path.parent().expect("a parent");
    let names = std::fs::read_dir(folder).expect("a folder").count();
    assert_eq!(names, 1, "no temporary file is left");
}
