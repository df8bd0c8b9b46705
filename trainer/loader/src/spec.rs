//! The inputs that a model was trained on, as stored in a checkpoint: sufficient to process new rows with the model,
//! without the store of its training.
//!
//! All values are computed from the configuration and the training rows only. Training and prediction use them.

use serde::{Deserialize, Serialize};
use wavemill_schemas::manifest::{FeatureEntry, Stats};

use crate::DatasetError;
use wavemill_schemas::config::Data;

/// Description of a model's inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputSpec {
    /// The manifest's entry of the feature. Rows with another `feature_id` have other values.
    pub feature: FeatureEntry,
    /// Number of frames that each row is cut or zero-padded to; 1 for statistics and pictures, which have no frames. The
    /// frames of a feature that consists of samples are the samples.
    pub frames: usize,
    /// Mean and deviation of each band if rows are normalised. Rows of statistics are always normalised, number by
    /// number.
    pub normalize: Option<Stats>,
    /// Columns of `fma_features`, in the order of the model's inputs; empty if the model uses no metadata.
    pub metadata: Vec<MetadataColumn>,
    /// Ids of the artists of training rows in ascending order; the first has number 1. Empty if the model does not use
    /// artists.
    pub artists: Vec<i64>,
    /// Ids of the albums of training rows, numbered like the artists.
    pub albums: Vec<i64>,
}

/// A metadata column with its mean and deviation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetadataColumn {
    /// The name of the column in `fma_features`.
    pub name: String,
    /// Mean over the training rows that have a value.
    pub mean: f64,
    /// Population standard deviation over the training rows that have a value; 0 if all values are equal or there are
    /// none.
    pub std: f64,
}

impl InputSpec {
    /// Creates the description of the inputs `feature` under the configuration `data`, without metadata and
    /// vocabularies. `stats` are those of the manifest.
    ///
    /// # Errors
    /// [`DatasetError::Unfit`] if the feature has no values, if rows differ in length without `data.frames`, or if there
    /// are no statistics for `data.normalize`.
    pub fn new(
        feature: &FeatureEntry,
        data: &Data,
        stats: Option<&Stats>,
    ) -> Result<Self, DatasetError> {
        require_values(feature)?;
        let frames = frames_of(feature, data)?;

        // The numbers of a row of statistics have different units, so they are always standardised, like metadata
        // columns.
        let is_normalised = data.normalize || feature.is_vector();
        if is_normalised && stats.is_none_or(|stats| stats.values == 0) {
            let problem = "the store has no training rows, and therefore no statistics";
            return Err(DatasetError::unfit("normalize", problem));
        }

        Ok(Self {
            feature: feature.clone(),
            frames,
            normalize: stats.filter(|_| is_normalised).cloned(),
            metadata: Vec::new(),
            artists: Vec::new(),
            albums: Vec::new(),
        })
    }

    /// Creates the description of rows as they are stored, which are not normalised. If rows differ in length, `frames`
    /// is 1 until their lengths are known.
    pub(crate) fn stored(feature: &FeatureEntry) -> Self {
        let frames = feature.shape.get(frame_axis(feature)).copied().flatten();
        let has_frames = !feature.is_vector() && !feature.is_picture();
        Self {
            feature: feature.clone(),
            frames: frames.filter(|_| has_frames).unwrap_or(1),
            normalize: None,
            metadata: Vec::new(),
            artists: Vec::new(),
            albums: Vec::new(),
        }
    }

    /// Returns the sizes of the vocabularies of artists and albums, including the entry for unknown ids; 0 for an
    /// unused vocabulary.
    pub fn vocabulary(&self) -> [i64; 2] {
        [&self.artists, &self.albums].map(|ids| {
            if ids.is_empty() {
                0
            } else {
                ids.len() as i64 + 1
            }
        })
    }

    /// Returns a row-major `[n, columns]` matrix of standardised metadata. `values` are as published, NaN if missing.
    ///
    /// A missing value becomes 0, the mean, and so does every value of a column whose values are all equal. Returns
    /// `None` if the model uses no metadata.
    pub fn standardised(&self, values: &[f32]) -> Option<Vec<f64>> {
        if self.metadata.is_empty() {
            return None;
        }
        let columns = self.metadata.iter().cycle();
        let standardised = values.iter().zip(columns);
        Some(
            standardised
                .map(|(&value, column)| column.standardised(value))
                .collect(),
        )
    }

