//! Scores over the runs of a cross-validation or of several seeds: mean, standard deviation and interval.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use wavemill_schemas::config::Metric;
use wavemill_schemas::run::RunResult;
use wavemill_schemas::text::{counted, shown};

/// Test scores of several runs of one configuration, with different folds or seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CrossResult {
    /// Number of folds; `None` if only the seeds differ.
    pub folds: Option<usize>,
    /// blake3 hash of the manifest of the store.
    pub manifest_hash: String,
    /// The name of the model's architecture.
    pub model: String,
    /// The name of the feature that the models were trained on.
    pub feature: String,
    /// The runs, in the order of seeds, then of folds.
    pub runs: Vec<CrossRun>,
    /// For each target, the scores of tracks over all runs, by metric.
    pub scores: Vec<(String, BTreeMap<Metric, Summary>)>,
}

/// A run of a cross-validation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CrossRun {
    /// The fold that is the test split, from 1; `None` if only the seeds differ.
    pub fold: Option<usize>,
    /// The run's seed.
    pub seed: u64,
    /// The run's folder.
    pub run: String,
    /// The run's test scores of tracks by target, in the order of [`CrossResult::scores`].
    pub scores: Vec<BTreeMap<Metric, f64>>,
}

/// Summary of a score over runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Mean over the folds of their means over seeds; without folds, over the seeds.
    pub mean: f64,
    /// Standard deviation over the runs, with denominator n − 1.
    pub sd: f64,
    /// 95 % interval of the mean.
    pub interval: [f64; 2],
    /// Number of runs in which the score is defined.
    pub n: usize,
}

impl CrossResult {
    /// Summarizes several runs, which have equal targets, each with the result that its scores are from.
    pub fn new(folds: Option<usize>, ended: Vec<(CrossRun, RunResult)>) -> Self {
        let (runs, results): (Vec<CrossRun>, Vec<RunResult>) = ended.into_iter().unzip();
        let first = results.first();
        let targets = first.map_or(&[][..], |result| &result.test);
        let mut scores = Vec::new();
        for (index, target) in targets.iter().enumerate() {
            let mut summaries = BTreeMap::new();
            for metric in Metric::ALL {
                let values = runs.iter().filter_map(|run| {
                    let value = run.scores.get(index)?.get(&metric)?;
                    Some((run.fold, *value))
                });
                let summary = Summary::new(&values.collect::<Vec<_>>(), folds);
                summaries.extend(summary.map(|summary| (metric, summary)));
            }
            scores.push((target.target.clone(), summaries));
        }

        Self {
            folds,
            manifest_hash: first.map_or(String::new(), |result| result.manifest_hash.clone()),
            model: first.map_or(String::new(), |result| result.model.clone()),
            feature: first.map_or(String::new(), |result| result.feature.clone()),
            runs,
            scores,
        }
    }
}

