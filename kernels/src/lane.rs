//! Frames side by side: what the steps of the fast path hand to each other.

/// Frames that are computed side by side.
pub(crate) const LANES: usize = 8;

/// One value of [`LANES`] consecutive frames.
pub(crate) type Lane = [f32; LANES];
