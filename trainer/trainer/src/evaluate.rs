//! Evaluates a model on a whole split: gathers the predictions of all ranks and computes their scores.

use std::sync::Arc;

use tch::Tensor;
use wavemill_schemas::exit::PlainError;
use wavemill_schemas::run::{Evaluation, Leaks};
use wavemill_scores::metrics::{Predictions, score_split};
use wavemill_scores::schedule::Validation;

mod rows_file;

use crate::TrainError;
use crate::dataset::{Batch, Dataset, Loader, LoaderPlan};
use crate::learner::Learner;
use crate::strategy::Collective;

pub(crate) use rows_file::{RowFileMetadata, RowFilePaths, RowFiles};
pub(crate) use wavemill_evaluation::{leaks, members};

/// Computes predictions for every row of the plan's split; the result is identical on every rank. Also writes the rows
/// to `files`, if given, in the manifest's order.
pub(crate) fn predict(
    learner: &Learner,
    data: &Arc<Dataset>,
    ranks: &dyn Collective,
    plan: LoaderPlan,
    mut files: Option<&mut RowFiles>,
) -> Result<Vec<Predictions>, TrainError> {
    let mut all = Vec::new();
    for target in data.targets() {
        let is_multi = target.is_multi();
        all.push(Predictions::new(target.name(), target.classes(), is_multi));
    }

    for batch in Loader::start(data, plan)? {
        let batch = batch?;
        // A rank without rows in this batch computes no predictions but still takes part in gathering the rows.
        let answers = if batch.n_own > 0 {
            Some(learner.answers(&batch).map_err(TrainError::of_one_rank)?)
        } else {
            None
        };

        if let Some(answers) = &answers {
            for (index, answer) in answers.targets.iter().enumerate() {
                let pushed = push(&mut all[index], data, index, &batch, &answer.probabilities);
                pushed.map_err(|error| match error {
                    // The losses of an epoch do not show that its last step diverged, because each is computed before
                    // its step.
                    TrainError::Other(error) if learner.is_sound(&batch) => {
                        PlainError::failed(format!(
                            "{error}, although the stored values of this row are possible: training has diverged; \
                             lower optimizer.lr, or set optimizer.clip_norm=1.0"
                        ))
                        .into()
                    }
                    error => error,
                })?;
                let [weighted, weight] = answer.loss;
                all[index].add_loss(weighted, weight);
            }
        }
        // Every rank must call `append` for every batch, because it gathers rows from all ranks.
        if let Some(files) = &mut files {
            files.append(data, ranks, &batch, answers.as_ref())?;
        }
    }

    if ranks.world_size() == 1 {
        return Ok(all);
    }

    // Every rank receives all predictions, so that all ranks compute the same scores and end training at the same
    // epoch.
    let mut merged = Vec::with_capacity(all.len());
    for own in &all {
        let of_ranks = ranks.gather(&own.to_bytes())?;
        merged.push(Predictions::merge(&of_ranks)?);
    }
    Ok(merged)
}

fn push(
    into: &mut Predictions,
    data: &Dataset,
    target: usize,
    batch: &Batch,
    probabilities: &Tensor,
) -> Result<(), TrainError> {
    // Copy the probabilities of the whole batch once; each row is a slice of the copy.
    let values = Vec::<f32>::try_from(probabilities.f_contiguous()?.f_view(-1)?)?;
    let rows = &batch.rows[..batch.n_own];
    wavemill_evaluation::push(into, data, target, rows, &values)?;
    Ok(())
}

/// Computes the scores by which the best epoch is chosen: the mean loss of all targets, and the scores of the first
/// target and of the target `selected`.
///
/// A target whose rows all have weight 0 has no loss and is left out of the mean. If no target has a loss, the mean is
/// NaN, which never counts as an improvement.
///
/// # Errors
/// [`TrainError::Other`] if no row of such a target has a label.
pub(crate) fn validation(
    predictions: &[Predictions],
    selected: Option<&str>,
) -> Result<Validation, TrainError> {
    let mut losses = Vec::new();
    for target in predictions {
        let [weighted, weight] = target.loss_sums();
        if weight > 0.0 {
            losses.push(weighted / weight);
        }
    }

    let mut targets = Vec::new();
    for (index, target) in predictions.iter().enumerate() {
        if index == 0 || selected == Some(target.target()) {
            targets.push((target.target().to_owned(), target.scores()?));
        }
    }
    Ok(Validation {
        loss: losses.iter().sum::<f64>() / losses.len() as f64,
        targets,
    })
}

/// Computes all scores of each target, with confidence intervals. `leaks` is the same for all targets.
pub(crate) fn scores(
    predictions: &[Predictions],
    leaks: &Leaks,
    seed: u64,
) -> Result<Vec<Evaluation>, TrainError> {
    predictions
        .iter()
        .map(|p| Ok(score_split(p, seed, leaks.clone())?))
        .collect()
}

#[cfg(test)]
mod tests {
    use wavemill_schemas::config::Train;
    use wavemill_scores::metrics::{Label, Row};
    use wavemill_scores::schedule::EarlyStop;

    use super::*;

    /// Returns predictions of one row of class 0, with `loss` = [Σ weight · loss, Σ weight].
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
        fn loss(all: &[[f64; 2]]) -> f64 {
            let all: Vec<Predictions> = all.iter().copied().map(predictions).collect();
            validation(&all, None).expect("a labelled row").loss
        }

        assert_eq!(
            loss(&[[3.0, 2.0], [0.0, 0.0]]),
            1.5,
            "a target without weight is left out"
        );

        for bad in [
            loss(&[[0.0, 0.0]]),
            loss(&[[f64::NAN, 1.0]]),
            loss(&[[1.0, 1.0], [f64::INFINITY, 1.0]]),
        ] {
            assert!(!bad.is_finite(), "{bad}");

            let mut stop = EarlyStop::new(&Train {
                early_stop: 2,
                ..Train::default()
            });
            let verdicts = [bad, 7.0, bad, bad].map(|loss| {
                stop.epoch_ended(&Validation {
                    loss,
                    ..validation(&[predictions([7.0, 1.0])], None).expect("a labelled row")
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
