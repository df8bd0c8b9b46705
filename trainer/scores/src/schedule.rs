//! Learning rates and early stopping: pure functions of the position in a run and of the run's validation scores.
//!
//! Formulas are those of `torch.optim.lr_scheduler`. The earlier validation scores are reduced to a small state, which
//! is part of a checkpoint.

use std::collections::BTreeMap;
use std::f64::consts::PI;

use serde::{Deserialize, Serialize};
use wavemill_schemas::config::{self, Metric};

/// Loss and scores on the validation split at the end of an epoch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Validation {
    /// Mean loss over all targets.
    pub loss: f64,
    /// The name of each target, with its own loss and scores.
    pub targets: Vec<(String, BTreeMap<Metric, f64>)>,
}

impl Validation {
    /// Returns a score of `target`, or of the first target if it is `None`; the loss is then the mean loss over all
    /// targets. NaN if the score is undefined.
    pub fn value(&self, metric: Metric, target: Option<&str>) -> f64 {
        if metric == Metric::Loss && target.is_none() {
            return self.loss;
        }
        let mut targets = self.targets.iter();
        let found = targets.find(|(name, _)| target.is_none_or(|target| name == target));
        let value = found.and_then(|(_, scores)| scores.get(&metric));
        value.copied().unwrap_or(f64::NAN)
    }

    /// Returns the value of `train.select`.
    pub fn selected(&self, train: &config::Train) -> f64 {
        self.value(train.select, train.select_target.as_deref())
    }
}

/// The current step and epoch of a run, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunPosition {
    /// The next optimiser step, counted over all epochs.
    pub step: u64,
    /// Number of optimiser steps in the whole run.
    pub steps_total: u64,
    /// The epoch of the next step.
    pub epoch: u64,
}

/// The best validation value so far, and the number of epochs since then. NaN is never the best.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Best {
    value: Option<f64>,
    epochs_since: u64,
}

impl Best {
    /// Counts an epoch and reports whether its value is the best so far: better by more than `threshold` times the
    /// best, like torch's `rel`.
    fn update(&mut self, metric: Metric, value: f64, threshold: f64) -> bool {
        let better = match (self.value, metric.is_loss()) {
            // Comparisons with NaN are false, so neither NaN nor an infinite loss becomes the best value.
            (None, true) => value < f64::INFINITY,
            (None, false) => value > f64::NEG_INFINITY,
            (Some(best), true) => value < best * (1.0 - threshold),
            (Some(best), false) => value > best * (1.0 + threshold),
        };
        if better {
            *self = Self {
                value: Some(value),
                epochs_since: 0,
            };
        } else {
            self.epochs_since += 1;
        }
        better
    }
}

/// The state of [`Schedules`], which is part of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScheduleState {
    plateau_factor: f64,
    plateau: Best,
}

/// The learning rate of every step: the configured rate times the factors of all configured schedules.
#[derive(Clone, Debug)]
pub struct Schedules {
    settings: config::Schedule,
    lr: f64,
    state: ScheduleState,
}

impl Schedules {
    /// torch's `eps`: `ReduceLROnPlateau` does not change the learning rate by less.
    const CUT_MIN: f64 = 1e-8;

    /// Creates the schedules of a new run, with the optimiser's learning rate `lr`.
    pub fn new(settings: &config::Schedule, lr: f64) -> Self {
        let state = ScheduleState {
            plateau_factor: 1.0,
            plateau: Best::default(),
        };
        Self {
            settings: settings.clone(),
            lr,
            state,
        }
    }

    /// Returns the learning rate of the step at `place`.
    pub fn lr(&self, place: RunPosition) -> f64 {
        self.lr * self.lr_factor(place)
    }

    /// Returns the product of the factors of all schedules, or 1 if there is no schedule.
    fn lr_factor(&self, place: RunPosition) -> f64 {
        let cosine = self.settings.cosine.as_ref();
        let warmup = self.settings.warmup();
        let by_steps = if place.step < warmup {
            place.step as f64 / warmup as f64
        } else {
            cosine.map_or(1.0, |_| cosine_after(warmup, place))
        };
        self.by_epochs(place.epoch) * by_steps
    }

