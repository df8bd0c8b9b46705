//! Scores of a resample, from counts of rows by unit.

use std::collections::BTreeMap;
use std::ops::Range;

use super::Draws;
use crate::metrics::classification::{Margins, mean};
use crate::metrics::multilabel::{Ranking, decide, rankings};
use crate::metrics::predictions::{Label, Predictions, likeliest};

/// Number of scores per class: precision, recall, F1.
pub(super) const CLASS_FIGURES: usize = 3;

/// Counts of rows by unit (artist or track), so that the time for a resample is proportional to the number of units.
pub(super) struct Statistic {
    /// The cells of unit g are at `starts[g]..starts[g + 1]`.
    starts: Vec<usize>,
    /// True for each class that has rows.
    has_rows: Vec<bool>,
    counts: Counts,
}

/// The counts of all units.
enum Counts {
    /// `(class, predicted class, rows)` of each cell.
    Classes(Vec<(u32, u32, u32)>),
    /// `cells` has `(class × 4 + truth × 2 + guess, rows)`. `rows` has for each unit the number of rows and the number
    /// of rows whose labels are all correct.
    Sets {
        cells: Vec<(u32, u32)>,
        rows: Vec<[u32; 2]>,
        rankings: Vec<Ranking>,
    },
}

impl Statistic {
    /// Counts the labelled rows of `predictions`, whose units are `groups`.
    pub(super) fn from_predictions(
        predictions: &Predictions,
        groups: &[u32],
        units: usize,
    ) -> Self {
        let mut cells: Vec<BTreeMap<(u32, u32), u32>> = vec![BTreeMap::new(); units];
        let mut rows = vec![[0; 2]; units];
        let mut has_rows = vec![false; predictions.classes().len()];
        // `groups` has the unit of each labelled row, in the order of the rows.
        for (row, &group) in predictions.labelled().zip(groups) {
            let cells = &mut cells[group as usize];
            match row.label {
                Label::Unknown => {}
                Label::Class(truth) => {
                    let guess = likeliest(row.probabilities);
                    has_rows[truth] = true;
                    *cells.entry((truth as u32, guess as u32)).or_default() += 1;
                }
                Label::Set(set) => {
                    let exact = decide(row.probabilities, set, |class, truth, guess| {
                        // A label that is neither true nor predicted affects no score.
                        if truth || guess {
                            let kind = u32::from(truth) << 1 | u32::from(guess);
                            has_rows[class] |= truth;
                            *cells.entry((class as u32, kind)).or_default() += 1;
                        }
                    });
                    rows[group as usize][0] += 1;
                    rows[group as usize][1] += u32::from(exact);
                }
            }
        }

        // Store the counts of all units in one flat list: each of the 2,000 resamples iterates over all of it.
        let mut starts = vec![0];
        let mut n_cells = 0;
        for cells in &cells {
            n_cells += cells.len();
            starts.push(n_cells);
        }

        let cells = cells.into_iter().flatten().map(|((a, b), n)| (a, b, n));
        let counts = if predictions.is_multi() {
            Counts::Sets {
                // One number for class, truth and guess limits a cell to eight bytes.
                cells: cells
                    .map(|(class, kind, n)| (class << 2 | kind, n))
                    .collect(),
                rows,
                rankings: rankings(predictions, |i| groups[i]),
            }
        } else {
            Counts::Classes(cells.collect())
        };
        Self {
            starts,
            has_rows,
            counts,
        }
    }

