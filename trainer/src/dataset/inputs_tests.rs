//! What a model sees of small stores: metadata, ids, odd layouts; and what is said of their rows.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use half::f16;
use tch::{Device, Kind, Tensor};
use wavemill_schemas::recipe::{Compression, Dtype, Layout};

use super::fixture::{FEATURE, Fixture, RowId};
use super::*;

const ALL: Needs = Needs::All;

fn open(root: &Path, data: &Data, needs: Needs) -> Result<Arc<Dataset>, DatasetError> {
    Dataset::open(Store::open(root, None)?, data, needs)
}

fn made(fixture: &Fixture, data: &Data) -> (tempfile::TempDir, Arc<Dataset>) {
    let folder = tempfile::tempdir().expect("a folder");
    fixture.write(folder.path());
    let dataset = open(folder.path(), data, ALL).expect("a dataset");
    (folder, dataset)
}

/// All rows of a side in one batch.
fn whole(dataset: &Arc<Dataset>, side: Side) -> Batch {
    let plan = LoaderPlan { side, batch_size: 1000, ..LoaderPlan::default() };
    Loader::start(dataset, plan).expect("threads").next().expect("a batch").expect("no damage")
}

fn clips(dataset: &Dataset, batch: &Batch) -> Vec<usize> {
    batch.rows().iter().map(|&row| dataset.rows().track_ids[row as usize] as usize).collect()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.flatten(0, -1).to_kind(Kind::Double)).expect("f64")
}

#[test]
fn metadata_is_standardised_by_training_rows_alone() {
    let (_folder, dataset) = made(&Fixture::default(), &Data::default());
    let names: Vec<&str> = dataset.input_spec().metadata.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["mfcc_mean_01", "mfcc_mean_02", "mfcc_std_01"]);
    assert_eq!(dataset.dims().metadata, 3);

    let batch = whole(&dataset, Side::Training);
    let rows = batch.rows().len();
    let seen = dataset.inputs(&batch, Device::Cpu, Kind::Double).expect("tensors").metadata.expect("asked for");
    assert_eq!(seen.size(), [rows as i64, 3]);
    let seen = values(&seen);
    let clips_there = clips(&dataset, &batch);
    for column in 0..2 {
        let has = |clip: usize| column == 0 || clip % 5 != 4;
        let told: Vec<f64> = (0..rows).filter(|&r| has(clips_there[r])).map(|r| seen[3 * r + column]).collect();
        let mean = told.iter().sum::<f64>() / told.len() as f64;
        let square = told.iter().map(|x| x * x).sum::<f64>() / told.len() as f64;
        assert!(mean.abs() < 1e-5 && (square - 1.0).abs() < 1e-5, "column {column}: {mean}, {square}");
        assert!((0..rows).filter(|&r| !has(clips_there[r])).all(|r| seen[3 * r + column] == 0.0));
    }
    assert!((0..rows).all(|r| seen[3 * r + 2] == 0.0), "a constant column says nothing");

    // The raw value of a test row is 100 · class + noise in [0, 1).
    let batch = whole(&dataset, Side::Test);
    let seen = dataset.inputs(&batch, Device::Cpu, Kind::Double).expect("tensors").metadata.expect("asked for");
    let column = &dataset.input_spec().metadata[0];
    for (seen, clip) in values(&seen).chunks(3).zip(clips(&dataset, &batch)) {
        let raw = seen[0] * column.std + column.mean - 100.0 * (clip % 3) as f64;
        assert!((0.0..1.0).contains(&raw), "clip {clip}: {raw}");
    }
}

#[test]
fn ids_are_those_of_training_artists_and_others_are_0() {
    let (_folder, dataset) = made(&Fixture::default(), &Data::default());
    // Of 12 artists the last two are in validation and test; clips 6, 13, … have none. Albums are halves of clips.
    assert_eq!(dataset.input_spec().artists, (0..10).collect::<Vec<i64>>());
    assert_eq!(dataset.dims().vocabulary, [11, dataset.input_spec().albums.len() as i64 + 1]);
    for side in Side::ALL {
        let batch = whole(&dataset, side);
        let ids = dataset.inputs(&batch, Device::Cpu, Kind::Float).expect("tensors").ids.expect("asked for");
        assert_eq!(ids.kind(), Kind::Int64);
        for (ids, clip) in values(&ids).chunks(2).zip(clips(&dataset, &batch)) {
            let artist = (clip % 7 != 6 && side == Side::Training).then_some(clip % 12);
            assert_eq!(ids[0], artist.map_or(0.0, |artist| artist as f64 + 1.0), "clip {clip}");
            let album = dataset.input_spec().albums.iter().position(|&album| album == clip as i64 / 2);
            assert_eq!(ids[1], album.map_or(0.0, |place| place as f64 + 1.0), "clip {clip}");
        }
    }
}

