//! Clips on their way to a device: staged in one piece, sent once, converted there to mono at the features' rate.

use super::Span;
use super::feature::count;
use crate::backend::{Clip, Samples, downmix};
use crate::device::{Address, Device, Grown, Table, bytes_of};
use crate::error::KernelError;
use crate::level::Level;
use crate::resample::{Levels, ResampleArgs, ResampleDevice, Resampler, SourceClip};

/// Samples of a clip begin at multiples of this in the staged bytes: whatever their type, they are aligned.
const CLIP_ALIGN: usize = 16;

/// Staging memory, and what is known of the clips at hand.
pub(super) struct ClipLoader<D: Device> {
    sample_rate_hz: u32,
    staged: Table<D>,
    sources: Vec<SourceClip>,
    resample: ResampleDevice<D>,
    mono: Grown<D>,
    levels: Levels<D>,
    spans: Vec<Span>,
    /// The clip of each row.
    owners: Vec<usize>,
    /// Conversions whose tables would be too large for a device, one a source rate.
    resamplers: Vec<(u32, Resampler)>,
    /// Such a clip before and after.
    scratch: (Vec<f32>, Vec<f32>),
}
