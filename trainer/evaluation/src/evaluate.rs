//! Scores of a model that was trained elsewhere, from its predictions for the rows of a split.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use wavemill_loader::{Dataset, DatasetError, InputSpec, ModelSignature, Needs, Split, Store};
use wavemill_schemas::config::Data;
use wavemill_schemas::exit::PlainError;
use wavemill_schemas::run::{Evaluation, Leaks};
use wavemill_schemas::version_name::VersionName;
use wavemill_scores::metrics::{
    Calibration, Predictions, compare_with_run, evaluation_table, score_split_unless_stopped,
};

use crate::answers::{Answers, Values};
use crate::error::EvaluationError;
use crate::rows::{leaks, members, push};

/// The rows to evaluate, and the kind of the predictions.
#[derive(Clone, Debug)]
pub struct EvaluationSettings {
    /// Name of the predictions on a page.
    pub name: String,
    /// Name of a target of the store, or `genres_all`.
    pub target: String,
    /// The split to evaluate.
    pub split: Split,
    /// Split rule; if absent, the rule of the recipe.
    pub split_rule: Option<String>,
    /// The feature whose rows are evaluated; if absent, the first feature of the recipe.
    pub feature: Option<String>,
    /// Names of the model's classes, in the order of its outputs; if absent, the classes of `trained_on`.
    pub classes: Option<Vec<String>>,
    /// The version of the store that the model was trained on; if absent, the evaluated version.
    pub trained_on: Option<VersionName>,
    /// The meaning of the predicted values.
    pub values: Values,
    /// Seed of the resamples from which intervals are computed.
    pub seed: u64,
}

/// Predictions with their scores.
#[derive(Clone, Debug)]
pub struct Evaluated {
    /// Name of the predictions on a page.
    pub name: String,
    /// The scores, without the loss, which depends on settings of the training.
    pub evaluation: Evaluation,
    /// The predictions with labels, in the order of the split.
    pub predictions: Predictions,
    /// Warnings about the rows that affect the interpretation of the scores.
    pub warnings: Vec<String>,
    /// The evaluated split.
    pub split: Split,
    /// Seed of the resamples from which intervals are computed.
    pub seed: u64,
    /// Root folder of the store.
    pub store: PathBuf,
    /// Version number of the store.
    pub version: u64,
    /// blake3 hash of the store's manifest.
    pub manifest_hash: String,
}

impl Evaluated {
    /// Computes the calibration per row, before segments are combined to tracks. Returns `None` for a target with
    /// several labels per row.
    pub fn calibration(&self) -> Option<Calibration> {
        Calibration::from_predictions(&self.predictions).ok()
    }

    /// Formats the scores as a table for a terminal.
    pub fn table(&self) -> String {
        evaluation_table(&self.evaluation)
    }
}

/// Computes the scores of `answers` for the rows of a split of this version of a store. Reads no tensors. Another
/// thread may set `stop`.
///
/// # Errors
/// [`EvaluationError`] if the store lacks what the settings name, if the predictions do not fit the rows, each of which
/// needs exactly one, or if `stop` becomes true.
pub fn evaluate(
    store: Store,
    answers: &Answers,
    settings: &EvaluationSettings,
    stop: &AtomicBool,
) -> Result<Evaluated, EvaluationError> {
    let trained = trained_on(&store, settings)?;
    let mut classes = settings.classes.clone();
    if let (None, Some(trained)) = (&classes, &trained) {
        classes = Some(trained.targets()[0].classes().to_vec());
    }
    let data = open(store, settings, classes)?;
    let split = settings.split;
    let rows = data.rows_of(split);
    if rows.is_empty() {
        return Err(PlainError::usage(format!(
            "split: version {} has no {} rows under rule {}: choose another split or rule",
            data.store().version(),
            split.name(),
            data.split_name()
        ))
        .into());
    }

    let target = &data.targets()[0];
    let probabilities = answers.probabilities(&data, split, settings.values)?;
    let mut predictions = Predictions::new(target.name(), target.classes(), target.is_multi());
    push(&mut predictions, &data, 0, &rows, &probabilities)
        .map_err(EvaluationError::predictions)?;

    let leaks = leaks_of(&data, trained.as_deref(), split);
    let mut warnings = data.lacking(split);
    warnings.extend(data.unknown_classes(split));
    warnings.extend(leaks.warning("the model"));
    let evaluation = score_split_unless_stopped(&predictions, settings.seed, leaks, stop)
        .map_err(EvaluationError::predictions)?;
    Ok(Evaluated {
        name: settings.name.clone(),
        evaluation,
        predictions,
        warnings,
        split,
        seed: settings.seed,
        store: data.store().root().to_owned(),
        version: data.store().version(),
        manifest_hash: data.store().manifest_hash().to_owned(),
    })
}

/// Opens the version that the model was trained on; returns `None` if it is the evaluated version.
fn trained_on(
    store: &Store,
    settings: &EvaluationSettings,
) -> Result<Option<Arc<Dataset>>, DatasetError> {
    let Some(version) = &settings.trained_on else {
        return Ok(None);
    };
    let other = Store::open(store.root(), Some(version))?;
    if other.manifest_hash() == store.manifest_hash() {
        return Ok(None);
    }
    open(other, settings, None).map(Some)
}

/// Opens the rows of a version with their labels. `classes` are the model's classes; `None` selects the classes of the
/// version.
fn open(
    store: Store,
    settings: &EvaluationSettings,
    classes: Option<Vec<String>>,
) -> Result<Arc<Dataset>, DatasetError> {
    let feature = store.feature(settings.feature.as_deref())?;
    let has_frames = !feature.is_vector() && !feature.is_picture();
    let data = Data {
        feature: Some(feature.name.clone()),
        targets: vec![settings.target.clone()],
        split: settings.split_rule.clone(),
        // No tensor is read, but a dataset of rows that differ in length requires a number of frames.
        frames: (has_frames && feature.shape.contains(&None)).then_some(1),
        ..Data::default()
    };
    let Some(classes) = classes else {
        return Dataset::open(store, &data, Needs::Spectrogram);
    };

    let stats = store.manifest().stats.get(&feature.name);
    let input = InputSpec::new(feature, &data, stats)?;
    let model = ModelSignature {
        input: &input,
        classes: &[(settings.target.clone(), classes)],
    };
    Dataset::open_for(store, &data, Needs::Spectrogram, model)
}

/// Counts what the split shares with the training rows: of the version `trained`, or else of the same version.
fn leaks_of(data: &Dataset, trained: Option<&Dataset>, split: Split) -> Leaks {
    let leaks = leaks(data, split);
    let Some(trained) = trained else {
        return leaks;
    };
    let training = members(trained, Split::Training);
    compare_with_run(leaks, Some(&training), members(data, split))
}
