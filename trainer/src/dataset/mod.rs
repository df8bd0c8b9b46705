//! From a feature store to batches: manifest → row groups → rows → tensors, in an order that neither ranks nor threads
//! change, and with nothing left out that is not counted.
//!
//! [`Dataset`] is everything that is known before the first tensor is read; [`Loader`] is one epoch of it; [`InputSpec`]
//! is what a model needs to be fed from elsewhere. Augmentation, mixing and models are not here.

mod batch;
mod by_arrow;
mod contrast;
mod error;
mod form;
mod joined;
mod labels;
mod loader;
mod order;
mod page;
mod pages;
mod rows;
mod shard;
mod spec;
mod splits;
mod store;
mod warnings;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod inputs_tests;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

pub use batch::Batch;
pub use by_arrow::bytes_of as value_bytes;
pub use error::DatasetError;
pub use labels::{GENRES_ALL, Target};
pub use loader::{Loader, LoaderPlan};
pub use order::n_batches;
pub use rows::{RowGroup, Rows};
pub use spec::{InputSpec, MetadataColumn};
pub use splits::Side;
pub use store::Store;

use form::Form;
use joined::{Metadata, vocabulary};
use pages::Pages;
use shard::Shard;
use tch::{Device, Kind};
use wavemill_schemas::manifest::FeatureEntry;
use wavemill_schemas::recipe::SplitRule;

use crate::config::Data;
use crate::ffi::HostBuffer;
pub use crate::models::registry::Needs;
use crate::models::{Dims, Inputs};

/// A feature of a store, its rows, their sides and labels.
#[derive(Debug)]
pub struct Dataset {
    store: Store,
    spec: InputSpec,
    form: Form,
    rows: Rows,
    pages: Pages,
    sides: Vec<Option<Side>>,
    rule: SplitRule,
    targets: Vec<Target>,
    metadata: Option<Metadata>,
    needs: Needs,
    shuffle_window: usize,
    skip_damaged: bool,
    lost: Vec<LostFile>,
    /// Host memory that an epoch leaves to the next: fresh pages cost as much as what is read into them.
    spare: Mutex<Vec<HostBuffer>>,
}

/// A file that could not be opened and was passed over, as `data.skip_damaged` asks.
#[derive(Debug)]
pub struct LostFile {
    /// As the manifest calls it.
    pub path: String,
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
    pub fn open(store: Store, data: &Data, needs: Needs) -> Result<Arc<Self>, DatasetError> {
        let feature = store.feature(data.feature.as_deref())?;
        let mut spec = InputSpec::new(feature, data, store.manifest().stats.get(&feature.name))?;
        let form = Form::new(&spec)?;
        let Files { rows, pages, folders, lost } = Files::read(&store, &spec, &form, data.skip_damaged)?;
        let sides = splits::sides(&store, &rows, &folders, data.split.as_deref())?;
        let training: Vec<u32> = on_side(&sides, Side::Training).collect();
        let targets = Target::resolve(&data.targets, &store, &rows, &training)?;
        let metadata = needs.metadata().then(|| Metadata::read(&store, &rows, &data.metadata)).transpose()?;
        spec.metadata = metadata.as_ref().map(|metadata| metadata.columns(&training)).unwrap_or_default();
        if needs.ids() {
            spec.artists = vocabulary(&rows.artist_ids, &training);
            spec.albums = vocabulary(&rows.album_ids, &training);
        }
        Ok(Arc::new(Self {
            rule: splits::rule(&store, data.split.as_deref()),
            store,
            spec,
            form,
            rows,
            pages,
            sides,
            targets,
            metadata,
            needs,
            shuffle_window: data.shuffle_window,
            skip_damaged: data.skip_damaged,
            lost,
            spare: Mutex::default(),
        }))
    }

    /// The version that it reads.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// What is read of its rows.
    #[must_use]
    pub const fn needs(&self) -> Needs {
        self.needs
    }

