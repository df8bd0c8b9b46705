//! Tests that row files contain, row by row, the values from which the scores are computed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Float32Type, Int32Type, Int64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use wavemill_evaluation::report::RunRecord;
use wavemill_evaluation::{Answers, EvaluationSettings, Values, evaluate};
use wavemill_schemas::config::Config;
use wavemill_schemas::run::{Evaluation, Report};
use wavemill_scores::metrics::{Label, Predictions, Row, likeliest, score_rows};

use super::*;
use crate::dataset::fixture::Fixture;
use crate::dataset::{GENRES_ALL, LoaderPlan, Split, Store};
use crate::evaluate::{leaks, predict, scores};
use crate::strategy::Solo;
use crate::testing::{TrainedFixture, alone, made};

fn config() -> Config {
    let sets = ["model.name=lstm", "data.batch_size=7"].map(str::to_owned);
    let targets = format!("data.targets=[\"genre\", \"{GENRES_ALL}\"]");
    Config::parse("", "the test", &[sets.as_slice(), &[targets]].concat()).expect("a configuration")
}

fn settings() -> MapSettings {
    MapSettings {
        perplexity: 30.0,
        seed: 3,
        threads: 2,
    }
}

fn plan() -> LoaderPlan {
    LoaderPlan {
        split: Split::Training,
        batch_size: 7,
        ..LoaderPlan::default()
    }
}

/// Two rows per clip, some of which have no label.
fn two_segments() -> Fixture {
    Fixture {
        segments: 2,
        unlabelled: 5,
        ..Fixture::default()
    }
}

fn predictions_at(path: &Path) -> RowFilePaths {
    RowFilePaths {
        predictions: Some(path.to_owned()),
        ..RowFilePaths::default()
    }
}

fn write(made: &TrainedFixture, paths: &RowFilePaths) -> Vec<Predictions> {
    let about = RowFileMetadata::new(
        "lstm-1".to_owned(),
        4,
        "lstm",
        Split::Training,
        &made.data,
        None,
    );

    let mut files = RowFiles::create(paths, &about, &made.data, Split::Training, 0).expect("room");
    let predictions =
        predict(&made.learner, &made.data, &Solo, plan(), Some(&mut files)).expect("answers");
    files.finish(&made.data, &mut |_| {}).expect("room");

    predictions
}

fn read(path: &Path) -> (RecordBatch, BTreeMap<String, String>) {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).expect("a file"))
        .expect("Parquet");
    let pairs = reader
        .metadata()
        .file_metadata()
        .key_value_metadata()
        .cloned()
        .unwrap_or_default();

    let schema = std::sync::Arc::clone(reader.schema());
    let batches: Vec<_> = reader
        .build()
        .expect("rows")
        .map(|batch| batch.expect("a batch"))
        .collect();

    let metadata = pairs
        .into_iter()
        .map(|pair| (pair.key, pair.value.unwrap_or_default()))
        .collect();
    (
        concat_batches(&schema, &batches).expect("one schema"),
        metadata,
    )
}

fn floats(batch: &RecordBatch, column: &str, row: usize) -> Vec<f32> {
    batch[column]
        .as_list::<i32>()
        .value(row)
        .as_primitive::<Float32Type>()
        .values()
        .to_vec()
}

#[test]
fn predictions_are_those_that_are_scored_row_by_row() {
    let alone = alone();
    let made = made(&two_segments(), &config(), 4, &alone);
    let path = made.folder.path().join("rows.parquet");
    let scored = write(&made, &predictions_at(&path));
    assert_eq!(
        scored,
        predict(&made.learner, &made.data, &Solo, plan(), None).expect("answers"),
        "files change no score"
    );

    let (batch, metadata) = read(&path);
    let about: Value = serde_json::from_str(&metadata[METADATA_KEY]).expect("JSON");
    assert_eq!(
        (&about["run"], &about["targets"][0]["classes"][0]),
        (&"lstm-1".into(), &"class 0".into()),
        "{about}"
    );
    assert_eq!(batch.num_rows(), scored[0].len());

    let ids = batch["genre_true_id"].as_primitive::<Int32Type>();
    let names = batch["genre_true"].as_string::<i32>();
    let predicted = batch["genre_predicted_id"].as_primitive::<Int32Type>();

    let mut right = 0;
    for (at, row) in scored[0].rows().enumerate() {
        assert_eq!(batch["clip_key"].as_string::<i32>().value(at), row.clip_key);
        let segments = batch["segment"].as_primitive::<Int32Type>();
        assert_eq!(segments.value(at), row.segment);
        let track_ids = batch["track_id"].as_primitive::<Int64Type>();
        assert_eq!(track_ids.value(at), row.track_id);
        let probabilities = floats(&batch, "genre_probabilities", at);
        assert_eq!(probabilities, row.probabilities, "the same bits");
        assert_eq!(predicted.value(at) as usize, likeliest(row.probabilities));

        match row.label {
            Label::Class(class) => {
                assert_eq!(
                    (ids.value(at) as usize, names.value(at)),
                    (class, &*scored[0].classes()[class])
                );
                right += usize::from(ids.value(at) == predicted.value(at));
            }
            _ => assert!(ids.is_null(at) && names.is_null(at)),
        }

        let logits = floats(&batch, "genre_logits", at);
        let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
        let first = f64::from(logits[0]).exp() / sum;
        assert!(
            (first - f64::from(row.probabilities[0])).abs() < 1e-6,
            "softmax of {logits:?}"
        );
    }

    let Report::Single(report) = score_rows(&scored[0]).expect("labels") else {
        panic!("one class a row")
    };
    assert!(ids.null_count() > 0 && report.rows as usize == batch.num_rows() - ids.null_count());
    assert_eq!(
        report.accuracy,
        right as f64 / report.rows as f64,
        "the score that is printed"
    );
}

