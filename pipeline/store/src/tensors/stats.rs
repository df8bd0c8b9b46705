//! Mean and standard deviation per band over the stored values, in an order that does not depend on threads.

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use wavemill_schemas::manifest::{FeatureEntry, Partial, Scale, Stats};
use wavemill_schemas::recipe::Dtype;

use super::Tensor;

/// Describes how the bytes of a tensor are read to sum up its values.
#[derive(Clone, Copy, Debug)]
pub struct Bands {
    /// Type of the stored values.
    dtype: Dtype,
    /// Scale of stored integers.
    scale: Option<Scale>,
    /// Grouping of the tensor's values into bands.
    axis: BandAxis,
}

impl Bands {
    /// Returns how the tensors of `feature` are read to sum up their values; `None` if they have no values, but are the
    /// bytes of files.
    pub fn of_feature(feature: &FeatureEntry) -> Option<Self> {
        let axis = match feature.dim_names.first().map(String::as_str) {
            _ if feature.is_vector() => BandAxis::Values,
            Some("frame") => BandAxis::Columns,
            Some("sample") => BandAxis::Whole,
            Some("byte") => return None,
            // Mel bands, bins, coefficients, and the channels of a picture.
            _ => BandAxis::Rows,
        };
        Some(Self {
            dtype: stored_type(feature),
            scale: feature.scale,
            axis,
        })
    }
}

/// Grouping of a tensor's values into bands.
#[derive(Clone, Copy, Debug)]
enum BandAxis {
    /// Each index of the first dimension is a band, for example a channel of a picture.
    Rows,
    /// Each column of a two-dimensional tensor is a band.
    Columns,
    /// Each value is a band of its own, because a coefficient's mean and its kurtosis have nothing in common.
    Values,
    /// All values are one band, such as the samples of a clip.
    Whole,
}

/// Adds one tensor to the sums of its row group. `values` is a scratch buffer.
pub fn add(partial: &mut Partial, tensor: &Tensor, bands: Bands, values: &mut Vec<f32>) {
    unpack(&tensor.bytes, bands.dtype, bands.scale, values);

    // `max` is needed because a chunk size of 0 panics.
    let n_rows = match bands.axis {
        BandAxis::Whole => 1,
        BandAxis::Rows | BandAxis::Columns | BandAxis::Values => {
            tensor.shape.first().copied().unwrap_or(0)
        }
    };
    let row_len = values.len() / n_rows.max(1);
    let (n_bands, per_band) = match bands.axis {
        BandAxis::Rows | BandAxis::Whole => (n_rows, row_len),
        BandAxis::Columns => (row_len, n_rows),
        BandAxis::Values => (values.len(), 1),
    };
    partial.sum.resize(n_bands, 0.0);
    partial.sum_squares.resize(n_bands, 0.0);
    partial.values += per_band as u64;

    match bands.axis {
        BandAxis::Rows | BandAxis::Whole => {
            for (band, row) in values.chunks_exact(row_len.max(1)).enumerate() {
                let (sum, squares) = sums(row);
                partial.sum[band] += sum;
                partial.sum_squares[band] += squares;
            }
        }
        // Add frame by frame, so that each band is summed in order of time. If each value is a band, there is only one
        // frame.
        BandAxis::Columns | BandAxis::Values => {
            for row in values.chunks_exact(n_bands.max(1)) {
                for (band, &x) in row.iter().enumerate() {
                    partial.sum[band] += f64::from(x);
                    partial.sum_squares[band] += f64::from(x) * f64::from(x);
                }
            }
        }
    }
}

/// Sums in eight lanes, which are added in a fixed order: the compiler can vectorize and the result is deterministic.
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