#[test]
fn nothing_is_joined_that_no_model_asked_for() {
    let (folder, _dataset) = made(&Fixture::default(), &Data::default());
    let data = Data { metadata: vec!["no such".to_owned()], ..Data::default() };
    let dataset = open(folder.path(), &data, Needs::default()).expect("a dataset");
    let inputs = dataset.inputs(&whole(&dataset, Side::Test), Device::Cpu, Kind::Float).expect("a tensor");
    assert!(inputs.metadata.is_none() && inputs.ids.is_none());
    assert_eq!((dataset.dims().metadata, dataset.dims().vocabulary), (0, [0, 0]));
}

#[test]
fn no_tensor_is_read_for_a_model_that_sees_metadata_alone() {
    for fixture in [Fixture::default(), Fixture { ragged: true, ..Fixture::default() }] {
        let (folder, dataset) = made(&fixture, &Data { frames: Some(8), ..Data::default() });
        let silent =
            open(folder.path(), &Data { frames: Some(8), ..Data::default() }, Needs::Metadata).expect("a dataset");
        let plan = LoaderPlan { shuffle: true, mixup: true, batch_size: 7, world_size: 2, ..LoaderPlan::default() };
        let batches =
            |dataset: &Arc<Dataset>| Loader::start(dataset, plan.clone()).expect("threads").map(Result::unwrap);
        let inputs =
            |dataset: &Dataset, batch: &Batch| dataset.inputs(batch, Device::Cpu, Kind::Float).expect("tensors");
        for (all, few) in batches(&dataset).zip(batches(&silent)) {
            assert_eq!((few.rows(), few.n_own(), few.partners()), (all.rows(), all.n_own(), all.partners()));
            let [all, few] = [inputs(&dataset, &all), inputs(&silent, &few)];
            assert_eq!(few.metadata, all.metadata);
            assert_eq!((few.spectrogram.size(), few.ids.is_none()), (vec![all.spectrogram.size()[0], 0, 0], true));
        }
        assert!(dataset.bytes_read() > 0);
        assert_eq!(silent.bytes_read(), 0);
    }
}

#[test]
fn a_prefix_without_columns_is_told_with_those_that_there_are() {
    let (folder, _dataset) = made(&Fixture::default(), &Data::default());
    let error = |metadata: &[&str]| {
        let data = Data { metadata: metadata.iter().map(|&p| p.to_owned()).collect(), ..Data::default() };
        open(folder.path(), &data, ALL).expect_err("no columns").to_string()
    };
    assert_eq!(error(&["mfcc", "tonnetz"]), "data.metadata = tonnetz: the store has chroma_cens, mfcc");
    assert!(error(&[]).starts_with("data.metadata: the model needs columns of fma_features"));
}

#[test]
fn a_model_of_a_spec_sees_what_a_model_of_the_store_sees() {
    let data = Data { normalize: true, frames: Some(8), ..Data::default() };
    let fixture = Fixture { dtype: Dtype::U8, ragged: true, ..Fixture::default() };
    let (_folder, dataset) = made(&fixture, &data);
    let text = serde_json::to_string(dataset.input_spec()).expect("JSON");
    let spec: InputSpec = serde_json::from_str(&text).expect("a spec");
    let batch = whole(&dataset, Side::Validation);
    let ids = clips(&dataset, &batch).into_iter().map(|clip| RowId { clip, segment: 0, variant: 1.0 });
    let stored: Vec<Vec<u8>> = ids.map(|row| fixture.stored(row)).collect();
    let stored: Vec<&[u8]> = stored.iter().map(Vec::as_slice).collect();
    let want = dataset.inputs(&batch, Device::Cpu, Kind::Float).expect("tensors").spectrogram;
    assert!(spec.spectrogram(&stored, Device::Cpu, Kind::Float).expect("a tensor").equal(&want));
}

/// As a model should see a row of `fixture`, without normalisation.
fn seen(fixture: &Fixture, clip: usize, frames: usize) -> Vec<f64> {
    let own = fixture.frames(clip);
    let values = (fixture.values)(fixture, RowId { clip, segment: 0, variant: 1.0 });
    let read = |x: f32| match fixture.dtype {
        Dtype::F16 => f16::from_f32(x).to_f64(),
        Dtype::F32 => f64::from(x),
        Dtype::U8 => f64::from((x * 255.0).round() * (1.0 / 255.0)),
    };
    let at = |i: usize| if i % frames < own { read(values[i / frames * own + i % frames]) } else { 0.0 };
    (0..frames * fixture.shape[0]).map(at).collect()
}