    /// Passes the validation after `epoch` to `ReduceLROnPlateau` (cooldown 0, minimum rate 0), and reports whether the
    /// learning rate was reduced.
    pub fn epoch_ended(&mut self, epoch: u64, validation: &Validation) -> bool {
        let Some(plateau) = &self.settings.plateau else {
            return false;
        };

        let best = &mut self.state.plateau;
        let value = validation.value(plateau.metric, None);
        best.update(plateau.metric, value, plateau.threshold);
        // As in torch, the learning rate is reduced in the epoch after `patience` epochs without improvement.
        if best.epochs_since <= plateau.patience {
            return false;
        }

        // torch resets the counter even if the reduction is too small to be applied.
        best.epochs_since = 0;
        let factor = plateau.factor;
        // torch compares `eps` with the change of the learning rate, not with the rate.
        let cut = self.lr * self.by_epochs(epoch) * (1.0 - factor) > Self::CUT_MIN;
        if cut {
            self.state.plateau_factor *= factor;
        }
        cut
    }

    /// Returns the state of the schedules for a checkpoint.
    pub fn state(&self) -> &ScheduleState {
        &self.state
    }

    /// Restores the state of the schedules from a checkpoint.
    pub fn resume(&mut self, state: ScheduleState) {
        self.state = state;
    }

    /// Returns the factor of `StepLR` and `ReduceLROnPlateau`, which change only between epochs.
    fn by_epochs(&self, epoch: u64) -> f64 {
        let step = self.settings.step.as_ref().map_or(1.0, |s| {
            // `every_epochs = 0` means that the learning rate is not reduced.
            let cuts = epoch.checked_div(s.every_epochs).unwrap_or(0);
            s.gamma.powi(i32::try_from(cuts).unwrap_or(i32::MAX))
        });
        step * self.state.plateau_factor
    }
}

/// Returns a factor that follows `CosineAnnealingLR` from 1 after `warmup` steps to 0 at the end of the last step.
fn cosine_after(warmup: u64, place: RunPosition) -> f64 {
    // If the warm-up is longer than the run, no steps remain for the decay.
    let length = place.steps_total.saturating_sub(warmup).max(1);
    let done = (place.step - warmup).min(length);
    f64::midpoint(1.0, (PI * done as f64 / length as f64).cos())
}

/// The consequences of an epoch's validation for the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The validation is better than all earlier ones, so this epoch's checkpoint is the best.
    pub better: bool,
    /// There was no improvement for the configured number of epochs, so the run ends.
    pub stop: bool,
}

/// Early stopping: ends a run whose validation value does not improve, and tracks the best value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EarlyStop {
    metric: Metric,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    patience: u64,
    best: Best,
}

impl EarlyStop {
    /// Creates early stopping after `train.early_stop` epochs without a better value of `train.select`; 0 disables
    /// early stopping.
    pub fn new(train: &config::Train) -> Self {
        Self {
            metric: train.select,
            target: train.select_target.clone(),
            patience: train.early_stop,
            best: Best::default(),
        }
    }

    /// Counts a validation. Any improvement is better than the best value; an equal value is not.
    pub fn epoch_ended(&mut self, validation: &Validation) -> Verdict {
        let value = validation.value(self.metric, self.target.as_deref());
        let better = self.best.update(self.metric, value, 0.0);
        Verdict {
            better,
            stop: self.patience > 0 && self.best.epochs_since >= self.patience,
        }
    }

    /// Forgets the best value, so that the next validation is the best again.
    pub fn forget_best(&mut self) {
        self.best.value = None;
    }

    /// Returns the best validation value so far, or `None` before the first validation.
    pub fn best(&self) -> Option<f64> {
        self.best.value
    }
}

#[cfg(test)]
mod tests {
    use wavemill_schemas::config::{Cosine, Plateau, Schedule, StepLr};

