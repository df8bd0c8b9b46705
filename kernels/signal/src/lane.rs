//! Groups of frames that are computed in parallel: the data passed between the steps of the fast path.

/// Number of frames that are computed in parallel.
pub const LANES: usize = 8;

/// A value of [`LANES`] consecutive frames, for example of one bin or band.
pub type Lane = [f32; LANES];
