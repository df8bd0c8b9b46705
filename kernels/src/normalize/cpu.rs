//! Two passes: find the range or the moments, then scale.

use wavemill_options::Normalize;

use crate::lane::LANES;
use crate::level::Lanes;

/// Scales `values` in place.
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

/// Smallest and largest of some values; ∞ and -∞ of none.
pub(crate) struct Extremes {
    pub(crate) min: f32,
    pub(crate) max: f32,
}

#[inline(always)]
pub(crate) fn extremes(values: &[f32]) -> Extremes {
    let mut low = [f32::INFINITY; LANES];
    let mut high = [f32::NEG_INFINITY; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();

    for chunk in chunks {
        for lane in 0..LANES {
            // `f32::min` and `f32::max` take more instructions, because they give a NaN special treatment.
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

/// `Σ f(x)` in f64, over lanes in a fixed order.
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
