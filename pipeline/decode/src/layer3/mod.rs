//! MPEG audio layer III: decodes the bits of a frame to samples (ISO/IEC 11172-3, ISO/IEC 13818-3, and MPEG-2.5).
//!
//! Each step has its file or folder. In the order of decoding these are: side info, scale factors, Huffman codes
//! with requantisation, stereo, reordering, antialiasing, IMDCT, synthesis. Everything for which the standard gives a
//! formula is computed from it. The only tables of data are the bands, the code words and the synthesis window.
//!
//! This module does not read files. The caller finds the frames and passes in a header, side info, and main data,
//! including those of its bytes that are stored in earlier frames. The bits may be arbitrary: a frame either decodes to
//! finite samples or is a [`FrameError`].

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

/// Number of spectral lines of a granule.
const LINES: usize = 576;
/// Number of sub-bands of the synthesis filter.
const SUB_BANDS: usize = 32;
/// Number of spectral lines of a sub-band, which is also the number of its samples in a granule.
const SUB_BAND_LINES: usize = LINES / SUB_BANDS;
/// Number of time slots in a frame of two granules. A slot has one sample of each sub-band.
const FRAME_SLOTS: usize = 2 * SUB_BAND_LINES;
/// Maximum number of channels of a frame.
const MAX_CHANNELS: usize = 2;

/// Number of samples of a granule per channel.
pub const GRANULE_SAMPLES: usize = LINES;
/// Number of samples of a frame of two granules per channel.
pub const FRAME_SAMPLES: usize = 2 * GRANULE_SAMPLES;

/// Samples of all sub-bands in a granule, by time slot, then by sub-band.
type SubBandSamples = [[f32; SUB_BANDS]; SUB_BAND_LINES];

/// The reason why a layer III frame cannot be decoded: its bits are damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A granule has more big values than spectral lines.
    #[error("more big values than lines")]
    BigValues,
    /// A granule uses window switching, but selects the normal long window.
    #[error("windows switched to none")]
    BlockType,
    /// The scale factors of a granule are longer than the granule, which also includes Huffman codes.
    #[error("scale factors longer than their granule")]
    ScaleFactors,
    /// The Huffman codes extend beyond the end of the main data.
    #[error("codes beyond the end of the main data")]
    MainData,
}
