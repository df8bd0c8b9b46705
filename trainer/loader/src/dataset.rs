//! The rows of a feature with their splits, labels and metadata, which are loaded before any tensor is read.

use std::collections::HashSet;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ScopedJoinHandle;

use arrow::array::RecordBatch;
use crossbeam_channel::{Receiver, Sender, bounded};
use wavemill_schemas::config::{Data, Sampler};
use wavemill_schemas::exit::PlainError;
use wavemill_schemas::manifest::{FeatureEntry, FileEntry};
use wavemill_schemas::recipe::SplitRule;

use crate::folds::FoldRule;
use crate::form::Form;
use crate::joined::{Metadata, near_groups, vocabulary};
use crate::pages::{Pages, RowPlaces};
use crate::rows::{self, RowGroup, Rows};
use crate::shard::Shard;
use crate::splits::RuleInUse;
use crate::store::Copying;
use crate::{DatasetError, HostMemory, InputSpec, Split, Store, Target, folds, order, splits};

/// The inputs that a model needs. Other data are not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Needs {
    /// Tensors of spectrograms, `[n, bands, frames]`, or of another feature in its shape.
    #[default]
    Spectrogram,
    /// Metadata columns of the rows' tracks, `[n, columns]`.
    Metadata,
    /// Tensors and metadata columns, and the ids of artist and album if they exist.
    All,
}

impl Needs {
    /// Reports whether the model needs the tensors of the feature.
    pub fn spectrogram(self) -> bool {
        self != Self::Metadata
    }

    /// Reports whether the model needs the columns of `fma_features` that `data.metadata` names.
    pub fn metadata(self) -> bool {
        self != Self::Spectrogram
    }

    /// Reports whether the model needs the ids of artists and albums.
    pub fn ids(self) -> bool {
        self == Self::All
    }
}

/// A feature of a store with its rows and the rows' splits and labels. Batches use host memory of type `M`.
#[derive(Debug)]
pub struct Dataset<M = Vec<u8>> {
    pub(crate) store: Store,
    pub(crate) spec: InputSpec,
    pub(crate) form: Form,
    pub(crate) rows: Rows,
    pub(crate) pages: Pages,
    pub(crate) splits: Vec<Option<Split>>,
    pub(crate) rule: RuleInUse,
    pub(crate) targets: Vec<Target>,
    pub(crate) metadata: Option<Metadata>,
    pub(crate) needs: Needs,
    pub(crate) shuffle_window: usize,
    pub(crate) skip_damaged: bool,
    pub(crate) sampler: Sampler,
    pub(crate) lost: Vec<LostFile>,
    _copying: Option<Copying>,
    /// Host memory that is reused in the next epoch: allocating new pages takes as long as reading data into them.
    pub(crate) spare: Mutex<Vec<M>>,
    /// Host memory of dropped batches that [`Loader::read`](crate::Loader::read) reuses.
    pub(crate) reads: (Sender<M>, Receiver<M>),
}

/// Maximum number of batches of [`Loader::read`](crate::Loader::read) whose host memory is kept for reuse.
const READS_KEPT_MAX: usize = 4;

/// A damaged file of a feature that was skipped because `data.skip_damaged` is set.
#[derive(Debug)]
pub struct LostFile {
    /// The path of the file in the manifest.
    pub path: String,
    /// The number of rows in the file, according to the manifest.
    pub rows: u64,
    /// The reason why the file was skipped.
    pub error: DatasetError,
}

/// The inputs and outputs of a trained model, as stored in its checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct ModelSignature<'a> {
    /// The inputs that the model expects.
    pub input: &'a InputSpec,
    /// The targets with their classes, in the order of the model's outputs.
    pub classes: &'a [(String, Vec<String>)],
}

