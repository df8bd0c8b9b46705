//! The rows of a feature with their sides, labels and metadata, loaded before any tensor is read.

use std::sync::{Arc, Mutex, PoisonError};

use wavemill_schemas::config::Data;
use wavemill_schemas::manifest::{FeatureEntry, FileEntry};
use wavemill_schemas::recipe::SplitRule;

use crate::form::Form;
use crate::joined::{Metadata, vocabulary};
use crate::pages::Pages;
use crate::rows::{RowGroup, Rows};
use crate::shard::Shard;
use crate::splits::RuleInUse;
use crate::store::require_content;
use crate::{DatasetError, HostMemory, InputSpec, Side, Store, Target, splits};

/// The inputs of a model; only these are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Needs {
    /// `[n, bands, frames]`, or the shape of the feature's rows if they are not spectrograms.
    #[default]
    Spectrogram,
    /// `[n, columns]`.
    Metadata,
    /// Both, and the ids of artist and album if they exist.
    All,
}

impl Needs {
    /// Reports whether the model needs the feature's rows.
    pub fn spectrogram(self) -> bool {
        self != Self::Metadata
    }

    /// Reports whether the model needs the columns of `fma_features` that `data.metadata` names.
    pub fn metadata(self) -> bool {
        self != Self::Spectrogram
    }

    /// Reports whether the model needs artist and album ids.
    pub fn ids(self) -> bool {
        self == Self::All
    }
}

/// A feature of a store with its rows, their sides and labels. Its batches use memory of type `M`.
#[derive(Debug)]
pub struct Dataset<M = Vec<u8>> {
    pub(crate) store: Store,
    pub(crate) spec: InputSpec,
    pub(crate) form: Form,
    pub(crate) rows: Rows,
    pub(crate) pages: Pages,
    pub(crate) sides: Vec<Option<Side>>,
    pub(crate) rule: RuleInUse,
    pub(crate) targets: Vec<Target>,
    pub(crate) metadata: Option<Metadata>,
    pub(crate) needs: Needs,
    pub(crate) shuffle_window: usize,
    pub(crate) skip_damaged: bool,
    pub(crate) lost: Vec<LostFile>,
    /// Memory that one epoch leaves to the next: allocating new pages costs as much as reading data into them.
    pub(crate) spare: Mutex<Vec<M>>,
}

/// A file that could not be opened and was skipped because `data.skip_damaged` is set.
#[derive(Debug)]
pub struct LostFile {
    /// The path in the manifest.
    pub path: String,
    /// The number of rows according to the manifest.
    pub rows: u64,
    /// The reason that the file was skipped.
    pub error: DatasetError,
}

/// The inputs and outputs of a trained model, as stored in its checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct ModelSignature<'a> {
    /// The inputs of the model.
    pub input: &'a InputSpec,
    /// The targets with their classes, in the order of the model's outputs.
    pub classes: &'a [(String, Vec<String>)],
}

impl<M> Dataset<M> {
    /// Reads everything but the tensors, for training a model.
    ///
    /// # Errors
    /// [`DatasetError`]: the configuration names something that the store does not contain, or a file of the feature is
    /// damaged.
    pub fn open(store: Store, data: &Data, needs: Needs) -> Result<Arc<Self>, DatasetError> {
        let feature = store.feature(data.feature.as_deref())?;
        let spec = InputSpec::new(feature, data, store.manifest().stats.get(&feature.name))?;
        let mut dataset = Self::read(store, spec, data, needs)?;

        // Sides must be known before anything is learned from rows: classes, means and vocabularies may use only
        // training rows.
        let training: Vec<u32> = on_side(&dataset.sides, Side::Training).collect();
        let store = &dataset.store;
        let rows = &dataset.rows;
        dataset.targets = Target::resolve(&data.targets, store, rows, &training)?;

        if needs.metadata() {
            let read = Metadata::read(store, rows, &data.metadata)?;
            dataset.spec.metadata = read.columns(&training);
            dataset.metadata = Some(read);
        }

        if needs.ids() {
            dataset.spec.artists = vocabulary(&rows.artist_ids, &training);
            dataset.spec.albums = vocabulary(&rows.album_ids, &training);
        }
        Ok(Arc::new(dataset))
    }

