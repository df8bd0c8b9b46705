//! MPEG audio layer III: from the bits of a frame to its samples (ISO/IEC 11172-3, ISO/IEC 13818-3, and MPEG-2.5).
//!
//! A file or folder for each step, in the order of the standard: side info, scale factors, Huffman codes with
//! requantisation, stereo, reordering, antialiasing, IMDCT, synthesis. Everything that the standard gives a formula for is
//! computed from that. What it gives as data are bands, code words and the synthesis window.
//!
//! It knows no files. Who finds the frames hands over a header, side info, and main data with the bytes that lie in frames
//! before. Any bits may come: a frame decodes to finite samples or is a [`FrameError`].

mod antialias;
mod bands;
mod bits;
#[cfg(test)]
mod black_box;
mod dct32;
mod decoder;
mod granules;
mod header;
mod huffman;
mod hybrid;
mod imdct;
mod mono;
#[cfg(test)]
mod reference;
mod reorder;
mod requantize;
mod scale_factors;
mod side_info;
mod stereo;
mod synthesis;
#[cfg(test)]
mod tests;
mod wide;
mod window;

pub use decoder::{FrameDecoder, MainData};
pub use header::{FrameHeader, Mode, Version};
pub use mono::{Band, MonoDecoder};
pub use side_info::SideInfo;

/// Spectral lines of a granule.
const LINES: usize = 576;
/// Sub-bands of the synthesis filter.
const SUB_BANDS: usize = 32;
/// Lines of a sub-band, and its samples in a granule.
const SUB_BAND_LINES: usize = LINES / SUB_BANDS;
/// Slots of time in a frame of two granules: a sample of each sub-band.
const FRAME_SLOTS: usize = 2 * SUB_BAND_LINES;
/// Most channels of a frame.
const MAX_CHANNELS: usize = 2;

/// Samples of a granule, each channel.
pub const GRANULE_SAMPLES: usize = LINES;
/// Samples of a frame of two granules, each channel.
pub const FRAME_SAMPLES: usize = 2 * GRANULE_SAMPLES;

/// Samples of a granule's sub-bands, by slot.
type SubBandSamples = [[f32; SUB_BANDS]; SUB_BAND_LINES];

/// Why a frame cannot be decoded: its bits are damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// More big values than a granule has lines.
    #[error("more big values than lines")]
    BigValues,
    /// Windows that are switched to the shape that they have anyway.
    #[error("windows switched to none")]
    BlockType,
    /// Two channels that are coded together and have different bands.
    #[error("joint stereo of unequal bands")]
    UnequalBlocks,
    /// Scale factors longer than they and the codes together.
    #[error("scale factors longer than their granule")]
    ScaleFactors,
    /// Codes behind the end of the main data.
    #[error("codes behind the end of the main data")]
    MainData,
}