    /// Returns a row-major `[n, 2]` matrix: the numbers of each row's artist and album in the vocabularies, 0 for ids
    /// that do not occur in training. Returns `None` if the model uses neither artists nor albums.
    pub fn known_ids(&self, rows: impl Iterator<Item = [Option<i64>; 2]>) -> Option<Vec<i64>> {
        if self.vocabulary() == [0; 2] {
            return None;
        }
        let ids = rows.flat_map(|[artist, album]| {
            [
                known_id(&self.artists, artist),
                known_id(&self.albums, album),
            ]
        });
        Some(ids.collect())
    }
}

impl MetadataColumn {
    fn standardised(&self, value: f32) -> f64 {
        if value.is_finite() && self.std > 0.0 {
            (f64::from(value) - self.mean) / self.std
        } else {
            0.0
        }
    }
}

/// Refuses a feature whose rows are files, or have no values or too many to count.
pub(crate) fn require_values(feature: &FeatureEntry) -> Result<(), DatasetError> {
    let name = &feature.name;
    if feature.is_original() {
        let problem = format!(
            "rows of {name} are files, which have to be decoded: set data.feature to another feature, such as one with \
             op = \"pcm\""
        );
        return Err(DatasetError::unfit("feature", problem));
    }

    let mut lengths = feature.shape.iter().flatten();
    let n_values = lengths.try_fold(1_usize, |n, &length| n.checked_mul(length));
    if n_values.is_none_or(|n| n == 0) {
        let problem = format!("rows of {name} cannot be {}", feature.tensor_type());
        return Err(DatasetError::unfit("feature", problem));
    }
    Ok(())
}

/// Returns the number of frames of a row as input of the model; 1 for a feature without frames.
fn frames_of(feature: &FeatureEntry, data: &Data) -> Result<usize, DatasetError> {
    if feature.is_vector() || feature.is_picture() {
        return match data.frames {
            None => Ok(1),
            Some(_) => Err(DatasetError::unfit(
                "frames",
                format!("rows of {} have no frames", feature.name),
            )),
        };
    }

    let name = if feature.is_pcm() { "sample" } else { "frame" };
    let stored = feature.shape.get(frame_axis(feature)).copied().flatten();
    data.frames.or(stored).ok_or_else(|| {
        DatasetError::unfit(
            "frames",
            format!(
                "rows of {} differ in length: set data.frames to the number of {name}s of every row",
                feature.name
            ),
        )
    })
}

/// Returns the index of the axis of frames. It is found by name, because a recipe may store frames before bands. Each
/// sample of `pcm` counts as a frame.
fn frame_axis(feature: &FeatureEntry) -> usize {
    if feature.is_pcm() {
        return 0;
    }
    let names = &feature.dim_names;
    names.iter().position(|name| name == "frame").unwrap_or(1)
}

/// Returns the number of an id in its vocabulary, starting at 1; 0 for an unknown id.
fn known_id(vocabulary: &[i64], id: Option<i64>) -> i64 {
    id.and_then(|id| vocabulary.binary_search(&id).ok())
        .map_or(0, |place| place as i64 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::input_spec;

    #[test]
    fn missing_metadata_becomes_the_mean_and_unknown_ids_0() {
        let spec = input_spec([Some(2), Some(3)], ["mel", "frame"], 3);
        let metadata = spec.standardised(&[14.0, 3.0, f32::NAN, 8.0]);
        assert_eq!(metadata.expect("columns"), [1.0, 0.0, 0.0, 0.0]);

        let rows = [
            [Some(7), Some(1)],
            [Some(5), None],
            [None, None],
            [Some(3), None],
        ];

        let ids = spec.known_ids(rows.into_iter()).expect("artists");
        assert_eq!(ids, [2, 0, 0, 0, 0, 0, 1, 0]);
        assert_eq!(spec.vocabulary(), [3, 0]);
    }

    #[test]
    fn a_checkpoint_gives_back_the_same_spec() {
        let spec = input_spec([Some(2), None], ["mel", "frame"], 2);
        let text = serde_json::to_string(&spec).expect("JSON");
        assert_eq!(
            serde_json::from_str::<InputSpec>(&text).expect("a spec"),
            spec
        );
    }
}
