//! What a model says, as JSON lines for programs: one a row and target, then one a clip of several rows.
//!
//! A clip's class is that of the highest mean probability; the majority of its rows is told beside it.

use std::collections::HashMap;

use serde::Serialize;

use super::Row;
use crate::metrics::{THRESHOLD, likeliest};
use crate::trained::is_multi;

/// A class with its probability.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Likely<'a> {
    class: &'a str,
    probability: f32,
}

/// What is said of a row or clip: of one label `class` and `probability`, of several `labels`.
#[derive(Debug, Serialize)]
struct Verdict<'a> {
    #[serde(flatten)]
    one: Option<Likely<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<Vec<Likely<'a>>>,
    top: Vec<Likely<'a>>,
}

#[derive(Debug, Serialize)]
struct RowLine<'a> {
    clip_key: &'a str,
    segment: i32,
    offset_s: f32,
    target: &'a str,
    #[serde(flatten)]
    verdict: Verdict<'a>,
}

#[derive(Debug, Serialize)]
struct ClipLine<'a> {
    clip_key: &'a str,
    segments: u64,
    target: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    majority: Option<&'a str>,
    #[serde(flatten)]
    verdict: Verdict<'a>,
}

/// Sums over the rows of a clip, for one target.
#[derive(Debug)]
struct Sums {
    probabilities: Vec<f64>,
    votes: Vec<u64>,
}

#[derive(Debug)]
struct Clip {
    key: String,
    rows: u64,
    /// By target.
    sums: Vec<Sums>,
}

/// Lines, and what of them is still to be said of clips.
#[derive(Debug)]
pub struct Answers<'a> {
    targets: &'a [(String, Vec<String>)],
    top: usize,
    places: HashMap<String, usize>,
    /// In order of their first rows.
    clips: Vec<Clip>,
}

impl<'a> Answers<'a> {
    /// For `targets` with their classes in head order; `top` classes a line.
    #[must_use]
    pub fn new(targets: &'a [(String, Vec<String>)], top: usize) -> Self {
        Self { targets, top, places: HashMap::new(), clips: Vec::new() }
    }

    /// Lines of `rows`; `probabilities` are of each target `[row][class]`.
    pub fn rows(&mut self, rows: &[Row], probabilities: &[Vec<f32>]) -> String {
        let mut lines = String::new();
        for (at, row) in rows.iter().enumerate() {
            let place = self.place_of(&row.clip_key);
            self.clips[place].rows += 1;
            for (index, ((target, classes), all)) in self.targets.iter().zip(probabilities).enumerate() {
                let own = &all[at * classes.len()..(at + 1) * classes.len()];
                self.clips[place].sums[index].add(own);
                let verdict = Verdict::of(target, classes, own, self.top);
                push(
                    &mut lines,
                    &RowLine { clip_key: &row.clip_key, segment: row.segment, offset_s: row.offset_s, target, verdict },
                );
            }
        }
        lines
    }

    /// Lines of clips that had several rows, in order of their first.
    #[must_use]
    pub fn clips(&self) -> String {
        let mut lines = String::new();
        for clip in self.clips.iter().filter(|clip| clip.rows > 1) {
            for ((target, classes), sums) in self.targets.iter().zip(&clip.sums) {
                let mean: Vec<f32> = sums.probabilities.iter().map(|sum| (sum / clip.rows as f64) as f32).collect();
                let majority = (!is_multi(target)).then(|| classes[sums.majority()].as_str());
                let verdict = Verdict::of(target, classes, &mean, self.top);
                push(&mut lines, &ClipLine { clip_key: &clip.key, segments: clip.rows, target, majority, verdict });
            }
        }
        lines
    }

    fn place_of(&mut self, key: &str) -> usize {
        if let Some(&place) = self.places.get(key) {
            return place;
        }
        let sums = self.targets.iter().map(|(_, classes)| Sums::new(classes.len())).collect();
        self.clips.push(Clip { key: key.to_owned(), rows: 0, sums });
        self.places.insert(key.to_owned(), self.clips.len() - 1);
        self.clips.len() - 1
    }
}

impl Sums {
    fn new(classes: usize) -> Self {
        Self { probabilities: vec![0.0; classes], votes: vec![0; classes] }
    }

    fn add(&mut self, probabilities: &[f32]) {
        self.probabilities.iter_mut().zip(probabilities).for_each(|(sum, &p)| *sum += f64::from(p));
        self.votes[likeliest(probabilities)] += 1;
    }

    /// The class of most rows; of equal ones that of the higher mean probability, then the lower.
    fn majority(&self) -> usize {
        let better = |a: usize, b: usize| {
            self.votes[a].cmp(&self.votes[b]).then(self.probabilities[a].total_cmp(&self.probabilities[b])).is_gt()
        };
        (0..self.votes.len()).reduce(|best, class| if better(class, best) { class } else { best }).unwrap_or_default()
    }
}

impl<'a> Verdict<'a> {
    fn of(target: &str, classes: &'a [String], probabilities: &[f32], top: usize) -> Self {
        let likely = |class: usize| Likely { class: &classes[class], probability: probabilities[class] };
        let mut order: Vec<usize> = (0..classes.len()).collect();
        order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]).then(a.cmp(&b)));
        let is_set = |class: &usize| probabilities[*class] >= THRESHOLD;
        let labels = is_multi(target).then(|| order.iter().copied().filter(is_set).map(likely).collect());
        let one = if labels.is_none() { order.first().map(|&class| likely(class)) } else { None };
        Self { one, labels, top: order.into_iter().take(top).map(likely).collect() }
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
        let majority = |rows: &[[f32; 3]]| {
            let mut sums = Sums::new(3);
            rows.iter().for_each(|row| sums.add(row));
            sums.majority()
        };
        assert_eq!(majority(&[[0.5, 0.4, 0.1], [0.5, 0.4, 0.1], [0.0, 1.0, 0.0]]), 0, "two votes against the mean");
        assert_eq!(majority(&[[0.6, 0.4, 0.0], [0.1, 0.9, 0.0]]), 1);
        assert_eq!(majority(&[[0.0, 0.4, 0.6], [0.0, 0.6, 0.4]]), 1);
    }
}