impl Summary {
    /// Summarizes the values of runs by their fold, if they have one; `None` for fewer than two values or folds.
    ///
    /// The interval is Student's t interval over the n folds, each with the mean over its seeds: runs of one fold share
    /// their test split. The training splits of folds overlap, so their scores are correlated: the variance of the mean
    /// is s² (1 / n + test rows / training rows). Source: Nadeau and Bengio, "Inference for the Generalization Error"
    /// (2003). With K folds, K − 2 of them are the training split. Without folds, the interval is over the seeds.
    fn new(values: &[(Option<usize>, f64)], folds: Option<usize>) -> Option<Self> {
        let all: Vec<f64> = values.iter().map(|(_, value)| *value).collect();
        let mut by_fold: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        for (fold, value) in values {
            by_fold.entry(fold.unwrap_or(0)).or_default().push(*value);
        }

        let units = match folds {
            Some(_) => by_fold.values().map(|values| mean(values)).collect(),
            None => all.clone(),
        };
        if units.len() < 2 {
            return None;
        }

        let overlap = folds.map_or(0.0, |folds| 1.0 / (folds - 2) as f64);
        let n = units.len() as f64;
        let half = student_t(units.len() - 1) * deviation(&units) * (1.0 / n + overlap).sqrt();
        let middle = mean(&units);
        Some(Self {
            mean: middle,
            sd: deviation(&all),
            interval: [middle - half, middle + half],
            n: all.len(),
        })
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Returns the standard deviation with denominator n − 1.
fn deviation(values: &[f64]) -> f64 {
    let middle = mean(values);
    let squares: f64 = values.iter().map(|value| (value - middle).powi(2)).sum();
    (squares / (values.len() - 1) as f64).sqrt()
}

/// Returns the 97.5 % quantile of Student's t distribution with `freedom` degrees of freedom, to within 0.1 %.
fn student_t(freedom: usize) -> f64 {
    const SMALL: [f64; 5] = [12.7062, 4.3027, 3.1824, 2.7764, 2.5706];
    if let Some(value) = SMALL.get(freedom.wrapping_sub(1)) {
        return *value;
    }

    // Expansion in 1 / freedom around the normal quantile. Source: Abramowitz and Stegun, 26.7.5.
    let z: f64 = 1.959_964;
    let terms = [
        (z.powi(3) + z) / 4.0,
        (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0,
        (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0,
    ];
    let inverse = 1.0 / freedom as f64;
    terms
        .iter()
        .rev()
        .fold(0.0, |sum, term| (sum + term) * inverse)
        + z
}

impl fmt::Display for CrossResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folds = self
            .folds
            .map_or(String::new(), |folds| format!(", {folds} folds"));
        let runs = counted(self.runs.len(), "run");
        writeln!(f, "{runs}{folds}; test scores of tracks")?;

        for (target, scores) in &self.scores {
            writeln!(
                f,
                "\n{:<26} {:>7} {:>7}  95 % interval",
                shown(target),
                "mean",
                "sd"
            )?;

            for (metric, summary) in scores {
                let Summary {
                    mean,
                    sd,
                    interval: [low, high],
                    n,
                } = summary;
                // A score may be undefined in some runs.
                let of = if *n < self.runs.len() {
                    format!(" ({n} of {} runs)", self.runs.len())
                } else {
                    String::new()
                };

                let name = metric.name().replace('_', " ");
                writeln!(
                    f,
                    "{name:<26} {mean:>7.3} {sd:>7.3}  {low:.3} to {high:.3}{of}"
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_those_of_student_and_wider_over_folds() {
        // scipy.stats.t.interval(0.95, 3, mean, sem) = [0.5350, 0.6650]
        let values = [0.55, 0.65, 0.6, 0.6];
        let summary = |folds: Option<usize>, repeats: usize| {
            let runs = values.iter().enumerate();
            let runs = runs.map(|(i, value)| (folds.map(|_| i + 1), *value));
            let runs: Vec<_> = (0..repeats).flat_map(|_| runs.clone()).collect();
            Summary::new(&runs, folds).unwrap()
        };
        let seeds = summary(None, 1);
        assert!((seeds.mean - 0.6).abs() < 1e-12 && (seeds.sd - 0.040_824_829).abs() < 1e-8);
        let half = 3.1824 * 0.040_824_829 / 2.0;
        assert!((seeds.interval[0] - (0.6 - half)).abs() < 1e-6, "{seeds:?}");

        // 1 / 4 + 1 / 2 instead of 1 / 4.
        let folds = summary(Some(4), 1);
        let wider = (folds.interval[1] - 0.6) / (seeds.interval[1] - 0.6);
        assert!((wider - 3.0_f64.sqrt()).abs() < 1e-12);

        // More seeds with equal scores say nothing new about the folds.
        let repeated = summary(Some(4), 3);
        assert!((repeated.interval[1] - folds.interval[1]).abs() < 1e-12);
        assert_eq!(repeated.n, 12);
        assert_eq!(Summary::new(&[(None, 0.5)], None), None);
    }

    #[test]
    fn quantiles_are_those_of_scipy() {
        // scipy.stats.t.ppf(0.975, [1, 5, 6, 9, 29, 99])
        for (freedom, want) in [
            (1, 12.7062),
            (5, 2.5706),
            (6, 2.4469),
            (9, 2.2622),
            (29, 2.0452),
            (99, 1.9842),
        ] {
            assert!(
                (student_t(freedom) / want - 1.0).abs() < 1e-3,
                "{freedom}: {}",
                student_t(freedom)
            );
        }
    }
}
