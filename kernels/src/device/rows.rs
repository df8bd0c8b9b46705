//! The rows of a batch, as kernels see them.

use super::plain;

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
