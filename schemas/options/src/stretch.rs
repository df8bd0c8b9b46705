//! Time stretching: its limits, and the lengths of its results.

/// Minimum tempo factor: a quarter of the tempo, so the result is four times as long.
pub const STRETCH_MIN: f64 = 0.25;
/// Maximum tempo factor: four times the tempo.
pub const STRETCH_MAX: f64 = 4.0;
/// Maximum number of tempo factors in a recipe. Each factor adds a row for every training row.
pub const STRETCHES_MAX: usize = 8;

/// Change of a track's tempo.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StretchArgs {
    /// Factor by which the tempo changes. Above 1: faster and shorter; below 1: slower and longer.
    pub rate: f64,
}

impl StretchArgs {
    /// Returns the number of output samples for `n` input samples: `n / rate` rounded, halves to even, like Python's
    /// `round`.
    pub fn output_len(self, n: usize) -> usize {
        (n as f64 / self.rate).round_ties_even() as usize
    }

    /// Returns the number of output columns for `n` input columns: one for each of 0, `rate`, 2 `rate` … below `n`.
    pub fn n_steps(self, n: usize) -> usize {
        (n as f64 / self.rate).ceil() as usize
    }
}
