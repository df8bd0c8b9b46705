//! Tests that a stream of a store's rows gives the same predictions as evaluation on the store, or an error.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::StreamWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use tch::Device;
use wavemill_schemas::config::{Config, Data, Model};
use wavemill_schemas::exit::{Classified, Kind};
use wavemill_schemas::recipe::{Dtype, Layout};
use wavemill_schemas::text::error_line;
use wavemill_scores::metrics::Predictions;

use super::*;
use crate::dataset::fixture::Fixture;
use crate::dataset::{GENRES_ALL, LoaderPlan, Split};
use crate::evaluate;
use crate::strategy::Solo;
use crate::testing::{TrainedFixture, alone, made};

const TEST_OPTIONS: AnswerOptions = AnswerOptions {
    top: 2,
    batch_rows: 64,
};

fn config(model: &str, targets: &[&str]) -> Config {
    let targets = targets.iter().map(|&t| t.to_owned()).collect();

    Config {
        model: Model {
            name: model.to_owned(),
            ..Model::default()
        },
        data: Data {
            batch_size: 64,
            normalize: true,
            frames: Some(50),
            targets,
            ..Data::default()
        },
        ..Config::default()
    }
}

fn fixture() -> Fixture {
    Fixture {
        shape: [8, 48],
        segments: 3,
        ..Fixture::default()
    }
}

fn loaded(made: &TrainedFixture) -> TrainedModel {
    TrainedModel::load(&made.checkpoint, Device::Cpu).expect("a model")
}

/// Returns all rows in the files of one split of the store, in batches.
fn batches(made: &TrainedFixture, split: &str) -> (SchemaRef, Vec<RecordBatch>) {
    let manifest = made.data.store().manifest();
    let (mut schema, mut batches) = (None, Vec::new());

    for file in manifest
        .files_of(&made.data.feature().name)
        .filter(|file| file.split.as_deref() == Some(split))
    {
        let file = File::open(made.folder.path().join(&file.path)).expect("a file");
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet");
        schema = Some(SchemaRef::clone(reader.schema()));
        batches.extend(
            reader
                .with_batch_size(5)
                .build()
                .expect("rows")
                .map(|batch| batch.expect("a batch")),
        );
    }

    (schema.expect("a file"), batches)
}

fn stream(schema: &SchemaRef, batches: &[RecordBatch]) -> Vec<u8> {
    let mut writer = StreamWriter::try_new(Vec::new(), schema).expect("a stream");
    batches
        .iter()
        .for_each(|batch| writer.write(batch).expect("room"));
    writer.finish().expect("room");
    writer.into_inner().expect("a stream")
}

fn run_answer(
    trained: &TrainedModel,
    stream: &[u8],
    options: AnswerOptions,
) -> (Result<u64, TrainError>, Vec<Value>) {
    let wanted = ExpectedFeature {
        feature: &trained.state.input.feature,
        recipe: "runs/one/recipe.toml".as_ref(),
    };

    let mut out = Vec::new();
    let answered = Rows::open(stream, wanted)
        .map_err(TrainError::from)
        .and_then(|rows| answer(trained, rows, options, &mut out));

    let lines = String::from_utf8(out).expect("text");
    (
        answered,
        lines
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect(),
    )
}

/// Returns the predictions of `evaluate` for the test split, one entry per target.
fn evaluated(made: &TrainedFixture) -> Vec<Predictions> {
    let plan = LoaderPlan {
        split: Split::Test,
        batch_size: 64,
        ..LoaderPlan::default()
    };
    evaluate::predict(&made.learner, &made.data, &Solo, plan, None).expect("probabilities")
}

/// Returns the class with the highest probability, together with that probability.
fn likeliest_of<'a>(probabilities: &[f32], classes: &'a [String]) -> (&'a str, f32) {
    let class = wavemill_scores::metrics::likeliest(probabilities);
    (&classes[class], probabilities[class])
}

