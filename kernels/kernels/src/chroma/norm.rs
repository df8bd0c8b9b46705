//! Divides each frame by its norm: `librosa.util.normalize` along the bands.

/// Norm of a frame's values, which are not negative.
#[derive(Clone, Copy)]
pub(super) enum Norm {
    /// The largest value.
    Max,
    /// The sum of the values.
    Sum,
    /// The root of the sum of the squares.
    Euclidean,
}

/// Divides each frame of `[n_bands, n_frames]` by its norm. `norms` has a place for each frame.
#[inline(always)]
pub(super) fn normalize_frames(values: &mut [f32], norms: &mut [f32], norm: Norm) {
    let n_frames = norms.len();
    norms.fill(0.0);
    for row in values.chunks_exact(n_frames) {
        for (norm_of_frame, value) in norms.iter_mut().zip(row) {
            *norm_of_frame = match norm {
                Norm::Max => norm_of_frame.max(*value),
                Norm::Sum => *norm_of_frame + value,
                Norm::Euclidean => *norm_of_frame + value * value,
            };
        }
    }

    for norm_of_frame in norms.iter_mut() {
        if matches!(norm, Norm::Euclidean) {
            *norm_of_frame = norm_of_frame.sqrt();
        }
        // As in librosa, frames below the smallest normal number are not scaled.
        if *norm_of_frame < f32::MIN_POSITIVE {
            *norm_of_frame = 1.0;
        }
    }
    for row in values.chunks_exact_mut(n_frames) {
        for (value, norm_of_frame) in row.iter_mut().zip(&*norms) {
            *value /= norm_of_frame;
        }
    }
}
