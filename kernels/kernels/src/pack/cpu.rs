//! Conversion of whole slices, in hardware if supported. Rounding follows IEEE 754 in both cases, so the bits are
//! equal.

use half::f16;
use half::slice::HalfFloatSliceExt;

use wavemill_options::{Packing, S16_FULL_SCALE};

use crate::error::KernelError;

/// Number of values that are converted at a time in a buffer on the stack.
const CHUNK: usize = 256;

/// The largest f16 plus half of its last step. Values of at least this magnitude would be rounded to infinity.
const F16_OVERFLOW: f32 = 65_520.0;

/// Replaces `bytes` by the packed `values`. Allocates only if `bytes` is smaller than ever needed before.
///
/// Errors: [`KernelError::Pack`] with the first value that is NaN or infinite, overflows f16, or is outside of u8's
/// range.
pub fn pack_into(values: &[f32], packing: Packing, bytes: &mut Vec<u8>) -> Result<(), KernelError> {
    let dtype = packing.dtype();
    let bounds = Bounds::from_packing(packing);

    // This loop has no early exit, so it is vectorised. The position of a bad value is searched only if there is one.
    let all_fit = values
        .iter()
        .fold(true, |all, value| all & bounds.hold(*value));
    if !all_fit {
        let index = values
            .iter()
            .position(|value| !bounds.hold(*value))
            .unwrap_or_default();
        return Err(KernelError::Pack {
            index,
            value: values[index],
            dtype,
        });
    }

    bytes.clear();
    bytes.reserve(values.len() * dtype.bytes());
    match packing {
        Packing::F16 => pack_f16(values, bytes),
        Packing::F32 => values
            .iter()
            .for_each(|value| bytes.extend_from_slice(&value.to_le_bytes())),
        Packing::U8 { low, high } => {
            // The cast truncates, so adding a half rounds. The check above keeps the result within 0 to 255.
            let per_unit = 255.0 / (high - low);
            bytes.extend(
                values
                    .iter()
                    .map(|value| ((value - low) * per_unit + 0.5) as u8),
            );
        }
    }
    Ok(())
}

/// Appends `samples` (full scale ±1) to `bytes` as 16-bit integers, rounded to the nearest step, ties to even. Samples
/// beyond full scale get the largest or the smallest integer. Allocates only if the capacity of `bytes` is too small.
pub fn pack_s16(samples: &[f32], bytes: &mut Vec<u8>) {
    // From this number on, the distance of two f32 is 1: adding it rounds, and subtracting it again is exact. Unlike
    // `round_ties_even`, this is vectorised on every processor.
    const ROUNDS: f32 = 12_582_912.0;
    let (low, high) = (f32::from(i16::MIN), f32::from(i16::MAX));

    bytes.reserve(samples.len() * size_of::<i16>());
    for sample in samples {
        // The scale is a power of two, so this product is exact.
        let steps = (sample * S16_FULL_SCALE as f32).clamp(low, high);
        let rounded = (steps + ROUNDS) - ROUNDS;
        bytes.extend_from_slice(&(rounded as i16).to_le_bytes());
    }
}

/// Exclusive lower and upper bound of the values that a stored type can represent.
pub(super) struct Bounds {
    pub(super) below: f32,
    pub(super) above: f32,
}

impl Bounds {
    pub(super) fn from_packing(packing: Packing) -> Self {
        match packing {
            Packing::F16 => Self {
                below: -F16_OVERFLOW,
                above: F16_OVERFLOW,
            },
            Packing::F32 => Self {
                below: f32::NEG_INFINITY,
                above: f32::INFINITY,
            },
            // Exclusive bounds are the next f32 below `low` and above `high`, so that `low` and `high` are allowed.
            Packing::U8 { low, high } => Self {
                below: low.next_down(),
                above: high.next_up(),
            },
        }
    }

    /// Reports whether a value is within the bounds; NaN never is.
    #[inline(always)]
    fn hold(&self, value: f32) -> bool {
        self.below < value && value < self.above
    }
}

