//! How far a track can be stretched in time.

/// Smallest factor: a quarter of the tempo, four times as long.
pub const STRETCH_MIN: f64 = 0.25;
/// Largest factor: four times the tempo.
pub const STRETCH_MAX: f64 = 4.0;
/// Most factors of one recipe: each makes another row of every training row.
pub const STRETCHES_MAX: usize = 8;
