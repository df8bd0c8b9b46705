//! Decodes audio to separate channels, without downmix and resampling, to compare it with the output of other decoders.
//! Feature extraction does not use this.

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
}

impl Channels {
    /// Decodes a whole file without mixing its channels.
    ///
    /// # Errors
    /// A [`Reject`] as for any clip, except that no clip is too short.
    pub fn decode(bytes: &[u8]) -> Result<Self, Reject> {
        // The downmixed output is discarded, so any sample rate would do.
        let args = DecodeArgs {
            sample_rate_hz: 44_100,
            duration_s: None,
            min_duration_s: 0.0,
            keep_rate: false,
        };

        let mut decoder =
            FileDecoder::new(args, Level::Scalar).expect("44.1 kHz and scalar work everywhere");
        decoder.output.channels = Some(Self::default());
        decoder.decode("", bytes, &mut Pcm::default())?;
        Ok(decoder.output.channels.take().unwrap_or_default())
    }

    /// Adds one packet, or silence of the same length; `left` and `right` have equal lengths.
    pub(super) fn push(&mut self, left: &[f32], right: Option<&[f32]>, is_audio: bool) {
        self.is_stereo |= right.is_some();
        let pairs = left.iter().zip(right.unwrap_or(left));
        self.samples
            .extend(pairs.map(|(&left, &right)| if is_audio { [left, right] } else { [0.0; 2] }));
    }
}