fn pack_f16(values: &[f32], bytes: &mut Vec<u8>) {
    let mut halves = [f16::ZERO; CHUNK];
    for chunk in values.chunks(CHUNK) {
        let halves = &mut halves[..chunk.len()];
        halves.convert_from_f32_slice(chunk);
        bytes.extend(halves.iter().flat_map(|half| half.to_le_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(values: &[f32], packing: Packing) -> Result<Vec<u8>, KernelError> {
        let mut bytes = vec![9; 3];
        pack_into(values, packing, &mut bytes).map(|()| bytes)
    }

    fn halves(values: &[f32]) -> Vec<u16> {
        let bytes = packed(values, Packing::F16).unwrap();
        bytes
            .chunks_exact(2)
            .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
            .collect()
    }

    #[test]
    fn f16_rounds_to_nearest_even() {
        let ulp = 1.0 / 1024.0;
        // Half a step above 1 rounds down to even, half a step above 1 + ulp up to even; more than half a step, up.
        let values = [
            1.0 + ulp / 2.0,
            1.0 + 1.5 * ulp,
            1.0 + ulp / 2.0 + 1e-6,
            65_519.0,
            -0.0,
            2f32.powi(-25),
        ];

        assert_eq!(
            halves(&values),
            [0x3c00, 0x3c02, 0x3c01, 0x7bff, 0x8000, 0x0000]
        );
    }

    #[test]
    fn values_outside_the_type_are_errors() {
        let unit = Packing::U8 {
            low: 0.0,
            high: 1.0,
        };

        for (value, packing) in [
            (65_520.0, Packing::F16),
            (-65_520.0, Packing::F16),
            (f32::NAN, Packing::F16),
            (f32::NAN, Packing::F32),
            (f32::INFINITY, Packing::F32),
            (f32::NAN, unit),
            (1.000_001, unit),
            (-0.000_001, unit),
        ] {
            let error = packed(&[0.5, value], packing).unwrap_err();
            assert!(
                matches!(error, KernelError::Pack { index: 1, .. }),
                "{value} as {packing:?}: {error}"
            );
        }
    }

    #[test]
    fn u8_spans_its_range() {
        let decibels = Packing::U8 {
            low: -80.0,
            high: 0.0,
        };

        assert_eq!(
            packed(&[-80.0, -40.0, 0.0], decibels).unwrap(),
            [0, 128, 255]
        );

        let (step, low) = decibels.scale();
        assert!((128.0 * step + low + 40.0).abs() <= step / 2.0);
    }

    #[test]
    fn samples_become_the_nearest_of_16_bits() {
        let step = 1.0 / 32_768.0;
        let mut bytes = Vec::new();
        for value in i16::MIN..=i16::MAX {
            let exact = f32::from(value) * step;
            bytes.clear();
            // Less than half a step away in both directions, except where that is beyond full scale.
            pack_s16(
                &[exact, exact - 0.49 * step, exact + 0.49 * step],
                &mut bytes,
            );
            assert_eq!(bytes, value.to_le_bytes().repeat(3), "{value}");
        }

        let halves = [0.5 * step, 1.5 * step, -0.5 * step, -1.5 * step];
        bytes.clear();
        pack_s16(&halves, &mut bytes);
        assert_eq!(bytes, [0_i16, 2, 0, -2].map(i16::to_le_bytes).concat());
    }

    #[test]
    fn samples_beyond_full_scale_are_cut_to_it() {
        let mut bytes = Vec::new();
        pack_s16(&[1.0, 1.5, 16.0, -1.0, -1.5, -16.0], &mut bytes);
        let (low, high) = (i16::MIN, i16::MAX);
        let wanted = [high, high, high, low, low, low];
        assert_eq!(bytes, wanted.map(i16::to_le_bytes).concat());
    }

    #[test]
    fn f32_is_unchanged() {
        assert_eq!(
            packed(&[1.5, -0.0], Packing::F32).unwrap(),
            [0, 0, 192, 63, 0, 0, 0, 128]
        );
    }
}
