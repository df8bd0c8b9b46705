//! Decodes MP3 frames one by one with symphonia's layer III decoder.

use symphonia_bundle_mp3::MpaDecoder;
use symphonia_core::audio::{Audio, GenericAudioBufferRef};
use symphonia_core::codecs::audio::well_known::CODEC_ID_MP3;
use symphonia_core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia_core::packet::PacketRef;
use symphonia_core::units::{Duration, Timestamp};

pub(crate) struct Peer(MpaDecoder);

impl Peer {
    pub(crate) fn new() -> Self {
        let mut params = AudioCodecParameters::new();
        params.for_codec(CODEC_ID_MP3);
        let options = AudioDecoderOptions::default().gapless(false);
        Self(MpaDecoder::try_new(&params, &options).unwrap())
    }

    /// Returns the samples of a frame, one plane per channel, or `None` if symphonia cannot decode the frame.
    pub(crate) fn decode(&mut self, frame: &[u8]) -> Option<Vec<Vec<f32>>> {
        let packet = PacketRef::new(0, Timestamp::ZERO, Duration::ZERO, frame);
        let Ok(GenericAudioBufferRef::F32(buffer)) = self.0.decode_ref(&packet) else {
            return None;
        };
        let n_channels = buffer.spec().channels().count();
        let planes = (0..n_channels).map(|channel| buffer.plane(channel).unwrap().to_vec());
        Some(planes.collect())
    }
}