    use super::*;

    fn at(step: u64, epoch: u64) -> RunPosition {
        RunPosition {
            step,
            steps_total: 100,
            epoch,
        }
    }

    fn loss(loss: f64) -> Validation {
        let scores = BTreeMap::from([(Metric::Accuracy, 1.0 - loss), (Metric::MacroF1, 0.5)]);
        Validation {
            loss,
            targets: vec![("genre".to_owned(), scores)],
        }
    }

    fn early_stop(select: Metric, early_stop: u64) -> EarlyStop {
        EarlyStop::new(&config::Train {
            select,
            early_stop,
            ..config::Train::default()
        })
    }

    fn plateau(metric: Metric) -> Schedule {
        let plateau = Plateau {
            metric,
            patience: 2,
            factor: 0.5,
            threshold: 1e-4,
        };

        Schedule {
            step: None,
            plateau: Some(plateau),
            cosine: None,
            warmup_steps: 0,
        }
    }

    #[test]
    fn the_rate_is_cut_every_ten_epochs() {
        let schedules = Schedules::new(
            &Schedule {
                warmup_steps: 0,
                step: Some(StepLr::default()),
                plateau: None,
                cosine: None,
            },
            1e-3,
        );

        let rates: Vec<f64> = [0, 9, 10, 19, 20].map(|e| schedules.lr(at(0, e))).into();
        assert_eq!(
            rates,
            [1e-3, 1e-3, 1e-3 * 0.7, 1e-3 * 0.7, 1e-3 * (0.7 * 0.7)]
        );
    }

    #[test]
    fn a_plateau_cuts_after_more_than_patience_epochs_and_counts_anew() {
        let mut schedules = Schedules::new(&plateau(Metric::Loss), 1.0);

        // 0.99995 is better than 1, but by less than the threshold.
        let cuts: Vec<bool> = [
            1.0,
            0.999_95,
            1.0,
            f64::NAN,
            0.5,
            0.6,
            0.6,
            0.6,
            0.6,
            0.6,
            0.6,
        ]
        .map(|x| schedules.epoch_ended(0, &loss(x)))
        .into();

        let want = [
            false, false, false, true, false, false, false, true, false, false, true,
        ];
        assert_eq!(cuts, want);
        assert_eq!(schedules.lr_factor(at(0, 0)), 0.125);
    }

    #[test]
    fn an_accuracy_is_better_when_it_rises() {
        let mut schedules = Schedules::new(&plateau(Metric::Accuracy), 1.0);

        assert!(
            [0.9, 0.8, 0.7, 0.6, 0.5]
                .iter()
                .all(|&x| !schedules.epoch_ended(0, &loss(x)))
        );

        let cuts: Vec<bool> = [0.6, 0.7, 0.8]
            .map(|x| schedules.epoch_ended(0, &loss(x)))
            .into();
        assert_eq!(cuts, [false, false, true]);
    }

    #[test]
    fn reduction_below_eps_is_skipped() {
        let mut schedules = Schedules::new(&plateau(Metric::Loss), 1.9e-8);
        assert!(
            [1.0; 9]
                .iter()
                .all(|&x| !schedules.epoch_ended(0, &loss(x)))
        );
    }

    #[test]
    fn a_cosine_rises_linearly_and_falls_to_zero() {
        let cosine = Schedule {
            step: None,
            plateau: None,
            cosine: Some(Cosine { warmup_steps: 20 }),
            warmup_steps: 0,
        };
        let rates = |schedule: &Schedule| {
            let schedules = Schedules::new(schedule, 2.0);
            [0, 5, 20, 60, 100, 200].map(|step| schedules.lr(at(step, 10)))
        };
        let assert_near = |got: [f64; 6], want: [f64; 6]| {
            let mut pairs = got.iter().zip(want);
            assert!(
                pairs.all(|(got, want)| (got - want).abs() < 1e-15),
                "{got:?}"
            );
        };
        assert_near(rates(&cosine), [0.0, 0.5, 2.0, 1.0, 0.0, 0.0]);

        // The warm-up of all schedules is the same as that of the cosine, and the larger one applies.
        for (own, all) in [(0, 20), (10, 20), (20, 5)] {
            let both = Schedule {
                cosine: Some(Cosine { warmup_steps: own }),
                warmup_steps: all,
                ..cosine.clone()
            };
            assert_near(rates(&both), [0.0, 0.5, 2.0, 1.0, 0.0, 0.0]);
        }
        let step = Schedule {
            step: Some(StepLr::default()),
            cosine: None,
            warmup_steps: 20,
            ..cosine
        };
        assert_near(rates(&step), [0.0, 0.35, 1.4, 1.4, 1.4, 1.4]);
    }

