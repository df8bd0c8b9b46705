//! A model over a whole split: predictions of all ranks, brought together, and their scores.

use std::sync::Arc;

use tch::Tensor;

mod rows_file;

use crate::dataset::{Batch, Dataset, DatasetError, Loader, LoaderPlan, Side};
use crate::learner::{LearnError, Learner};
use crate::metrics::{Evaluation, Label, Leaks, Member, MetricsError, Predictions, Report, Row};
use crate::schedule::Validation;
use crate::strategy::{Collective, RankError};

pub use rows_file::{About, Paths, RowFiles, RowsFileError};

/// Why a split cannot be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// Its rows.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The model.
    #[error(transparent)]
    Learn(#[from] LearnError),
    /// Another rank.
    #[error(transparent)]
    Rank(#[from] RankError),
    /// The scores.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// Files of rows.
    #[error(transparent)]
    File(#[from] RowsFileError),
    /// libtorch.
    #[error("libtorch: {0}")]
    Tch(#[from] tch::TchError),
}

/// Predictions for each target over all rows of the plan's side, the same on every rank.
///
/// # Errors
/// [`EvaluateError`].
pub fn predict(
    learner: &Learner,
    data: &Arc<Dataset>,
    ranks: &dyn Collective,
    plan: LoaderPlan,
) -> Result<Vec<Predictions>, EvaluateError> {
    predict_into(learner, data, ranks, plan, None)
}

/// The same, with every row written to `files` as it is answered, in the manifest's order.
///
/// # Errors
/// [`EvaluateError`].
pub fn predict_into(
    learner: &Learner,
    data: &Arc<Dataset>,
    ranks: &dyn Collective,
    plan: LoaderPlan,
    mut files: Option<&mut RowFiles>,
) -> Result<Vec<Predictions>, EvaluateError> {
    let mut all: Vec<Predictions> = data
        .targets()
        .iter()
        .map(|t| {
            if t.is_multi() {
                Predictions::multi(t.name(), t.classes())
            } else {
                Predictions::single(t.name(), t.classes())
            }
        })
        .collect();
    for batch in Loader::start(data, plan)? {
        let batch = batch?;
        // A rank without a row of this batch has nothing to answer, and still waits for the others.
        let answers = if batch.n_own() > 0 { Some(learner.answers(&batch)?) } else { None };
        for (target, answer) in answers.iter().flat_map(|answers| &answers.targets).enumerate() {
            push(&mut all[target], data, target, &batch, &answer.probabilities)?;
            all[target].add_loss(answer.loss[0], answer.loss[1]);
        }
        if let Some(files) = &mut files {
            files.append(data, ranks, &batch, answers.as_ref())?;
        }
    }
    if ranks.world_size() == 1 {
        return Ok(all);
    }
    all.iter().map(|own| Ok(Predictions::merge(&ranks.gather(&own.to_bytes())?)?)).collect()
}

fn push(
    into: &mut Predictions,
    data: &Dataset,
    target: usize,
    batch: &Batch,
    probabilities: &Tensor,
) -> Result<(), EvaluateError> {
    let classes = into.classes().len();
    let values = Vec::<f32>::try_from(probabilities.f_contiguous()?.f_view(-1)?)?;
    let (rows, target) = (data.rows(), &data.targets()[target]);
    let mut set = vec![false; classes];
    for (place, &row) in batch.rows()[..batch.n_own()].iter().enumerate() {
        let label = if target.is_multi() {
            set.fill(false);
            target.labels(rows, row).for_each(|class| set[class as usize] = true);
            if set.contains(&true) { Label::Set(&set) } else { Label::Unknown }
        } else {
            usize::try_from(target.label(rows, row)).map_or(Label::Unknown, Label::Class)
        };
        let at = row as usize;
        into.push(&Row {
            index: u64::from(row),
            clip_key: &rows.clip_keys[at],
            segment: rows.segments[at],
            track_id: rows.track_ids[at],
            artist_id: rows.artist_ids[at],
            label,
            probabilities: &values[place * classes..(place + 1) * classes],
        })?;
    }
    Ok(())
}

/// The figures that decide: mean loss of all targets, and the first target's accuracy and macro F1 over its rows. A
/// multi-label target's "accuracy" is the share of rows whose whole set was right.
///
/// A target none of whose rows weighs anything has no loss and is left out; without any other the mean is NaN, which is
/// never the better one.
///
/// # Errors
/// [`EvaluateError::Metrics`]: no labelled row.
pub fn validation(predictions: &[Predictions]) -> Result<Validation, EvaluateError> {
    let weighed = predictions.iter().map(Predictions::loss_sums).filter(|[_, weight]| *weight > 0.0);
    let losses: Vec<f64> = weighed.map(|[weighted, weight]| weighted / weight).collect();
    let loss = losses.iter().sum::<f64>() / losses.len() as f64;
    let (accuracy, macro_f1) = match Report::of(&predictions[0])? {
        Report::Single(report) => (report.accuracy, report.macro_mean.f1),
        Report::Multi(report) => (report.exact_match, report.f1_macro),
    };
    Ok(Validation { loss, accuracy, macro_f1 })
}

/// All scores of each target, with intervals and leaks.
///
/// # Errors
/// [`EvaluateError::Metrics`].
pub fn scores(
    predictions: &[Predictions],
    data: &Dataset,
    side: Side,
    seed: u64,
) -> Result<Vec<Evaluation>, EvaluateError> {
    let leaks = leaks(data, side);
    predictions.iter().map(|p| Ok(Evaluation::of(p, seed, leaks.clone())?)).collect()
}

/// What of a side is known from training, under the rule in use.
#[must_use]
pub fn leaks(data: &Dataset, side: Side) -> Leaks {
    let rows = data.rows();
    let member = |row: u32| {
        let at = row as usize;
        Member {
            track_id: rows.track_ids[at],
            artist_id: rows.artist_ids[at],
            album_id: rows.album_ids[at],
            audio_blake3: Some(&*rows.audio_blake3s[at]),
        }
    };
    let members = |side| data.rows_of(side).into_iter().map(member).collect::<Vec<_>>();
    Leaks::of(data.split_rule(), side.name(), members(Side::Training), members(side))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Metric;
    use crate::schedule::EarlyStop;

    /// One row of class 0, with Σ weight · loss and Σ weight of its target.
    fn predictions(loss: [f64; 2]) -> Predictions {
        let mut predictions = Predictions::single("genre", &["a".to_owned(), "b".to_owned()]);
        let row = Row {
            index: 0,
            clip_key: "a.mp3",
            segment: 0,
            track_id: 0,
            artist_id: None,
            label: Label::Class(0),
            probabilities: &[0.75, 0.25],
        };
        predictions.push(&row).expect("a row");
        predictions.add_loss(loss[0], loss[1]);
        predictions
    }

    #[test]
    fn a_validation_without_a_finite_loss_is_never_better_than_one_with() {
        let loss = |all: &[[f64; 2]]| {
            validation(&all.iter().copied().map(predictions).collect::<Vec<_>>()).expect("a labelled row").loss
        };
        assert_eq!(loss(&[[3.0, 2.0], [0.0, 0.0]]), 1.5, "a target without weight is left out");
        for bad in [loss(&[[0.0, 0.0]]), loss(&[[f64::NAN, 1.0]]), loss(&[[1.0, 1.0], [f64::INFINITY, 1.0]])] {
            assert!(!bad.is_finite(), "{bad}");
            let mut stop = EarlyStop::new(Metric::Loss, 2);
            let verdicts = [bad, 7.0, bad, bad].map(|loss| {
                stop.epoch_ended(&Validation {
                    loss,
                    ..validation(&[predictions([7.0, 1.0])]).expect("a labelled row")
                })
            });
            assert_eq!(
                verdicts.map(|verdict| (verdict.better, verdict.stop)),
                [(false, false), (true, false), (false, false), (false, true)]
            );
            assert_eq!(stop.best(), Some(7.0));
        }
    }
}