    /// Opens the rows of this version for `model`, which was trained on another version. Nothing is learned from these
    /// rows: feature, frames, means, vocabularies and classes are the model's. The feature is found by its name; the
    /// caller must check that its `feature_id` is the model's.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_for(
        store: Store,
        data: &Data,
        needs: Needs,
        model: ModelSignature<'_>,
    ) -> Result<Arc<Self>, DatasetError> {
        let spec = InputSpec {
            feature: store.feature(Some(&model.input.feature.name))?.clone(),
            ..model.input.clone()
        };
        let mut dataset = Self::read(store, spec, data, needs)?;

        let store = &dataset.store;
        let rows = &dataset.rows;
        dataset.targets = Target::matched(model.classes, store, rows)?;

        if needs.metadata() {
            let columns = model.input.metadata.iter();
            let names = columns.map(|column| column.name.clone()).collect();
            dataset.metadata = Some(Metadata::named(store, rows, names)?);
        }
        Ok(Arc::new(dataset))
    }

    /// Reads rows and their sides, but no targets and no metadata.
    fn read(
        store: Store,
        spec: InputSpec,
        data: &Data,
        needs: Needs,
    ) -> Result<Self, DatasetError> {
        let form = Form::new(&spec)?;
        // Check files first if only labels are read, because they are not opened again, or if damaged files are
        // skipped, because lost files must be known before rows have an order.
        let is_checked_first = store.checks_shards() && (data.skip_damaged || !needs.spectrogram());
        let Files {
            rows,
            pages,
            folders,
            lost,
        } = Files::read(&store, &spec, &form, data.skip_damaged, is_checked_first)?;

        Ok(Self {
            sides: splits::sides(&store, &rows, &folders, data.split.as_deref())?,
            rule: RuleInUse::new(&store, data.split.as_deref()),
            store,
            spec,
            form,
            rows,
            pages,
            targets: Vec::new(),
            metadata: None,
            needs,
            shuffle_window: data.shuffle_window,
            skip_damaged: data.skip_damaged,
            lost,
            spare: Mutex::default(),
        })
    }

    /// Returns the store version that the rows are read from.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Returns the inputs that are read for each row.
    pub const fn needs(&self) -> Needs {
        self.needs
    }

    /// Returns the feature's entry in the manifest; the user of a model compares its `feature_id`.
    pub const fn feature(&self) -> &FeatureEntry {
        &self.spec.feature
    }

    /// Returns the information that a model trained on this dataset needs to process rows from elsewhere.
    pub const fn input_spec(&self) -> &InputSpec {
        &self.spec
    }

    /// Returns the memory layout of a row's bytes.
    pub const fn form(&self) -> &Form {
        &self.form
    }

    /// Returns the small columns of all rows, regardless of their side.
    pub const fn rows(&self) -> &Rows {
        &self.rows
    }

    /// Returns the rule that made the sides in use; [`SplitRule::Column`] for a column of the user's own.
    pub const fn split_rule(&self) -> SplitRule {
        self.rule.kind
    }

    /// Returns the name of the split, as used in `data.split`.
    pub fn split_name(&self) -> &str {
        &self.rule.name
    }

    /// Reports whether the sides come from the recipe's rule, so that a side's rows are only in that side's files.
    pub const fn is_split_by_folder(&self) -> bool {
        self.rule.is_recipes
    }

    /// Returns the targets in the order of the configuration.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Returns the files that were skipped because of `data.skip_damaged`.
    pub fn lost(&self) -> &[LostFile] {
        &self.lost
    }

    /// Returns the manifest paths of the skipped files, in the order of the manifest.
    pub fn lost_paths(&self) -> Vec<String> {
        self.lost.iter().map(|lost| lost.path.clone()).collect()
    }

    /// Returns the number of bytes of the feature's column that all loaders have read so far.
    pub fn bytes_read(&self) -> u64 {
        self.pages.bytes_read()
    }

    /// Returns the rows of a side, in manifest order.
    pub fn rows_of(&self, side: Side) -> Vec<u32> {
        on_side(&self.sides, side).collect()
    }

    /// Returns the number of training rows in each class of a target.
    pub fn class_counts(&self, target: usize) -> Vec<u64> {
        self.targets[target].counts(&self.rows, &self.rows_of(Side::Training))
    }

    /// Returns a row-major `[rows, columns]` matrix: the metadata of these rows, standardised by
    /// [`InputSpec::standardised`]. Returns `None` if the model uses no metadata.
    pub fn metadata_of(&self, rows: &[u32]) -> Option<Vec<f64>> {
        let values = self.metadata.as_ref()?.values(rows);
        self.spec.standardised(&values)
    }

    /// Returns a row-major `[rows, 2]` matrix: the ids of these rows, converted by [`InputSpec::known_ids`]. Returns
    /// `None` if the model uses no ids.
    pub fn ids_of(&self, rows: &[u32]) -> Option<Vec<i64>> {
        let published = rows.iter().map(|&row| {
            [
                self.rows.artist_ids[row as usize],
                self.rows.album_ids[row as usize],
            ]
        });
        self.spec.known_ids(published)
    }

    /// Stores memory that an epoch no longer needs.
    pub(crate) fn keep(&self, memory: impl Iterator<Item = M>) {
        // A poisoned lock is harmless: memory is only pushed or removed, and its content is irrelevant.
        self.spare
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(memory);
    }

    /// Returns the rows of a side in each row group of the feature, in manifest order.
    pub(crate) fn groups(&self, side: Side) -> Vec<Vec<u32>> {
        let mut groups = Vec::with_capacity(self.rows.groups.len());
        for RowGroup { rows, .. } in &self.rows.groups {
            let on_side = rows
                .clone()
                .filter(|&row| self.sides[row as usize] == Some(side));
            groups.push(on_side.collect());
        }
        groups
    }
}

