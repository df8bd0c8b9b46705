//! From a feature store to batches: manifest → row groups → rows → tensors, in an order that neither ranks nor threads
//! change, and with nothing left out that is not counted.
//!
//! [`Dataset`] is everything that is known before the first tensor is read; [`Loader`] is one epoch of it. Augmentation,
//! mixing and models are not here.

mod batch;
mod error;
mod form;
mod labels;
mod loader;
mod order;
mod page;
mod pages;
mod rows;
mod shard;
mod splits;
mod store;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use batch::Batch;
pub use error::DatasetError;
pub use labels::{GENRES_ALL, Target, balanced};
pub use loader::{Loader, LoaderPlan};
pub use rows::{RowGroup, Rows};
pub use splits::Side;
pub use store::Store;

use form::Form;
use pages::Pages;
use shard::Shard;
use wavemill_schemas::manifest::FeatureEntry;
use wavemill_schemas::recipe::SplitRule;

use crate::config::Data;
use crate::models::Dims;

/// A feature of a store, its rows, their sides and labels.
#[derive(Debug)]
pub struct Dataset {
    store: Store,
    feature: FeatureEntry,
    form: Form,
    rows: Rows,
    pages: Pages,
    sides: Vec<Option<Side>>,
    rule: SplitRule,
    targets: Vec<Target>,
    shuffle_window: usize,
    skip_damaged: bool,
    lost: Vec<LostFile>,
}

/// A file that could not be opened and was passed over, as `data.skip_damaged` asks.
#[derive(Debug)]
pub struct LostFile {
    /// Rows that the manifest says it had.
    pub rows: u64,
    /// What is wrong with it.
    pub error: DatasetError,
}

impl Dataset {
    /// Reads everything but the tensors.
    ///
    /// # Errors
    /// [`DatasetError`]: what the configuration names is not in the store, or a file of the feature is damaged.
    pub fn open(store: Store, data: &Data) -> Result<Arc<Self>, DatasetError> {
        let feature = store.feature(data.feature.as_deref())?.clone();
        let form = Form::new(&feature, data, store.manifest().stats.get(&feature.name))?;
        let targets: Vec<String> = store.manifest().targets.iter().map(|t| t.name.clone()).collect();
        let mut rows = Rows::new(targets.len());
        let mut pages = Pages::new(&feature.name, form.row_bytes());
        let (mut folders, mut lost) = (Vec::new(), Vec::new());
        for entry in store.manifest().files_of(&feature.name) {
            let file = folders.len() as u32;
            let read = Shard::open(&store, entry, &feature)
                .and_then(|shard| pages.locate(&shard).map(|located| (shard, located)))
                .and_then(|(shard, located)| {
                    rows.append(&shard, file, &targets).map(|()| pages.append(shard, located))
                });
            match read {
                Ok(()) => folders.push(entry.split.clone()),
                Err(error) if error.is_damage() && data.skip_damaged => {
                    lost.push(LostFile { rows: entry.rows, error });
                }
                Err(error) => return Err(error),
            }
        }
        let sides = splits::sides(&store, &rows, &folders, data.split.as_deref())?;
        let training: Vec<u32> = on_side(&sides, Side::Training).collect();
        let targets = Target::resolve(&data.targets, &store, &rows, &training)?;
        let rule = splits::rule(&store, data.split.as_deref());
        let (shuffle_window, skip_damaged) = (data.shuffle_window, data.skip_damaged);
        Ok(Arc::new(Self {
            store,
            feature,
            form,
            rows,
            pages,
            sides,
            rule,
            targets,
            shuffle_window,
            skip_damaged,
            lost,
        }))
    }

    /// The version that it reads.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// As in the manifest; its `feature_id` is compared by whoever uses a model.
    #[must_use]
    pub const fn feature(&self) -> &FeatureEntry {
        &self.feature
    }

    /// Small columns of all rows, whatever their side.
    #[must_use]
    pub const fn rows(&self) -> &Rows {
        &self.rows
    }

    /// The rule that made the sides in use.
    #[must_use]
    pub const fn split_rule(&self) -> SplitRule {
        self.rule
    }

    /// In the configuration's order.
    #[must_use]
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Files passed over under `data.skip_damaged`.
    #[must_use]
    pub fn lost(&self) -> &[LostFile] {
        &self.lost
    }

    /// Bytes of the feature's column that were read so far, over all loaders.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.pages.bytes_read()
    }

    /// Rows of a side, in manifest order.
    #[must_use]
    pub fn rows_of(&self, side: Side) -> Vec<u32> {
        on_side(&self.sides, side).collect()
    }

    /// Training rows of each class of a target.
    #[must_use]
    pub fn class_counts(&self, target: usize) -> Vec<u64> {
        self.targets[target].counts(&self.rows, &self.rows_of(Side::Training))
    }

    /// What a model is built for.
    #[must_use]
    pub fn dims(&self) -> Dims {
        Dims {
            bands: self.form.bands(),
            frames: self.form.frames(),
            metadata: 0,
            vocabulary: [0; 2],
            heads: self.targets.iter().map(|t| (t.name().to_owned(), t.classes().len() as i64)).collect(),
        }
    }

    /// A side's rows in each row group of the feature, in manifest order.
    fn groups(&self, side: Side) -> Vec<Vec<u32>> {
        let of_group =
            |group: &RowGroup| group.rows.clone().filter(|&row| self.sides[row as usize] == Some(side)).collect();
        self.rows.groups.iter().map(of_group).collect()
    }
}

fn on_side(sides: &[Option<Side>], side: Side) -> impl Iterator<Item = u32> {
    (0..).zip(sides).filter(move |(_, on)| **on == Some(side)).map(|(row, _)| row)
}
