//! Decodes compressed audio to mono PCM at the requested rate, or returns a reject. The [`Decode`] trait is the only
//! interface to the rest of the crate, so that another decoder can replace this one.

#[cfg(fuzzing)]
pub mod fuzzing;
pub mod layer3;
pub mod pictures;

mod adts;
mod channels;
mod codec;
mod decoder;
mod flac;
mod format;
mod formats;
mod hash;
mod key;
mod length;
mod loss;
mod mp3;
mod mp4;
mod ogg;
mod opus;
mod output;
mod packets;
#[cfg(test)]
mod stretch_tests;
mod tags;
#[cfg_attr(fuzzing, allow(dead_code))]
#[cfg(any(test, fuzzing))]
mod testing;
mod wav;

pub use channels::{Channels, ClipFacts};
pub use decoder::FileDecoder;
pub use hash::InputFacts;
pub use length::longest_s;
use wavemill_schemas::reject::{Reason, Reject, Stage};
use wavemill_signal::SampleBuffer;

/// Names and versions of the libraries that decode all formats except MP3. They are part of the engine and of every
/// feature's identity. Changes to wavemill's own MP3 decoder are covered by [`wavemill_schemas::NUMERICS_REVISION`].
pub const NAME: &str = "symphonia 0.6.1, ropus 0.12.18";

/// Size of the largest accepted audio file in bytes: half a gigabyte is hours of audio in any supported format.
pub const FILE_BYTES_MAX: usize = wavemill_schemas::recipe::FILE_BYTES_MAX as usize;
/// Default limit on the duration of a clip's output, in seconds: 3 hours, which take 1.1 GB at 24 kHz. Audio after a
/// requested duration does not count.
pub const OUTPUT_S_MAX: f64 = 3.0 * 3600.0;
/// Maximum number of channels in an audio file: 7.1 surround. AAC may have two.
pub const CHANNELS_MAX: usize = 8;

/// Arguments of audio decoding. They are part of every feature's identity.
#[derive(Clone, Debug, PartialEq)]
pub struct DecodeArgs {
    /// Sample rate of the decoded output, Hz.
    pub sample_rate_hz: u32,
    /// Duration after which the decoded output is cut, in seconds; `None` decodes the whole file.
    pub duration_s: Option<f64>,
    /// Minimum duration of decoded audio in seconds. Shorter clips are rejected.
    pub min_duration_s: f64,
    /// Keeps the samples at the file's sample rate, for a GPU that resamples them, unless the file has several rates.
    /// Everything else is unchanged.
    pub keep_rate: bool,
}

/// A decoded audio clip. The same object is used for the next clip, so that its buffers keep their capacity.
#[derive(Debug, Default)]
pub struct Pcm {
    /// Mono samples, full scale ±1; always finite.
    pub samples: SampleBuffer,
    /// Sample rate of `samples`, Hz: the requested rate, or the file's with [`DecodeArgs::keep_rate`] if devices convert
    /// it (`MAX_DEVICE_HZ`). In the latter case `samples` also contains the input that the resampling filter needs after
    /// the end of the clip.
    pub rate_hz: u32,
    /// Number of samples of the clip at the requested rate.
    pub n_samples: usize,
    /// Decoded duration of the clip in seconds, before any padding: `n_samples` at the requested rate.
    pub duration_s: f32,
    /// Seconds of audio lost to damage. Frames before the first complete bit reservoir do not count.
    pub lost_s: f32,
    /// blake3 over all audio frames of the file, in lower-case hex.
    pub audio_blake3: String,
    /// Hash over everything in the file that affects decoding, equal to the one from [`InputFacts::read`]. Files with equal
    /// keys decode to equal samples, `lost_s` and `audio_blake3`, or to rejects that differ at most in their offsets.
    /// Every call of [`Decode::decode`] sets it, even if it returns a reject; `None` if the file contains no audio.
    pub decode_key: Option<blake3::Hash>,
}

impl Pcm {
    /// Creates an empty clip whose samples are decoded to `samples`, such as a backend's memory.
    pub fn with_samples(samples: SampleBuffer) -> Self {
        Self {
            samples,
            ..Self::default()
        }
    }
}

/// A decoder of audio files. Each worker has its own, which keeps parser state, buffers and resampler plans.
pub trait Decode: Send {
    /// Decodes a whole audio file into `out`. `extension` is only a hint (`mp3`, `wav`, …; may be empty).
    ///
    /// # Errors
    /// A [`Reject`] if the file is not decoded. Its clip fields are empty; the caller fills them in.
    fn decode(&mut self, extension: &str, bytes: &[u8], out: &mut Pcm) -> Result<(), Reject>;

    /// Decodes a whole file without keeping its samples and returns the duration in seconds that [`Decode::decode`]
    /// would produce. `out` is used as scratch memory.
    ///
    /// # Errors
    /// Same as [`Decode::decode`].
    fn measure(&mut self, extension: &str, bytes: &[u8], out: &mut Pcm) -> Result<f64, Reject>;

    /// Sets an upper bound on the duration of the next file, in seconds. The bound determines how much memory is
    /// allocated at once and affects no sample.
    fn expect(&mut self, longest_s: f64);
}

/// Results that the decoder of a format returns in addition to the samples.
struct DecodeReport {
    loss: loss::Loss,
    audio_blake3: blake3::Hash,
}

/// Outcome of decoding a file by its format.
type DecodeResult = Result<DecodeReport, Reject>;

/// Checks the number of channels in a header.
fn check_channels(n_channels: usize, most: usize) -> Result<(), Reject> {
    if n_channels > most {
        let detail = format!("{n_channels} channels, at most {most}");
        return Err(reject(Reason::TooLarge, detail));
    }
    Ok(())
}

fn reject(reason: Reason, detail: impl Into<String>) -> Reject {
    Reject::new(Stage::Decode, reason, detail)
}
