//! Two passes: find the range or the moments, then scale.

use super::Normalize;
use crate::level::Lanes;
use crate::stft::LANES;

/// Scales `values` in place.
pub(crate) fn normalize(values: &mut [f32], how: Normalize, lanes: Lanes) {
    if how == Normalize::None {
        return;
    }
    let (min, max) = lanes.run(
        #[inline(always)]
        || range(values),
    );
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
                values.iter_mut().for_each(|x| *x = ((f64::from(*x) - mean) / deviation) as f32);
            }
        },
    );
}

/// Smallest and largest value; (∞, -∞) of none.
#[inline(always)]
pub(crate) fn range(values: &[f32]) -> (f32, f32) {
    let mut low = [f32::INFINITY; LANES];
    let mut high = [f32::NEG_INFINITY; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..LANES {
            low[lane] = if chunk[lane] < low[lane] { chunk[lane] } else { low[lane] };
            high[lane] = if chunk[lane] > high[lane] { chunk[lane] } else { high[lane] };
        }
    }
    let low = low.iter().chain(rest).fold(f32::INFINITY, |a, b| a.min(*b));
    let high = high.iter().chain(rest).fold(f32::NEG_INFINITY, |a, b| a.max(*b));
    (low, high)
}

/// `Σ f(x)` in f64, over lanes in a fixed order.
#[inline(always)]
fn sum(values: &[f32], f: impl Fn(f64) -> f64) -> f64 {
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