impl<M> Dataset<M> {
    /// Reads rows, labels and metadata, but no tensors, for training a model.
    ///
    /// # Errors
    /// [`DatasetError`] if the configuration names something that the store does not contain, or if a file of the
    /// feature is damaged.
    pub fn open(store: Store, data: &Data, needs: Needs) -> Result<Arc<Self>, DatasetError> {
        let feature = store.feature(data.feature.as_deref())?;
        let spec = InputSpec::new(feature, data, store.manifest().stats.get(&feature.name))?;
        let mut dataset = Self::read(store, spec, data, needs, &AtomicBool::new(false))?;

        // The splits must be known before classes, means and vocabularies are computed, since these may use only
        // training rows.
        let training: Vec<u32> = rows_in(&dataset.splits, Split::Training).collect();
        let store = &dataset.store;
        let rows = &dataset.rows;
        dataset.targets = Target::resolve(&data.targets, store, rows, &training)?;
        let is_multi = dataset.targets.first().is_some_and(Target::is_multi);
        if data.sampler == Sampler::Balanced && is_multi {
            let problem = "balanced: the first target has several labels per row";
            return Err(DatasetError::unfit("sampler", problem));
        }

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

    /// Opens the rows of this version for `model`, which was trained on another version. Feature, frames, means,
    /// vocabularies and classes are those of the model and are not computed from these rows. The feature is found by
    /// its name; the caller must check that its `feature_id` is that of the model.
    ///
    /// # Errors
    /// The same errors as for [`Self::open`].
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
        let mut dataset = Self::read(store, spec, data, needs, &AtomicBool::new(false))?;

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

    /// Opens the rows of a feature as they are stored, for a model of another program: not normalised, in their full
    /// length, with the labels of `data.targets` if it names any, and without metadata. `data.frames` is not used.
    ///
    /// # Errors
    /// The same errors as for [`Self::open`], and [`DatasetError::Other`] if `stop` is set meanwhile.
    pub fn open_stored(
        store: Store,
        data: &Data,
        stop: &AtomicBool,
    ) -> Result<Arc<Self>, DatasetError> {
        let spec = InputSpec::stored(store.feature(data.feature.as_deref())?);
        let mut dataset = Self::read(store, spec, data, Needs::Spectrogram, stop)?;

        // The lengths of rows are only known after all files have been opened.
        if let Some(longest) = dataset.rows.frames.iter().max() {
            dataset.spec.frames = (*longest).max(1) as usize;
            dataset.form = Form::new(&dataset.spec)?;
        }

        if !data.targets.is_empty() {
            let training: Vec<u32> = rows_in(&dataset.splits, Split::Training).collect();
            dataset.targets =
                Target::resolve(&data.targets, &dataset.store, &dataset.rows, &training)?;
        }
        Ok(Arc::new(dataset))
    }

    /// Reads the rows and their splits, but no labels and no metadata, until `stop` is set.
    fn read(
        store: Store,
        spec: InputSpec,
        data: &Data,
        needs: Needs,
        stop: &AtomicBool,
    ) -> Result<Self, DatasetError> {
        store.require_data()?;
        let form = Form::new(&spec)?;
        // Check the content of files first if no tensors are read, because the files are not opened again, or if
        // damaged files are skipped, because these must be known before the order of rows is computed.
        let is_checked_first = store.checks_shards() && (data.skip_damaged || !needs.spectrogram());
        if is_checked_first {
            store.fetch(&spec.feature.name)?;
        }
        let Files {
            mut rows,
            pages,
            folders,
            lost,
        } = Files::read(
            &store,
            &spec,
            &form,
            data.skip_damaged,
            is_checked_first,
            stop,
        )?;

        rows.near_groups = near_groups(&store)?;

        // Folds are computed from all rows: without those of some files, an artist may be in another split.
        let split = data.split.as_deref();
        if let (Some(lost), Some(_)) = (lost.first(), split.and_then(FoldRule::parse)) {
            let path = &lost.path;
            return Err(DatasetError::unfit(
                "skip_damaged",
                format!(
                    "{path} cannot be read, and the folds would depend on it: train without --skip-damaged, after \
                     `wavemill extract --new-version` has computed damaged files again"
                ),
            ));
        }

        let is_streamed = needs.spectrogram() && !is_checked_first;
        let copied = &spec.feature.name;
        Ok(Self {
            _copying: is_streamed
                .then(|| store.copy_in_background(copied))
                .flatten(),
            splits: splits::splits(&store, &rows, &folders, data.split.as_deref())?,
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
            sampler: data.sampler,
            lost,
            spare: Mutex::default(),
            reads: bounded(READS_KEPT_MAX),
        })
    }

    /// Returns the version of the store from which the rows are read.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Returns the kinds of inputs that are read for each row.
    pub const fn needs(&self) -> Needs {
        self.needs
    }

    /// Returns the manifest's entry of the feature. The user of a trained model compares its `feature_id`.
    pub const fn feature(&self) -> &FeatureEntry {
        &self.spec.feature
    }

    /// Returns the inputs in the form that a model trained on this dataset stores, to process rows from elsewhere.
    pub const fn input_spec(&self) -> &InputSpec {
        &self.spec
    }

    /// Returns the layout of a row's bytes in host memory.
    pub const fn form(&self) -> &Form {
        &self.form
    }

    /// Returns the columns of all rows, apart from tensors, in all splits.
    pub const fn rows(&self) -> &Rows {
        &self.rows
    }

    /// Returns the rule by which rows are assigned to splits; [`SplitRule::Column`] for a user-defined column.
    pub const fn split_rule(&self) -> SplitRule {
        self.rule.kind
    }

    /// Returns the name of the split rule, as used in `data.split`.
    pub fn split_name(&self) -> &str {
        &self.rule.name
    }

    /// Reports whether the recipe's split rule is used, so that the rows of a split are only in the files of that
    /// split.
    pub const fn is_split_by_folder(&self) -> bool {
        self.rule.is_recipes
    }

    /// Returns the targets to be predicted, in the order of the configuration.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Returns the damaged files that were skipped because of `data.skip_damaged`.
    pub fn lost(&self) -> &[LostFile] {
        &self.lost
    }

    /// Returns the manifest paths of the skipped files, in the order of the manifest.
    pub fn lost_paths(&self) -> Vec<String> {
        self.lost.iter().map(|lost| lost.path.clone()).collect()
    }

    /// Returns the number of bytes of the tensor column that all loaders have read so far.
    pub fn bytes_read(&self) -> u64 {
        self.pages.bytes_read()
    }

    /// Returns the rows of a split, in manifest order.
    pub fn rows_of(&self, split: Split) -> Vec<u32> {
        rows_in(&self.splits, split).collect()
    }

    /// Returns the fold of each row in cross-validation with `n_folds` folds, from 1. The rule `fold-I-of-K` uses them.
    pub fn folds(&self, n_folds: usize) -> Vec<usize> {
        folds::of_rows(&self.rows, n_folds)
    }

    /// Reports whether the files of `rows` have been compared with their hashes, or are not to be compared.
    pub fn are_files_checked(&self, rows: &[u32]) -> bool {
        let mut files = rows.iter().map(|&row| self.rows.file_of(row));
        files.all(|file| self.pages.is_checked(file))
    }

    /// Compares the files of `rows` with their hashes, which otherwise happens when their first row is read. The rows
    /// of a file that differs cannot be read afterwards.
    ///
    /// # Errors
    /// [`DatasetError::Store`] if a file cannot be read, or if `stop` is set meanwhile.
    pub fn check_files(&self, rows: &[u32], stop: &AtomicBool) -> Result<(), DatasetError> {
        for &row in rows {
            self.pages.check(self.rows.file_of(row), stop)?;
        }
        Ok(())
    }

    /// Returns the file and the clip of a row, for messages.
    pub fn place_of(&self, row: u32) -> String {
        let path = self.pages.path(self.rows.file_of(row)).display();
        let (clip_key, segment) = (
            &self.rows.clip_keys[row as usize],
            self.rows.segments[row as usize],
        );
        format!("{path}: clip {clip_key}, segment {segment}")
    }

    /// Returns the name and the class names of each target.
    pub fn class_names(&self) -> Vec<(String, Vec<String>)> {
        let named = |target: &Target| (target.name().to_owned(), target.classes().to_vec());
        self.targets.iter().map(named).collect()
    }

    /// Returns the number of training rows in each class of a target.
    pub fn class_counts(&self, target: usize) -> Vec<u64> {
        self.targets[target].counts(&self.rows, &self.rows_of(Split::Training))
    }

    /// Returns the number of tracks in `split` that have each class of `target`.
    pub fn tracks_of_classes(&self, target: &Target, split: Split) -> Vec<u64> {
        let mut seen = HashSet::new();
        let mut rows = self.rows_of(split);
        rows.retain(|&row| seen.insert(self.rows.track_ids[row as usize]));
        target.counts(&self.rows, &rows)
    }

    /// Returns a row-major `[rows, columns]` matrix: the metadata of `rows`, standardised by
    /// [`InputSpec::standardised`]. Returns `None` if the model uses no metadata.
    pub fn metadata_of(&self, rows: &[u32]) -> Option<Vec<f64>> {
        let values = self.metadata.as_ref()?.values(rows);
        self.spec.standardised(&values)
    }

    /// Returns a row-major `[rows, 2]` matrix: the ids of the artists and albums of `rows`, converted by
    /// [`InputSpec::known_ids`]. Returns `None` if the model uses no ids.
    pub fn ids_of(&self, rows: &[u32]) -> Option<Vec<i64>> {
        let published = rows.iter().map(|&row| {
            [
                self.rows.artist_ids[row as usize],
                self.rows.album_ids[row as usize],
            ]
        });
        self.spec.known_ids(published)
    }

    /// Stores host memory that an epoch no longer needs, for reuse.
    pub(crate) fn keep(&self, memory: impl Iterator<Item = M>) {
        // A poisoned lock is harmless: the content of the memory is irrelevant.
        self.spare
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(memory);
    }

    /// Returns the training rows of an epoch in each row group, selected by `data.sampler`.
    pub(crate) fn training_groups(&self, seed: u64, epoch: u64) -> Vec<Vec<u32>> {
        let groups = self.groups(Split::Training);
        let Some(target) = self
            .targets
            .first()
            .filter(|_| self.sampler == Sampler::Balanced)
        else {
            return groups;
        };
        let class_of = |row| Some(target.label(&self.rows, row)).filter(|&class| class >= 0);
        let key_of = |row: u32| self.rows.keys[row as usize];
        order::balanced(&groups, class_of, key_of, seed, epoch)
    }

    /// Returns the rows of a split in each row group of the feature, in manifest order.
    pub(crate) fn groups(&self, split: Split) -> Vec<Vec<u32>> {
        let mut groups = Vec::with_capacity(self.rows.groups.len());
        for RowGroup { rows, .. } in &self.rows.groups {
            let in_split = rows
                .clone()
                .filter(|&row| self.splits[row as usize] == Some(split));
            groups.push(in_split.collect());
        }
        groups
    }
}

impl<M: HostMemory> Dataset<M> {
    /// Returns host memory of at least `bytes` bytes, reused from an earlier epoch or newly allocated. Page-locked
    /// memory is always newly requested, which is cheap, because the library that provides it caches freed memory.
    pub(crate) fn memory(&self, bytes: usize, pinned: bool) -> Result<M, DatasetError> {
        if !pinned {
            let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
            // Loaders of other splits and batch sizes return their buffers here too, so a buffer may be too small.
            let found = spare.iter().position(|memory| memory.size() >= bytes);
            if let Some(place) = found {
                return Ok(spare.swap_remove(place));
            }
        }
        M::zeroed(bytes, pinned)
    }
}

/// The files of a feature after reading everything but the tensors.
struct Files {
    rows: Rows,
    pages: Pages,
    /// The split of each file, according to the manifest.
    folders: Vec<Option<Split>>,
    lost: Vec<LostFile>,
}

impl Files {
    fn read(
        store: &Store,
        spec: &InputSpec,
        form: &Form,
        skip_damaged: bool,
        is_checked_first: bool,
        stop: &AtomicBool,
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
        // A damaged file that is skipped gets no number, so that the numbers of other files are valid indices into
        // `folders` and `pages`.
        let entries: Vec<&FileEntry> = store.manifest().files_of(&feature.name).collect();
        // In an object store, opening a file takes several requests.
        let at_once = if store.is_remote() { OPENED_AT_ONCE } else { 1 };
        for entries in entries.chunks(at_once) {
            if stop.load(Ordering::Relaxed) {
                return Err(stopped());
            }
            let opened = each_at_once(entries, |entry| {
                if is_checked_first {
                    store.sound_path(entry, Some(stop))?;
                }
                let store = unchecked.as_ref().unwrap_or(store);
                OpenedFile::open(store, entry, feature, &targets, &files.pages)
            });

            for (entry, opened) in entries.iter().zip(opened) {
                match opened.and_then(|opened| files.append(opened, entry, feature, &targets)) {
                    Ok(()) => {}
                    Err(error) if error.is_damage() && skip_damaged => files.lost.push(LostFile {
                        path: entry.path.clone(),
                        rows: entry.rows,
                        error,
                    }),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(files)
    }

    /// Adds the rows of one file; adds no rows if this fails.
    fn append(
        &mut self,
        opened: OpenedFile,
        entry: &FileEntry,
        feature: &FeatureEntry,
        targets: &[String],
    ) -> Result<(), DatasetError> {
        let file = self.folders.len() as u32;
        // `Rows::append` fails before it appends anything. Otherwise there could be rows without a location in a file.
        self.rows
            .append(&opened.shard, &opened.columns, file, feature, targets)?;
        self.pages.append(opened.shard, opened.located);
        let split = entry.split.as_deref();
        self.folders.push(split.and_then(Split::named));
        Ok(())
    }
}

/// Number of files in an object store that are opened at the same time.
const OPENED_AT_ONCE: usize = 8;

/// Everything that is read of a file before its tensors.
struct OpenedFile {
    shard: Shard,
    located: RowPlaces,
    columns: RecordBatch,
}

impl OpenedFile {
    fn open(
        store: &Store,
        entry: &FileEntry,
        feature: &FeatureEntry,
        targets: &[String],
        pages: &Pages,
    ) -> Result<Self, DatasetError> {
        let shard = Shard::open(store, entry, feature)?;
        Ok(Self {
            located: pages.locate(&shard)?,
            columns: rows::read(&shard, feature, targets)?,
            shard,
        })
    }
}

/// Calls `open` for each file at the same time.
fn each_at_once<T: Send>(files: &[&FileEntry], open: impl Fn(&FileEntry) -> T + Sync) -> Vec<T> {
    if let [file] = files {
        return vec![open(file)];
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = files
            .iter()
            .map(|file| scope.spawn(|| open(file)))
            .collect();
        let opened = threads.into_iter().map(ScopedJoinHandle::join);
        opened
            .map(|opened| opened.unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    })
}

/// Returns the error for work that was stopped.
fn stopped() -> DatasetError {
    PlainError::failed("opening the feature was stopped").into()
}

fn rows_in(splits: &[Option<Split>], split: Split) -> impl Iterator<Item = u32> {
    (0..)
        .zip(splits)
        .filter(move |(_, of_row)| **of_row == Some(split))
        .map(|(row, _)| row)
}
