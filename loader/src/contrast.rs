//! Whether the labels of a side differ: training learns from differences alone, and a score of one class says nothing.
//!
//! Training without a difference is an error, which the trainer makes of this. A validation or test side that lacks
//! classes is a warning.

use std::collections::BTreeSet;

use crate::{Dataset, Side, Target};

/// Names in one warning; the others are counted.
const NAMES_MAX: usize = 8;

/// The labels that a side's rows have of one target.
#[derive(Debug)]
struct Labels {
    /// Rows with a label at least.
    rows: u64,
    /// Of those, rows in each class.
    counts: Vec<u64>,
    /// Whether all of those have the same labels.
    alike: bool,
}

impl Labels {
    /// Classes without a row, of those that `also` has.
    fn lacking<'a>(&self, target: &'a Target, also: &Self) -> Vec<&'a str> {
        self.named(target, |class| {
            self.counts[class] == 0 && also.counts[class] > 0
        })
    }

    /// Classes that every labelled row has.
    fn everywhere<'a>(&self, target: &'a Target) -> Vec<&'a str> {
        self.named(target, |class| self.counts[class] == self.rows)
    }

    fn named<'a>(&self, target: &'a Target, is_meant: impl Fn(usize) -> bool) -> Vec<&'a str> {
        target
            .classes()
            .iter()
            .enumerate()
            .filter(|(class, _)| is_meant(*class))
            .map(|(_, name)| name.as_str())
            .collect()
    }
}

impl<M> Dataset<M> {
    /// The first target that training rows teach nothing of, with the reason; `None` where each can be learned.
    ///
    /// One class a row: fewer than two classes among the training rows. Several labels a row: every training row that has
    /// labels has the same ones.
    pub fn unlearnable(&self) -> Option<(&str, String)> {
        for target in &self.targets {
            let labels = self.labels_on(Side::Training, target);
            if !labels.alike {
                continue;
            }
            let same = listed(&labels.everywhere(target));
            let problem = match labels.rows {
                0 => "no training row has a label".to_owned(),
                rows if target.is_multi() => {
                    format!("all {rows} training rows with labels have the same ones, {same}")
                }
                rows => format!("all {rows} training rows with a label are {same}"),
            };
            return Some((target.name(), problem));
        }
        None
    }

    /// The first target, and the side of it, that has no row with a label: no score can be had there.
    pub fn unscorable(&self) -> Option<(&str, Side)> {
        for target in &self.targets {
            for side in [Side::Validation, Side::Test] {
                if self.labels_on(side, target).rows == 0 {
                    return Some((target.name(), side));
                }
            }
        }
        None
    }

    /// Labels of a target of several a row that every training row has, a sentence a target: such a label is no question.
    pub(crate) fn constant(&self) -> Vec<String> {
        let mut told = Vec::new();
        // Of a target with one class a row that is an error: `unlearnable`.
        for target in self.targets.iter().filter(|target| target.is_multi()) {
            let everywhere = self.labels_on(Side::Training, target).everywhere(target);
            if !everywhere.is_empty() {
                told.push(format!(
                    "all training rows of {} with a label have {}: a model can only say so of every row",
                    target.name(),
                    listed(&everywhere)
                ));
            }
        }
        told
    }

    /// What the labels of `side` cannot show, a sentence each: classes that training knows and `side` lacks, one class
    /// alone, a label that every row has.
    pub fn lacking(&self, side: Side) -> Vec<String> {
        self.targets
            .iter()
            .filter_map(|target| self.lacking_of(target, side))
            .collect()
    }

    /// The sentence of [`Self::lacking`] for one target.
    fn lacking_of(&self, target: &Target, side: Side) -> Option<String> {
        let labels = self.labels_on(side, target);
        // An error of its own: `unscorable`.
        if labels.rows == 0 {
            return None;
        }
        let everywhere = labels.everywhere(target);
        let name = target.name();
        let rows = format!("{} rows of {name} with a label", side.name());

        if !target.is_multi() && !everywhere.is_empty() {
            let class = listed(&everywhere);
            return Some(format!(
                "all {} {rows} are {class}: no score there tells a model from a constant",
                labels.rows
            ));
        }

        let mut told = Vec::new();
        if !everywhere.is_empty() {
            told.push(format!(
                "all {} {rows} have {}",
                labels.rows,
                listed(&everywhere)
            ));
        }
        // A class that training lacks as well is told by `unseen`, and is not this side's fault.
        let lacking = labels.lacking(target, &self.labels_on(Side::Training, target));
        if !lacking.is_empty() {
            told.push(format!(
                "no {} row of {name} is {}",
                side.name(),
                listed(&lacking)
            ));
        }
        if told.is_empty() {
            return None;
        }
        Some(format!(
            "{}: no score there says how well they are known",
            told.join(", and ")
        ))
    }

    /// The labels that rows of `side` have of `target`.
    fn labels_on(&self, side: Side, target: &Target) -> Labels {
        let mut counts = vec![0; target.classes().len()];
        let mut kinds = BTreeSet::new();
        let mut labelled = 0;

        for row in self.rows_of(side) {
            // As sets, so that two rows with the same labels in another order count as alike.
            let labels: BTreeSet<i64> = target.labels(&self.rows, row).collect();
            if labels.is_empty() {
                continue;
            }
            labelled += 1;
            for class in &labels {
                counts[*class as usize] += 1;
            }
            // Two kinds are as good as a thousand.
            if kinds.len() < 2 {
                kinds.insert(labels);
            }
        }

        Labels {
            rows: labelled,
            counts,
            alike: kinds.len() < 2,
        }
    }
}

/// Names with commas between them; of many the first ones, and how many more there are.
pub(crate) fn listed(names: &[&str]) -> String {
    let shown = names[..names.len().min(NAMES_MAX)].join(", ");
    match names.len().saturating_sub(NAMES_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_names_are_counted() {
        let names: Vec<String> = (0..11).map(|n| n.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(listed(&names), "0, 1, 2, 3, 4, 5, 6, 7 and 3 more");
        assert_eq!(listed(&names[..8]), "0, 1, 2, 3, 4, 5, 6, 7");
        assert_eq!(listed(&names[..1]), "0");
    }
}
