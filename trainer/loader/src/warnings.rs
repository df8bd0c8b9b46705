//! Warnings about the rows of a run before it starts, such as missing labels. They affect scores but are not errors.

use std::collections::BTreeSet;
use wavemill_schemas::text::counted;

use crate::contrast::listed;
use crate::{Dataset, Split, Target};

impl<M> Dataset<M> {
    /// Returns the warnings about a dataset, one sentence each; empty if there is nothing unusual.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for lost in &self.lost {
            warnings.push(format!(
                "{} passed over: {}",
                counted(lost.rows, "row"),
                lost.error
            ));
        }
        warnings.extend(self.other_statistics());
        warnings.extend(self.in_no_split());

        for target in &self.targets {
            warnings.extend(self.unlabelled(target));
        }
        for target in 0..self.targets.len() {
            warnings.extend(self.unseen(target));
        }
        warnings.extend(self.constant());
        warnings.extend(self.lacking(Split::Validation));
        warnings.extend(self.lacking(Split::Test));

        warnings.extend(self.without_metadata());
        warnings.extend(self.published());
        if self.needs.ids() && self.spec.vocabulary() == [0; 2] {
            warnings
                .push("no training row has an artist or album: the model does without".to_owned());
        }
        warnings
    }

    /// Returns a warning for each target with labels in `split` that the model of [`Self::open_for`] does not
    /// know.
    pub fn unknown_classes(&self, split: Split) -> Vec<String> {
        self.targets
            .iter()
            .filter_map(|target| self.unknown_classes_of(target, split))
            .collect()
    }

    /// Returns the warning of [`Self::unknown_classes`] for one target.
    fn unknown_classes_of(&self, target: &Target, split: Split) -> Option<String> {
        let rows = self.rows_of(split);
        let mut n_rows = 0;
        let mut names = BTreeSet::new();
        for &row in &rows {
            let mut unknown = target.unknown_of(&self.rows, row).peekable();
            n_rows += u64::from(unknown.peek().is_some());
            names.extend(unknown);
        }

        if n_rows == 0 {
            return None;
        }
        let of = format!("{n_rows} of {} {} rows", rows.len(), split.name());
        let name = target.name();
        let classes = listed(&names.into_iter().collect::<Vec<_>>());
        Some(if target.is_multi() {
            format!(
                "{of} have labels of {name} that the model does not know ({classes}): these are left out"
            )
        } else {
            format!(
                "{of} have a {name} that the model does not know ({classes}): they count as unlabelled"
            )
        })
    }

    /// Warns that rows are normalised with statistics over the training rows of another split rule.
    fn other_statistics(&self) -> Option<String> {
        let own = self.store.rule();
        if self.is_split_by_folder() || self.spec.normalize.is_none() {
            return None;
        }
        Some(format!(
            "data.normalize: means and deviations are of the training rows under the store's rule, {own}; \
             under data.split = {} some of them are validation or test rows",
            self.split_name()
        ))
    }

    fn in_no_split(&self) -> Option<String> {
        let aside = self.splits.iter().filter(|split| split.is_none()).count();
        if aside == 0 {
            return None;
        }
        Some(format!(
            "{aside} of {} rows are in no split under {} and not read: copies at another tempo, which only train, \
             or tracks without a split",
            self.splits.len(),
            self.split_name()
        ))
    }

    fn unlabelled(&self, target: &Target) -> Option<String> {
        let mut splits = Vec::new();
        for split in Split::ALL {
            let rows = self.rows_of(split);
            let without = rows
                .iter()
                .filter(|&&row| target.labels(&self.rows, row).next().is_none())
                .count();
            if without > 0 {
                splits.push(format!("{without} of {} {}", rows.len(), split.name()));
            }
        }

        if splits.is_empty() {
            return None;
        }
        Some(format!(
            "{} rows have no {}: they add to no loss and no score",
            splits.join(", "),
            target.name()
        ))
    }

    /// Warns about classes of a target that no training row has.
    fn unseen(&self, target: usize) -> Option<String> {
        let counts = self.class_counts(target);
        let target = &self.targets[target];
        let unseen: Vec<&str> = target
            .classes()
            .iter()
            .zip(counts)
            .filter(|(_, count)| *count == 0)
            .map(|(class, _)| class.as_str())
            .collect();

        if unseen.is_empty() {
            return None;
        }
        Some(format!(
            "no training row of {} is {}",
            target.name(),
            listed(&unseen)
        ))
    }

    /// Warns that the columns of `fma_features` were not computed by wavemill.
    fn published(&self) -> Option<String> {
        self.metadata.as_ref().map(|_| {
            "fma_features are columns as FMA published them: computed from whole songs, by an old librosa \
             (github.com/mdeff/fma, issue 8), and not from these rows' audio"
                .to_owned()
        })
    }

    fn without_metadata(&self) -> Option<String> {
        let metadata = self.metadata.as_ref()?;
        let mut n_read = 0;
        let mut n_without = 0;
        for (row, split) in (0..).zip(&self.splits) {
            // A row in no split is never read, so its missing metadata is irrelevant.
            if split.is_some() {
                n_read += 1;
                n_without += u64::from(!metadata.has(row));
            }
        }

        if n_without == 0 {
            return None;
        }
        Some(format!(
            "{n_without} of {n_read} rows have no track in fma_features: the model sees the training mean"
        ))
    }
}
