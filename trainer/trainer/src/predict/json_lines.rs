//! Predictions as JSON lines: one line per row and target, then, for each clip with several rows, one line per target.
//!
//! A clip's class has the highest mean probability. The line also contains the class predicted for most of its rows.

use std::collections::HashMap;

use serde::Serialize;
use wavemill_scores::metrics::{THRESHOLD, likeliest};

use super::Row;
use crate::trained::is_multi;

#[derive(Clone, Debug, PartialEq, Serialize)]
struct ClassProbability<'a> {
    class: &'a str,
    probability: f32,
}

/// Prediction for a row or clip: `class` and `probability` for a single-label target, `labels` for a multi-label one.
#[derive(Debug, Serialize)]
struct Prediction<'a> {
    #[serde(flatten)]
    one: Option<ClassProbability<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<Vec<ClassProbability<'a>>>,
    top: Vec<ClassProbability<'a>>,
}

#[derive(Debug, Serialize)]
struct RowLine<'a> {
    clip_key: &'a str,
    segment: i32,
    offset_s: f32,
    target: &'a str,
    #[serde(flatten)]
    prediction: Prediction<'a>,
}

#[derive(Debug, Serialize)]
struct ClipLine<'a> {
    clip_key: &'a str,
    segments: u64,
    target: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    majority: Option<&'a str>,
    #[serde(flatten)]
    prediction: Prediction<'a>,
}

/// Sums over the rows of a clip, for one target: probabilities and votes per class.
#[derive(Debug)]
struct Sums {
    probabilities: Vec<f64>,
    votes: Vec<u64>,
}

#[derive(Debug)]
struct Clip {
    key: String,
    rows: u64,
    /// Sums over the clip's rows, one entry per target.
    sums: Vec<Sums>,
}

/// Formats the lines of rows, and collects sums over rows for the lines of clips.
#[derive(Debug)]
pub(crate) struct JsonLines<'a> {
    targets: &'a [(String, Vec<String>)],
    top: usize,
    /// Index in `clips` of each clip key.
    indices: HashMap<String, usize>,
    /// Clips in the order of their first rows.
    clips: Vec<Clip>,
}

impl<'a> JsonLines<'a> {
    /// Creates a formatter for `targets` with their classes in head order. Lines list the `top` most likely classes.
    pub(crate) fn new(targets: &'a [(String, Vec<String>)], top: usize) -> Self {
        Self {
            targets,
            top,
            indices: HashMap::new(),
            clips: Vec::new(),
        }
    }

    /// Formats one line per row and target. `probabilities` contains one `[row][class]` array per target.
    pub(crate) fn rows(&mut self, rows: &[Row], probabilities: &[Vec<f32>]) -> String {
        let mut lines = String::new();
        for (at, row) in rows.iter().enumerate() {
            let clip = self.clip_of(&row.clip_key);
            self.clips[clip].rows += 1;

            for (index, (target, classes)) in self.targets.iter().enumerate() {
                let own = &probabilities[index][at * classes.len()..(at + 1) * classes.len()];
                self.clips[clip].sums[index].add(own);
                let line = RowLine {
                    clip_key: &row.clip_key,
                    segment: row.segment,
                    offset_s: row.offset_s,
                    target,
                    prediction: Prediction::new(target, classes, own, self.top),
                };
                push(&mut lines, &line);
            }
        }
        lines
    }

    /// Formats one line per target for each clip with several rows, in the order of the clips' first rows.
    pub(crate) fn clips(&self) -> String {
        let mut lines = String::new();
        // The line of a clip with one row would repeat the row's line.
        for clip in self.clips.iter().filter(|clip| clip.rows > 1) {
            for ((target, classes), sums) in self.targets.iter().zip(&clip.sums) {
                let mean: Vec<f32> = sums
                    .probabilities
                    .iter()
                    .map(|sum| (sum / clip.rows as f64) as f32)
                    .collect();
                let majority = (!is_multi(target)).then(|| classes[sums.majority()].as_str());

                let line = ClipLine {
                    clip_key: &clip.key,
                    segments: clip.rows,
                    target,
                    majority,
                    prediction: Prediction::new(target, classes, &mean, self.top),
                };
                push(&mut lines, &line);
            }
        }
        lines
    }

    fn clip_of(&mut self, key: &str) -> usize {
        if let Some(&index) = self.indices.get(key) {
            return index;
        }

        let index = self.clips.len();
        self.clips.push(Clip {
            key: key.to_owned(),
            rows: 0,
            sums: self
                .targets
                .iter()
                .map(|(_, classes)| Sums::new(classes.len()))
                .collect(),
        });
        self.indices.insert(key.to_owned(), index);
        index
    }
}

impl Sums {
    fn new(classes: usize) -> Self {
        Self {
            probabilities: vec![0.0; classes],
            votes: vec![0; classes],
        }
    }

    fn add(&mut self, probabilities: &[f32]) {
        for (sum, &probability) in self.probabilities.iter_mut().zip(probabilities) {
            *sum += f64::from(probability);
        }
        self.votes[likeliest(probabilities)] += 1;
    }

    /// Returns the class predicted for most rows. Ties go to the higher mean probability, then to the lower class id.
    fn majority(&self) -> usize {
        let mut best = 0;
        for class in 1..self.votes.len() {
            // Compare sums of probabilities instead of means, because both classes have the same number of rows.
            let is_better = self.votes[class]
                .cmp(&self.votes[best])
                .then(self.probabilities[class].total_cmp(&self.probabilities[best]))
                .is_gt();
            if is_better {
                best = class;
            }
        }
        best
    }
}

impl<'a> Prediction<'a> {
    fn new(target: &str, classes: &'a [String], probabilities: &[f32], top: usize) -> Self {
        let mut order: Vec<usize> = (0..classes.len()).collect();
        // Classes with equal probability are ordered by id, so that equal rows give equal lines.
        order.sort_by(|&a, &b| {
            probabilities[b]
                .total_cmp(&probabilities[a])
                .then(a.cmp(&b))
        });
        let ranked: Vec<ClassProbability<'a>> = order
            .into_iter()
            .map(|class| ClassProbability {
                class: &classes[class],
                probability: probabilities[class],
            })
            .collect();

        let mut one = None;
        let mut labels = None;
        if is_multi(target) {
            let mut set = ranked.clone();
            set.retain(|label| label.probability >= THRESHOLD);
            labels = Some(set);
        } else {
            one = ranked.first().cloned();
        }
        Self {
            one,
            labels,
            top: ranked.into_iter().take(top).collect(),
        }
    }
}

fn push(lines: &mut String, line: &impl Serialize) {
    let line = serde_json::to_string(line).expect("names and numbers are JSON");
    lines.push_str(&line);
    lines.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_votes_go_to_the_higher_mean_and_then_to_the_lower_class() {
        fn majority(rows: &[[f32; 3]]) -> usize {
            let mut sums = Sums::new(3);
            rows.iter().for_each(|row| sums.add(row));
            sums.majority()
        }

        assert_eq!(
            majority(&[[0.5, 0.4, 0.1], [0.5, 0.4, 0.1], [0.0, 1.0, 0.0]]),
            0,
            "two votes against the mean"
        );
        assert_eq!(majority(&[[0.6, 0.4, 0.0], [0.1, 0.9, 0.0]]), 1);
        assert_eq!(majority(&[[0.0, 0.4, 0.6], [0.0, 0.6, 0.4]]), 1);
    }
}
