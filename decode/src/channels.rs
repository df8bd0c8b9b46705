//! Decodes audio to separate channels at the file's sample rate. Feature extraction does not use this: it needs only the
//! mean of the channels, which is decoded faster.

use wavemill_kernels::Level;
use wavemill_schemas::reject::Reject;

use super::{Decode, DecodeArgs, FileDecoder, Pcm};

/// The channels of a clip as they enter the downmix: trimmed, and with silence in place of lost audio.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Channels {
    /// Sample rate of the file, Hz.
    pub rate_hz: u32,
    /// Whether any part of the clip has two channels.
    pub is_stereo: bool,
    /// Samples of left and right, full scale ±1. Both are equal where the file is mono.
    pub samples: Vec<[f32; 2]>,
    /// Seconds of audio lost to damage.
    pub lost_s: f32,
}

/// Properties of a clip that are known after decoding it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClipFacts {
    /// Sample rate of the file, Hz.
    pub rate_hz: u32,
    /// Number of channels: 1, or 2 if any part of the clip is stereo.
    pub n_channels: usize,
    /// Decoded duration, in seconds.
    pub duration_s: f64,
    /// Seconds of audio lost to damage, which are part of the duration.
    pub lost_s: f32,
}

impl Channels {
    /// Decodes a file without mixing its channels, at least up to `end_s` seconds: a packet that begins before the end
    /// is complete. `None` decodes the whole file.
    ///
    /// # Errors
    /// A [`Reject`] as for any clip, except that no clip is too short.
    pub fn decode(bytes: &[u8], end_s: Option<f64>) -> Result<Self, Reject> {
        let mut decoder = decoder(end_s);
        let mut pcm = Pcm::default();
        decoder.decode("", bytes, &mut pcm)?;

        let mut channels = decoder.output.channels.take().unwrap_or_default();
        channels.lost_s = pcm.lost_s;
        Ok(channels)
    }

    /// Decodes a whole file without keeping its samples.
    ///
    /// # Errors
    /// Same as [`Self::decode`].
    pub fn inspect(bytes: &[u8]) -> Result<ClipFacts, Reject> {
        let mut decoder = decoder(None);
        let mut pcm = Pcm::default();
        let duration_s = decoder.measure("", bytes, &mut pcm)?;

        let channels = decoder.output.channels.take().unwrap_or_default();
        Ok(ClipFacts {
            rate_hz: channels.rate_hz,
            n_channels: if channels.is_stereo { 2 } else { 1 },
            duration_s,
            lost_s: pcm.lost_s,
        })
    }

    /// Adds one packet, or silence of the same length; `left` and `right` have equal lengths.
    pub(super) fn push(&mut self, left: &[f32], right: Option<&[f32]>, is_audio: bool) {
        let pairs = left.iter().zip(right.unwrap_or(left));
        self.samples
            .extend(pairs.map(|(&left, &right)| if is_audio { [left, right] } else { [0.0; 2] }));
    }
}

/// Returns a decoder that keeps the channels of a file up to `end_s` seconds.
fn decoder(end_s: Option<f64>) -> FileDecoder {
    let args = DecodeArgs {
        // The mean of the channels keeps the file's rate and is discarded, so any sample rate would do.
        sample_rate_hz: 44_100,
        duration_s: end_s,
        min_duration_s: 0.0,
        keep_rate: true,
    };
    let mut decoder = FileDecoder::new(args, Level::detect())
        .expect("44.1 kHz and the detected level work on this machine");
    decoder.output.channels = Some(Channels::default());
    decoder
}
