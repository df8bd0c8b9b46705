//! Tests of evaluating predictions on a small store: order, keys, and what is refused.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::{
    ArrayRef, FixedSizeListArray, Float64Array, Int64Array, LargeStringArray, RecordBatch,
    StringArray,
};
use arrow::datatypes::{DataType, Field, Schema};
use tempfile::TempDir;
use wavemill_loader::{Dataset, Needs, Split, Store};
use wavemill_schemas::config::Data;
use wavemill_schemas::exit::{Classified, Kind};
use wavemill_schemas::run::{ComparedWith, Evaluation, Report};

use crate::fixture::Fixture;
use crate::*;

/// A store of clips with two segments, and the rows of its test split.
struct Made {
    folder: TempDir,
    keys: Vec<(String, i64, i64)>,
}

fn made(fixture: &Fixture) -> Made {
    let folder = tempfile::tempdir().expect("a folder");
    fixture.write(folder.path());
    let data = dataset(&folder, "genre");
    let rows = data.rows();
    let mut keys = Vec::new();
    for row in data.rows_of(Split::Test) {
        let row = row as usize;
        let segment = i64::from(rows.segments[row]);
        keys.push((
            rows.clip_keys[row].to_string(),
            rows.track_ids[row],
            segment,
        ));
    }
    Made { folder, keys }
}

/// Opens the rows of a store; a number of frames is required, because rows differ in length.
fn dataset(folder: &TempDir, target: &str) -> Arc<Dataset> {
    let data = Data {
        targets: vec![target.to_owned()],
        frames: Some(1),
        ..Data::default()
    };
    Dataset::open(open(folder), &data, Needs::Spectrogram).expect("a dataset")
}

fn segmented() -> Made {
    made(&Fixture {
        segments: 2,
        ragged: true,
        ..Fixture::default()
    })
}

fn open(folder: &TempDir) -> Store {
    Store::open(folder.path(), None).expect("a store")
}

/// Returns probabilities of three classes for the row at `place`.
fn probabilities(place: usize) -> [f64; 3] {
    let sure = 0.4 + 0.5 * (place % 11) as f64 / 11.0;
    let mut values = [(1.0 - sure) / 2.0; 3];
    values[place % 3] = sure;
    values
}

impl Default for EvaluationSettings {
    fn default() -> Self {
        Self {
            name: "predictions".to_owned(),
            target: "genre".to_owned(),
            split: Split::Test,
            split_rule: None,
            feature: None,
            classes: None,
            trained_on: None,
            values: Values::Probabilities,
            seed: 0,
        }
    }
}

impl Made {
    fn evaluate(&self, answers: &Answers) -> Result<Evaluation, String> {
        self.evaluate_as(answers, &EvaluationSettings::default())
    }

    fn evaluate_as(
        &self,
        answers: &Answers,
        settings: &EvaluationSettings,
    ) -> Result<Evaluation, String> {
        let evaluated = self.evaluated(answers, settings);
        evaluated
            .map(|evaluated| evaluated.evaluation)
            .map_err(|error| error.to_string())
    }

    fn evaluated(
        &self,
        answers: &Answers,
        settings: &EvaluationSettings,
    ) -> Result<Evaluated, EvaluationError> {
        let stop = AtomicBool::new(false);
        evaluate(open(&self.folder), answers, settings, &stop)
    }

    /// Checks that predictions are refused with this message.
    fn assert_refused(&self, answers: &Answers, message: &str) {
        let said = self.evaluate(answers).expect_err(message);
        assert_eq!(said, format!("predictions: {message}"));
    }

    fn matrix(&self) -> Answers {
        Answers::Matrix {
            values: (0..self.keys.len()).flat_map(probabilities).collect(),
            shape: [self.keys.len(), 3],
        }
    }

    /// Returns the test rows in reverse order, with columns `clip_key` and `segment` and one list per row.
    fn lists(&self) -> RecordBatch {
        let keys = self.keys.iter().rev();
        let clips = LargeStringArray::from_iter_values(keys.clone().map(|(clip, ..)| clip));
        let segments = Int64Array::from_iter_values(keys.map(|(.., segment)| *segment));
        let values = (0..self.keys.len()).rev().flat_map(probabilities);
        let values = Float64Array::from_iter_values(values);
        let item = Arc::new(Field::new("item", DataType::Float64, true));
        let lists = FixedSizeListArray::try_new(item, 3, Arc::new(values), None).expect("lists");
        batch([
            ("clip_key", Arc::new(clips) as ArrayRef),
            ("segment", Arc::new(segments)),
            ("genre_probabilities", Arc::new(lists)),
        ])
    }
}

fn batch<const N: usize>(columns: [(&str, ArrayRef); N]) -> RecordBatch {
    RecordBatch::try_from_iter(columns).expect("columns of one length")
}

fn table(batch: RecordBatch) -> Answers {
    Answers::Table(vec![batch])
}

