//! Tonal centroids: sums of pitch classes as points on the circles of fifths, minor thirds and major thirds.
//!
//! Shape: `[n_chroma, n_frames]` → `[6, n_frames]`. Source: `librosa.feature.tonnetz`, version 0.11, after Harte, Sandler
//! and Gasser (2006).

use std::f64::consts::PI;

use super::norm::{Norm, normalize_frames};

/// Number of coordinates: two for each circle.
const N_CENTROIDS: usize = 6;
/// Turns of each circle per octave, in halves of a turn per semitone, and its radius.
const CIRCLES: [(f64, f64); 3] = [(7.0 / 6.0, 1.0), (3.0 / 2.0, 1.0), (2.0 / 3.0, 0.5)];

/// Returns the coordinates of each pitch class, `[6][n_chroma]`.
fn coordinates(n_chroma: usize) -> [Vec<f64>; N_CENTROIDS] {
    std::array::from_fn(|centroid| {
        let (turns, radius) = CIRCLES[centroid / 2];
        // The first coordinate of a circle is a sine, and the second a cosine.
        let shift = if centroid % 2 == 0 { 0.5 } else { 0.0 };
        let semitones = |class: usize| 12.0 * class as f64 / n_chroma as f64;
        (0..n_chroma)
            .map(|class| radius * libm::cos(PI * (turns * semitones(class) - shift)))
            .collect()
    })
}

/// Coordinates of each pitch class, `[6][n_chroma]`.
pub(super) struct TonnetzPlan {
    coordinates: [Vec<f32>; N_CENTROIDS],
}

impl TonnetzPlan {
    pub(super) fn new(n_chroma: usize) -> Self {
        Self {
            coordinates: coordinates(n_chroma).map(|row| row.iter().map(|x| *x as f32).collect()),
        }
    }

    /// Computes the centroids of frames, and divides `chroma` by the sum of each frame. `norms` has a place for each frame.
    #[inline(always)]
    pub(super) fn run(&self, chroma: &mut [f32], norms: &mut [f32], out: &mut [f32]) {
        normalize_frames(chroma, norms, Norm::Sum);
        let n_frames = norms.len();
        out.fill(0.0);
        for (out, coordinates) in out.chunks_exact_mut(n_frames).zip(&self.coordinates) {
            for (class, coordinate) in chroma.chunks_exact(n_frames).zip(coordinates) {
                for (sum, value) in out.iter_mut().zip(class) {
                    *sum += coordinate * value;
                }
            }
        }
    }
}
