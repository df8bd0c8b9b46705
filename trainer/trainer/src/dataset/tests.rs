//! Tests of model inputs created from small stores: values, labels, metadata, ids and unusual layouts.

use std::path::Path;
use std::sync::Arc;

use half::f16;
use tch::{Device, Kind, Tensor};
use wavemill_schemas::config::Data;
use wavemill_schemas::recipe::{Compression, Dtype, Layout};

use super::fixture::{Fixture, RowId};
use super::testing::{load, made, open, training};
use super::*;

/// Returns all rows of a split as one batch.
fn whole(dataset: &Arc<Dataset>, split: Split) -> Batch {
    let plan = LoaderPlan {
        split,
        batch_size: 1000,
        ..LoaderPlan::default()
    };

    Loader::start(dataset, plan)
        .expect("threads")
        .next()
        .expect("a batch")
        .expect("no damage")
}

fn clips(dataset: &Dataset, batch: &Batch) -> Vec<usize> {
    batch
        .rows
        .iter()
        .map(|&row| dataset.rows().track_ids[row as usize] as usize)
        .collect()
}

fn opened(root: &Path, data: &Data) -> Arc<Dataset> {
    open(root, data, Needs::default()).expect("a dataset")
}

fn inputs(batch: &Batch, kind: Kind) -> Inputs {
    let inputs = super::inputs(batch, Device::Cpu, kind);
    inputs.expect("tensors")
}

fn spectrogram(batch: &Batch, kind: Kind) -> Tensor {
    let tensor = super::spectrogram(batch, Device::Cpu, kind);
    tensor.expect("a tensor")
}

/// Returns the settings for rows of this length.
fn with_frames(frames: usize) -> Data {
    Data {
        frames: Some(frames),
        ..Data::default()
    }
}

/// Identifies the only row of a clip.
fn row_of(clip: usize) -> RowId {
    RowId {
        clip,
        segment: 0,
        variant: 1.0,
    }
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.flatten(0, -1)).expect("f32")
}

fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.flatten(0, -1).to_kind(Kind::Double)).expect("f64")
}

#[test]
fn metadata_is_standardised_by_training_rows_alone() {
    let (_folder, dataset) = made(&Fixture::default(), &Data::default());
    let names: Vec<&str> = dataset
        .input_spec()
        .metadata
        .iter()
        .map(|column| column.name.as_str())
        .collect();
    assert_eq!(names, ["mfcc_mean_01", "mfcc_mean_02", "mfcc_std_01"]);
    assert_eq!(dims(&dataset).metadata, 3);

    let batch = whole(&dataset, Split::Training);
    let rows = batch.rows.len();
    let seen = inputs(&batch, Kind::Double).metadata.expect("asked for");
    assert_eq!(seen.size(), [rows as i64, 3]);
    let seen = values(&seen);
    let clips_there = clips(&dataset, &batch);

    for column in 0..2 {
        let (there, missing): (Vec<usize>, Vec<usize>) =
            (0..rows).partition(|&r| column == 0 || clips_there[r] % 5 != 4);
        let told: Vec<f64> = there.iter().map(|r| seen[3 * r + column]).collect();

        let mean = told.iter().sum::<f64>() / told.len() as f64;
        let square = told.iter().map(|x| x * x).sum::<f64>() / told.len() as f64;
        assert!(
            mean.abs() < 1e-5 && (square - 1.0).abs() < 1e-5,
            "column {column}: {mean}, {square}"
        );
        assert!(missing.iter().all(|r| seen[3 * r + column] == 0.0));
    }

    assert!(
        (0..rows).all(|r| seen[3 * r + 2] == 0.0),
        "a constant column says nothing"
    );

    // The value of a test row before standardisation is 100 · class + noise in [0, 1).
    let batch = whole(&dataset, Split::Test);
    let seen = inputs(&batch, Kind::Double).metadata.expect("asked for");
    let column = &dataset.input_spec().metadata[0];
    for (seen, clip) in values(&seen).chunks(3).zip(clips(&dataset, &batch)) {
        let raw = seen[0] * column.std + column.mean - 100.0 * (clip % 3) as f64;
        assert!((0.0..1.0).contains(&raw), "clip {clip}: {raw}");
    }
}