#[test]
fn lz4_lists_and_rows_of_differing_length_are_read_as_well() {
    let odd = |layout, compression, ragged| Fixture { layout, compression, ragged, ..Fixture::default() };
    for fixture in [
        odd(Layout::Binary, Compression::Lz4, false),
        odd(Layout::List, Compression::Zstd, false),
        odd(Layout::List, Compression::None, true),
        odd(Layout::Binary, Compression::Zstd, true),
        odd(Layout::Binary, Compression::None, true),
    ] {
        for (dtype, frames_first, frames) in
            [(Dtype::F16, false, 10), (Dtype::F32, true, 13), (Dtype::U8, false, 8), (Dtype::U8, true, 8)]
        {
            let fixture = Fixture { dtype, frames_first, ..fixture.clone() };
            let (_folder, dataset) = made(&fixture, &Data { frames: Some(frames), ..Data::default() });
            let plan = LoaderPlan { readers: 2, shuffle: true, ..LoaderPlan::default() };
            let mut rows = 0;
            for batch in Loader::start(&dataset, plan).expect("threads") {
                let batch = batch.expect("no damage");
                let tensor = batch.spectrogram(Device::Cpu, Kind::Float).expect("a tensor");
                for (place, clip) in clips(&dataset, &batch).into_iter().enumerate() {
                    let (got, want) = (values(&tensor.get(place as i64)), seen(&fixture, clip, frames));
                    let is_near = got.len() == want.len() && got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-7);
                    assert!(is_near, "clip {clip} of {fixture:?}: {got:?}, not {want:?}");
                    rows += 1;
                }
            }
            assert_eq!(rows, 80);
        }
    }
}

#[test]
fn rows_of_differing_length_need_a_number_of_frames() {
    let (folder, _dataset) =
        made(&Fixture { ragged: true, ..Fixture::default() }, &Data { frames: Some(8), ..Data::default() });
    let error = open(folder.path(), &Data::default(), Needs::default()).expect_err("no frames").to_string();
    assert_eq!(error, "data.frames: rows of log_mel differ in length: set data.frames to how many each is to have");
}

#[test]
fn a_damaged_page_of_an_odd_layout_is_named_too() {
    let fixture =
        Fixture { compression: Compression::Lz4, layout: Layout::List, shape: [16, 64], ..Fixture::default() };
    let (folder, dataset) = made(&fixture, &Data { skip_damaged: true, ..Data::default() });
    let entry = dataset.store().manifest().files_of(FEATURE).next().expect("a file");
    let path = dataset.store().path(entry).expect("a path");
    let mut bytes = fs::read(&path).expect("a file");
    let clean = bytes.clone();
    // Tensors are most of the file.
    let (from, to) = (bytes.len() / 8, bytes.len() / 4);
    bytes[from..to].fill(0xff);
    fs::write(&path, &bytes).expect("room");
    let strict = open(folder.path(), &Data::default(), Needs::default());
    let error =
        strict.and_then(|d| Loader::start(&d, LoaderPlan::default())?.find_map(Result::err).map_or(Ok(()), Err));
    let error = error.expect_err("damage is seen");
    assert!(error.is_damage() && error.to_string().contains(&path.display().to_string()), "{error}");
    fs::write(&path, &clean[..clean.len() / 2]).expect("room");
    let batch = Loader::start(&dataset, LoaderPlan { batch_size: 80, ..LoaderPlan::default() });
    let batch = batch.expect("threads").next().expect("a batch").expect("counted, not fatal");
    assert!(!batch.damaged().is_empty() && batch.rows().len() + batch.damaged().len() == 80);
    assert!(batch.damaged()[0].to_string().contains("the file ends within it"), "{}", batch.damaged()[0]);
}

#[test]
fn what_is_odd_about_rows_is_said_in_a_sentence_each() {
    // So many artists that every side has all classes.
    let varied = Fixture { artists: 11, ..Fixture::default() };
    let (folder, plain) = made(&varied, &Data::default());
    assert_eq!(plain.warnings(), Vec::<String>::new());
    let data = Data { split: Some("stratified".to_owned()), normalize: true, ..Data::default() };
    let other = open(folder.path(), &data, ALL).expect("a dataset");
    assert_eq!(other.warnings().len(), 1);
    assert!(other.warnings()[0].contains("the store's rule, artist; under data.split = stratified"));

    let fixture = Fixture { unlabelled: 5, published: 90, stretched: true, clips: 96, ..Fixture::default() };
    let data = Data { split: Some("stratified".to_owned()), skip_damaged: true, ..Data::default() };
    let (folder, dataset) = made(&fixture, &data);
    let entry = dataset.store().manifest().files_of(FEATURE).nth(1).expect("a file").clone();
    fs::remove_file(folder.path().join(&entry.path)).expect("a file");
    let warnings = open(folder.path(), &data, ALL).expect("the rest").warnings();
    let begins = ["40 rows are passed over: ", "12 of 136 rows are on no side under stratified"];
    assert_eq!(warnings.len(), 4, "{warnings:#?}");
    assert!(warnings.iter().zip(begins).all(|(warning, begin)| warning.starts_with(begin)), "{warnings:#?}");
    assert_eq!(warnings[2], "14 of 110 training, 7 of 7 test rows have no genre: they add to no loss and no score");
    assert!(warnings[3].starts_with("10 of 124 rows have no track in fma_features"), "{warnings:#?}");

    // Each third clip is of the last class, and the same ones have no label.
    let (_folder, dataset) = made(&Fixture { unlabelled: 3, ..varied }, &Data::default());
    assert_eq!(dataset.warnings()[1..], ["no training row of genre is class 2"]);
}
