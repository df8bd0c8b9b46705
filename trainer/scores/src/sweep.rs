//! Sweeps: many runs on one store with all combinations, or random draws, of the values of some configuration keys.
//!
//! Trials are compared by their validation scores only. The best trial is not trained further, and is evaluated once on
//! the test split.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use wavemill_schemas::config::{Config, Metric, error_at};
use wavemill_schemas::durable::if_there;
use wavemill_schemas::exit::PlainError;
use wavemill_schemas::rng::{Rng, mix};

use crate::ScoresError;
use crate::records::{RunDir, read_log, run_stem};
use crate::result::RunResult;

/// Maximum number of trials in a sweep. Each trial is a training run; a grid of a few keys with many values has
/// millions.
pub const TRIALS_MAX: usize = 10_000;

/// The method of choosing the trials of a sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// All combinations of the values, in the order of the keys.
    #[default]
    Grid,
    /// `trials` random draws, independently for each key.
    Random,
}

/// The possible values of one configuration key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Values {
    /// A list of possible values.
    Choice(Vec<toml::Value>),
    /// A range between two bounds; only for random sweeps.
    Range {
        /// The lower bound of the range.
        min: f64,
        /// The upper bound of the range.
        max: f64,
        /// True if the logarithm of the value is uniformly distributed, instead of the value.
        #[serde(default)]
        log: bool,
    },
}

impl Values {
    fn problem(&self, method: Method) -> Option<String> {
        match (self, method) {
            (Self::Choice(choices), _) => choices.is_empty().then(|| "has no values".to_owned()),
            (Self::Range { .. }, Method::Grid) => {
                Some("is a range: a grid needs a list; or set method = \"random\"".to_owned())
            }
            (Self::Range { min, max, .. }, _)
                if !(min.is_finite() && max.is_finite() && min <= max) =>
            {
                Some(format!(
                    "is from {min} to {max}: min must be at most max, and both finite"
                ))
            }
            (Self::Range { min, log: true, .. }, _) if *min <= 0.0 => Some(format!(
                "has min = {min} and log = true: a logarithmic range needs min above 0"
            )),
            (Self::Range { .. }, _) => None,
        }
    }

    /// Draws a random value, formatted as TOML.
    fn draw(&self, rng: &mut Rng) -> String {
        match *self {
            Self::Choice(ref choices) => {
                choices[rng.below(choices.len() as u64) as usize].to_string()
            }
            Self::Range {
                min,
                max,
                log: false,
            } => format!("{:?}", rng.uniform_in(min, max)),
            Self::Range {
                min,
                max,
                log: true,
            } => format!("{:?}", rng.uniform_in(min.ln(), max.ln()).exp()),
        }
    }
}

/// The content of a sweep file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    /// The method of choosing trials: grid or random.
    #[serde(default)]
    pub method: Method,
    /// Number of trials of a random sweep.
    #[serde(default = "ten")]
    pub trials: usize,
    /// The seed of the random draws.
    #[serde(default)]
    pub seed: u64,
    /// Number of epochs after which a trial ends if its best validation value is worse than the median of the other
    /// trials; if absent, no trial ends early.
    #[serde(default)]
    pub median_stopping_after: Option<u64>,
    /// Possible values by configuration key, such as `optimizer.lr`.
    pub parameters: BTreeMap<String, Values>,
}

fn ten() -> usize {
    10
}

impl Sweep {
    /// Reads a sweep file.
    ///
    /// # Errors
    /// An error with the name of the invalid key.
    pub fn parse(text: &str, place: &str) -> Result<Self, PlainError> {
        let sweep: Self = toml::from_str(text).map_err(|e| error_at(place, e.message()))?;
        match sweep.problem() {
            Some(message) => Err(error_at(place, message)),
            None => Ok(sweep),
        }
    }

    /// Returns a description of the first problem with the sweep file.
    fn problem(&self) -> Option<String> {
        if self.method == Method::Random && self.trials == 0 {
            return Some("trials = 0: a random sweep needs at least 1".to_owned());
        }
        let of_values = self.parameters.iter().find_map(|(key, values)| {
            let problem = values.problem(self.method)?;
            Some(format!("parameters.\"{key}\" {problem}"))
        });
        of_values.or_else(|| self.too_many())
    }

    /// Returns an error message if the sweep has too many trials: all trials are generated before the first one begins.
    fn too_many(&self) -> Option<String> {
        let n_trials = self.n_trials();
        if n_trials <= TRIALS_MAX {
            return None;
        }
        let remedy = match self.method {
            Method::Grid => "try fewer values, or set method = \"random\"",
            Method::Random => "set fewer trials",
        };
        Some(format!(
            "{n_trials} trials: at most {TRIALS_MAX} are allowed; {remedy}"
        ))
    }

    /// Returns the number of trials without generating them. Too large numbers saturate at the maximum.
    fn n_trials(&self) -> usize {
        if self.method == Method::Random {
            return self.trials;
        }
        let mut n_trials: usize = 1;
        for values in self.parameters.values() {
            if let Values::Choice(choices) = values {
                n_trials = n_trials.saturating_mul(choices.len());
            }
        }
        n_trials
    }