/// Returns the class and probability in a JSON line, or in an entry of the line's `top` list.
fn said(line: &Value) -> (&str, f32) {
    (
        line["class"].as_str().expect("a class"),
        line["probability"].as_f64().expect("a number") as f32,
    )
}

fn agrees(made: &TrainedFixture) {
    fn key(line: &Value) -> (String, Option<i64>) {
        (
            line["clip_key"].as_str().expect("a key").to_owned(),
            line["segment"].as_i64(),
        )
    }

    let trained = loaded(made);
    let (schema, batches) = batches(made, "test");
    let (answered, lines) = run_answer(&trained, &stream(&schema, &batches), TEST_OPTIONS);
    let want = evaluated(made);
    assert_eq!(answered.expect("answers"), want[0].len() as u64);
    assert!(want[0].len() > 20, "rows of several batches of the stream");

    for target in &want {
        let own = lines.iter().filter(|l| l["target"] == target.target());
        let of_rows = own.clone().filter(|line| line.get("segment").is_some());
        let got: HashMap<_, &Value> = of_rows.map(|line| (key(line), line)).collect();
        assert_eq!(got.len(), target.len());

        for row in target.rows() {
            let line = got[&(row.clip_key.to_owned(), Some(i64::from(row.segment)))];
            let best = likeliest_of(row.probabilities, target.classes());
            assert_eq!(said(&line["top"][0]), best, "{line}");
            assert_eq!(
                line["top"].as_array().expect("a list").len(),
                TEST_OPTIONS.top
            );
            assert_eq!(line["offset_s"], f64::from(row.segment as f32));

            let set = row.probabilities.iter().filter(|p| **p >= 0.5).count();
            match target.is_multi() {
                true => assert_eq!(line["labels"].as_array().expect("a list").len(), set),
                false => assert_eq!(said(line), best),
            }
        }

        let clips = own.filter(|line| line.get("segments").is_some());
        let clips: BTreeMap<String, &Value> = clips.map(|line| (key(line).0, line)).collect();
        let (mean, majority) = (
            target.per_track_mean().expect("means"),
            target.per_track_majority().expect("votes"),
        );

        assert_eq!(clips.len(), mean.len());
        for (mean, majority) in mean.rows().zip(majority.rows()) {
            let line = clips[mean.clip_key];
            let best = likeliest_of(mean.probabilities, target.classes());
            assert_eq!(said(&line["top"][0]), best, "{line}");
            assert_eq!(line["segments"], 3);
            if !target.is_multi() {
                assert_eq!(said(line), best);
                assert_eq!(
                    line["majority"],
                    likeliest_of(majority.probabilities, target.classes()).0,
                    "{line}"
                );
            }
        }
    }
}

#[test]
fn predictions_match_evaluation() {
    let alone = alone();
    let targets = ["genre", GENRES_ALL];

    let of_both = config("crnn-simple", &targets);
    agrees(&made(&fixture(), &of_both, 4, &alone));

    let ragged = Fixture {
        ragged: true,
        dtype: Dtype::U8,
        frames_first: true,
        ..fixture()
    };
    agrees(&made(&ragged, &of_both, 4, &alone));

    let lists = Fixture {
        layout: Layout::List,
        ..fixture()
    };
    agrees(&made(&lists, &config("lstm", &["genre"]), 4, &alone));
}

#[test]
fn batches_of_any_size_give_the_same_lines() {
    fn names(lines: &[Value]) -> Vec<String> {
        let mut names = Vec::new();
        for line in lines {
            names.push(format!(
                "{} {} {} {}",
                line["clip_key"],
                line["segment"],
                line["class"],
                line["top"].is_array()
            ));
        }
        names
    }

    let alone = alone();
    let made = made(&fixture(), &config("lstm", &["genre"]), 4, &alone);
    let trained = loaded(&made);

    let (schema, batches) = batches(&made, "test");
    let stream = stream(&schema, &batches);

    let want = names(&run_answer(&trained, &stream, TEST_OPTIONS).1);
    for batch_rows in [1, 7] {
        let (answered, lines) = run_answer(&trained, &stream, AnswerOptions { top: 0, batch_rows });
        assert!(answered.is_ok() && lines.iter().all(|l| l["top"] == serde_json::json!([])));
        assert_eq!(names(&lines), want, "{batch_rows}");
    }
}

