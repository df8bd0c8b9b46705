//! Conversion of rows that do not come from a store to tensors.

use tch::{Device, Kind, Tensor};
use wavemill_loader::Form;
use wavemill_schemas::exit::PlainError;

use super::{DatasetError, InputSpec, form, refused};
use crate::ffi::HostBuffer;
use crate::models::Inputs;

/// Conversion of stored bytes to the inputs of a model, without the store.
pub trait SpecTensors {
    /// Converts the bytes of each row to a tensor `[n, bands, frames]` of `kind` on `device`, in the order of `rows`;
    /// pictures to `[n, channels, height, width]`.
    ///
    /// # Errors
    /// [`DatasetError::Other`] if the bytes of a row do not fit the feature, or if libtorch fails.
    fn spectrogram(
        &self,
        rows: &[&[u8]],
        device: Device,
        kind: Kind,
    ) -> Result<Tensor, DatasetError>;

    /// Converts rows like [`Self::spectrogram`] and returns them as the inputs of a model.
    fn inputs(&self, rows: &[&[u8]], device: Device, kind: Kind) -> Result<Inputs, DatasetError>;
}

impl SpecTensors for InputSpec {
    fn spectrogram(
        &self,
        rows: &[&[u8]],
        device: Device,
        kind: Kind,
    ) -> Result<Tensor, DatasetError> {
        let form = Form::new(self)?;
        let n_bytes = rows.len() * form.row_bytes();
        let mut memory = HostBuffer::new(n_bytes, false).map_err(refused)?;

        let mut filled = Vec::with_capacity(rows.len());
        let slots = memory.bytes_mut().chunks_exact_mut(form.row_bytes());
        for (row, (value, slot)) in rows.iter().zip(slots).enumerate() {
            let frames = form.fill(value, slot).map_err(|problem| {
                PlainError::failed(format!(
                    "column {}, row {row}: {problem}",
                    self.feature.name
                ))
            })?;
            // `filled` is also set if all rows have the same length: no row is then shorter, so nothing is masked.
            filled.push(frames as i64);
        }

        form::spectrogram(&form, &memory, rows.len(), &filled, device, kind).map_err(refused)
    }

    fn inputs(&self, rows: &[&[u8]], device: Device, kind: Kind) -> Result<Inputs, DatasetError> {
        let form = Form::new(self)?;
        let tensor = self.spectrogram(rows, device, kind)?;
        form::inputs(&form, tensor).map_err(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::testing::input_spec;

    fn values(tensor: &Tensor) -> Vec<f64> {
        Vec::try_from(tensor.flatten(0, -1).to_kind(Kind::Double)).expect("f64")
    }

    #[test]
    fn rows_of_their_own_length_are_cut_and_filled_with_the_mean() {
        // The bands of the first row are stored as [2, 4, 6] and [8, 10, 12] and become (x / 2 + 1 - mean) / std.
        let want = [2.0, 4.0, 3.0, 4.0];

        for (shape, names, row) in [
            ([Some(2), None], ["mel", "frame"], [2, 4, 6, 8, 10, 12]),
            ([None, Some(2)], ["frame", "mel"], [2, 8, 4, 10, 6, 12]),
        ] {
            let tensor = input_spec(shape, names, 2).spectrogram(
                &[&row, &[2, 8], &[]],
                Device::Cpu,
                Kind::Double,
            );
            let tensor = tensor.expect("a tensor");
            assert_eq!(tensor.size(), [3, 2, 2]);
            assert_eq!(values(&tensor.get(0)), want);
            assert_eq!(values(&tensor.get(1)), [2.0, 0.0, 3.0, 0.0]);
            assert_eq!(values(&tensor.get(2)), [0.0; 4]);

            let long = input_spec(shape, names, 4)
                .spectrogram(&[&row], Device::Cpu, Kind::Double)
                .expect("a tensor");
            assert_eq!(values(&long), [2.0, 4.0, 6.0, 0.0, 3.0, 4.0, 5.0, 0.0]);
        }
    }

    #[test]
    fn statistics_are_columns_and_pictures_keep_their_axes() {
        let statistics = input_spec([Some(2), Some(1)], ["statistic", "coefficient"], 1);
        let inputs = statistics.inputs(&[&[2, 8], &[4, 10]], Device::Cpu, Kind::Double);
        let inputs = inputs.expect("inputs");
        assert_eq!(inputs.spectrogram.size(), [2, 0, 0]);
        let columns = inputs.metadata.expect("columns");
        assert_eq!(columns.size(), [2, 2]);
        assert_eq!(values(&columns), [2.0, 3.0, 4.0, 4.0]);

        let mut picture = input_spec([Some(2), Some(3)], ["mel", "frame"], 1);
        picture.feature.shape = vec![Some(2), Some(1), Some(3)];
        picture.feature.dim_names = ["channel", "row", "column"].map(str::to_owned).to_vec();
        let inputs = picture.inputs(&[&[2, 4, 6, 8, 10, 12]], Device::Cpu, Kind::Double);
        let inputs = inputs.expect("inputs");
        assert!(inputs.metadata.is_none());
        assert_eq!(inputs.spectrogram.size(), [1, 2, 1, 3]);
        assert_eq!(values(&inputs.spectrogram), [2.0, 4.0, 6.0, 3.0, 4.0, 5.0]);
    }

    #[test]
    fn a_row_of_an_impossible_length_is_refused_by_its_number() {
        let ragged = input_spec([Some(2), None], ["mel", "frame"], 2);
        let error = ragged
            .spectrogram(&[&[1, 2], &[1, 2, 3]], Device::Cpu, Kind::Float)
            .expect_err("odd")
            .to_string();
        assert_eq!(error, "column mel, row 1: a row of 3 bytes, not 4");

        let fixed = input_spec([Some(2), Some(3)], ["mel", "frame"], 2);
        assert!(
            fixed
                .spectrogram(&[&[0; 4]], Device::Cpu, Kind::Float)
                .is_err(),
            "a whole frame is missing"
        );
    }
}
