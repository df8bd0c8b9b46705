//! symphonia's decoders, one packet at a time. What a codec panics at is no audio, just like what it refuses: a packet's
//! bytes decide over that packet, never over the run.

use std::panic::{AssertUnwindSafe, catch_unwind};

use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error;
use symphonia::core::packet::PacketRef;
use symphonia::core::units::{Duration, Timestamp};
use wavemill_schemas::reject::{Reason, Reject};

use super::reject;

/// A decoder with the samples of its last packet.
pub(super) struct Codec {
    params: AudioCodecParameters,
    decoder: Box<dyn AudioDecoder>,
    planes: Vec<Vec<f32>>,
}

impl Codec {
    /// Makes the decoder that these parameters ask for.
    ///
    /// # Errors
    /// A [`Reject`] where there is none.
    pub(super) fn new(params: AudioCodecParameters) -> Result<Self, Reject> {
        let decoder = make(&params)?;
        Ok(Self {
            params,
            decoder,
            planes: Vec::new(),
        })
    }

    /// Forgets the packets before: the next one follows a hole.
    pub(super) fn reset(&mut self) {
        self.decoder.reset();
    }

    /// The samples of a packet, a plane a channel, full scale ±1; `None` where it does not decode.
    pub(super) fn decode(&mut self, data: &[u8]) -> Option<&[Vec<f32>]> {
        // Track and times are zero: the walkers keep the time, and the sink trims.
        let packet = PacketRef::new(0, Timestamp::ZERO, Duration::ZERO, data);
        match guarded(|| self.decoder.decode_ref(&packet)) {
            Some(Ok(buffer)) => buffer.copy_to_vecs_planar(&mut self.planes),
            Some(Err(_)) => return None,
            None => {
                // A panic leaves the decoder in doubt.
                if let Ok(decoder) = make(&self.params) {
                    self.decoder = decoder;
                }
                return None;
            }
        }
        Some(&self.planes)
    }
}

/// What a codec answers; `None` where it panicked.
fn guarded<T>(decode: impl FnOnce() -> Result<T, Error>) -> Option<Result<T, Error>> {
    // Nobody sees what the panic left half done: every caller makes the decoder anew, or resets it.
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