#[test]
fn ids_are_those_of_training_artists_and_others_are_0() {
    let (_folder, dataset) = made(&Fixture::default(), &Data::default());

    // The last two of 12 artists are in the validation and test splits; clips 6, 13, … have no artist. The album id is
    // half the clip number.
    assert_eq!(dataset.input_spec().artists, (0..10).collect::<Vec<i64>>());
    assert_eq!(
        dims(&dataset).vocabulary,
        [11, dataset.input_spec().albums.len() as i64 + 1]
    );

    for split in Split::ALL {
        let batch = whole(&dataset, split);
        let ids = inputs(&batch, Kind::Float).ids.expect("asked for");
        assert_eq!(ids.kind(), Kind::Int64);

        for (ids, clip) in values(&ids).chunks(2).zip(clips(&dataset, &batch)) {
            let artist = (clip % 7 != 6 && split == Split::Training).then_some(clip % 12);
            assert_eq!(
                ids[0],
                artist.map_or(0.0, |artist| artist as f64 + 1.0),
                "clip {clip}"
            );

            let album = dataset
                .input_spec()
                .albums
                .iter()
                .position(|&album| album == clip as i64 / 2);
            assert_eq!(
                ids[1],
                album.map_or(0.0, |place| place as f64 + 1.0),
                "clip {clip}"
            );
        }
    }
}

#[test]
fn only_requested_columns_are_joined() {
    let (folder, _dataset) = made(&Fixture::default(), &Data::default());
    let data = Data {
        metadata: vec!["no such".to_owned()],
        ..Data::default()
    };
    let dataset = open(folder.path(), &data, Needs::default()).expect("a dataset");

    let inputs = inputs(&whole(&dataset, Split::Test), Kind::Float);

    assert!(inputs.metadata.is_none() && inputs.ids.is_none());
    assert_eq!(
        (dims(&dataset).metadata, dims(&dataset).vocabulary),
        (0, [0, 0])
    );
}

#[test]
fn no_tensor_is_read_for_a_model_that_sees_metadata_alone() {
    for fixture in [
        Fixture::default(),
        Fixture {
            ragged: true,
            ..Fixture::default()
        },
    ] {
        let (folder, dataset) = made(&fixture, &with_frames(8));

        let silent = open(folder.path(), &with_frames(8), Needs::Metadata).expect("a dataset");

        let plan = LoaderPlan {
            shuffle: true,
            mixup: true,
            batch_size: 7,
            world_size: 2,
            ..LoaderPlan::default()
        };

        let [batches, silent_batches] =
            [&dataset, &silent].map(|data| Loader::start(data, plan.clone()).expect("threads"));
        for (all, few) in batches.zip(silent_batches) {
            let (all, few) = (all.expect("rows"), few.expect("rows"));
            assert_eq!(
                (&few.rows, few.n_own, &few.partners),
                (&all.rows, all.n_own, &all.partners)
            );

            let [all, few] = [&all, &few].map(|batch| inputs(batch, Kind::Float));
            assert_eq!(few.metadata, all.metadata);
            assert_eq!(
                (few.spectrogram.size(), few.ids.is_none()),
                (vec![all.spectrogram.size()[0], 0, 0], true)
            );
        }

        assert!(dataset.bytes_read() > 0);
        assert_eq!(silent.bytes_read(), 0);
    }
}

