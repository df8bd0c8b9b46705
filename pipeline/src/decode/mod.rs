//! Compressed bytes → mono PCM at the wanted rate, or a reject. The one narrow door that another decoder can replace.

use wavemill_schemas::reject::Reject;

/// What decoding is asked for; part of every feature's identity.
#[derive(Clone, Debug, PartialEq)]
pub struct DecodeArgs {
    /// Rate of the output, Hz.
    pub sample_rate_hz: u32,
    /// Stop after this many seconds of output; `None`: all there is.
    pub duration_s: Option<f64>,
    /// Less than this decoded is a reject.
    pub min_duration_s: f64,
}

/// A decoded clip. Reused from clip to clip: its buffers keep their capacity.
#[derive(Debug, Default)]
pub struct Pcm {
    /// Mono, `sample_rate_hz`, full scale ±1.
    pub samples: Vec<f32>,
    /// Seconds decoded, before any padding: `samples.len() / sample_rate_hz`.
    pub duration_s: f32,
    /// Seconds of audio lost to damage; frames before the first complete bit reservoir do not count.
    pub lost_s: f32,
    /// Every sample is exactly zero.
    pub silent: bool,
    /// blake3 over all audio frames of the file, lower-case hex.
    pub audio_blake3: String,
}

/// One per worker: holds parser state, scratch buffers and the resampler plans.
pub trait Decode: Send {
    /// Decodes a whole file. `extension` is a hint only (`mp3`, `wav`, …, may be empty).
    ///
    /// # Errors
    /// A [`Reject`] (its clip fields empty: the caller knows the clip).
    fn decode(&mut self, extension: &str, bytes: &[u8], out: &mut Pcm) -> Result<(), Reject>;
}
