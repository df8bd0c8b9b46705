//! Decodes WAV and AIFF files: finds and checks the chunks, and converts the samples with symphonia.

mod aiff;
mod chunks;
#[cfg(test)]
mod tests;

use symphonia::core::audio::Channels as Speakers;
use symphonia::core::codecs::audio::AudioCodecParameters;

pub(super) use self::chunks::holds_mp3;
use self::chunks::{Format, Wave};
use super::codec::Codec;
use super::format::{AudioFormat, DecoderParts};
use super::key::KeyHasher;
use super::loss::{Loss, is_credible};
use super::{DecodeReport, DecodeResult, InputFacts, Pcm};

/// Number of samples per channel that are converted at once. As in an MP3 frame, there are few, so that an invalid
/// sample silences little of the audio around it.
const PACKET_SAMPLES: usize = 1_152;

/// WAV and AIFF. `audio_blake3` is computed over the samples as stored in the file.
#[derive(Debug)]
pub(super) struct Wav;

impl AudioFormat for Wav {
    fn matches(&self, bytes: &[u8]) -> bool {
        chunks::is_wave(bytes) || aiff::is_aiff(bytes)
    }

    fn facts(&self, file: &[u8]) -> InputFacts {
        match Wave::parse(file) {
            Ok(wave) => hashes(&wave, blake3::hash(wave.data)),
            Err(_) => InputFacts::default(),
        }
    }

    fn longest_s(&self, file: &[u8]) -> f64 {
        Wave::parse(file).map_or(0.0, |wave| {
            let n_samples = wave.data.len() / wave.format.frame_bytes();
            // Avoid a division by zero. Decoding rejects files with a rate of 0.
            n_samples as f64 / f64::from(wave.format.rate_hz.max(1))
        })
    }

    fn decode(&self, file: &[u8], parts: &mut DecoderParts, out: &mut Pcm) -> DecodeResult {
        let wave = Wave::parse(file)?;
        let audio_blake3 = blake3::hash(wave.data);
        out.decode_key = hashes(&wave, audio_blake3).decode;
        let mut codec = Codec::new(params(&wave))?;

        let rate_hz = wave.format.rate_hz;
        let frame_bytes = wave.format.frame_bytes();
        let mut sink = parts.output.open(rate_hz, out)?;
        let mut loss = Loss::default();

        for packet in wave.data.chunks(PACKET_SAMPLES * frame_bytes) {
            if sink.is_full() {
                break;
            }
            let n_samples = packet.len() / frame_bytes;
            let n_wanted = sink.n_wanted(n_samples as u64);
            let is_audio = match codec.decode(packet) {
                Some(planes) => sink.push(planes, 0..n_samples),
                None => {
                    sink.push_silence(n_samples);
                    false
                }
            };
            if !is_audio {
                loss.add_silenced(None, n_wanted as f64 / f64::from(rate_hz));
            }
        }

        // A truncated file is recognised by the length in its header.
        let n_there = (wave.data.len() / frame_bytes) as u64;
        let announced = wave
            .n_announced
            .filter(|&announced| is_credible(announced, n_there));
        let n_missing = sink.n_wanted(announced.unwrap_or(0).saturating_sub(n_there));
        if !sink.is_full() {
            loss.add_missing(Some(file.len()), n_missing as f64 / f64::from(rate_hz));
        }

        sink.finish();
        Ok(DecodeReport { loss, audio_blake3 })
    }
}

fn hashes(wave: &Wave, audio_blake3: blake3::Hash) -> InputFacts {
    if wave.data.is_empty() {
        return InputFacts::default();
    }

    let Format {
        codec,
        channels,
        rate_hz,
        sample_bytes,
    } = wave.format;
    let mut key = KeyHasher::new("wav");
    key.bytes(codec.to_string().as_bytes());
    key.item(
        "format",
        &[channels as u64, u64::from(rate_hz), sample_bytes as u64],
    );
    key.item("announced", wave.n_announced.as_slice());
    InputFacts::from_audio(audio_blake3, key.finish(&audio_blake3))
}

fn params(wave: &Wave) -> AudioCodecParameters {
    let mut params = AudioCodecParameters::new();
    params
        .for_codec(wave.format.codec)
        .with_sample_rate(wave.format.rate_hz)
        .with_channels(Speakers::Discrete(wave.format.channels as u16))
        .with_max_frames_per_packet(PACKET_SAMPLES as u64);
    params
}
