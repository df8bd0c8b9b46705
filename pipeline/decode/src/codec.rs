//! Wraps the decoders of symphonia and ropus, which decode one packet at a time. A packet at which a codec panics is treated like a
//! packet that the codec rejects: invalid bytes can make their packet fail, but never the run.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ropus::OpusMSDecoder;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::packet::PacketRef;
use symphonia::core::units::{Duration, Timestamp};
use wavemill_schemas::reject::{Reason, Reject};

use super::opus::{self, OpusLayout};
use super::reject;

/// A decoder and the samples of its last packet.
pub(super) struct Codec {
    decoder: Decoder,
    planes: Vec<Vec<f32>>,
}

enum Decoder {
    Symphonia {
        params: AudioCodecParameters,
        decoder: Box<dyn AudioDecoder>,
    },
    Opus(Box<OpusDecoder>),
}

/// A decoder of Opus at 48 kHz.
struct OpusDecoder {
    decoder: OpusMSDecoder,
    layout: OpusLayout,
    /// True until the decoder has received a packet.
    is_fresh: bool,
    /// Factor of all samples, which contains the step of a 16-bit sample.
    scale: f32,
    /// Interleaved samples of a packet.
    pcm: Vec<i16>,
}

impl Codec {
    /// Creates symphonia's decoder for these parameters.
    ///
    /// # Errors
    /// A [`Reject`] if symphonia has no decoder for the codec.
    pub(super) fn new(params: AudioCodecParameters) -> Result<Self, Reject> {
        let decoder = make(&params)?;
        Ok(Self {
            decoder: Decoder::Symphonia { params, decoder },
            planes: Vec::new(),
        })
    }

    /// Creates a decoder of Opus with a gain in dB times 256 (RFC 7845 §5.1).
    pub(super) fn opus(layout: OpusLayout, gain: i16) -> Self {
        let n_values = usize::from(layout.n_channels) * opus::PACKET_SAMPLES_MAX as usize;
        let gain = libm::pow(10.0, f64::from(gain) / (20.0 * 256.0));
        Self {
            decoder: Decoder::Opus(Box::new(OpusDecoder {
                decoder: new_opus(&layout),
                layout,
                is_fresh: true,
                scale: (gain / 32_768.0) as f32,
                pcm: vec![0; n_values],
            })),
            planes: Vec::new(),
        }
    }

    /// Resets the decoder's state that depends on earlier packets, because the next packet follows a gap.
    pub(super) fn reset(&mut self) {
        match &mut self.decoder {
            Decoder::Symphonia { decoder, .. } => decoder.reset(),
            // Creating a decoder takes as long as many packets, which need not contain audio.
            Decoder::Opus(opus) if opus.is_fresh => {}
            Decoder::Opus(opus) => {
                opus.decoder = new_opus(&opus.layout);
                opus.is_fresh = true;
            }
        }
    }

    /// Replaces the decoder by a new one, which depends on no earlier packet.
    pub(super) fn renew(&mut self) {
        match &mut self.decoder {
            Decoder::Symphonia { params, decoder } => {
                if let Ok(new) = make(params) {
                    *decoder = new;
                }
            }
            Decoder::Opus(_) => self.reset(),
        }
    }

    /// Decodes a packet and returns its samples, one plane per channel, full scale ±1; `None` if decoding fails.
    pub(super) fn decode(&mut self, data: &[u8]) -> Option<&[Vec<f32>]> {
        match &mut self.decoder {
            Decoder::Symphonia { params, decoder } => {
                // Track and timestamps are zero: the caller tracks the time, and the output stage trims the samples.
                let packet = PacketRef::new(0, Timestamp::ZERO, Duration::ZERO, data);
                match guarded(|| decoder.decode_ref(&packet)) {
                    Some(decoded) => decoded.ok()?.copy_to_vecs_planar(&mut self.planes),
                    None => {
                        // The state of symphonia's decoder is undefined after a panic, so create a new decoder.
                        if let Ok(new) = make(params) {
                            *decoder = new;
                        }
                        return None;
                    }
                }
            }
            Decoder::Opus(opus) => {
                let n_channels = usize::from(opus.layout.n_channels);
                let n_bytes = i32::try_from(data.len()).ok()?;
                let n_most = opus::PACKET_SAMPLES_MAX as i32;
                opus.is_fresh = false;
                let Some(n_samples) = guarded(|| {
                    let OpusDecoder { decoder, pcm, .. } = &mut **opus;
                    decoder.decode(Some(data), n_bytes, pcm, n_most, false)
                }) else {
                    opus.decoder = new_opus(&opus.layout);
                    return None;
                };

                let pcm = &opus.pcm[..n_channels * n_samples.ok()? as usize];
                self.planes.resize_with(n_channels, Vec::new);
                for (channel, plane) in self.planes.iter_mut().enumerate() {
                    let samples = pcm.iter().skip(channel).step_by(n_channels);
                    plane.clear();
                    plane.extend(samples.map(|&sample| f32::from(sample) * opus.scale));
                }
            }
        }
        Some(&self.planes)
    }
}

fn new_opus(layout: &OpusLayout) -> OpusMSDecoder {
    let numbers = [layout.n_channels, layout.n_streams, layout.n_coupled];
    let [n_channels, n_streams, n_coupled] = numbers.map(i32::from);
    let rate_hz = opus::RATE_HZ as i32;
    OpusMSDecoder::new(rate_hz, n_channels, n_streams, n_coupled, &layout.mapping)
        .expect("48 kHz is one of the rates of Opus, and the header's layout was checked")
}

/// Calls a decoder and returns its result; `None` if the decoder panicked.
fn guarded<T>(decode: impl FnOnce() -> T) -> Option<T> {
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