#[test]
fn concatenated_streams_are_predicted_independently() {
    let alone = alone();
    let made = made(&fixture(), &config("lstm", &["genre"]), 4, &alone);
    let trained = loaded(&made);
    let (schema, batches) = batches(&made, "test");
    let [first, empty, second] = [&batches[..2], &[], &batches[2..]].map(|b| stream(&schema, b));
    let wanted = ExpectedFeature {
        feature: &trained.state.input.feature,
        recipe: "runs/one/recipe.toml".as_ref(),
    };

    let mut want = Vec::new();
    for stream in [&first, &empty, &second] {
        let rows = Rows::open(stream.as_slice(), wanted).expect("a stream");
        answer(&trained, rows, TEST_OPTIONS, &mut want).expect("answers");
        want.push(b'\n');
    }

    let mut said = Vec::new();
    let all = [first.as_slice(), &empty, &second].concat();
    answer_each(&trained, all.as_slice(), wanted, TEST_OPTIONS, &mut said).expect("answers");
    assert_eq!(said, want);

    // The rows before the cut of an incomplete stream are predicted.
    said.clear();
    let cut = [first.as_slice(), &second[..second.len() - 9]].concat();
    let error = answer_each(&trained, cut.as_slice(), wanted, TEST_OPTIONS, &mut said);
    let error = error.expect_err("it is cut").to_string();
    assert!(error.starts_with("the stream is cut off after"), "{error}");
    assert!(want.starts_with(&said[..said.len().min(100)]) && !said.is_empty());

    let mut none = Vec::new();
    answer_each(&trained, io::empty(), wanted, TEST_OPTIONS, &mut none)
        .expect("no stream is no fault");
    assert!(none.is_empty());
}

#[test]
fn output_that_is_not_a_number_is_an_error() {
    let alone = alone();
    let made = made(&fixture(), &config("lstm", &["genre"]), 0, &alone);
    let trained = loaded(&made);
    tch::no_grad(|| {
        for (_, mut weights) in trained.variables() {
            let _ = weights.fill_(f64::NAN);
        }
    });

    let (schema, batches) = batches(&made, "test");
    let (answered, lines) = run_answer(&trained, &stream(&schema, &batches), TEST_OPTIONS);
    let error = answered.expect_err("no probability");
    assert!(
        error
            .to_string()
            .contains("the model's output is not a number"),
        "{error}"
    );
    assert!(lines.is_empty());
}

#[test]
fn a_stream_that_is_cut_or_damaged_is_an_error_behind_its_whole_rows() {
    let alone = alone();
    let made = made(&fixture(), &config("lstm", &["genre"]), 0, &alone);
    let trained = loaded(&made);
    let (schema, batches) = batches(&made, "test");
    let whole = stream(&schema, &batches[..2]);

    let (answered, lines) = run_answer(&trained, &whole, TEST_OPTIONS);
    assert_eq!(
        (
            answered.expect("answers"),
            lines.iter().filter(|l| l.get("segments").is_some()).count()
        ),
        (10, 3)
    );

    let cuts = (1..40)
        .map(|i| whole.len() * i / 40)
        .chain([whole.len() - 8, whole.len() - 4]);

    let mut seen = Vec::new();
    for cut in cuts {
        let (answered, lines) = run_answer(&trained, &whole[..cut], TEST_OPTIONS);
        let error = answered.expect_err("it is cut");
        let rows = lines.len();
        assert_eq!(
            error.to_string(),
            format!(
                "the stream is cut off after {rows} rows: did the program that wrote it end early?"
            )
        );
        seen.push(rows);
    }

    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, [0, 5, 10], "before, between and behind batches");
}