    /// Returns the place in [`Self::values`] and the name of each score that has an interval.
    pub(super) fn names(&self, draws: &Draws) -> impl Iterator<Item = (usize, &'static str)> {
        // The second value is true for a mean over classes.
        let all: &'static [(&str, bool)] = match self.counts {
            Counts::Classes(_) => &[
                ("accuracy", false),
                ("balanced_accuracy", true),
                ("macro_f1", true),
            ],
            Counts::Sets { .. } => &[
                ("exact_match", false),
                ("f1_macro", true),
                ("f1_micro", false),
                ("roc_auc_macro", true),
            ],
        };
        let has_means = !draws.has_small_classes();
        let names = all.iter().enumerate();
        names
            .filter(move |(_, (_, is_mean))| has_means || !is_mean)
            .map(|(figure, (name, _))| (figure, *name))
    }

    /// Returns [`Draws::units_per_class`].
    pub(super) fn units_per_class(&self) -> Option<u64> {
        let mut counts = vec![0_u64; self.has_rows.len()];
        for unit in self.starts.windows(2) {
            let mut classes = self.classes_in(unit[0]..unit[1]);
            classes.sort_unstable();
            classes.dedup();
            classes.into_iter().for_each(|class| counts[class] += 1);
        }
        counts.retain(|&count| count > 0);
        counts.sort_unstable();
        counts.get(counts.len().saturating_sub(1) / 2).copied()
    }

    /// Returns the classes of the rows in a range of cells, some of them more than once.
    fn classes_in(&self, range: Range<usize>) -> Vec<usize> {
        match &self.counts {
            Counts::Classes(cells) => cells[range].iter().map(|cell| cell.0 as usize).collect(),
            Counts::Sets { cells, .. } => {
                let labels = cells[range].iter().filter(|(cell, _)| cell & 2 != 0);
                labels.map(|(cell, _)| (cell >> 2) as usize).collect()
            }
        }
    }

    /// Returns the [`CLASS_FIGURES`] scores of each class, with unit g weighted by `weights[g]`; NaN if a denominator
    /// is 0. Not available with several labels per row.
    pub(super) fn class_values(&self, weights: &[u32]) -> Vec<f64> {
        let Counts::Classes(cells) = &self.counts else {
            return Vec::new();
        };

        let n_classes = self.has_rows.len();
        let margins = self.class_margins(cells, weights);
        let mut values = Vec::with_capacity(n_classes * CLASS_FIGURES);

        for class in 0..n_classes {
            let support = margins.support[class];
            let predicted = margins.predicted[class];
            values.push(if_any(predicted, margins.precision(class)));
            values.push(if_any(support, margins.recall(class)));
            values.push(if_any(support + predicted, margins.f1(class)));
        }
        values
    }

    /// Returns the scores with unit g weighted by `weights[g]`; NaN for undefined scores.
    pub(super) fn values(&self, weights: &[u32]) -> Vec<f64> {
        match &self.counts {
            Counts::Classes(cells) => {
                let margins = self.class_margins(cells, weights);
                vec![
                    margins.accuracy(),
                    margins.balanced_accuracy(),
                    margins.f1_of_kept(&self.has_rows, margins.occurring()),
                ]
            }
            Counts::Sets {
                cells,
                rows,
                rankings,
            } => {
                let mut margins = Margins::new(rankings.len());
                let mut n_rows = 0;
                let mut n_exact = 0;
                for (group, weight) in drawn(weights) {
                    let [group_rows, group_exact] = rows[group];
                    n_rows += u64::from(group_rows) * weight;
                    n_exact += u64::from(group_exact) * weight;
                    for &(cell, n) in &cells[self.cells_of(group)] {
                        let n = u64::from(n) * weight;
                        margins.add_decision((cell >> 2) as usize, cell & 2 != 0, cell & 1 != 0, n);
                    }
                }

                // A class that all or no rows of this resample have has no AUC, and is left out of the mean.
                let auc = mean(
                    rankings
                        .iter()
                        .filter_map(|ranking| ranking.roc_auc(weights)),
                );
                // Every unit has a labelled row and at least one unit was drawn, so `n_rows` is above 0.
                vec![
                    n_exact as f64 / n_rows as f64,
                    margins.f1_of_kept(&self.has_rows, 0..rankings.len()),
                    margins.f1_micro(),
                    auc.unwrap_or(f64::NAN),
                ]
            }
        }
    }

    /// Counts the rows of each class with unit g weighted by `weights[g]`.
    fn class_margins(&self, cells: &[(u32, u32, u32)], weights: &[u32]) -> Margins {
        let mut margins = Margins::new(self.has_rows.len());
        for (group, weight) in drawn(weights) {
            for &(truth, guess, n) in &cells[self.cells_of(group)] {
                margins.add(truth as usize, guess as usize, u64::from(n) * weight);
            }
        }
        margins
    }

    fn cells_of(&self, group: usize) -> Range<usize> {
        self.starts[group]..self.starts[group + 1]
    }
}

impl Margins {
    /// Returns the mean F1 over `classes`, without those that have rows originally (`has_rows`), but not in this
    /// resample.
    fn f1_of_kept(&self, has_rows: &[bool], classes: impl Iterator<Item = usize>) -> f64 {
        let kept = classes.filter(|&class| self.support[class] > 0 || !has_rows[class]);
        mean(kept.map(|class| self.f1(class))).unwrap_or(f64::NAN)
    }
}

/// Returns `value`, or NaN if its denominator `whole` is 0.
fn if_any(whole: u64, value: f64) -> f64 {
    if whole == 0 { f64::NAN } else { value }
}

/// Returns the drawn units with their weights.
fn drawn(weights: &[u32]) -> impl Iterator<Item = (usize, u64)> {
    weights
        .iter()
        .enumerate()
        .filter(|(_, weight)| **weight > 0)
        .map(|(group, &weight)| (group, u64::from(weight)))
}
