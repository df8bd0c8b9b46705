//! Sweep files: the values of some configuration keys, whose combinations or random draws are the runs of a sweep.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::error_at;
use crate::exit::PlainError;
use crate::rng::{Rng, mix};
use crate::wording::explain;

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
        let sweep: Self =
            toml::from_str(text).map_err(|e| error_at(place, explain(e.message(), |_| true)))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_is_every_combination() {
        let text =
            "[parameters]\n\"optimizer.lr\" = [0.1, 0.01]\n\"model.name\" = [\"a\", \"b\", \"c\"]";
        let trials = Sweep::parse(text, "s.toml").expect("valid").trials();
        assert_eq!(trials.len(), 6);
        assert_eq!(trials[0], ["model.name=\"a\"", "optimizer.lr=0.1"]);
        assert_eq!(trials[5], ["model.name=\"c\"", "optimizer.lr=0.01"]);

        let lists = "[parameters]\n\"model.filters\" = [[32, 64], [64, 128]]";
        let trials = Sweep::parse(lists, "s.toml").expect("valid").trials();
        assert_eq!(
            trials,
            [["model.filters=[32, 64]"], ["model.filters=[64, 128]"]]
        );
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
}
