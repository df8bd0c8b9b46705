//! Checks that the labels of a split differ: a model cannot learn from equal labels, and scores over a single class are
//! meaningless.
//!
//! Training labels that do not differ are an error. If a validation or test split lacks classes, there is a warning.

use std::collections::BTreeSet;

use crate::{Dataset, Split, Target};

/// Maximum number of class names in one warning. Further classes are only counted.
const NAMES_MAX: usize = 8;

/// Statistics of the labels of one target on the rows of one split.
#[derive(Debug)]
struct Labels {
    /// Number of rows with at least one label.
    rows: u64,
    /// Number of labelled rows in each class.
    counts: Vec<u64>,
    /// Whether all labelled rows have the same set of labels.
    alike: bool,
}

impl Labels {
    /// Returns the classes that have rows in `also`, but none in `self`.
    fn lacking<'a>(&self, target: &'a Target, also: &Self) -> Vec<&'a str> {
        self.named(target, |class| {
            self.counts[class] == 0 && also.counts[class] > 0
        })
    }

    /// Returns the classes that all labelled rows have.
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
    /// Returns the first target that cannot be learned from the training rows, with the reason; `None` if all targets
    /// can be learned.
    ///
    /// A target with one class per row needs at least two classes among the training rows. A target with several labels
    /// per row cannot be learned if all labelled training rows have the same labels.
    pub fn unlearnable(&self) -> Option<(&str, String)> {
        for target in &self.targets {
            let labels = self.labels_on(Split::Training, target);
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

    /// Returns the first target that has no labelled row in the validation or test split, with that split: no score can
    /// be computed.
    pub fn unscorable(&self) -> Option<(&str, Split)> {
        for target in &self.targets {
            for split in [Split::Validation, Split::Test] {
                if self.labels_on(split, target).rows == 0 {
                    return Some((target.name(), split));
                }
            }
        }
        None
    }

    /// Returns a warning for each multi-label target with labels that all labelled training rows have: a model can only
    /// learn to predict such a label for every row.
    pub(crate) fn constant(&self) -> Vec<String> {
        let mut told = Vec::new();
        // For a target with one class per row, a single class is an error, which `unlearnable` reports.
        for target in self.targets.iter().filter(|target| target.is_multi()) {
            let everywhere = self.labels_on(Split::Training, target).everywhere(target);
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

    /// Returns a warning for each target whose scores on `split` are limited by its labels: classes that occur
    /// in training but not in the split, a single class, or a label that all rows have.
    pub fn lacking(&self, split: Split) -> Vec<String> {
        self.targets
            .iter()
            .filter_map(|target| self.lacking_of(target, split))
            .collect()
    }

    /// Returns the warning of [`Self::lacking`] for one target.
    fn lacking_of(&self, target: &Target, split: Split) -> Option<String> {
        let labels = self.labels_on(split, target);
        // A split without labels is an error, which `unscorable` reports.
        if labels.rows == 0 {
            return None;
        }
        let everywhere = labels.everywhere(target);
        let name = target.name();
        let rows = format!("{} rows of {name} with a label", split.name());

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
        // Classes that are missing in training as well are reported by `unseen`.
        let lacking = labels.lacking(target, &self.labels_on(Split::Training, target));
        if !lacking.is_empty() {
            told.push(format!(
                "no {} row of {name} is {}",
                split.name(),
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

    /// Counts the labels of `target` on the rows of `split`.
    fn labels_on(&self, split: Split, target: &Target) -> Labels {
        let mut counts = vec![0; target.classes().len()];
        let mut kinds = BTreeSet::new();
        let mut labelled = 0;

        for row in self.rows_of(split) {
            // Compare sets of labels, so that the order of a row's labels has no effect.
            let labels: BTreeSet<i64> = target.labels(&self.rows, row).collect();
            if labels.is_empty() {
                continue;
            }
            labelled += 1;
            for class in &labels {
                counts[*class as usize] += 1;
            }
            // Two different sets of labels suffice to show that the labels differ.
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

/// Joins names with commas. Of a long list, includes only the first names and the number of the others.
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
