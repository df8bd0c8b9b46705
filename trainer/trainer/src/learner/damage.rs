//! Search for damaged input after a step whose loss is not a number.

use tch::Kind;
use wavemill_schemas::exit::{self, PlainError};

use super::{Learner, StepContext};
use crate::TrainError;
use crate::dataset::{self, Batch, DatasetError};

/// Factor of the standard deviation beyond which a stored value is reported as damaged.
const DEVIATIONS_MAX: f64 = 1e3;

impl Learner {
    /// Returns the error for a loss that is not finite: the first row of the batch whose stored values cannot be right,
    /// or divergence if there is none. All ranks must call this, and return the same error.
    pub(super) fn explain_loss(
        &self,
        batch: &Batch,
        loss: f64,
        context: StepContext,
    ) -> TrainError {
        let own = match self.damaged_row(batch) {
            Ok(own) => own.unwrap_or_default(),
            Err(error) => return error.into(),
        };
        let all = match self.ranks.gather(own.as_bytes()) {
            Ok(all) => all,
            Err(error) => return error.into(),
        };

        match all.iter().find(|problem| !problem.is_empty()) {
            Some(problem) => {
                let message = format!(
                    "the loss is not a number at step {}, because of damaged input: {}: run `wavemill verify`, and \
                     `wavemill extract --new-version --recompute` if it finds nothing",
                    context.step,
                    String::from_utf8_lossy(problem)
                );
                PlainError::new(exit::Kind::Damaged, message).into()
            }
            None => TrainError::Diverged {
                loss,
                step: context.step,
                lr: context.lr,
            },
        }
    }

    /// Reports whether the values of this rank's rows are possible, so that outputs that are no numbers are due to the
    /// weights.
    pub(crate) fn is_sound(&self, batch: &Batch) -> bool {
        matches!(self.damaged_row(batch), Ok(None))
    }

    /// Describes the first row of this rank with a value that is not finite or far from those of the training rows.
    fn damaged_row(&self, batch: &Batch) -> Result<Option<String>, DatasetError> {
        if batch.memory().is_none() {
            return Ok(None);
        }
        let largest = self.largest_value();

        // The maximum of a row with NaN is NaN.
        let values = dataset::stored(batch, Kind::Double)?;
        let maxima = values.flatten(1, -1).abs().amax(1, false);
        let maxima = Vec::<f64>::try_from(maxima).unwrap_or_default();
        let mut rows = batch.rows.iter().zip(maxima).take(batch.n_own);
        let found = rows.find(|(_, value)| !value.is_finite() || *value > largest);
        Ok(found.map(|(&row, value)| {
            let place = self.data.place_of(row);
            format!("{place} has the value {value:e}, and values up to {largest:e} are possible")
        }))
    }

    /// Returns the largest absolute value that a row can have, as far as the statistics of the training rows tell. They
    /// may include the damaged value, so the median of all bands is used. Numbers of statistics have different units:
    /// any finite value is possible.
    fn largest_value(&self) -> f64 {
        let feature = self.data.feature();
        let stats = self.data.store().manifest().stats.get(&feature.name);
        let Some(stats) = stats.filter(|_| !feature.is_vector()) else {
            return f64::MAX;
        };

        let bands = stats.mean.iter().zip(&stats.std);
        let mut largest: Vec<f64> = bands
            .map(|(mean, std)| mean.abs() + DEVIATIONS_MAX * std)
            .filter(|largest| largest.is_finite())
            .collect();
        largest.sort_by(f64::total_cmp);
        largest.get(largest.len() / 2).copied().unwrap_or(f64::MAX)
    }
}
