//! Sweeps: many runs on one store, whose configurations a [`Sweep`](wavemill_schemas::run::Sweep) states.
//!
//! Trials are compared by their validation scores only. The best trial is not trained further, and is evaluated once on
//! the test split.

use std::fs;
use std::io;
use std::path::Path;

use wavemill_schemas::config::{Config, Metric, error_at};
use wavemill_schemas::durable::if_there;
use wavemill_schemas::exit::PlainError;
use wavemill_schemas::run::{RunDir, RunFilesError, RunResult, run_stem};

use crate::records::read_log;

/// The median stopping rule. Each trial is judged as if all trials before it had ended, which requires only their values
/// up to the same epoch. Trials that run in parallel therefore end at the same epochs as trials that run in sequence.
#[derive(Clone, Debug)]
pub struct MedianRule {
    metric: Metric,
    after: u64,
    /// The validation values of each trial, and whether the trial has ended.
    trials: Vec<(Vec<f64>, bool)>,
}

impl MedianRule {
    /// Creates the state of trials that have not begun, which are judged by `metric` from epoch `after` on.
    pub fn new(n_trials: usize, metric: Metric, after: u64) -> Self {
        Self {
            metric,
            after,
            trials: vec![(Vec::new(), false); n_trials],
        }
    }

    /// Stores the validation values of a trial up to its current epoch.
    pub fn heard(&mut self, trial: usize, values: Vec<f64>) {
        self.trials[trial].0 = values;
    }

    /// Marks a trial as ended. `values` are all of its validation values, which are used if none were stored before.
    pub fn ended(&mut self, trial: usize, values: Vec<f64>) {
        let (heard, has_ended) = &mut self.trials[trial];
        *has_ended = true;
        // Keep the stored values, because a trial that failed ends without values. A trial that was already finished
        // reports its values only when it ends.
        if heard.is_empty() {
            *heard = values;
        }
    }

    /// Reports whether a trial should end: its best value is worse than the median of the earlier trials' mean values up
    /// to this epoch. Returns `None` while an earlier trial has not reached the same epoch. Source: Golovin et al.,
    /// "Google Vizier" (2017), median stopping.
    pub fn should_end(&self, trial: usize) -> Option<bool> {
        let values = &self.trials[trial].0;
        let epoch = values.len();
        if epoch == 0 || (epoch as u64) < self.after {
            return Some(false);
        }

        let mut means = Vec::new();
        for (theirs, has_ended) in &self.trials[..trial] {
            // A trial that ended before this epoch has no mean value up to it. NaN cannot be ordered.
            match theirs.get(..epoch) {
                Some(theirs) => means.push(theirs.iter().sum::<f64>() / epoch as f64),
                None if *has_ended => {}
                None => return None,
            }
        }
        means.retain(|mean| !mean.is_nan());
        // A median needs at least two other trials.
        if means.len() < 2 {
            return Some(false);
        }

        means.sort_by(f64::total_cmp);
        let median = (means[(means.len() - 1) / 2] + means[means.len() / 2]) / 2.0;
        // A trial whose values are all NaN has no best value, and ends.
        let best = self.metric.best(values);
        Some(best.is_none_or(|best| self.metric.is_better(median, best)))
    }
}

/// Finds a finished run with the configuration `config` in the folder `runs`, on the same store and with the same
/// number of ranks, whose log has the values of all its epochs. Returns the first of several runs. Runs that a sweep
/// ended early count only if `median_stopping` is true.
///
/// # Errors
/// An I/O error if the folder `runs` exists but cannot be listed.
pub fn finished(
    runs: &Path,
    config: &Config,
    manifest_hash: &str,
    world_size: usize,
    median_stopping: bool,
) -> io::Result<Option<RunDir>> {
    let hash = config.hash();
    let stem = format!("{}-", run_stem(&config.model.name, &hash));
    let mut paths = Vec::new();
    let Some(entries) = if_there(fs::read_dir(runs))? else {
        return Ok(None);
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&stem) {
            paths.push(entry.path());
        }
    }
    // Folders are listed in arbitrary order.
    paths.sort();

    for path in paths {
        let Ok(run) = RunDir::open(&path) else {
            continue;
        };
        // A run whose result cannot be read counts as unfinished.
        let result = run.read_result::<RunResult>().unwrap_or_default();
        let is_this = result.is_some_and(|result| {
            result.config_hash == hash
                && result.manifest_hash == manifest_hash
                && result.world_size == world_size
                // The run may have begun with more ranks.
                && (world_size > 1 || !result.batch_norm_per_rank)
                && (median_stopping || !result.ended_by_sweep)
                && has_values(&path, &config.train.selected(), result.epochs)
        });
        if is_this {
            return Ok(Some(run));
        }
    }
    Ok(None)
}

/// Reports whether the log of a run has the values of a score for all epochs. A power failure may have cut it, and the
/// best of the remaining values would be that of fewer epochs.
fn has_values(run: &Path, score: &str, epochs: u64) -> bool {
    values_of(run, score).is_ok_and(|values| values.len() as u64 == epochs)
}

/// Returns the validation values of a score ([`Train::selected`]) after each epoch of a run, read from the run's log.
///
/// [`Train::selected`]: wavemill_schemas::config::Train::selected
///
/// # Errors
/// [`RunFilesError`] if the log cannot be read.
pub fn values_of(run: &Path, score: &str) -> Result<Vec<f64>, RunFilesError> {
    let name = format!("validation/{score}");
    let mut values = Vec::new();
    for entry in read_log(&RunDir::open(run)?.log())? {
        if entry.kind == "epoch" {
            values.extend(entry.values.get(&name));
        }
    }
    Ok(values)
}

