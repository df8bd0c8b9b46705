//! What a run should say of its rows before it starts: nothing here is an error, and all of it changes a score.

use super::contrast::listed;
use super::{Dataset, Side, Target};

impl Dataset {
    /// One sentence each; empty where all is as one would expect.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        warnings.extend(self.lost.iter().map(|lost| format!("{} rows are passed over: {}", lost.rows, lost.error)));
        let own = self.store.rule();
        if self.rule.name() != own && self.spec.normalize.is_some() {
            warnings.push(format!(
                "data.normalize: means and deviations are of the training rows under the store's rule, {own}; \
                 under data.split = {} some of them are validation or test rows",
                self.rule.name()
            ));
        }
        let aside = self.sides.iter().filter(|side| side.is_none()).count();
        if aside > 0 {
            warnings.push(format!(
                "{aside} of {} rows are on no side under {} and not read: copies at another tempo, which only train, \
                 or tracks without a side",
                self.sides.len(),
                self.rule.name()
            ));
        }
        warnings.extend(self.targets.iter().filter_map(|target| self.unlabelled(target)));
        warnings.extend((0..self.targets.len()).filter_map(|target| self.unseen(target)));
        warnings.extend(self.constant());
        warnings.extend(self.lacking(Side::Validation));
        warnings.extend(self.lacking(Side::Test));
        warnings.extend(self.without_metadata());
        if self.needs.ids() && self.spec.vocabulary() == [0; 2] {
            warnings.push("no training row has an artist or album: the model does without".to_owned());
        }
        warnings
    }

    fn unlabelled(&self, target: &Target) -> Option<String> {
        let of_side = |side: Side| {
            let rows = self.rows_of(side);
            let without = rows.iter().filter(|&&row| target.labels(&self.rows, row).next().is_none()).count();
            (without > 0).then(|| format!("{without} of {} {}", rows.len(), side.name()))
        };
        let sides: Vec<String> = Side::ALL.into_iter().filter_map(of_side).collect();
        let told = format!("{} rows have no {}: they add to no loss and no score", sides.join(", "), target.name());
        (!sides.is_empty()).then_some(told)
    }

    fn unseen(&self, target: usize) -> Option<String> {
        let counts = self.class_counts(target);
        let target = &self.targets[target];
        let classes = target.classes().iter().zip(counts).filter(|(_, count)| *count == 0);
        let unseen: Vec<&str> = classes.map(|(class, _)| class.as_str()).collect();
        let told = format!("no training row of {} is {}", target.name(), listed(&unseen));
        (!unseen.is_empty()).then_some(told)
    }

    fn without_metadata(&self) -> Option<String> {
        let metadata = self.metadata.as_ref()?;
        let read = || (0..).zip(&self.sides).filter(|(_, side)| side.is_some()).map(|(row, _): (u32, _)| row);
        let without = read().filter(|&row| !metadata.has(row)).count();
        let told = format!(
            "{without} of {} rows have no track in fma_features: the model sees the training mean",
            read().count()
        );
        (without > 0).then_some(told)
    }
}
