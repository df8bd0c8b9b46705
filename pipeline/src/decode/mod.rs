//! Compressed bytes → mono PCM at the wanted rate, or a reject. The one narrow door that another decoder can replace.

mod channels;
mod codec;
mod decoder;
mod flac;
mod hash;
mod key;
mod length;
mod loss;
mod mp3;
mod ogg;
mod output;
mod sniff;
mod wav;

use wavemill_kernels::{Backend, SampleBuffer};
use wavemill_schemas::reject::{Reason, Reject, Stage};

pub use channels::Channels;
pub use decoder::FileDecoder;
pub use hash::{InputFacts, InputHasher};
pub use length::longest_s;

/// Name and version of the library that decodes all formats but MP3; part of the engine and of every feature's identity.
/// Our own decoder of MP3 is part of it by [`wavemill_schemas::NUMERICS_REVISION`].
pub const NAME: &str = "symphonia 0.6.1";

/// Largest file, bytes: half a gigabyte is hours of any format here.
pub const FILE_BYTES_MAX: usize = crate::source::CLIP_BYTES_MAX as usize;
/// Longest output, seconds, unless a decoder is told otherwise: 3 hours, 1.1 GB at 24 kHz. What lies behind a wanted
/// duration does not count.
pub const OUTPUT_S_MAX: f64 = 3.0 * 3600.0;
/// Most channels that a file may announce: mono or stereo.
pub const CHANNELS_MAX: usize = 2;

/// Bytes that a decoder holds for its own use beside a file and its samples: pieces of FLAC in Ogg.
pub const HELD_BYTES_MAX: usize = flac::HELD_BYTES_MAX;

/// What decoding is asked for; part of every feature's identity.
#[derive(Clone, Debug, PartialEq)]
pub struct DecodeArgs {
    /// Rate of the output, Hz.
    pub sample_rate_hz: u32,
    /// Stop after this many seconds of output; `None`: all there is.
    pub duration_s: Option<f64>,
    /// Less than this decoded is a reject.
    pub min_duration_s: f64,
    /// Samples stay at the file's rate, for a device that converts them; all else is as ever.
    pub keep_rate: bool,
}

/// A decoded clip. Reused from clip to clip: its buffers keep their capacity.
#[derive(Debug, Default)]
pub struct Pcm {
    /// Mono, full scale ±1; always finite.
    pub samples: SampleBuffer,
    /// Their rate, Hz: the wanted one, or the file's where that was to be kept. Then the filter's reach follows.
    pub rate_hz: u32,
    /// Samples at the wanted rate.
    pub n_samples: usize,
    /// Seconds decoded, before any padding: `n_samples` at the wanted rate.
    pub duration_s: f32,
    /// Seconds of audio lost to damage; frames before the first complete bit reservoir do not count.
    pub lost_s: f32,
    /// blake3 over all audio frames of the file, lower-case hex.
    pub audio_blake3: String,
    /// A hash over everything that decoding reads of the file, as [`InputHasher`] gives it: files of equal keys give
    /// equal samples, `lost_s` and `audio_blake3`, or equal rejects but for their offsets. It is set by every
    /// [`Decode::decode`], also by one that ends in a reject; `None` for a file in which no audio is found.
    pub decode_key: Option<blake3::Hash>,
}

impl Pcm {
    /// An empty one, in memory from which `backend` takes samples without a copy.
    pub fn of(backend: &dyn Backend) -> Self {
        Self {
            samples: backend.sample_buffer(),
            ..Self::default()
        }
    }
}

/// One per worker: holds parser state, scratch buffers and the resampler plans.
pub trait Decode: Send {
    /// Decodes a whole file. `extension` is a hint only (`mp3`, `wav`, …, may be empty).
    ///
    /// # Errors
    /// A [`Reject`] (its clip fields empty: the caller knows the clip).
    fn decode(&mut self, extension: &str, bytes: &[u8], out: &mut Pcm) -> Result<(), Reject>;

    /// Decodes a whole file and keeps nothing: how many seconds [`Decode::decode`] would give. `out` is for its use.
    ///
    /// # Errors
    /// As [`Decode::decode`].
    fn measure(&mut self, extension: &str, bytes: &[u8], out: &mut Pcm) -> Result<f64, Reject>;

    /// Of the next file, more seconds than this cannot come. It decides how much memory is asked for at once, and no
    /// sample.
    fn expect(&mut self, longest_s: f64);
}

/// What a format's decoder reports beside the samples.
struct DecodeReport {
    loss: loss::Loss,
    audio_blake3: blake3::Hash,
}

fn reject(reason: Reason, detail: impl Into<String>) -> Reject {
    Reject::new(Stage::Decode, reason, detail)
}