#[test]
fn a_table_in_any_order_has_the_scores_of_the_matrix() {
    let made = segmented();
    let wanted = made.evaluate(&made.matrix()).expect("scores");
    assert!(wanted.tracks_mean.is_some() && wanted.loss.is_none());
    assert!(matches!(&wanted.segments.report, Report::Single(report) if report.rows == 16));

    let lists = made.lists();
    let two = Answers::Table(vec![
        lists.slice(0, 5),
        lists.slice(5, lists.num_rows() - 5),
    ]);
    assert_eq!(made.evaluate(&two), Ok(wanted.clone()));

    let ids = made.keys.iter().map(|(_, id, _)| *id);
    let segments = made.keys.iter().map(|(.., segment)| *segment);
    let class = |class: usize| -> ArrayRef {
        let values = (0..made.keys.len()).map(|place| probabilities(place)[class]);
        Arc::new(Float64Array::from_iter_values(values))
    };
    let by_class = batch([
        (
            "track_id",
            Arc::new(Int64Array::from_iter_values(ids)) as ArrayRef,
        ),
        ("segment", Arc::new(Int64Array::from_iter_values(segments))),
        ("class 2", class(2)),
        ("class 0", class(0)),
        ("class 1", class(1)),
        ("other", class(1)),
    ]);
    assert_eq!(made.evaluate(&table(by_class)), Ok(wanted));
}

#[test]
fn logits_have_the_scores_of_their_softmax() {
    let made = segmented();
    let logits = (0..made.keys.len()).flat_map(|place| {
        let shift = 800.0 * (place % 2) as f64;
        probabilities(place).map(|p| p.ln() + shift)
    });
    let answers = Answers::Matrix {
        values: logits.collect(),
        shape: [made.keys.len(), 3],
    };
    let settings = EvaluationSettings {
        values: Values::Logits,
        ..EvaluationSettings::default()
    };
    let found = made.evaluate_as(&answers, &settings).expect("scores");
    let wanted = made.evaluate(&made.matrix()).expect("scores");
    assert_eq!(found.segments.report, wanted.segments.report);
    let [found, wanted] = [found, wanted].map(|of| of.segments.log_loss.expect("one class"));
    assert!((found - wanted).abs() < 1e-6, "{found} {wanted}");
}

#[test]
fn values_that_are_no_probabilities_are_named_with_their_row() {
    let made = segmented();
    let (clip, _, segment) = &made.keys[3];
    let row = format!("{clip}, segment {segment}");
    let remedy =
        "give probabilities, or set logits if the values are inputs of a softmax or sigmoid";

    for (changed, problem) in [
        (
            [0.5, f64::NAN, 0.5],
            ", target genre: probability of class class 1 is NaN".to_owned(),
        ),
        (
            [0.5, 0.5, 0.5],
            format!(": the probabilities sum to 1.5000, not 1: {remedy}"),
        ),
        (
            [-1.0, 1.0, 1.0],
            format!(": -1 is not a probability: {remedy}"),
        ),
    ] {
        let mut values: Vec<f64> = (0..made.keys.len()).flat_map(probabilities).collect();
        values[9..12].copy_from_slice(&changed);
        let shape = [made.keys.len(), 3];
        made.assert_refused(
            &Answers::Matrix { values, shape },
            &(row.clone() + &problem),
        );
    }
}

#[test]
fn predictions_that_do_not_fit_the_rows_are_refused() {
    let made = segmented();
    let lists = made.lists();
    let (clip, ..) = &made.keys[15];

    let short = Answers::Matrix {
        values: vec![0.25; 60],
        shape: [15, 4],
    };
    made.assert_refused(
        &short,
        "15 rows of 4 values, but split test of version 1 has 16 rows, and target genre has 3 classes: \
         give all rows of the split in the manifest's order, or a table with the columns clip_key and segment",
    );
    made.assert_refused(
        &table(lists.slice(2, 14)),
        &format!("2 of the 16 rows of the split are missing, the first is {clip}, segment 0: predict all rows"),
    );
    made.assert_refused(
        &Answers::Table(vec![lists.clone(), lists.slice(0, 1)]),
        &format!("{clip}, segment 1 occurs twice: give one prediction for each row"),
    );
    made.assert_refused(
        &table(lists.project(&[0, 2]).expect("columns")),
        &format!(
            "several rows are {}: add the columns segment and variant to the table",
            made.keys[0].0
        ),
    );
    made.assert_refused(
        &table(lists.project(&[1, 2]).expect("columns")),
        "a table needs the column clip_key or track_id, and segment if clips have several rows",
    );
    made.assert_refused(
        &table(lists.project(&[0, 1]).expect("columns")),
        "no column genre_probabilities or probabilities with a list of 3 values in each row, and no column \
         with the name of class class 0",
    );

    let unknown = batch([
        (
            "clip_key",
            Arc::new(StringArray::from(vec!["no.mp3"])) as ArrayRef,
        ),
        ("segment", Arc::new(Int64Array::from(vec![0]))),
        ("probabilities", lists.column(2).slice(0, 1)),
    ]);
    made.assert_refused(
        &table(unknown),
        "no.mp3, segment 0 is not a row of log_mel in version 1",
    );
    let nameless = batch([
        (
            "clip_key",
            Arc::new(StringArray::from(vec![None::<&str>])) as ArrayRef,
        ),
        ("probabilities", lists.column(2).slice(0, 1)),
    ]);
    made.assert_refused(
        &table(nameless),
        "column clip_key: 1 of 1 values are null or not of type Utf8",
    );
}