#[test]
fn a_model_of_a_spec_sees_what_a_model_of_the_store_sees() {
    let data = Data {
        normalize: true,
        frames: Some(8),
        ..Data::default()
    };
    let fixture = Fixture {
        dtype: Dtype::U8,
        ragged: true,
        ..Fixture::default()
    };
    let (_folder, dataset) = made(&fixture, &data);

    let text = serde_json::to_string(dataset.input_spec()).expect("JSON");
    let spec: InputSpec = serde_json::from_str(&text).expect("a spec");

    let batch = whole(&dataset, Split::Validation);
    let clips = clips(&dataset, &batch).into_iter();
    let stored: Vec<Vec<u8>> = clips.map(|clip| fixture.stored(row_of(clip))).collect();
    let stored: Vec<&[u8]> = stored.iter().map(Vec::as_slice).collect();

    let want = inputs(&batch, Kind::Float).spectrogram;
    assert!(
        inputs_of_rows(&spec, &stored, Device::Cpu, Kind::Float)
            .expect("tensors")
            .spectrogram
            .equal(&want)
    );
}

/// Returns the expected model input for a row of the store `fixture`, without normalisation.
fn seen(fixture: &Fixture, clip: usize, frames: usize) -> Vec<f64> {
    let own = fixture.frames(clip);
    let values = (fixture.values)(fixture, row_of(clip));

    let mut seen = vec![0.0; frames * fixture.shape[0]];
    for (i, value) in seen.iter_mut().enumerate() {
        if i % frames < own {
            let x = values[i / frames * own + i % frames];
            *value = match fixture.dtype {
                Dtype::F16 => f16::from_f32(x).to_f64(),
                Dtype::F32 => f64::from(x),
                Dtype::U8 => f64::from((x * 255.0).round() * (1.0 / 255.0)),
                Dtype::S16 => f64::from((x * 32_767.0).round() / 32_768.0),
            };
        }
    }
    seen
}

#[test]
fn lz4_lists_and_rows_of_differing_length_are_read_as_well() {
    for (layout, compression, ragged) in [
        (Layout::Binary, Compression::Lz4, false),
        (Layout::List, Compression::Zstd, false),
        (Layout::List, Compression::None, true),
        (Layout::Binary, Compression::Zstd, true),
        (Layout::Binary, Compression::None, true),
    ] {
        for (dtype, frames_first, frames) in [
            (Dtype::F16, false, 10),
            (Dtype::F32, true, 13),
            (Dtype::U8, false, 8),
            (Dtype::U8, true, 8),
            (Dtype::S16, false, 12),
        ] {
            let fixture = Fixture {
                dtype,
                frames_first,
                layout,
                compression,
                ragged,
                ..Fixture::default()
            };
            let (_folder, dataset) = made(&fixture, &with_frames(frames));

            let plan = LoaderPlan {
                readers: 2,
                shuffle: true,
                ..LoaderPlan::default()
            };

            let mut rows = 0;
            for batch in Loader::start(&dataset, plan).expect("threads") {
                let batch = batch.expect("no damage");
                let tensor = spectrogram(&batch, Kind::Float);

                for (place, clip) in clips(&dataset, &batch).into_iter().enumerate() {
                    let (got, want) = (
                        values(&tensor.get(place as i64)),
                        seen(&fixture, clip, frames),
                    );
                    let is_near = got.len() == want.len()
                        && got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-7);
                    assert!(is_near, "clip {clip} of {fixture:?}: {got:?}, not {want:?}");
                    rows += 1;
                }
            }

            assert_eq!(rows, 80);
        }
    }
}

