//! Everything that is known of a feature's rows before the first tensor is read.

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

/// What a model sees of a row; nothing else is read for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Needs {
    /// `[n, bands, frames]`, or whatever else the feature's rows are.
    #[default]
    Spectrogram,
    /// `[n, columns]`.
    Metadata,
    /// Both, and ids of artist and album where there are any.
    All,
}

impl Needs {
    /// Whether the feature's rows are among it.
    pub fn spectrogram(self) -> bool {
        self != Self::Metadata
    }

    /// Whether columns of `fma_features` are, those that `data.metadata` names.
    pub fn metadata(self) -> bool {
        self != Self::Spectrogram
    }

    /// Whether artist and album are.
    pub fn ids(self) -> bool {
        self == Self::All
    }
}

/// A feature of a store, its rows, their sides and labels. Batches of it lie in memory of the kind `M`.
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
    /// What an epoch leaves to the next: fresh pages of memory cost as much as what is read into them.
    pub(crate) spare: Mutex<Vec<M>>,
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

/// What a trained model sees of a row and what it answers, as its checkpoint has it.
#[derive(Clone, Copy, Debug)]
pub struct ModelSignature<'a> {
    /// What it sees.
    pub input: &'a InputSpec,
    /// Its targets, each with its classes, in the order of its answers.
    pub classes: &'a [(String, Vec<String>)],
}

impl<M> Dataset<M> {
    /// Reads everything but the tensors, for a model that is to be trained.
    ///
    /// # Errors
    /// [`DatasetError`]: what the configuration names is not in the store, or a file of the feature is damaged.
    pub fn open(store: Store, data: &Data, needs: Needs) -> Result<Arc<Self>, DatasetError> {
        let feature = store.feature(data.feature.as_deref())?;
        let spec = InputSpec::new(feature, data, store.manifest().stats.get(&feature.name))?;
        let mut dataset = Self::read(store, spec, data, needs)?;

        // Sides come before everything that is learned from rows. Classes, means and vocabularies may see training rows
        // alone.
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

    /// The same for `model`, which was trained on another version: nothing is learned from these rows. Feature, frames,
    /// means, vocabularies and classes are the model's, whatever this version would make of them. The feature is found
    /// by its name; that its `feature_id` is the model's is for the caller to see to.
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

    /// Rows and their sides; no targets, and no metadata.
    fn read(
        store: Store,
        spec: InputSpec,
        data: &Data,
        needs: Needs,
    ) -> Result<Self, DatasetError> {
        let form = Form::new(&spec)?;
        // Files of which only labels are read are not opened again; and which files are lost has to be known before rows
        // have an order.
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

    /// The version that it reads.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// What is read of its rows.
    pub const fn needs(&self) -> Needs {
        self.needs
    }

    /// As in the manifest; its `feature_id` is compared by whoever uses a model.
    pub const fn feature(&self) -> &FeatureEntry {
        &self.spec.feature
    }

    /// What a model trained on this needs for rows from elsewhere.
    pub const fn input_spec(&self) -> &InputSpec {
        &self.spec
    }

    /// How a row's bytes are to be understood.
    pub const fn form(&self) -> &Form {
        &self.form
    }

    /// Small columns of all rows, whatever their side.
    pub const fn rows(&self) -> &Rows {
        &self.rows
    }

    /// The rule that made the sides in use; [`SplitRule::Column`] for a column of the user's own.
    pub const fn split_rule(&self) -> SplitRule {
        self.rule.kind
    }

    /// Its name, as `data.split` asks for it.
    pub fn split_name(&self) -> &str {
        &self.rule.name
    }

    /// It is the recipe's rule, so a side's rows are in that side's files alone.
    pub const fn is_split_by_folder(&self) -> bool {
        self.rule.is_recipes
    }

    /// In the configuration's order.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Files passed over under `data.skip_damaged`.
    pub fn lost(&self) -> &[LostFile] {
        &self.lost
    }

    /// What the manifest calls them, in its order.
    pub fn lost_paths(&self) -> Vec<String> {
        self.lost.iter().map(|lost| lost.path.clone()).collect()
    }

    /// Bytes of the feature's column that were read so far, over all loaders.
    pub fn bytes_read(&self) -> u64 {
        self.pages.bytes_read()
    }

    /// Rows of a side, in manifest order.
    pub fn rows_of(&self, side: Side) -> Vec<u32> {
        on_side(&self.sides, side).collect()
    }

    /// Training rows of each class of a target.
    pub fn class_counts(&self, target: usize) -> Vec<u64> {
        self.targets[target].counts(&self.rows, &self.rows_of(Side::Training))
    }

    /// `[rows, columns]`, row by row: metadata of these rows as [`InputSpec::standardised`] gives it. `None` where the
    /// model sees none.
    pub fn metadata_of(&self, rows: &[u32]) -> Option<Vec<f64>> {
        let values = self.metadata.as_ref()?.values(rows);
        self.spec.standardised(&values)
    }

    /// `[rows, 2]`, row by row: ids of these rows as [`InputSpec::known_ids`] gives them. `None` where the model sees
    /// none.
    pub fn ids_of(&self, rows: &[u32]) -> Option<Vec<i64>> {
        let published = rows.iter().map(|&row| {
            [
                self.rows.artist_ids[row as usize],
                self.rows.album_ids[row as usize],
            ]
        });
        self.spec.known_ids(published)
    }

    /// Keeps what an epoch no longer needs.
    pub(crate) fn keep(&self, memory: impl Iterator<Item = M>) {
        // A panic of another holder does no harm: memory is only put in or taken out, and its content means nothing.
        self.spare
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(memory);
    }

    /// A side's rows in each row group of the feature, in manifest order.
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
    /// Memory of at least `bytes` bytes: an earlier epoch's, or new. Page-locked memory is always new, which costs
    /// little: who lends it keeps what was freed.
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

/// A feature's files, read but for their tensors.
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
        // A lost file gets no number, so that the numbers of the others stay their places in `folders` and in `pages`.
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

    /// Adds the rows of one file; adds nothing where it fails.
    fn append(
        &mut self,
        store: &Store,
        entry: &FileEntry,
        feature: &FeatureEntry,
        targets: &[String],
    ) -> Result<(), DatasetError> {
        // All that can fail comes first, and `Rows::append` fails before it appends. Otherwise rows without pages would
        // stay behind.
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