#[test]
fn lists_with_other_classes_than_the_target_are_refused() {
    let made = segmented();
    let lists = made.lists();
    let mut fields: Vec<Field> = Vec::new();
    for field in lists.schema().fields() {
        fields.push(field.as_ref().clone());
    }
    let classes = r#"["class 1", "class 0", "class 2"]"#.to_owned();
    fields[2].set_metadata([("classes".to_owned(), classes)].into());
    let lists = lists
        .with_schema(Arc::new(Schema::new(fields)))
        .expect("fields");

    let said = made
        .evaluate(&table(lists.clone()))
        .expect_err("other classes");
    assert!(
        said.starts_with(
            "predictions: column genre_probabilities has the classes class 1, class 0, class 2"
        ),
        "{said}"
    );

    let classes = ["class 1", "class 0", "class 2"].map(str::to_owned);
    let settings = EvaluationSettings {
        classes: Some(classes.to_vec()),
        ..EvaluationSettings::default()
    };
    let found = made.evaluate_as(&table(lists), &settings).expect("scores");
    assert_eq!(found.classes, classes);
}

#[test]
fn settings_that_the_store_lacks_are_refused() {
    let made = segmented();
    let target = EvaluationSettings {
        target: "mood".to_owned(),
        ..EvaluationSettings::default()
    };
    let feature = EvaluationSettings {
        feature: Some("mfcc".to_owned()),
        ..EvaluationSettings::default()
    };
    for (settings, message) in [
        (
            target,
            "data.targets = mood: the store has genre, genres_all: choose one of these, or extract a store whose recipe has mood",
        ),
        (
            feature,
            "data.feature = mfcc: the store has log_mel: choose one of these, or extract a store whose recipe has mfcc",
        ),
    ] {
        let evaluated = made.evaluated(&made.matrix(), &settings);
        let error = evaluated.expect_err("unfit");
        assert_eq!(
            (error.kind(), error.to_string()),
            (Kind::Usage, message.to_owned())
        );
    }
}

#[test]
fn several_labels_are_scored_without_a_sum() {
    let made = segmented();
    let settings = EvaluationSettings {
        target: "genres_all".to_owned(),
        ..EvaluationSettings::default()
    };
    let data = dataset(&made.folder, "genres_all");
    let n_classes = data.targets()[0].classes().len();
    let shape = [made.keys.len(), n_classes];
    let values = (0..shape[0] * n_classes).map(|i| (i % 7) as f64 / 7.0);
    let answers = Answers::Matrix {
        values: values.collect(),
        shape,
    };

    let evaluated = made.evaluated(&answers, &settings).expect("scores");
    let report = &evaluated.evaluation.segments.report;
    assert!(matches!(report, Report::Multi(_)));
    assert_eq!(evaluated.calibration(), None);
}

#[test]
fn leaks_are_those_of_the_version_that_the_model_was_trained_on() {
    let made = segmented();
    let settings = EvaluationSettings {
        trained_on: Some("1".parse().expect("a version")),
        ..EvaluationSettings::default()
    };
    let found = made.evaluate_as(&made.matrix(), &settings).expect("scores");
    // The version is the evaluated one.
    assert_eq!(found.leaks.compared_with, ComparedWith::Training);
    assert_eq!(found, made.evaluate(&made.matrix()).expect("scores"));
}

#[test]
fn a_file_that_is_no_parquet_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("p.parquet");
    let error = Answers::read(&path).expect_err("no file");
    assert_eq!(
        error.to_string(),
        format!("predictions: cannot read {}", path.display())
    );
    std::fs::write(&path, "no Parquet").expect("room");
    let message = Answers::read(&path).expect_err("damage").to_string();
    let wanted = format!(
        "predictions: {} is not a readable Parquet file: ",
        path.display()
    );
    assert!(message.starts_with(&wanted), "{message}");
}

#[test]
fn probabilities_of_half_precision_are_accepted() {
    let made = segmented();
    let halves = |place| probabilities(place).map(|p| f64::from(half::bf16::from_f64(p)));
    let answers = Answers::Matrix {
        values: (0..made.keys.len()).flat_map(halves).collect(),
        shape: [made.keys.len(), 3],
    };
    let found = made.evaluate(&answers).expect("scores");
    let wanted = made.evaluate(&made.matrix()).expect("scores");
    assert_eq!(found.segments.report, wanted.segments.report);
}