impl<M: HostMemory> Dataset<M> {
    /// Returns memory of at least `bytes` bytes, reused from an earlier epoch or newly allocated. Page-locked memory is
    /// always requested anew, which is cheap: the library that lends it caches freed memory.
    pub(crate) fn memory(&self, bytes: usize, pinned: bool) -> Result<M, DatasetError> {
        if !pinned {
            let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
            // Loaders of several sides and batch sizes leave their memory here, so the first piece may be too short.
            let found = spare.iter().position(|memory| memory.size() >= bytes);
            if let Some(place) = found {
                return Ok(spare.swap_remove(place));
            }
        }
        M::zeroed(bytes, pinned)
    }
}

/// The files of a feature, read except for their tensors.
struct Files {
    rows: Rows,
    pages: Pages,
    /// The manifest's split of each file.
    folders: Vec<Option<String>>,
    lost: Vec<LostFile>,
}

impl Files {
    fn read(
        store: &Store,
        spec: &InputSpec,
        form: &Form,
        skip_damaged: bool,
        is_checked_first: bool,
    ) -> Result<Self, DatasetError> {
        let feature = &spec.feature;
        let targets: Vec<String> = store
            .manifest()
            .targets
            .iter()
            .map(|target| target.name.clone())
            .collect();

        let mut files = Self {
            rows: Rows::new(targets.len()),
            pages: Pages::new(&feature.name, form.clone()),
            folders: Vec::new(),
            lost: Vec::new(),
        };
        let unchecked = is_checked_first.then(|| store.clone().without_shard_checks());
        // A lost file gets no number, so that the numbers of the others remain valid indices into `folders` and
        // `pages`.
        for entry in store.manifest().files_of(&feature.name) {
            let appended = match is_checked_first {
                true => store
                    .path(entry)
                    .and_then(|path| require_content(&path, &entry.blake3)),
                false => Ok(()),
            };
            let store = unchecked.as_ref().unwrap_or(store);
            match appended.and_then(|()| files.append(store, entry, feature, &targets)) {
                Ok(()) => {}
                Err(error) if error.is_damage() && skip_damaged => files.lost.push(LostFile {
                    path: entry.path.clone(),
                    rows: entry.rows,
                    error,
                }),
                Err(error) => return Err(error),
            }
        }
        Ok(files)
    }

    /// Adds the rows of one file; adds nothing if it fails.
    fn append(
        &mut self,
        store: &Store,
        entry: &FileEntry,
        feature: &FeatureEntry,
        targets: &[String],
    ) -> Result<(), DatasetError> {
        // All fallible steps come first, and `Rows::append` fails before it appends anything. Otherwise rows could
        // remain whose Parquet pages were never added.
        let shard = Shard::open(store, entry, feature)?;
        let located = self.pages.locate(&shard)?;

        let file = self.folders.len() as u32;
        self.rows.append(&shard, file, targets)?;
        self.pages.append(shard, located);
        self.folders.push(entry.split.clone());
        Ok(())
    }
}

fn on_side(sides: &[Option<Side>], side: Side) -> impl Iterator<Item = u32> {
    (0..)
        .zip(sides)
        .filter(move |(_, on)| **on == Some(side))
        .map(|(row, _)| row)
}
