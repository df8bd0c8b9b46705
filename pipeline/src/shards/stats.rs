//! Mean and standard deviation per band, over values as stored, in an order that does not depend on threads.

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use wavemill_schemas::manifest::{FeatureEntry, Partial, Scale};
use wavemill_schemas::recipe::Dtype;

use super::rows::Tensor;

/// How a tensor's bytes are to be read for the sums.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bands {
    /// Stored type.
    pub dtype: Dtype,
    /// Of stored integers.
    pub scale: Option<Scale>,
    /// True: a band is a row; false: a column.
    pub in_rows: bool,
}

/// Adds one tensor to the sums of its row group. `values` is scratch.
pub(super) fn add(partial: &mut Partial, tensor: &Tensor, bands: Bands, values: &mut Vec<f32>) {
    unpack(&tensor.bytes, bands, values);

    let [rows, columns] = tensor.shape;
    let (n_bands, per_band) = if bands.in_rows {
        (rows, columns)
    } else {
        (columns, rows)
    };
    partial.sum.resize(n_bands, 0.0);
    partial.sum_squares.resize(n_bands, 0.0);
    partial.values += per_band as u64;

    if bands.in_rows {
        for (band, row) in values.chunks_exact(columns.max(1)).enumerate() {
            let (sum, squares) = sums(row);
            partial.sum[band] += sum;
            partial.sum_squares[band] += squares;
        }
    } else {
        // Frame by frame, so each band is one sum in the order of time. `max`, because chunks of 0 are a panic.
        for row in values.chunks_exact(columns.max(1)) {
            for (band, &x) in row.iter().enumerate() {
                partial.sum[band] += f64::from(x);
                partial.sum_squares[band] += f64::from(x) * f64::from(x);
            }
        }
    }
}

/// Sums in eight lanes, added in a fixed order: the compiler can use vectors and the bits stay the same.
fn sums(row: &[f32]) -> (f64, f64) {
    let mut sum = [0.0f64; 8];
    let mut squares = [0.0f64; 8];
    let mut chunks = row.chunks_exact(8);
    for chunk in &mut chunks {
        for lane in 0..8 {
            let x = f64::from(chunk[lane]);
            sum[lane] += x;
            squares[lane] += x * x;
        }
    }

    for (lane, &x) in chunks.remainder().iter().enumerate() {
        sum[lane] += f64::from(x);
        squares[lane] += f64::from(x) * f64::from(x);
    }
    (sum.iter().sum(), squares.iter().sum())
}

fn unpack(bytes: &[u8], bands: Bands, values: &mut Vec<f32>) {
    values.clear();
    match bands.dtype {
        Dtype::F32 => values.extend(
            bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
        ),
        Dtype::U8 => {
            let Scale { factor, offset } = bands.scale.unwrap_or(Scale {
                factor: 1.0,
                offset: 0.0,
            });
            values.extend(
                bytes
                    .iter()
                    .map(|&b| (f64::from(b) * factor + offset) as f32),
            );
        }
        Dtype::F16 => {
            values.resize(bytes.len() / 2, 0.0);
            // In blocks, so that the conversion runs over slices.
            let mut halves = [0u16; 512];
            for (pairs, out) in bytes.chunks(1024).zip(values.chunks_mut(512)) {
                for (half, b) in halves.iter_mut().zip(pairs.chunks_exact(2)) {
                    *half = u16::from_le_bytes([b[0], b[1]]);
                }
                halves[..out.len()]
                    .reinterpret_cast::<f16>()
                    .convert_to_f32_slice(out);
            }
        }
    }
}

/// A tensor's values, read back from its bytes.
#[must_use]
pub(crate) fn values(tensor: &Tensor, feature: &FeatureEntry) -> Vec<f32> {
    let dtype = match feature.dtype.as_str() {
        "f16" => Dtype::F16,
        "u8" => Dtype::U8,
        _ => Dtype::F32,
    };
    let mut values = Vec::new();
    unpack(
        &tensor.bytes,
        Bands {
            dtype,
            scale: feature.scale,
            in_rows: true,
        },
        &mut values,
    );
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::finish_stats;

    fn bytes(values: &[f32]) -> Vec<u8> {
        values
            .iter()
            .flat_map(|&v| f16::from_f32(v).to_le_bytes())
            .collect()
    }

    #[test]
    fn bands_in_rows_and_in_columns_give_the_same_sums() {
        let (rows, columns) = (3, 700);
        let value = |band: usize, frame: usize| ((band * 37 + frame * 11) % 64) as f32 / 8.0;
        let by_row: Vec<f32> = (0..rows)
            .flat_map(|b| (0..columns).map(move |f| value(b, f)))
            .collect();
        let by_column: Vec<f32> = (0..columns)
            .flat_map(|f| (0..rows).map(move |b| value(b, f)))
            .collect();
        let mut partials = [Partial::default(), Partial::default()];
        let mut scratch = Vec::new();
        let bands = Bands {
            dtype: Dtype::F16,
            scale: None,
            in_rows: true,
        };
        add(
            &mut partials[0],
            &Tensor {
                bytes: bytes(&by_row),
                shape: [rows, columns],
            },
            bands,
            &mut scratch,
        );
        let bands = Bands {
            in_rows: false,
            ..bands
        };
        add(
            &mut partials[1],
            &Tensor {
                bytes: bytes(&by_column),
                shape: [columns, rows],
            },
            bands,
            &mut scratch,
        );
        assert_eq!(partials[0], partials[1]);
        let stats = finish_stats(&partials).expect("there are values");
        let mean = (0..columns).map(|f| f64::from(value(1, f))).sum::<f64>() / columns as f64;
        assert!((stats.mean[1] - mean).abs() < 1e-12);
        assert_eq!(stats.values, 2 * columns as u64);
    }
}
