//! The row tables of a batch, as kernels read them.

use super::{Address, plain};

plain! {
    /// One clip, or one segment of it; `Row` in device.cuh.
    struct RowEntry {
        /// Index of the first sample in the mono buffer.
        pcm: i64,
        /// Number of frames before the row in the batch.
        frame: i64,
        /// Samples that exist.
        n_pcm: i32,
        /// Length including the zeros that follow.
        n_signal: i32,
        /// Computed frames.
        n_frames: i32,
        /// Stored frames.
        n_kept: i32,
    }
}

/// A table of [`RowEntry`]s on a device, and the sizes that determine the number of blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowTable {
    /// Address of the entries.
    pub(crate) address: Address,
    /// Number of entries.
    pub(crate) n_rows: usize,
    /// Largest `n_pcm` of all rows.
    pub(crate) n_pcm_max: usize,
    /// Largest `n_frames` of all rows.
    pub(crate) n_frames_max: usize,
}

/// Maximum size of a grid's second dimension.
const BLOCKS_MAX: usize = 65_535;

/// Returns the number of blocks for `n` items if each block processes `each` at a time; kernels loop if the number is
/// limited.
pub(crate) fn blocks(n: usize, each: usize) -> u32 {
    n.div_ceil(each).min(BLOCKS_MAX) as u32
}
