//! The rows of a batch, as kernels see them.

use super::{Address, plain};

plain! {
    /// One clip, or one segment of it; `Row` in device.cuh.
    struct RowEntry {
        /// Its first sample in the mono buffer.
        pcm: i64,
        /// Frames before it in the batch.
        frame: i64,
        /// Samples that are there.
        n_pcm: i32,
        /// Length with the zeros that follow them.
        n_signal: i32,
        /// Frames that are computed.
        n_frames: i32,
        /// Frames that are stored.
        n_kept: i32,
    }
}

/// A table of [`RowEntry`]s on a device, and what decides how many blocks its rows need.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowTable {
    /// Where the entries lie.
    pub(crate) address: Address,
    /// Their number.
    pub(crate) n_rows: usize,
    /// Largest `n_pcm`.
    pub(crate) n_pcm_max: usize,
    /// Largest `n_frames`.
    pub(crate) n_frames_max: usize,
}

/// What a grid's second dimension holds at most.
const BLOCKS_MAX: usize = 65_535;

/// Blocks for `n` items of which each block takes `each` at a time; kernels go round where there are not enough.
pub(crate) fn blocks(n: usize, each: usize) -> u32 {
    n.div_ceil(each).min(BLOCKS_MAX) as u32
}
