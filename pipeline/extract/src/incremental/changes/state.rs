//! State of the data: tracks with their labels, splits and files.

use std::collections::{BTreeMap, HashMap};

use arrow::array::{Array, RecordBatch, StringViewArray};
use parquet::errors::ParquetError;
use wavemill_catalog::{ClassLists, split_column};
use wavemill_schemas::manifest::{FeatureEntry, Manifest, TargetEntry};
use wavemill_schemas::recipe::Recipe;
use wavemill_store::{Store, StoreError};

use crate::incremental::parent::{self, ParentInput};

/// Tracks, splits, labels and files of a version, or of the planned result of a run.
#[derive(Debug, Default)]
pub struct State {
    /// The planned tracks by `clip_key`.
    pub(super) tracks: BTreeMap<String, Track>,
    /// The tracks' files by `clip_key`.
    pub(super) inputs: HashMap<String, ParentInput>,
    /// The `feature_id` of each feature, by name.
    pub(super) features: BTreeMap<String, String>,
    /// Class names in order of their ids, by target.
    pub(super) classes: ClassLists,
    targets: Vec<TargetEntry>,
}

/// Labels and split of a track.
#[derive(Debug, Default)]
pub(super) struct Track {
    /// Labels by target; `None` if the track has no label.
    pub labels: BTreeMap<String, Option<String>>,
    /// Split of the track under the recipe's rule; `None` under the rule `segment`.
    pub split: Option<String>,
}

impl State {
    /// Reads the state of a version from its tables.
    ///
    /// # Errors
    /// [`StoreError`] if the table `tracks` is missing or damaged.
    pub fn of_version(store: &Store, manifest: &Manifest) -> Result<Self, StoreError> {
        let columns = columns(&manifest.recipe);
        let mut names: Vec<&str> = columns.labels.iter().map(|(_, column)| *column).collect();
        names.push("clip_key");
        names.extend(columns.split);
        let tracks = parent::read_table(store, manifest, "tracks", &names, |rows| {
            columns.tracks(rows, 0..rows.num_rows())
        })?;
        Ok(Self {
            tracks,
            inputs: parent::inputs(store, manifest)?,
            features: feature_ids(&manifest.features),
            classes: class_lists(&manifest.targets),
            targets: manifest.targets.clone(),
        })
    }

    /// Creates the state that a run would produce, from the rows `planned` of its `tracks` and the known facts about
    /// their files.
    ///
    /// # Errors
    /// [`ParquetError`] if the rows have no columns for labels and splits; this cannot happen with a checked recipe.
    pub(crate) fn from_plan(
        tracks: &RecordBatch,
        planned: &[usize],
        inputs: HashMap<String, ParentInput>,
        recipe: &Recipe,
        features: &[FeatureEntry],
        classes: &ClassLists,
    ) -> Result<Self, ParquetError> {
        Ok(Self {
            tracks: columns(recipe).tracks(tracks, planned.iter().copied())?,
            inputs,
            features: feature_ids(features),
            classes: classes.clone(),
            // The number of clips with rows is not known before decoding.
            targets: Vec::new(),
        })
    }

    /// Returns each target and class with the number of the class's clips that have rows, over all splits.
    pub(super) fn class_counts(&self) -> Vec<(&str, &str, u64)> {
        let mut counts = Vec::new();
        for target in &self.targets {
            for (id, class) in target.classes.iter().enumerate() {
                let by_split = target.counts.values();
                let clips = by_split.filter_map(|counts| counts.get(id)).sum();
                counts.push((target.name.as_str(), class.as_str(), clips));
            }
        }
        counts
    }
}

fn class_lists(targets: &[TargetEntry]) -> ClassLists {
    let targets = targets.iter();
    targets
        .map(|target| (target.name.clone(), target.classes.clone()))
        .collect()
}

fn feature_ids(features: &[FeatureEntry]) -> BTreeMap<String, String> {
    let ids = features.iter();
    ids.map(|feature| (feature.name.clone(), feature.feature_id.clone()))
        .collect()
}

/// Columns of the table `tracks` that are compared between two states.
struct Columns<'r> {
    /// Pairs of target name and column name.
    labels: Vec<(&'r str, &'r str)>,
    split: Option<&'static str>,
}

fn columns(recipe: &Recipe) -> Columns<'_> {
    let targets = recipe.targets.iter();
    Columns {
        labels: targets
            .map(|target| (target.name.as_str(), target.column.as_str()))
            .collect(),
        split: split_column(recipe.split.rule),
    }
}

impl Columns<'_> {
    fn tracks(
        &self,
        batch: &RecordBatch,
        rows: impl Iterator<Item = usize>,
    ) -> Result<BTreeMap<String, Track>, ParquetError> {
        let keys = parent::text(batch, "clip_key")?;
        let split = match self.split {
            Some(column) => Some(parent::text(batch, column)?),
            None => None,
        };
        let mut labels = Vec::with_capacity(self.labels.len());
        for &(target, column) in &self.labels {
            labels.push((target, parent::text(batch, column)?));
        }

        let mut tracks = BTreeMap::new();
        for row in rows {
            let of_row = labels.iter();
            let track = Track {
                labels: of_row
                    .map(|(target, column)| ((*target).to_owned(), text_at(column, row)))
                    .collect(),
                split: split.as_ref().and_then(|column| text_at(column, row)),
            };
            tracks.insert(keys.value(row).to_owned(), track);
        }
        Ok(tracks)
    }
}

fn text_at(column: &StringViewArray, row: usize) -> Option<String> {
    column.is_valid(row).then(|| column.value(row).to_owned())
}
