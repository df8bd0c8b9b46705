//! Folds for cross-validation: no artist is in two folds, and each class is spread evenly over the folds.
//!
//! The algorithm is that of scikit-learn's `StratifiedGroupKFold` without shuffling; there, rounding decides the order
//! of equally uneven groups. The folds depend only on the store's rows and its first target, so all models are compared
//! on equal folds.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use wavemill_schemas::split::Split;

use crate::rows::Rows;

/// Number of rows by label.
type LabelCounts = BTreeMap<i32, u64>;

/// One of the divisions of cross-validation: the rule `fold-I-of-K`, where I counts from 1.
///
/// Fold I is the test split, the next fold (after the last, the first) is the validation split, and the others are the
/// training split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FoldRule {
    fold: usize,
    n_folds: usize,
}

impl FoldRule {
    /// Parses a rule's name; `None` for other names.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (fold, n_folds) = name.strip_prefix("fold-")?.split_once("-of-")?;
        let rule = Self {
            fold: fold.parse().ok()?,
            n_folds: n_folds.parse().ok()?,
        };
        let is_valid =
            (3..=1000).contains(&rule.n_folds) && (1..=rule.n_folds).contains(&rule.fold);
        // Other spellings, such as `fold-01-of-05`, would give equal runs different names.
        (is_valid
            && name
                == format!(
                    "fold-{fold}-of-{n_folds}",
                    fold = rule.fold,
                    n_folds = rule.n_folds
                ))
        .then_some(rule)
    }

    /// Returns the split of each row.
    pub(crate) fn splits(self, rows: &Rows) -> Vec<Option<Split>> {
        let folds = of_rows(rows, self.n_folds).into_iter();
        let distances = folds.map(|fold| (fold + self.n_folds - self.fold) % self.n_folds);
        let splits = distances.map(|distance| match distance {
            0 => Split::Test,
            1 => Split::Validation,
            _ => Split::Training,
        });
        splits.map(Some).collect()
    }
}

/// Returns the fold of each row, from 1. Rows are grouped by artist, or by track if the artist is unknown. Copies at
/// another tempo are in the fold of their track and do not count.
pub(crate) fn of_rows(rows: &Rows, n_folds: usize) -> Vec<usize> {
    let keys = rows.artist_ids.iter().zip(&rows.track_ids);
    // Artists precede tracks without an artist.
    let keys: Vec<(bool, i64)> = keys
        .map(|(artist, &track)| artist.map_or((true, track), |artist| (false, artist)))
        .collect();

    let mut groups: BTreeMap<(bool, i64), LabelCounts> = BTreeMap::new();
    for (row, key) in keys.iter().enumerate() {
        let counts = groups.entry(*key).or_default();
        if rows.variants[row] == 1.0 {
            let label = rows.targets.first().map_or(0, |labels| labels[row]);
            *counts.entry(label).or_default() += 1;
        }
    }

    let counts: Vec<_> = groups.values().cloned().collect();
    let of_group = stratified(&counts, n_folds);
    let places = groups.into_keys().zip(of_group);
    let of_key: HashMap<(bool, i64), usize> = places.collect();
    keys.iter().map(|key| of_key[key] + 1).collect()
}

/// Assigns each group to a fold, from 0, given its number of rows by label. Groups with the most uneven counts are
/// assigned first.
fn stratified(groups: &[LabelCounts], n_folds: usize) -> Vec<usize> {
    let mut assigned = AssignedRows::new(groups, n_folds);
    // The square of the standard deviation of the counts over all labels, as a whole number, so that equal ones are
    // equal.
    let n_labels = assigned.totals.len() as u128;
    let unevenness = |group: usize| {
        let counts = groups[group].values().map(|n| u128::from(*n));
        n_labels * counts.clone().map(|n| n * n).sum::<u128>() - counts.sum::<u128>().pow(2)
    };

    // The sort is stable: equally uneven groups stay in the order of their keys.
    let mut order: Vec<usize> = (0..groups.len()).collect();
    order.sort_by_key(|&group| Reverse(unevenness(group)));

    let mut folds = vec![0; groups.len()];
    for group in order {
        folds[group] = assigned.add(&groups[group]);
    }
    folds
}