    #[test]
    fn factors_are_multiplied_and_a_state_read_back_goes_on() {
        let settings = Schedule {
            step: Some(StepLr::default()),
            cosine: Some(Cosine::default()),
            ..plateau(Metric::Loss)
        };

        let mut schedules = Schedules::new(&settings, 1.0);
        [1.0, 1.0, 1.0]
            .iter()
            .for_each(|&x| assert!(!schedules.epoch_ended(0, &loss(x))));

        let text = serde_json::to_string(schedules.state()).expect("JSON");
        let mut resumed = Schedules::new(&settings, 1.0);
        resumed.resume(serde_json::from_str(&text).expect("own JSON"));

        for one in [&mut schedules, &mut resumed] {
            assert!(one.epoch_ended(0, &loss(1.0)));
            assert!((one.lr(at(50, 10)) - 0.7 * 0.5 * 0.5).abs() < 1e-15);
        }
    }

    #[test]
    fn a_run_ends_after_patience_epochs_without_a_better_value() {
        let mut stop = early_stop(Metric::Loss, 2);
        let verdicts = [1.0, 0.9, 0.9].map(|x| stop.epoch_ended(&loss(x)));
        assert_eq!(
            verdicts.map(|v| (v.better, v.stop)),
            [(true, false), (true, false), (false, false)]
        );

        let text = serde_json::to_string(&stop).expect("JSON");
        let mut resumed: EarlyStop = serde_json::from_str(&text).expect("own JSON");
        assert_eq!(
            resumed.epoch_ended(&loss(f64::NAN)),
            Verdict {
                better: false,
                stop: true
            }
        );
        assert_eq!(resumed.best(), Some(0.9));

        let mut never = early_stop(Metric::MacroF1, 0);
        assert!((0..50).all(|_| !never.epoch_ended(&loss(1.0)).stop));
    }

    #[test]
    fn a_score_of_any_target_can_be_selected() {
        let of_targets = |loss: f64, auc: f64| {
            let genre = BTreeMap::from([(Metric::Loss, loss), (Metric::MacroF1, 0.5)]);
            let all = BTreeMap::from([(Metric::Loss, 2.0), (Metric::RocAucMacro, auc)]);
            Validation {
                loss: f64::midpoint(loss, 2.0),
                targets: vec![("genre".to_owned(), genre), ("genres_all".to_owned(), all)],
            }
        };
        let verdicts = |select: Metric, target: Option<&str>| {
            let mut stop = EarlyStop::new(&config::Train {
                select,
                select_target: target.map(str::to_owned),
                ..config::Train::default()
            });
            let better = |[loss, auc]: [f64; 2]| stop.epoch_ended(&of_targets(loss, auc)).better;
            [[1.0, 0.6], [0.9, 0.5], [1.1, 0.7]].map(better)
        };

        assert_eq!(verdicts(Metric::Loss, None), [true, true, false]);
        assert_eq!(
            verdicts(Metric::Loss, Some("genres_all")),
            [true, false, false]
        );
        assert_eq!(
            verdicts(Metric::RocAucMacro, Some("genres_all")),
            [true, false, true]
        );
        assert_eq!(
            verdicts(Metric::RocAucMacro, None),
            [false; 3],
            "the first target has none"
        );
    }
}
