//! Audio as it is before downmix and resampling: what other decoders' output is compared with. Extraction has no use
//! for it.

use wavemill_kernels::Level;
use wavemill_schemas::reject::Reject;

use super::{Decode, DecodeArgs, FileDecoder, Pcm};

/// A clip's channels, trimmed and with silence for what is lost, just as they enter the downmix.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Channels {
    /// Rate of the file, Hz.
    pub rate_hz: u32,
    /// Some of it has two channels.
    pub is_stereo: bool,
    /// Left and right, full scale ±1; the same twice where the file is mono.
    pub samples: Vec<[f32; 2]>,
}

impl Channels {
    /// Decodes a whole file.
    ///
    /// # Errors
    /// A [`Reject`], as of any clip, but none for being short.
    pub fn decode(bytes: &[u8]) -> Result<Self, Reject> {
        // What comes out behind the downmix is dropped, so its rate is any.
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

    /// Adds one packet, or silence as long as it; `left` and `right` of equal length.
    pub(super) fn push(&mut self, left: &[f32], right: Option<&[f32]>, is_audio: bool) {
        self.is_stereo |= right.is_some();
        let pairs = left.iter().zip(right.unwrap_or(left));
        self.samples
            .extend(pairs.map(|(&left, &right)| if is_audio { [left, right] } else { [0.0; 2] }));
    }
}