#[test]
fn several_labels_a_row_are_lists() {
    let alone = alone();
    let made = made(&Fixture::default(), &config(), 4, &alone);
    let path = made.folder.path().join("rows.parquet");

    let scored = write(&made, &predictions_at(&path));
    let (batch, _) = read(&path);

    let mut positive = 0;
    for (at, row) in scored[1].rows().enumerate() {
        let Label::Set(set) = row.label else {
            panic!("every row of the fixture has genres")
        };

        let ids = batch["genres_all_true_ids"].as_list::<i32>().value(at);
        let want: Vec<i32> = (0..)
            .zip(set)
            .filter(|(_, holds)| **holds)
            .map(|(class, _)| class)
            .collect();
        assert_eq!(ids.as_primitive::<Int32Type>().values(), &want);

        let above = row.probabilities.iter().filter(|p| **p >= 0.5).count();
        let predicted = batch["genres_all_predicted"].as_list::<i32>();
        assert_eq!(predicted.value(at).len(), above);

        positive += want.len();
    }

    assert!(positive > 0);
}

#[test]
fn embeddings_are_the_inputs_of_the_heads() {
    let alone = alone();
    let made = made(&Fixture::default(), &config(), 4, &alone);
    let [predictions, embeddings] =
        ["rows.parquet", "vectors.parquet"].map(|name| made.folder.path().join(name));
    write(
        &made,
        &RowFilePaths {
            predictions: Some(predictions.clone()),
            embeddings: Some(embeddings.clone()),
            ..RowFilePaths::default()
        },
    );
    let (rows, vectors) = (read(&predictions).0, read(&embeddings).0);
    assert_eq!(rows["clip_key"].as_ref(), vectors["clip_key"].as_ref());
    assert_eq!(rows["genre_true"].as_ref(), vectors["genre_true"].as_ref());

    let variables: BTreeMap<String, Tensor> = made.learner.variables().into_iter().collect();
    let [weight, bias] = ["fc.0.weight", "fc.0.bias"]
        .map(|name| Vec::<f32>::try_from(variables[name].flatten(0, -1)).expect("f32"));

    for at in 0..rows.num_rows() {
        let vector = floats(&vectors, "embedding", at);
        assert_eq!(vector.len() as i64, made.learner.net().width());

        let products = vector
            .iter()
            .zip(&weight)
            .map(|(x, w)| f64::from(*x) * f64::from(*w));
        let logit = products.sum::<f64>() + f64::from(bias[0]);
        assert!(
            (logit - f64::from(floats(&rows, "genre_logits", at)[0])).abs() < 1e-4,
            "row {at}"
        );
    }
}

#[test]
fn a_map_has_a_place_for_every_vector() {
    let alone = alone();
    let made = made(&Fixture::default(), &config(), 4, &alone);
    let [embeddings, map] =
        ["vectors.parquet", "map.parquet"].map(|name| made.folder.path().join(name));

    let scored = write(
        &made,
        &RowFilePaths {
            embeddings: Some(embeddings.clone()),
            map: Some((map.clone(), settings())),
            ..RowFilePaths::default()
        },
    );

    let (vectors, _) = read(&embeddings);
    let (places, metadata) = read(&map);
    assert_eq!(places["clip_key"].as_ref(), vectors["clip_key"].as_ref());
    assert_eq!(
        places["genre_true"].as_ref(),
        vectors["genre_true"].as_ref()
    );

    let predicted = places["genre_predicted_id"].as_primitive::<Int32Type>();
    for (at, row) in scored[0].rows().enumerate() {
        assert_eq!(predicted.value(at) as usize, likeliest(row.probabilities));
    }

    let [x, y] = ["x", "y"].map(|axis| places[axis].as_primitive::<Float32Type>());
    assert_eq!((x.null_count(), y.null_count()), (0, 0));
    assert!(places.column_by_name("genre_logits").is_none());

    let about: Value = serde_json::from_str(&metadata[METADATA_KEY]).expect("JSON");
    let rows = about["map"]["rows_of_side"].as_u64();
    assert_eq!(rows, Some(places.num_rows() as u64), "{about}");
    assert_eq!(about["map"]["seed"], 3, "{about}");
}

