//! Groups of frames that are computed in parallel: the data passed between the steps of the fast path.

/// Number of frames that are computed in parallel.
pub const LANES: usize = 8;

/// One value of [`LANES`] consecutive frames.
pub type Lane = [f32; LANES];