/// The rows that are already assigned to folds.
struct AssignedRows {
    /// Number of rows of each label in all groups.
    totals: LabelCounts,
    /// For each label, the share of its rows that is in each fold.
    shares: BTreeMap<i32, Vec<f64>>,
    /// Standard deviation of these shares over folds, averaged over labels.
    spread: f64,
    /// Number of rows of each fold.
    sizes: Vec<u64>,
}

impl AssignedRows {
    fn new(groups: &[LabelCounts], n_folds: usize) -> Self {
        let mut totals = LabelCounts::new();
        for (label, n) in groups.iter().flatten() {
            *totals.entry(*label).or_default() += n;
        }
        let shares = totals.keys().map(|label| (*label, vec![0.0; n_folds]));
        Self {
            shares: shares.collect(),
            totals,
            spread: 0.0,
            sizes: vec![0; n_folds],
        }
    }

    /// Adds a group to the fold with which the spread becomes lowest; of equal folds, to the one with fewer rows.
    /// Returns the fold.
    fn add(&mut self, group: &LabelCounts) -> usize {
        let mut best = 0;
        let mut lowest = self.spread_with(group, 0);
        for fold in 1..self.sizes.len() {
            let spread = self.spread_with(group, fold);
            // Spreads that differ only by rounding are equal, by the tolerances of numpy's `isclose`.
            let is_equal = (spread - lowest).abs() <= 1e-8 + 1e-5 * lowest;
            if (spread < lowest && !is_equal) || (is_equal && self.sizes[fold] < self.sizes[best]) {
                (best, lowest) = (fold, spread);
            }
        }

        self.spread = lowest;
        for (label, n) in group {
            self.sizes[best] += n;
            if let Some(shares) = self.shares.get_mut(label) {
                shares[best] += *n as f64 / self.totals[label] as f64;
            }
        }
        best
    }

    /// Returns the spread after adding a group to a fold. Only the shares of the group's labels change.
    fn spread_with(&self, group: &LabelCounts, fold: usize) -> f64 {
        let mut change = 0.0;
        for (label, n) in group {
            let added = *n as f64 / self.totals[label] as f64;
            let before = &self.shares[label];
            let after = before.iter().enumerate();
            let after = after.map(|(i, share)| if i == fold { share + added } else { *share });
            change += deviation(after) - deviation(before.iter().copied());
        }
        self.spread + change / self.totals.len().max(1) as f64
    }
}

/// Returns the population standard deviation of `values`.
fn deviation(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let n = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / n;
    (values.map(|value| (value - mean).powi(2)).sum::<f64>() / n).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_parsed() {
        let rule = |fold, n_folds| Some(FoldRule { fold, n_folds });
        assert_eq!(FoldRule::parse("fold-2-of-5"), rule(2, 5));
        for name in [
            "fold-0-of-5",
            "fold-6-of-5",
            "fold-1-of-2",
            "fold-1",
            "fold-a-of-5",
            "fold-01-of-5",
            "artist",
        ] {
            assert_eq!(FoldRule::parse(name), None, "{name}");
        }
    }

    /// The expected folds are those of `StratifiedGroupKFold(k)` of scikit-learn 1.9 for the same rows, of which no two
    /// groups that matter are equally uneven.
    #[test]
    fn folds_are_those_of_scikit_learn() {
        let mut state = 7_u64;
        let mut below = |n: u64| {
            state = (state * 1_103_515_245 + 12_345) % (1 << 31);
            (state >> 16) % n
        };
        let mut groups = Vec::new();
        for _ in 0..40 {
            let mut counts = LabelCounts::new();
            let n = 1 + below(9);
            let own = below(4) as i32;
            for _ in 0..n {
                let label = if below(10) < 7 { own } else { below(4) as i32 };
                *counts.entry(label).or_default() += 1;
            }
            groups.push(counts);
        }

        let text = |n_folds| {
            stratified(&groups, n_folds)
                .iter()
                .map(ToString::to_string)
                .collect::<String>()
        };
        assert_eq!(text(3), "0212000000012211221112111222122000211200");
        assert_eq!(text(5), "0301231300444230242144112023010332431004");
    }
}
