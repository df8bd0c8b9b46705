//! Normalizes values in two passes: finds the range or the moments, then scales.

use wavemill_options::Normalize;
use wavemill_signal::{LANES, Lanes};

/// Normalizes `values` in place.
pub(crate) fn normalize(values: &mut [f32], how: Normalize, lanes: Lanes) {
    if how == Normalize::None {
        return;
    }

    let Extremes { min, max } = lanes.run(
        #[inline(always)]
        || extremes(values),
    );
    // A constant row is recognised by its range, because its deviation may be rounding noise instead of 0.
    if max <= min {
        return values.fill(0.0);
    }

    lanes.run(
        #[inline(always)]
        || match how {
            Normalize::None => {}
            Normalize::MinMax => {
                let span = max - min;
                values.iter_mut().for_each(|x| *x = (*x - min) / span);
            }
            Normalize::MeanVar => {
                let n = values.len() as f64;
                let mean = sum(values, |x| x) / n;
                let deviation = (sum(values, |x| (x - mean) * (x - mean)) / n).sqrt();
                values
                    .iter_mut()
                    .for_each(|x| *x = ((f64::from(*x) - mean) / deviation) as f32);
            }
        },
    );
}

/// The smallest and the largest of some values, or ∞ and -∞ if there are none.
pub(crate) struct Extremes {
    pub(crate) min: f32,
    pub(crate) max: f32,
}

/// Values that are compared at once. A single vector of them would wait for its own last comparison, and the compiler
/// makes that ten times slower still.
const COMPARED: usize = 4 * LANES;

#[inline(always)]
pub(crate) fn extremes(values: &[f32]) -> Extremes {
    let mut low = [f32::INFINITY; COMPARED];
    let mut high = [f32::NEG_INFINITY; COMPARED];
    let chunks = values.chunks_exact(COMPARED);
    let rest = chunks.remainder();

    for chunk in chunks {
        for lane in 0..COMPARED {
            // `f32::min` and `f32::max` take more instructions, because they treat NaN specially.
            low[lane] = if chunk[lane] < low[lane] {
                chunk[lane]
            } else {
                low[lane]
            };
            high[lane] = if chunk[lane] > high[lane] {
                chunk[lane]
            } else {
                high[lane]
            };
        }
    }

    // Only the lanes and a short rest are left, so the speed of `min` and `max` does not matter here.
    let min = low.iter().chain(rest).fold(f32::INFINITY, |a, b| a.min(*b));
    let max = high
        .iter()
        .chain(rest)
        .fold(f32::NEG_INFINITY, |a, b| a.max(*b));
    Extremes { min, max }
}

/// Returns `Σ f(x)` in f64, summed over lanes in a fixed order.
#[inline(always)]
pub(crate) fn sum(values: &[f32], f: impl Fn(f64) -> f64) -> f64 {
    let mut sums = [0.0f64; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest: f64 = chunks.remainder().iter().map(|x| f(f64::from(*x))).sum();
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += f(f64::from(*x));
        }
    }
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_are_found_wherever_they_lie() {
        for n in [1, 7, 8, 31, 32, 33, 70] {
            for at in 0..n {
                let mut values = vec![0.5f32; n];
                values[at] = -3.0;
                values[(at + 1) % n] = 4.0;

                let Extremes { min, max } = extremes(&values);
                let low = if n == 1 { 4.0 } else { -3.0 };
                assert_eq!((min, max), (low, 4.0), "{n} values, from {at} on");
            }
        }

        let Extremes { min, max } = extremes(&[]);
        assert_eq!((min, max), (f32::INFINITY, f32::NEG_INFINITY));
    }
}
