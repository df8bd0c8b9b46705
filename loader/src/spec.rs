//! What a model was trained to see, in a form that a checkpoint can hold: enough to feed it rows without their store.
//!
//! Everything here is a function of the configuration and the training rows. Batches and predictions both go through it.

use serde::{Deserialize, Serialize};
use wavemill_schemas::manifest::{FeatureEntry, Stats};

use crate::DatasetError;
use wavemill_schemas::config::Data;

/// Inputs of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputSpec {
    /// As in the manifest: rows of another `feature_id` are other numbers.
    pub feature: FeatureEntry,
    /// Frames that each row is cut or zero-padded to; 1 of statistics and pictures, which have none.
    pub frames: usize,
    /// Mean and deviation of each band, where rows are normalised; of each number of statistics, which always are.
    pub normalize: Option<Stats>,
    /// Columns of `fma_features`, in the order that the model sees them; empty where it sees none.
    pub metadata: Vec<MetadataColumn>,
    /// Artists of training rows, ascending: the first has id 1. Empty where the model sees none.
    pub artists: Vec<i64>,
    /// Likewise.
    pub albums: Vec<i64>,
}

/// A column of metadata and how it is standardised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetadataColumn {
    /// In `fma_features`.
    pub name: String,
    /// Over training rows that have a value.
    pub mean: f64,
    /// Population standard deviation over the same; 0 where they are all equal, or there are none.
    pub std: f64,
}

impl InputSpec {
    /// Of `feature` under `data`, without metadata and vocabularies; `stats` are the manifest's.
    ///
    /// # Errors
    /// [`DatasetError::Unfit`]: lengths that differ without `data.frames`, no statistics for `data.normalize`.
    pub fn new(
        feature: &FeatureEntry,
        data: &Data,
        stats: Option<&Stats>,
    ) -> Result<Self, DatasetError> {
        let frames = frames_of(feature, data)?;

        // Numbers of one row that have nothing in common are always brought to one scale, as columns of metadata are.
        let is_normalised = data.normalize || feature.is_statistics();
        if is_normalised && stats.is_none_or(|stats| stats.values == 0) {
            return Err(DatasetError::Unfit {
                key: "normalize",
                problem: "the store has no training rows, so no statistics".to_owned(),
            });
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

    /// Entries of both vocabularies, the unknown one included; 0 for none.
    pub fn vocabulary(&self) -> [i64; 2] {
        [&self.artists, &self.albums].map(|ids| {
            if ids.is_empty() {
                0
            } else {
                ids.len() as i64 + 1
            }
        })
    }

    /// `[n, columns]`, row by row, each column standardised; `values` are as published, NaN where missing.
    ///
    /// A missing value becomes 0, which is the mean, and so does every value of a column that never varied. `None` where
    /// the model sees no metadata.
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

    /// `[n, 2]`, row by row: artist and album of each row by their vocabularies, 0 for one that training never saw.
    /// `None` where the model sees neither.
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

/// Frames of a row as the model sees it; 1 of a feature that has none.
fn frames_of(feature: &FeatureEntry, data: &Data) -> Result<usize, DatasetError> {
    if feature.is_statistics() || feature.is_picture() {
        return match data.frames {
            None => Ok(1),
            Some(_) => Err(unfit(format!("rows of {} have no frames", feature.name))),
        };
    }

    // By name, because a recipe may store frames before bands.
    let axis = feature
        .dim_names
        .iter()
        .position(|name| name == "frame")
        .unwrap_or(1);
    let stored = feature.shape.get(axis).copied().flatten();
    data.frames.or(stored).ok_or_else(|| {
        unfit(format!(
            "rows of {} differ in length: set data.frames to how many each is to have",
            feature.name
        ))
    })
}

fn unfit(problem: String) -> DatasetError {
    DatasetError::Unfit {
        key: "frames",
        problem,
    }
}

/// The place of an id in its vocabulary, from 1; 0 for another one.
fn known_id(vocabulary: &[i64], id: Option<i64>) -> i64 {
    id.and_then(|id| vocabulary.binary_search(&id).ok())
        .map_or(0, |place| place as i64 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::input_spec;

    #[test]
    fn missing_and_constant_metadata_is_the_mean_and_unknown_ids_are_0() {
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