    /// As in the manifest; its `feature_id` is compared by whoever uses a model.
    #[must_use]
    pub const fn feature(&self) -> &FeatureEntry {
        &self.spec.feature
    }

    /// What a model trained on this needs for rows from elsewhere.
    #[must_use]
    pub const fn input_spec(&self) -> &InputSpec {
        &self.spec
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

    /// What the manifest calls them, in its order.
    #[must_use]
    pub fn lost_paths(&self) -> Vec<String> {
        self.lost.iter().map(|lost| lost.path.clone()).collect()
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
            metadata: self.spec.metadata.len() as i64,
            vocabulary: self.spec.vocabulary(),
            heads: self.targets.iter().map(|t| (t.name().to_owned(), t.classes().len() as i64)).collect(),
        }
    }

    /// What a model sees of all of a batch's rows, in `kind` on `device`, as [`Needs`] asked.
    ///
    /// # Errors
    /// [`DatasetError::Torch`].
    pub fn inputs(&self, batch: &Batch, device: Device, kind: Kind) -> Result<Inputs, DatasetError> {
        let values = self.metadata.as_ref().map(|metadata| metadata.values(batch.rows())).unwrap_or_default();
        let known = |&row: &u32| [self.rows.artist_ids[row as usize], self.rows.album_ids[row as usize]];
        Ok(Inputs {
            spectrogram: batch.spectrogram(device, kind)?,
            metadata: self.spec.metadata(&values, device, kind)?,
            ids: self.spec.ids(batch.rows().iter().map(known), device)?,
        })
    }

    /// Host memory of at least `bytes` bytes: an earlier epoch's, or new.
    fn host(&self, bytes: usize, pinned: bool) -> HostBuffer {
        let fits = |buffer: &HostBuffer| buffer.len() >= bytes && buffer.is_pinned() == pinned;
        let found = {
            let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
            spare.iter().position(fits).map(|place| spare.swap_remove(place))
        };
        found.unwrap_or_else(|| HostBuffer::new(bytes, pinned))
    }

    /// Keeps what an epoch no longer needs.
    fn keep(&self, buffers: impl Iterator<Item = HostBuffer>) {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).extend(buffers);
    }

    /// A side's rows in each row group of the feature, in manifest order.
    fn groups(&self, side: Side) -> Vec<Vec<u32>> {
        let of_group =
            |group: &RowGroup| group.rows.clone().filter(|&row| self.sides[row as usize] == Some(side)).collect();
        self.rows.groups.iter().map(of_group).collect()
    }
}

/// A feature's files, read but for their tensors.
struct Files {
    rows: Rows,
    pages: Pages,
    /// The manifest's split of each file.
    folders: Vec<Option<String>>,
    lost: Vec<LostFile>,
}

impl Files {
    fn read(store: &Store, spec: &InputSpec, form: &Form, skip_damaged: bool) -> Result<Self, DatasetError> {
        let feature = &spec.feature;
        let targets: Vec<String> = store.manifest().targets.iter().map(|t| t.name.clone()).collect();
        let (rows, pages) = (Rows::new(targets.len()), Pages::new(&feature.name, form.clone()));
        let mut files = Self { rows, pages, folders: Vec::new(), lost: Vec::new() };
        for entry in store.manifest().files_of(&feature.name) {
            let number = files.folders.len() as u32;
            let read = Shard::open(store, entry, feature)
                .and_then(|shard| files.pages.locate(&shard).map(|located| (shard, located)))
                .and_then(|(shard, located)| {
                    files.rows.append(&shard, number, &targets).map(|()| files.pages.append(shard, located))
                });
            match read {
                Ok(()) => files.folders.push(entry.split.clone()),
                Err(error) if error.is_damage() && skip_damaged => {
                    files.lost.push(LostFile { path: entry.path.clone(), rows: entry.rows, error });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(files)
    }
}

fn on_side(sides: &[Option<Side>], side: Side) -> impl Iterator<Item = u32> {
    (0..).zip(sides).filter(move |(_, on)| **on == Some(side)).map(|(row, _)| row)
}