fn unpack(bytes: &[u8], dtype: Dtype, scale: Option<Scale>, values: &mut Vec<f32>) {
    values.clear();

    match dtype {
        Dtype::F32 => values.extend(
            bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
        ),
        Dtype::U8 => values.extend(bytes.iter().map(|&b| scaled(f64::from(b), scale))),
        Dtype::S16 => values.extend(
            bytes
                .chunks_exact(2)
                .map(|b| scaled(f64::from(i16::from_le_bytes([b[0], b[1]])), scale)),
        ),
        Dtype::F16 => {
            values.resize(bytes.len() / 2, 0.0);
            // Convert in blocks, because the conversion works on slices.
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

fn scaled(stored: f64, scale: Option<Scale>) -> f32 {
    let value = scale.map_or(stored, |Scale { factor, offset }| stored * factor + offset);
    value as f32
}

/// Reads a tensor's values back from its bytes.
pub fn values(tensor: &Tensor, feature: &FeatureEntry) -> Vec<f32> {
    let mut values = Vec::new();
    unpack(
        &tensor.bytes,
        stored_type(feature),
        feature.scale,
        &mut values,
    );
    values
}

fn stored_type(feature: &FeatureEntry) -> Dtype {
    Dtype::named(&feature.dtype).unwrap_or(Dtype::F32)
}

/// Returns mean and standard deviation from the sums of row groups in file order; `None` without values.
pub fn finish<'a>(partials: impl IntoIterator<Item = &'a Partial>) -> Option<Stats> {
    let mut total = Partial::default();
    // Row groups are added in file order, because the order determines the bits of a sum.
    for partial in partials {
        total
            .sum
            .resize(total.sum.len().max(partial.sum.len()), 0.0);
        total.sum_squares.resize(total.sum.len(), 0.0);
        let bands = partial.sum.iter().zip(&partial.sum_squares);
        for (band, (sum, squares)) in bands.enumerate() {
            total.sum[band] += sum;
            total.sum_squares[band] += squares;
        }
        total.values += partial.values;
    }
    if total.values == 0 {
        return None;
    }

    let n = total.values as f64;
    let mean: Vec<f64> = total.sum.iter().map(|s| s / n).collect();
    // The mean of the squares minus the square of the mean: this needs only the sums, and no file is read again.
    let variance = mean
        .iter()
        .zip(&total.sum_squares)
        .map(|(mean, squares)| squares / n - mean * mean);
    // Rounding can make the variance of a constant band negative.
    Some(Stats {
        std: variance.map(|v| v.max(0.0).sqrt()).collect(),
        mean,
        values: total.values,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(values: &[f32]) -> Vec<u8> {
        values
            .iter()
            .flat_map(|&v| f16::from_f32(v).to_le_bytes())
            .collect()
    }

    fn value(band: usize, frame: usize) -> f32 {
        ((band * 37 + frame * 11) % 64) as f32 / 8.0
    }

    #[test]
    fn bands_in_rows_and_in_columns_give_the_same_sums() {
        let (rows, columns) = (3, 700);

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
            axis: BandAxis::Rows,
        };
        add(
            &mut partials[0],
            &Tensor {
                bytes: bytes(&by_row),
                shape: vec![rows, columns],
            },
            bands,
            &mut scratch,
        );

        let bands = Bands {
            axis: BandAxis::Columns,
            ..bands
        };
        add(
            &mut partials[1],
            &Tensor {
                bytes: bytes(&by_column),
                shape: vec![columns, rows],
            },
            bands,
            &mut scratch,
        );

        assert_eq!(partials[0], partials[1]);
        let stats = finish(&partials).expect("there are values");
        let mean = (0..columns).map(|f| f64::from(value(1, f))).sum::<f64>() / columns as f64;
        assert!((stats.mean[1] - mean).abs() < 1e-12);
        assert_eq!(stats.values, 2 * columns as u64);
    }
    fn sums_of(shape: &[usize], values: &[f32], axis: BandAxis) -> Partial {
        let mut partial = Partial::default();
        let tensor = Tensor {
            bytes: bytes(values),
            shape: shape.to_vec(),
        };
        let bands = Bands {
            dtype: Dtype::F16,
            scale: None,
            axis,
        };

        add(&mut partial, &tensor, bands, &mut Vec::new());
        partial
    }

    #[test]
    fn a_channel_of_a_picture_is_a_band_and_a_statistic_is_one_by_itself() {
        let values: Vec<f32> = (0..12).map(|x| x as f32).collect();
        let picture = sums_of(&[3, 2, 2], &values, BandAxis::Rows);
        assert_eq!(picture.sum, [6.0, 22.0, 38.0]);
        assert_eq!(picture.values, 4);

        let statistics = sums_of(&[3, 4], &values, BandAxis::Values);
        assert_eq!(statistics.sum.len(), 12);
        assert_eq!(statistics.sum[5], 5.0);
        assert_eq!(statistics.sum_squares[5], 25.0);
        assert_eq!(statistics.values, 1);
    }

    #[test]
    fn samples_are_one_band() {
        let sums = sums_of(&[4], &[1.0, -1.0, 0.5, 0.0], BandAxis::Whole);
        assert_eq!((sums.sum, sums.sum_squares), (vec![0.5], vec![2.25]));
        assert_eq!(sums.values, 4);

        let mut values = Vec::new();
        let scale = Some(Scale {
            factor: 1.0 / 32_768.0,
            offset: 0.0,
        });
        let stored = [i16::MIN, -1, 0, i16::MAX].map(i16::to_le_bytes).concat();
        unpack(&stored, Dtype::S16, scale, &mut values);
        let step = 1.0 / 32_768.0;
        assert_eq!(values, [-1.0, -step, 0.0, 1.0 - step]);
    }

    #[test]
    fn no_values_give_no_statistics() {
        assert_eq!(finish(&[]), None);
    }
}
