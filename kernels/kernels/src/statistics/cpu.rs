//! Computes the statistics of one band at a time: extremes, then moments about the mean in f64, then the median.

use wavemill_options::STATISTICS;
use wavemill_signal::{Lanes, Level};

use crate::error::KernelError;
use crate::normalize::{Extremes, extremes, sum};

/// Computes the statistics of one feature on the CPU.
pub struct StatisticsPlan {
    lanes: Lanes,
    /// Copy of one band's frames, which the search for the median reorders.
    ordered: Vec<f32>,
}

/// The statistics of one band.
struct Summary {
    kurtosis: f64,
    max: f64,
    mean: f64,
    median: f64,
    min: f64,
    skew: f64,
    std: f64,
}

impl StatisticsPlan {
    /// Creates a plan for an instruction set level.
    ///
    /// # Errors
    /// [`KernelError::Level`] if this machine does not support the level.
    pub fn for_level(level: Level) -> Result<Self, KernelError> {
        let lanes = Lanes::new(level).ok_or(KernelError::Level { level })?;
        Ok(Self::new(lanes))
    }

    pub(crate) fn new(lanes: Lanes) -> Self {
        Self {
            lanes,
            ordered: Vec::new(),
        }
    }

    /// Computes statistics, `[bands, n_frames]` → `[7, bands]`, or nothing for 0 frames. Allocates only if `out` or the
    /// internal buffer is smaller than ever needed before.
    pub fn run(&mut self, values: &[f32], n_frames: usize, out: &mut Vec<f32>) {
        out.clear();
        if n_frames == 0 {
            return;
        }

        let n_bands = values.len() / n_frames;
        out.resize(STATISTICS.len() * n_bands, 0.0);
        for (band, frames) in values.chunks_exact(n_frames).enumerate() {
            let summary = self.summary(frames);
            for (row, value) in out.chunks_exact_mut(n_bands).zip(summary.in_order()) {
                // Adding 0 turns -0 into +0: which of the two zeros a comparison finds may differ between levels.
                row[band] = (value + 0.0) as f32;
            }
        }
    }

    /// Frees the memory whose size depends on the clips.
    pub fn forget_scratch(&mut self) {
        self.ordered = Vec::new();
    }

    fn summary(&mut self, frames: &[f32]) -> Summary {
        let Extremes { min, max } = self.lanes.run(
            #[inline(always)]
            || extremes(frames),
        );
        let mut summary = Summary {
            min: f64::from(min),
            max: f64::from(max),
            mean: f64::from(min),
            median: f64::from(min),
            std: 0.0,
            skew: 0.0,
            kurtosis: 0.0,
        };
        // A constant band is recognised by its range, because its deviation may be rounding noise instead of 0.
        if max <= min {
            return summary;
        }

        self.lanes.run(
            #[inline(always)]
            || moments(frames, &mut summary),
        );
        self.ordered.clear();
        self.ordered.extend_from_slice(frames);
        summary.median = median(&mut self.ordered);
        summary
    }
}

/// Returns the middle value, or the midpoint of the two middle values if their number is even; 0 without values. Reorders
/// the values.
pub(crate) fn median(values: &mut [f32]) -> f64 {
    if values.is_empty() {
        return 0.0;
    }

    let middle = values.len() / 2;
    let is_odd = values.len() % 2 == 1;
    let (below, upper, _) = values.select_nth_unstable_by(middle, f32::total_cmp);
    let upper = f64::from(*upper);
    if is_odd {
        return upper;
    }

    let lower = below.iter().copied().max_by(f32::total_cmp);
    f64::midpoint(lower.map_or(upper, f64::from), upper)
}

impl Summary {
    /// Returns the statistics in the order of [`STATISTICS`].
    const fn in_order(&self) -> [f64; STATISTICS.len()] {
        [
            self.kurtosis,
            self.max,
            self.mean,
            self.median,
            self.min,
            self.skew,
            self.std,
        ]
    }
}