#[test]
fn time_first_stores_are_turned_and_frames_cut_or_padded() {
    let folder = tempfile::tempdir().expect("a folder");
    let fixture = Fixture {
        frames_first: true,
        dtype: Dtype::F32,
        ..Fixture::default()
    };
    fixture.write(folder.path());

    for frames in [7, 10, 13] {
        let dataset = opened(folder.path(), &with_frames(frames));
        assert_eq!(
            (dims(&dataset).bands, dims(&dataset).frames),
            (6, frames as i64)
        );

        let batch = load(&dataset, LoaderPlan::default()).swap_remove(0);
        let tensor = spectrogram(&batch, Kind::Float);
        assert_eq!(tensor.size(), [16, 6, frames as i64]);

        let clip = dataset.rows().track_ids[batch.rows[3] as usize] as usize;
        let want = (fixture.values)(&fixture, row_of(clip));
        let got = floats(&tensor.get(3));

        for band in 0..6 {
            for frame in 0..frames {
                let want = if frame < 10 {
                    want[band * 10 + frame]
                } else {
                    0.0
                };
                assert_eq!(
                    got[band * frames + frame],
                    want,
                    "band {band}, frame {frame} of {frames}"
                );
            }
        }
    }
}

#[test]
fn normalised_training_rows_have_mean_0_and_deviation_1_in_each_band() {
    let folder = tempfile::tempdir().expect("a folder");
    Fixture {
        dtype: Dtype::F32,
        ..Fixture::default()
    }
    .write(folder.path());

    let dataset = opened(
        folder.path(),
        &Data {
            normalize: true,
            ..Data::default()
        },
    );

    let batches = load(
        &dataset,
        LoaderPlan {
            batch_size: 1000,
            ..LoaderPlan::default()
        },
    );
    let tensor = spectrogram(&batches[0], Kind::Double);

    let mean = tensor.mean_dim([0_i64, 2].as_slice(), false, Kind::Double);
    let std = tensor.std_dim([0_i64, 2].as_slice(), false, false);
    assert!(mean.abs().max().double_value(&[]) < 1e-5, "{mean:?}");
    assert!((std - 1.0).abs().max().double_value(&[]) < 1e-5);
}

#[test]
fn a_tensor_outlives_its_batch_and_the_memory_that_is_filled_anew() {
    let (_folder, dataset) = made(
        &Fixture {
            dtype: Dtype::F32,
            ..Fixture::default()
        },
        &Data {
            shuffle_window: 3,
            ..Data::default()
        },
    );

    let mut loader = Loader::start(&dataset, training()).expect("threads");
    let batch = loader.next().expect("a batch").expect("no damage");
    let first = spectrogram(&batch, Kind::Float);
    drop(batch);
    let before = floats(&first);

    assert_eq!(loader.count(), 7);
    assert_eq!(floats(&first), before);
}

#[test]
fn labels_are_those_of_the_rows_and_missing_ones_are_minus_one() {
    let folder = tempfile::tempdir().expect("a folder");
    Fixture {
        unlabelled: 5,
        ..Fixture::default()
    }
    .write(folder.path());

    let targets = vec!["genre".to_owned(), GENRES_ALL.to_owned()];
    let dataset = opened(
        folder.path(),
        &Data {
            targets,
            ..Data::default()
        },
    );
    assert_eq!(
        dataset.targets()[1].classes(),
        ["Genre 0", "Genre 1", "Genre 2", "Even"]
    );

    let mut counts = [vec![0; 3], vec![0; 4]];
    for batch in load(&dataset, training()) {
        let ids = Vec::<i64>::try_from(&labels(&batch, 0).expect("labels")).expect("i64");
        let hot = Vec::<f32>::try_from(labels(&batch, 1).expect("labels").view(-1)).expect("f32");

        for (place, &row) in batch.rows.iter().enumerate() {
            let clip = dataset.rows().track_ids[row as usize];
            assert_eq!(ids[place], if clip % 5 == 4 { -1 } else { clip % 3 });
            let want: Vec<f32> = (0..4)
                .map(|c| f32::from(c == clip % 3 || c == 3 && clip % 2 == 0))
                .collect();
            assert_eq!(hot[4 * place..][..4], want);

            if ids[place] >= 0 {
                counts[0][ids[place] as usize] += 1;
            }
            (0..4).for_each(|c| counts[1][c] += want[c] as u64);
        }
    }

    assert_eq!([dataset.class_counts(0), dataset.class_counts(1)], counts);
}