    /// Returns the `--set` arguments of each trial, in order.
    pub fn trials(&self) -> Vec<Vec<String>> {
        match self.method {
            Method::Grid => self.grid(),
            Method::Random => (0..self.trials)
                .map(|trial| self.draw(trial as u64))
                .collect(),
        }
    }

    fn grid(&self) -> Vec<Vec<String>> {
        let mut trials = vec![Vec::new()];
        for (key, values) in &self.parameters {
            let Values::Choice(choices) = values else {
                continue;
            };
            // Combinations are in the order of the keys; the value of the last key varies fastest.
            let mut longer = Vec::with_capacity(trials.len() * choices.len());
            for trial in &trials {
                for value in choices {
                    let mut arguments: Vec<String> = trial.clone();
                    arguments.push(format!("{key}={value}"));
                    longer.push(arguments);
                }
            }
            trials = longer;
        }
        trials
    }

    fn draw(&self, trial: u64) -> Vec<String> {
        // Each trial has its own random numbers, so that more trials in the file do not change the first ones.
        let mut rng = Rng::new(mix("sweep", &[self.seed, trial]));
        self.parameters
            .iter()
            .map(|(key, values)| format!("{key}={}", values.draw(&mut rng)))
            .collect()
    }
}

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
/// [`ScoresError`] if the log cannot be read.
pub fn values_of(run: &Path, score: &str) -> Result<Vec<f64>, ScoresError> {
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

    #[test]
    fn a_grid_is_every_combination() {
        let text =
            "[parameters]\n\"optimizer.lr\" = [0.1, 0.01]\n\"model.name\" = [\"a\", \"b\", \"c\"]";
        let trials = Sweep::parse(text, "s.toml").expect("valid").trials();
        assert_eq!(trials.len(), 6);
        assert_eq!(trials[0], ["model.name=\"a\"", "optimizer.lr=0.1"]);
        assert_eq!(trials[5], ["model.name=\"c\"", "optimizer.lr=0.01"]);
    }

    /// Returns the error message for an invalid sweep file.
    fn said(text: &str) -> String {
        Sweep::parse(text, "s.toml").expect_err(text).to_string()
    }

    #[test]
    fn too_many_trials_are_rejected() {
        let values: Vec<String> = (0..101).map(|value| value.to_string()).collect();
        let values = values.join(", ");
        let grid = format!("[parameters]\n\"a\" = [{values}]\n\"b\" = [{values}]\n");
        assert!(
            said(&grid)
                .contains("s.toml: 10201 trials: at most 10000 are allowed; try fewer values"),
            "{}",
            said(&grid)
        );

        let mut wide = "[parameters]\n".to_owned();
        for key in 0..100 {
            wide += &format!("\"k{key}\" = [1, 2]\n");
        }
        assert!(said(&wide).contains("at most 10000"), "{}", said(&wide));

        let random = "method = \"random\"\ntrials = 10001\n[parameters]\n\"seed\" = [1]";
        assert!(said(random).contains("10001 trials: at most 10000 are allowed; set fewer"));
        let most = random.replace("10001", "10000");
        assert_eq!(
            Sweep::parse(&most, "s.toml").expect("sound").n_trials(),
            10_000
        );
    }

    #[test]
    fn draws_stay_in_their_range_and_repeat() {
        let text = "method = \"random\"\ntrials = 50\n[parameters]\n\"optimizer.lr\" = { min = 1e-4, max = 1e-2, log = true }";
        let sweep = Sweep::parse(text, "s.toml").expect("valid");
        let trials = sweep.trials();
        assert_eq!(trials, sweep.trials());

        let values: Vec<f64> = trials
            .iter()
            .map(|t| t[0].split_once('=').expect("key").1.parse().expect("f64"))
            .collect();
        assert!(values.iter().all(|v| (1e-4..1e-2).contains(v)));
        assert!(
            values.iter().filter(|v| **v < 1e-3).count().abs_diff(25) < 15,
            "{values:?}"
        );
    }

    #[test]
    fn a_range_in_a_grid_is_refused_by_key() {
        let text = "[parameters]\n\"optimizer.lr\" = { min = 1.0, max = 2.0 }";
        assert!(
            Sweep::parse(text, "s.toml")
                .expect_err("a range")
                .to_string()
                .contains("optimizer.lr")
        );
    }

    #[test]
    fn invalid_ranges_and_trial_counts_are_errors() {
        fn random(rest: &str) -> String {
            said(&format!("method = \"random\"\n{rest}"))
        }

        fn range(range: &str) -> String {
            random(&format!("[parameters]\n\"optimizer.lr\" = {range}"))
        }

        assert!(
            random("trials = 0\n[parameters]\n\"seed\" = [1]")
                .contains("s.toml: trials = 0: a random")
        );

        assert!(
            range("{ min = 0.0, max = 0.1, log = true }")
                .contains("\"optimizer.lr\" has min = 0 and log = true")
        );
        assert!(range("{ min = 0.2, max = 0.1 }").contains("min must be at most max"));
        assert!(range("{ min = nan, max = 0.1 }").contains("finite"));
        // Not a linear range.
        assert!(!range("{ min = 0.1, max = 0.2, scale = \"log\" }").is_empty());

        let ok = "method = \"random\"\n[parameters]\n\"loss.mixup\" = { min = 0.0, max = 0.1 }";
        Sweep::parse(ok, "s.toml").expect("0 without a logarithm");
    }

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
