//! What a model was trained to see, in a form that a checkpoint can hold: enough to feed it rows without their store.
//!
//! Everything here is a function of the configuration and the training rows. Batches and predictions both go through it.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};
use wavemill_schemas::manifest::{FeatureEntry, Stats};

use super::DatasetError;
use super::form::Form;
use crate::config::Data;
use crate::ffi::HostBuffer;

/// Inputs of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputSpec {
    /// As in the manifest: rows of another `feature_id` are other numbers.
    pub feature: FeatureEntry,
    /// Frames that each row is cut or zero-padded to.
    pub frames: usize,
    /// Mean and deviation of each band, where rows are normalised.
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
    pub fn new(feature: &FeatureEntry, data: &Data, stats: Option<&Stats>) -> Result<Self, DatasetError> {
        let unfit = |key, problem: String| DatasetError::Unfit { key, problem };
        let axis = feature.dim_names.iter().position(|name| name == "frame").unwrap_or(1);
        let Some(frames) = data.frames.or_else(|| feature.shape.get(axis).copied().flatten()) else {
            let problem =
                format!("rows of {} differ in length: set data.frames to how many each is to have", feature.name);
            return Err(unfit("frames", problem));
        };
        if data.normalize && stats.is_none_or(|stats| stats.values == 0) {
            return Err(unfit("normalize", "the store has no training rows, so no statistics".to_owned()));
        }
        let normalize = stats.filter(|_| data.normalize).cloned();
        let (feature, metadata, artists, albums) = (feature.clone(), Vec::new(), Vec::new(), Vec::new());
        Ok(Self { feature, frames, normalize, metadata, artists, albums })
    }

    /// Entries of both vocabularies, the unknown one included; 0 for none.
    #[must_use]
    pub fn vocabulary(&self) -> [i64; 2] {
        [&self.artists, &self.albums].map(|ids| if ids.is_empty() { 0 } else { ids.len() as i64 + 1 })
    }

    /// `[n, bands, frames]` of `kind` on `device`: each row's bytes as they are stored, in order.
    ///
    /// # Errors
    /// [`DatasetError::Row`]: bytes that are no row of this feature; [`DatasetError::Torch`].
    pub fn spectrogram(&self, rows: &[&[u8]], device: Device, kind: Kind) -> Result<Tensor, DatasetError> {
        let form = Form::new(self)?;
        let mut host = HostBuffer::new(rows.len() * form.row_bytes(), false);
        let mut filled = Vec::with_capacity(rows.len());
        for (row, (value, slot)) in rows.iter().zip(host.bytes_mut().chunks_exact_mut(form.row_bytes())).enumerate() {
            let column = || self.feature.name.clone();
            let frames =
                form.fill(value, slot).map_err(|problem| DatasetError::Row { column: column(), row, problem })?;
            filled.push(frames as i64);
        }
        let (stored, shape) = form.host(rows.len() as i64);
        form.tensor(&host.view(stored, &shape), &filled, device, kind)
    }

    /// `[n, columns]` of `kind` on `device`, standardised; `values` are row by row as published, NaN where missing.
    ///
    /// A missing value becomes 0, which is the mean, and so does every value of a column that never varied. `None` where
    /// the model sees no metadata.
    ///
    /// # Errors
    /// [`DatasetError::Torch`].
    pub fn metadata(&self, values: &[f32], device: Device, kind: Kind) -> Result<Option<Tensor>, DatasetError> {
        if self.metadata.is_empty() {
            return Ok(None);
        }
        let standard = |(value, column): (&f32, &MetadataColumn)| {
            let is_told = value.is_finite() && column.std > 0.0;
            if is_told { (f64::from(*value) - column.mean) / column.std } else { 0.0 }
        };
        let columns = self.metadata.iter().cycle();
        let standardised: Vec<f64> = values.iter().zip(columns).map(standard).collect();
        let width = self.metadata.len();
        let tensor = Tensor::f_from_slice(&standardised)?.f_view([(values.len() / width) as i64, width as i64])?;
        Ok(Some(tensor.f_to_kind(kind)?.f_to_device(device)?))
    }

    /// `[n, 2]` i64 on `device`: artist and album of each row by their vocabularies, 0 for one that training never saw.
    /// `None` where the model sees neither.
    ///
    /// # Errors
    /// [`DatasetError::Torch`].
    pub fn ids(
        &self,
        rows: impl Iterator<Item = [Option<i64>; 2]>,
        device: Device,
    ) -> Result<Option<Tensor>, DatasetError> {
        if self.vocabulary() == [0; 2] {
            return Ok(None);
        }
        let id = |known: &[i64], id: Option<i64>| {
            id.and_then(|id| known.binary_search(&id).ok()).map_or(0, |place| place as i64 + 1)
        };
        let ids: Vec<i64> =
            rows.flat_map(|[artist, album]| [id(&self.artists, artist), id(&self.albums, album)]).collect();
        Ok(Some(Tensor::f_from_slice(&ids)?.f_view([ids.len() as i64 / 2, 2])?.f_to_device(device)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(shape: [Option<usize>; 2], dim_names: [&str; 2], frames: usize) -> InputSpec {
        let feature = FeatureEntry {
            name: "mel".to_owned(),
            feature_id: "id".to_owned(),
            dtype: "u8".to_owned(),
            scale: Some(wavemill_schemas::manifest::Scale { factor: 0.5, offset: 1.0 }),
            shape: shape.to_vec(),
            dim_names: dim_names.map(str::to_owned).to_vec(),
            sample_rate_hz: 22_050,
            hop_length: 512,
            preset: "librosa".to_owned(),
        };
        let normalize = Some(Stats { mean: vec![1.0, 2.0], std: vec![0.5, 0.0], values: 9 });
        let column = |name: &str, mean, std| MetadataColumn { name: name.to_owned(), mean, std };
        let metadata = vec![column("a", 10.0, 4.0), column("b", 3.0, 0.0)];
        InputSpec { feature, frames, normalize, metadata, artists: vec![3, 7], albums: Vec::new() }
    }

    fn values(tensor: &Tensor) -> Vec<f64> {
        Vec::try_from(tensor.flatten(0, -1).to_kind(Kind::Double)).expect("f64")
    }

    #[test]
    fn rows_of_their_own_length_are_cut_and_filled_with_the_mean() {
        // Bands [2, 4, 6] and [8, 10, 12] as stored: (x / 2 + 1 - mean) / std.
        let want = [2.0, 4.0, 3.0, 4.0];
        for (shape, names, row) in [
            ([Some(2), None], ["mel", "frame"], [2, 4, 6, 8, 10, 12]),
            ([None, Some(2)], ["frame", "mel"], [2, 8, 4, 10, 6, 12]),
        ] {
            let tensor = spec(shape, names, 2).spectrogram(&[&row, &[2, 8], &[]], Device::Cpu, Kind::Double);
            let tensor = tensor.expect("a tensor");
            assert_eq!(tensor.size(), [3, 2, 2]);
            assert_eq!(values(&tensor.get(0)), want);
            assert_eq!(values(&tensor.get(1)), [2.0, 0.0, 3.0, 0.0]);
            assert_eq!(values(&tensor.get(2)), [0.0; 4]);
            let long = spec(shape, names, 4).spectrogram(&[&row], Device::Cpu, Kind::Double).expect("a tensor");
            assert_eq!(values(&long), [2.0, 4.0, 6.0, 0.0, 3.0, 4.0, 5.0, 0.0]);
        }
    }

    #[test]
    fn a_row_of_an_impossible_length_is_refused_by_its_number() {
        let ragged = spec([Some(2), None], ["mel", "frame"], 2);
        let error = ragged.spectrogram(&[&[1, 2], &[1, 2, 3]], Device::Cpu, Kind::Float).expect_err("odd").to_string();
        assert_eq!(error, "column mel, row 1: a row of 3 bytes, not 4");
        let fixed = spec([Some(2), Some(3)], ["mel", "frame"], 2);
        assert!(fixed.spectrogram(&[&[0; 4]], Device::Cpu, Kind::Float).is_err(), "a whole frame is missing");
    }

    #[test]
    fn missing_and_constant_metadata_is_the_mean_and_unknown_ids_are_0() {
        let spec = spec([Some(2), Some(3)], ["mel", "frame"], 3);
        let metadata = spec.metadata(&[14.0, 3.0, f32::NAN, 8.0], Device::Cpu, Kind::Double).expect("a tensor");
        assert_eq!(values(&metadata.expect("columns")), [1.0, 0.0, 0.0, 0.0]);
        let rows = [[Some(7), Some(1)], [Some(5), None], [None, None], [Some(3), None]];
        let ids = spec.ids(rows.into_iter(), Device::Cpu).expect("a tensor").expect("artists");
        assert_eq!((ids.size(), values(&ids)), (vec![4, 2], vec![2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]));
        assert_eq!(spec.vocabulary(), [3, 0]);
    }

    #[test]
    fn a_checkpoint_gives_back_the_same_spec() {
        let spec = spec([Some(2), None], ["mel", "frame"], 2);
        let text = serde_json::to_string(&spec).expect("JSON");
        assert_eq!(serde_json::from_str::<InputSpec>(&text).expect("a spec"), spec);
    }
}
