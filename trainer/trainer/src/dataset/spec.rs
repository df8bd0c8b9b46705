//! Conversion of rows that do not come from a store to tensors.

use tch::{Device, Kind};
use wavemill_loader::{Form, HostMemory as _};
use wavemill_schemas::exit::PlainError;

use super::{DatasetError, InputSpec, form, refused};
use crate::ffi::HostBuffer;
use crate::models::Inputs;

/// Converts the bytes of rows of the feature of `spec` to the inputs of a model, in `kind` on `device` and in the order
/// of `rows`, without the store.
///
/// # Errors
/// [`DatasetError::Other`] if the bytes of a row do not fit the feature, or if libtorch fails.
pub fn inputs_of_rows(
    spec: &InputSpec,
    rows: &[&[u8]],
    device: Device,
    kind: Kind,
) -> Result<Inputs, DatasetError> {
    let form = Form::new(spec)?;
    let n_bytes = rows.len() * form.row_bytes();
    let mut memory = HostBuffer::new(n_bytes, false).map_err(refused)?;

    let mut filled = Vec::with_capacity(rows.len());
    let slots = memory.bytes_mut().chunks_exact_mut(form.row_bytes());
    for (row, (value, slot)) in rows.iter().zip(slots).enumerate() {
        let frames = form.fill(value, slot).map_err(|problem| {
            PlainError::failed(format!(
                "column {}, row {row}: {problem}",
                spec.feature.name
            ))
        })?;
        // `filled` is also set if all rows have the same length: no row is then shorter, so nothing is masked.
        filled.push(frames as i64);
    }

    form::spectrogram(&form, &memory, rows.len(), &filled, device, kind)
        .and_then(|rows| form::inputs(&form, rows))
        .map_err(refused)
}

#[cfg(test)]
mod tests {
    use tch::Tensor;

    use super::*;
    use crate::dataset::testing::input_spec;

    fn values(tensor: &Tensor) -> Vec<f64> {
        Vec::try_from(tensor.flatten(0, -1).to_kind(Kind::Double)).expect("f64")
    }

    fn converted(spec: &InputSpec, rows: &[&[u8]]) -> Result<Inputs, DatasetError> {
        inputs_of_rows(spec, rows, Device::Cpu, Kind::Double)
    }

    fn spectrogram(spec: &InputSpec, rows: &[&[u8]]) -> Tensor {
        converted(spec, rows).expect("a tensor").spectrogram
    }

    #[test]
    fn rows_of_their_own_length_are_cut_and_filled_with_the_mean() {
        // The bands of the first row are stored as [2, 4, 6] and [8, 10, 12] and become (x / 2 + 1 - mean) / std.
        let want = [2.0, 4.0, 3.0, 4.0];

        for (shape, names, row) in [
            ([Some(2), None], ["mel", "frame"], [2, 4, 6, 8, 10, 12]),
            ([None, Some(2)], ["frame", "mel"], [2, 8, 4, 10, 6, 12]),
        ] {
            let tensor = spectrogram(&input_spec(shape, names, 2), &[&row, &[2, 8], &[]]);
            assert_eq!(tensor.size(), [3, 2, 2]);
            assert_eq!(values(&tensor.get(0)), want);
            assert_eq!(values(&tensor.get(1)), [2.0, 0.0, 3.0, 0.0]);
            assert_eq!(values(&tensor.get(2)), [0.0; 4]);

            let long = spectrogram(&input_spec(shape, names, 4), &[&row]);
            assert_eq!(values(&long), [2.0, 4.0, 6.0, 0.0, 3.0, 4.0, 5.0, 0.0]);
        }
    }

    #[test]
    fn statistics_are_columns_and_pictures_keep_their_axes() {
        let statistics = input_spec([Some(2), Some(1)], ["statistic", "coefficient"], 1);
        let inputs = converted(&statistics, &[&[2, 8], &[4, 10]]).expect("inputs");
        assert_eq!(inputs.spectrogram.size(), [2, 0, 0]);
        let columns = inputs.metadata.expect("columns");
        assert_eq!(columns.size(), [2, 2]);
        assert_eq!(values(&columns), [2.0, 3.0, 4.0, 4.0]);

        let mut picture = input_spec([Some(2), Some(3)], ["mel", "frame"], 1);
        picture.feature.shape = vec![Some(2), Some(1), Some(3)];
        picture.feature.dim_names = ["channel", "row", "column"].map(str::to_owned).to_vec();
        let inputs = converted(&picture, &[&[2, 4, 6, 8, 10, 12]]).expect("inputs");
        assert!(inputs.metadata.is_none());
        assert_eq!(inputs.spectrogram.size(), [1, 2, 1, 3]);
        assert_eq!(values(&inputs.spectrogram), [2.0, 4.0, 6.0, 3.0, 4.0, 5.0]);
    }

    #[test]
    fn a_row_of_an_impossible_length_is_refused_by_its_number() {
        let ragged = input_spec([Some(2), None], ["mel", "frame"], 2);
        let error = converted(&ragged, &[&[1, 2], &[1, 2, 3]])
            .expect_err("odd")
            .to_string();
        assert_eq!(error, "column mel, row 1: a row of 3 bytes, not 4");

        let fixed = input_spec([Some(2), Some(3)], ["mel", "frame"], 2);
        assert!(
            converted(&fixed, &[&[0; 4]]).is_err(),
            "a whole frame is missing"
        );
    }
}