/// Computes mean, deviation, skew and kurtosis of values that are not all equal.
#[inline(always)]
fn moments(frames: &[f32], summary: &mut Summary) {
    let n = frames.len() as f64;
    let mean = sum(frames, |x| x) / n;
    // Moments about the mean need a second pass: a difference of power sums would cancel digits.
    let second = sum(frames, |x| (x - mean) * (x - mean)) / n;
    let third = sum(frames, |x| (x - mean) * (x - mean) * (x - mean)) / n;
    let fourth = sum(frames, |x| {
        let square = (x - mean) * (x - mean);
        square * square
    }) / n;

    summary.mean = mean;
    summary.std = second.sqrt();
    summary.skew = third / (second * second.sqrt());
    summary.kurtosis = fourth / (second * second) - 3.0;
}

#[cfg(test)]
mod tests {
    use super::super::reference;
    use super::*;

    /// Allowed error: rounding to a stored f32, and sums in another order.
    const REL_MAX: f64 = 1e-6;

    fn run(values: &[f32], n_frames: usize) -> Vec<Vec<f32>> {
        let levels = [Level::Scalar, Level::X86_64V3];
        let levels = levels.into_iter().filter_map(Lanes::new);

        levels
            .map(|lanes| {
                let mut plan = StatisticsPlan::new(lanes);
                // The plan must overwrite the contents of the output from an earlier clip.
                let mut out = vec![9.0; 100];
                plan.run(values, n_frames, &mut out);
                plan.run(values, n_frames, &mut out);
                out
            })
            .collect()
    }

    fn noise(n: usize) -> Vec<f32> {
        let mut state = 7u32;
        let mut values = Vec::with_capacity(n);
        for i in 0..n {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = f32::from((state >> 16) as u16) / 32_768.0 - 1.0;
            // Test values that are not symmetric, so that skew and kurtosis are far from 0.
            values.push(-40.0 + 30.0 * noise * noise * noise + (i % 5) as f32);
        }
        values
    }

    #[test]
    fn statistics_match_the_reference_at_every_level() {
        // Numbers of frames: one, even and odd ones, whole lanes, and lanes with a rest.
        for n_frames in [1, 2, 3, 8, 130, 1291, 1292] {
            let values = noise(3 * n_frames);
            let rows: Vec<Vec<f64>> = values
                .chunks_exact(n_frames)
                .map(|row| row.iter().map(|x| f64::from(*x)).collect())
                .collect();
            let want = reference::statistics(&rows);

            for got in run(&values, n_frames) {
                assert_eq!(got.len(), want.len());
                for (at, (got, want)) in got.iter().zip(&want).enumerate() {
                    let most = REL_MAX * want.abs().max(1.0);
                    let is_close = (f64::from(*got) - want).abs() <= most;
                    assert!(
                        is_close,
                        "{n_frames} frames, value {at}: {got}, reference {want}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_band_that_never_varies_has_no_spread_and_no_nan() {
        // 0.1 is not a binary fraction: its mean has a rounding error, which must not result in a deviation.
        for got in run(&[0.1; 130], 130) {
            assert_eq!(got, [0.0, 0.1, 0.1, 0.1, 0.1, 0.0, 0.0]);
        }
    }

    #[test]
    fn the_smallest_and_the_largest_spreads_are_finite() {
        for values in [
            [1e-45, 0.0, 0.0, 0.0],
            [5e30, 0.0, 0.0, 1e-30],
            [1.0, 1.0, 1.0, 1.0 + f32::EPSILON],
        ] {
            for got in run(&values, 4) {
                assert!(got.iter().all(|x| x.is_finite()), "{values:?}: {got:?}");
            }
        }
    }

    #[test]
    fn no_frames_have_no_statistics() {
        assert!(run(&[], 0).iter().all(Vec::is_empty));
    }
}
