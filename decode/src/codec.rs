//! Wraps symphonia's decoders, which decode one packet at a time. A packet at which a codec panics is treated like a
//! packet that the codec rejects: invalid bytes can make their packet fail, but never the run.

use std::panic::{AssertUnwindSafe, catch_unwind};

use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error;
use symphonia::core::packet::PacketRef;
use symphonia::core::units::{Duration, Timestamp};
use wavemill_schemas::reject::{Reason, Reject};

use super::reject;

/// One of symphonia's decoders and the samples of its last packet.
pub(super) struct Codec {
    params: AudioCodecParameters,
    decoder: Box<dyn AudioDecoder>,
    planes: Vec<Vec<f32>>,
}

impl Codec {
    /// Creates symphonia's decoder for these parameters.
    ///
    /// # Errors
    /// A [`Reject`] if symphonia has no decoder for the codec.
    pub(super) fn new(params: AudioCodecParameters) -> Result<Self, Reject> {
        let decoder = make(&params)?;
        Ok(Self {
            params,
            decoder,
            planes: Vec::new(),
        })
    }

    /// Resets the decoder's state that depends on earlier packets, because the next packet follows a gap.
    pub(super) fn reset(&mut self) {
        self.decoder.reset();
    }

    /// Decodes a packet and returns its samples, one plane per channel, full scale ±1; `None` if decoding fails.
    pub(super) fn decode(&mut self, data: &[u8]) -> Option<&[Vec<f32>]> {
        // Track and timestamps are zero: the caller tracks the time, and the output stage trims the samples.
        let packet = PacketRef::new(0, Timestamp::ZERO, Duration::ZERO, data);
        match guarded(|| self.decoder.decode_ref(&packet)) {
            Some(Ok(buffer)) => buffer.copy_to_vecs_planar(&mut self.planes),
            Some(Err(_)) => return None,
            None => {
                // The state of symphonia's decoder is undefined after a panic, so create a new decoder.
                if let Ok(decoder) = make(&self.params) {
                    self.decoder = decoder;
                }
                return None;
            }
        }
        Some(&self.planes)
    }
}

/// Calls a decoder and returns its result; `None` if the decoder panicked.
fn guarded<T>(decode: impl FnOnce() -> Result<T, Error>) -> Option<Result<T, Error>> {
    // Unwind safe because no one uses the decoder's partial state: every caller recreates the decoder or resets it.
    catch_unwind(AssertUnwindSafe(decode)).ok()
}

fn make(params: &AudioCodecParameters) -> Result<Box<dyn AudioDecoder>, Reject> {
    symphonia::default::get_codecs()
        .make_audio_decoder(params, &AudioDecoderOptions::default())
        .map_err(|error| {
            reject(
                Reason::UnsupportedCodec,
                format!("no decoder for this codec: {error}"),
            )
        })
}
