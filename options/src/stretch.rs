//! Limits of time stretching.

/// Minimum tempo factor: a quarter of the tempo, so the result is four times as long.
pub const STRETCH_MIN: f64 = 0.25;
/// Maximum tempo factor: four times the tempo.
pub const STRETCH_MAX: f64 = 4.0;
/// Maximum number of tempo factors in a recipe. Each factor adds a row for every training row.
pub const STRETCHES_MAX: usize = 8;
