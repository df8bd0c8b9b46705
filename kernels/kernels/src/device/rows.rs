//! The row tables of a batch, as kernels read them.

use super::{Address, plain};

plain! {
    /// Table entry of a row, which is a clip or a segment of it; `Row` in device.cuh.
    struct RowEntry {
        /// Index of the row's first sample in the mono buffer.
        pcm: i64,
        /// Number of frames of all rows before this row in the batch.
        frame: i64,
        /// Number of samples of the clip within the row.
        n_pcm: i32,
        /// Length of the row in samples, including the zeros that follow the clip's samples.
        n_signal: i32,
        /// Number of computed frames.
        n_frames: i32,
        /// Number of stored frames.
        n_kept: i32,
    }
}

/// A table of [`RowEntry`]s on a device, and the largest sizes, which determine the number of blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowTable {
    /// Device address of the entries.
    pub(crate) address: Address,
    /// Number of rows in the table.
    pub(crate) n_rows: usize,
    /// Largest `n_pcm` of all rows.
    pub(crate) n_pcm_max: usize,
    /// Largest `n_frames` of all rows.
    pub(crate) n_frames_max: usize,
}

/// CUDA's maximum size of a grid's second dimension, in blocks.
const BLOCKS_MAX: usize = 65_535;

/// Returns the number of blocks for `n` items if each block processes `each` items at a time. If the maximum is too
/// small, kernels process the remaining items in a loop.
pub(crate) fn blocks(n: usize, each: usize) -> u32 {
    n.div_ceil(each).min(BLOCKS_MAX) as u32
}