/// Arrow's reader panics on types that it does not know.
#[test]
fn a_damaged_schema_is_an_error() {
    let alone = alone();
    let made = made(&fixture(), &config("lstm", &["genre"]), 0, &alone);
    let (schema, _) = batches(&made, "test");
    let whole = stream(&schema, &[]);
    let wanted = ExpectedFeature {
        feature: made.data.feature(),
        recipe: "recipe.toml".as_ref(),
    };

    let mut said = Vec::new();
    for at in 4..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0xFF;
        // In some places, a name or a value is read that nothing needs.
        if let Err(error) = Rows::open(damaged.as_slice(), wanted) {
            said.push(error_line(&error));
        }
    }
    assert!(
        said.iter().any(|line| line.contains("not supported")),
        "{said:?}"
    );
}

#[test]
fn invalid_streams_have_distinct_errors() {
    fn error(trained: &TrainedModel, bytes: &[u8]) -> String {
        let (answered, _) = run_answer(trained, bytes, TEST_OPTIONS);
        answered.expect_err("no features").to_string()
    }

    let alone = alone();
    let made = made(&fixture(), &config("lstm", &["genre"]), 0, &alone);
    let trained = loaded(&made);
    assert!(error(&trained, b"").starts_with(
        "the input is empty, not an Arrow IPC stream: use the output of `wavemill features"
    ));
    assert!(error(&trained, b"{\"clip_key\": 1}").contains("is JSON"));
    assert!(error(&trained, b"ID3\x04rest of it").contains("an MP3 file"));
    assert!(error(&trained, b"????????????").contains("in an unknown format"));

    let (schema, batches) = batches(&made, "test");
    let bare = SchemaRef::new(schema.project(&[0, 2, 3]).expect("columns"));
    let bare_batch = batches[0].project(&[0, 2, 3]).expect("columns");
    assert!(
        error(&trained, &stream(&bare, &[bare_batch]))
            .starts_with("no column of the stream contains a tensor")
    );

    let tensor = schema.index_of("log_mel").expect("a column");
    let few = SchemaRef::new(schema.project(&[0, 2, tensor]).expect("columns"));
    let few_batch = batches[0].project(&[0, 2, tensor]).expect("columns");
    assert_eq!(
        error(&trained, &stream(&few, &[few_batch])),
        "column offset_s of the stream: missing"
    );
}

#[test]
fn rows_of_another_feature_are_refused_by_both_names() {
    let alone = alone();
    let ours = made(&fixture(), &config("lstm", &["genre"]), 0, &alone);
    let in_f32 = Fixture {
        dtype: Dtype::F32,
        ..fixture()
    };
    let other = made(&in_f32, &config("lstm", &["genre"]), 0, &alone);

    let trained = loaded(&ours);
    let (schema, batches) = batches(&other, "test");
    let error = run_answer(&trained, &stream(&schema, &batches), TEST_OPTIONS)
        .0
        .expect_err("another feature");

    let [theirs, own] = [&other, &ours].map(|made| made.data.feature().feature_id[..12].to_owned());
    let want = format!(
        "the stream contains log_mel {theirs}, but the model was trained on log_mel {own}: use the recipe that it was \
         trained with, `wavemill features … --recipe runs/one/recipe.toml --feature log_mel --format arrow --out -`"
    );

    assert_eq!(error.to_string(), want);
    assert_eq!(error.kind(), Kind::OtherPlan);
}

#[test]
fn models_with_metadata_inputs_are_rejected() {
    let alone = alone();

    for (model, what) in [
        ("mlp-1", "mlp-1 needs columns of fma_features"),
        ("fusion", "artist and album"),
    ] {
        let made = made(&fixture(), &config(model, &["genre"]), 0, &alone);
        let trained = loaded(&made);
        let (schema, batches) = batches(&made, "test");

        let error = run_answer(&trained, &stream(&schema, &batches), TEST_OPTIONS)
            .0
            .expect_err("no metadata")
            .to_string();
        assert!(
            error.contains(what) && error.contains("`wavemill train eval`"),
            "{error}"
        );
    }
}