#[test]
fn a_vector_that_is_no_number_has_no_place() {
    let rows = RankRows {
        rows: (0..6).collect(),
        vectors: vec![0.0, 1.0, 2.0, f32::NAN, 4.0, 5.0],
        ..RankRows::default()
    };
    let places = places(&rows, &settings(), &mut |_| {}).expect("a map");
    let has_place: Vec<bool> = places.iter().map(Option::is_some).collect();
    assert_eq!(has_place, [true, true, true, false, true, true]);
}

#[test]
fn files_are_read_back_for_a_report() {
    let alone = alone();
    let made = made(&two_segments(), &config(), 4, &alone);
    let folder = made.folder.path();
    let paths = RowFilePaths {
        predictions: Some(folder.join("predictions.parquet")),
        map: Some((folder.join("map.parquet"), settings())),
        ..RowFilePaths::default()
    };
    let scored = write(&made, &paths);

    fs::write(folder.join("config.toml"), "seed = 3\n").expect("room");
    let run = RunRecord::read(folder, None).expect("a run");
    assert_eq!((run.seed(), run.predicted_split()), (3, Split::Training));

    let found = run.predictions.expect("predictions");
    assert_eq!(found.targets.len(), 2);
    for (found, scored) in found.targets.iter().zip(&scored) {
        assert_eq!(found.classes(), scored.classes());
        assert_eq!(found.is_multi(), scored.is_multi());
        assert_eq!(found.len(), scored.len());
        for (found, scored) in found.rows().zip(scored.rows()) {
            // `predictions.parquet` does not contain the index of a row in the store.
            let index = found.index;
            assert_eq!(found, Row { index, ..scored });
        }
    }

    let map = run.map.expect("a map");
    assert_eq!(map.places.len(), scored[0].len());
    assert_eq!(map.targets.len(), 1, "not of several labels");
    for (place, row) in scored[0].rows().enumerate() {
        assert_eq!(map.clip_keys[place], row.clip_key);
        assert_eq!(map.track_ids[place], row.track_id);
    }
    for (truth, row) in map.targets[0].truths.iter().zip(scored[0].rows()) {
        let wanted = match row.label {
            Label::Class(class) => Some(class),
            _ => None,
        };
        assert_eq!(*truth, wanted);
    }
}

#[test]
fn a_file_of_predictions_has_the_scores_of_the_model() {
    let alone = alone();
    let made = made(&two_segments(), &config(), 4, &alone);
    let path = made.folder.path().join("predictions.parquet");
    let paths = predictions_at(&path);
    let leaks = leaks(&made.data, Split::Training);
    let scored = scores(&write(&made, &paths), &leaks, 3).expect("labels");

    let answers = Answers::read(&path).expect("a file");
    for scored in scored {
        let store = Store::open(made.folder.path(), None).expect("a store");
        let settings = EvaluationSettings {
            name: "predictions".to_owned(),
            target: scored.target.clone(),
            split: Split::Training,
            split_rule: None,
            feature: None,
            classes: None,
            trained_on: None,
            values: Values::Probabilities,
            seed: 3,
        };
        let evaluated =
            evaluate(store, &answers, &settings, &AtomicBool::new(false)).expect("scores");
        // The loss depends on weights of the training run and is not in the file.
        let wanted = Evaluation {
            loss: None,
            ..scored
        };
        assert_eq!(evaluated.evaluation, wanted);
    }
}

#[test]
fn files_are_atomic_and_reproducible() {
    fn paths(folder: &Path, name: &str) -> RowFilePaths {
        RowFilePaths {
            predictions: Some(folder.join(name)),
            map: Some((folder.join(format!("map-{name}")), settings())),
            ..RowFilePaths::default()
        }
    }

    let alone = alone();
    let made = made(&Fixture::default(), &config(), 0, &alone);
    let folder = made.folder.path().join("out");
    fs::create_dir(&folder).expect("room");
    let about = RowFileMetadata::new(String::new(), 0, "lstm", Split::Training, &made.data, None);

    let begun = RowFiles::create(
        &paths(&folder, "a.parquet"),
        &about,
        &made.data,
        Split::Training,
        0,
    )
    .expect("room");
    assert!(!folder.join("a.parquet").exists());
    drop(begun);
    assert_eq!(
        fs::read_dir(&folder).expect("a folder").count(),
        0,
        "nothing is left of it"
    );

    for name in ["a.parquet", "b.parquet"] {
        write(&made, &paths(&folder, name));
    }
    assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 4);

    for [one, other] in [
        ["a.parquet", "b.parquet"],
        ["map-a.parquet", "map-b.parquet"],
    ] {
        let [bytes, other] = [one, other].map(|name| fs::read(folder.join(name)).expect("a file"));
        assert!(bytes == other, "{one}");
    }

    let none = paths(&folder, "none/a.parquet");
    let error =
        RowFiles::create(&none, &about, &made.data, Split::Training, 0).expect_err("no folder");
    let error = format!("{:#}", anyhow::Error::from(error));
    assert!(
        error.starts_with("cannot write") && error.contains("none/a.parquet"),
        "{error}"
    );
    assert!(!error.contains(".rows-"), "{error}");
}