/// Returns the configuration of a trial: the base configuration with the trial's `--set` arguments applied.
///
/// # Errors
/// An error if an argument is invalid.
pub fn config_of(base: &Config, arguments: &[String], place: &str) -> Result<Config, PlainError> {
    // Convert the base configuration to text, so that a trial's arguments are parsed and checked like those of `--set`.
    let text = toml::to_string(base).map_err(|error| error_at(place, error))?;
    Config::parse(&text, place, arguments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Log;
    use wavemill_schemas::rng::Rng;

    /// Reports whether a trial with `values` should end after trials with the values `others` have ended.
    fn should_end(others: &[Vec<f64>], values: &[f64], after: u64) -> bool {
        let mut rule = MedianRule::new(others.len() + 1, Metric::Loss, after);
        for (trial, values) in others.iter().enumerate() {
            rule.ended(trial, values.clone());
        }
        rule.heard(others.len(), values.to_vec());
        rule.should_end(others.len())
            .expect("all others have ended")
    }

    #[test]
    fn a_trial_worse_than_the_median_ends() {
        let mut others = vec![vec![1.0, 0.5, 0.4]];
        assert!(
            !should_end(&others, &[9.0, 9.0], 1),
            "one other trial is no median"
        );

        others.push(vec![1.2, 0.7, 0.6]);
        assert!(should_end(&others, &[2.0, 1.9], 1));
        assert!(!should_end(&others, &[2.0, 0.3], 1));
        assert!(!should_end(&others, &[2.0, 1.9], 3), "not before its epoch");
        assert!(should_end(&others, &[f64::NAN, 1.9], 1), "NaN is no best");
        assert!(should_end(&others, &[f64::NAN], 1));

        others.push(vec![f64::NAN; 3]);
        assert!(should_end(&others, &[2.0, 1.9], 1), "NaN is no mean");
        assert!(!should_end(&others, &[2.0, 0.3], 1));
    }

    #[test]
    fn a_run_whose_log_lacks_epochs_is_not_finished() {
        let runs = tempfile::tempdir().expect("a folder");
        let config = Config::default();
        let stem = run_stem(&config.model.name, &config.hash());
        let run = RunDir::create_next(runs.path(), &stem).expect("a new folder");
        run.write_config("").expect("room");
        let result = serde_json::json!({
            "model": "", "parameters": 0, "start": "", "feature": "", "feature_id": "", "manifest_hash": "m",
            "config_hash": config.hash(), "world_size": 1, "batch_norm_per_rank": false, "epochs": 3, "steps": 6,
            "best_epoch": 2, "training_rows": 8, "damaged_rows": 0, "warnings": [], "validation": [], "test": [],
        });
        run.write_result(&result).expect("room");

        let name = format!("validation/{}", config.train.selected());
        let mut log = Log::open(&run.log()).expect("a file");
        for epoch in 0..3 {
            let found = finished(runs.path(), &config, "m", 1, false).expect("a folder");
            assert_eq!(found, None, "{epoch} of 3 epochs");
            let values = [(name.as_str(), 0.5)];
            log.append("epoch", epoch, 2 * (epoch + 1), &values)
                .expect("room");
        }
        let found = finished(runs.path(), &config, "m", 1, false).expect("a folder");
        assert_eq!(found.as_ref(), Some(&run));

        // Without median stopping, a run that was ended by it is not the result of its configuration.
        let mut result = result;
        result["ended_by_sweep"] = true.into();
        run.write_result(&result).expect("room");
        for median_stopping in [false, true] {
            let found = finished(runs.path(), &config, "m", 1, median_stopping).expect("a folder");
            assert_eq!(found.is_some(), median_stopping);
        }
    }

    /// Returns the number of epochs of each trial if the trials run one after another.
    fn in_turn(curves: &[Vec<f64>], after: u64) -> Vec<usize> {
        let mut ended: Vec<Vec<f64>> = Vec::new();
        for curve in curves {
            let length = (1..curve.len())
                .find(|epochs| should_end(&ended, &curve[..*epochs], after))
                .unwrap_or(curve.len());
            ended.push(curve[..length].to_vec());
        }
        ended.iter().map(Vec::len).collect()
    }

    #[test]
    fn parallel_and_sequential_verdicts_agree() {
        let mut rng = Rng::new(7);
        for round in 0..200 {
            let epochs = 3 + (round % 4) as usize;
            let curves: Vec<Vec<f64>> = (0..6)
                .map(|_| (0..epochs).map(|_| rng.uniform_in(0.0, 1.0)).collect())
                .collect();

            let mut side = MedianRule::new(curves.len(), Metric::Loss, 1);
            let mut lengths = vec![0; curves.len()];
            let mut left: Vec<usize> = (0..curves.len()).collect();
            while !left.is_empty() {
                // A random trial that has not ended runs its next epoch, or waits for an earlier trial.
                let trial = left[rng.below(left.len() as u64) as usize];
                side.heard(trial, curves[trial][..=lengths[trial]].to_vec());
                let Some(ends) = side.should_end(trial) else {
                    continue;
                };

                lengths[trial] += 1;
                if ends || lengths[trial] == curves[trial].len() {
                    side.ended(trial, Vec::new());
                    left.retain(|other| *other != trial);
                }
            }

            assert_eq!(lengths, in_turn(&curves, 1), "{curves:?}");
        }
    }
}
