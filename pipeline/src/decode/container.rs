//! FLAC in Ogg through symphonia's reader, which finds its way by itself; loss is what was announced and did not come, or
//! came and would not decode.

use std::io::Cursor;

use symphonia::core::audio::GenericAudioBufferRef;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::packet::Packet;
use symphonia::default::formats::OggReader;
use wavemill_schemas::reject::{Reason, Reject};

use super::loss::{Loss, is_credible};
use super::output::{Output, Sink};
use super::{CHANNELS_MAX, Decoded, Pcm, reject};

/// Decodes files of these containers; the conversion buffers are kept from file to file.
#[derive(Default)]
pub struct ContainerDecoder {
    planes: Vec<Vec<f32>>,
}

/// What a container announces of its audio.
struct Track {
    id: u32,
    rate_hz: u32,
    n_samples: Option<u64>,
    params: AudioCodecParameters,
}

impl ContainerDecoder {
    /// Decodes a file; `out` is emptied first. `audio_blake3` is over the data of all packets.
    ///
    /// # Errors
    /// A [`Reject`] for a broken header, another codec, or an announcement over a limit.
    pub fn decode(&mut self, file: &[u8], output: &mut Output, out: &mut Pcm) -> Result<Decoded, Reject> {
        let (mut reader, track) = open_track(file)?;
        let mut decoder = symphonia::default::get_codecs()
            .make_audio_decoder(&track.params, &AudioDecoderOptions::default())
            .map_err(|error| reject(Reason::UnsupportedCodec, format!("no decoder for this codec: {error}")))?;
        let mut sink = output.open(track.rate_hz, out)?;
        let mut hasher = blake3::Hasher::new();
        let (mut loss, mut n_samples) = (Loss::default(), 0);
        // An error of the reader ends the file; what it lacks shows against the announced length.
        while let Ok(Some(packet)) = reader.next_packet() {
            if packet.track_id != track.id {
                continue;
            }
            hasher.update(&packet.data);
            if !sink.is_full() {
                n_samples += self.packet(&packet, &track, decoder.as_mut(), &mut sink, &mut loss);
            }
        }
        if !sink.is_full() {
            let announced = track.n_samples.filter(|&announced| is_credible(announced, n_samples));
            let missing = announced.unwrap_or(0).saturating_sub(n_samples);
            if missing > 0 {
                loss.add_missing(Some(file.len()), missing as f64 / f64::from(track.rate_hz));
            }
        }
        sink.finish();
        Ok(Decoded { loss, audio_blake3: hasher.finalize() })
    }

    /// Decodes one packet, or puts silence in its place; returns its samples.
    fn packet(
        &mut self,
        packet: &Packet,
        track: &Track,
        decoder: &mut dyn AudioDecoder,
        sink: &mut Sink,
        loss: &mut Loss,
    ) -> u64 {
        let is_wanted = |buffer: &GenericAudioBufferRef| {
            buffer.spec().rate() == track.rate_hz && (1..=CHANNELS_MAX).contains(&buffer.num_planes())
        };
        let (n_samples, is_audio) = match decoder.decode(packet) {
            Ok(buffer) if is_wanted(&buffer) => {
                buffer.copy_to_vecs_planar(&mut self.planes);
                let right = if buffer.num_planes() > 1 { self.planes.get(1) } else { None };
                let is_audio = sink.push(&self.planes[0], right.map(Vec::as_slice));
                (self.planes[0].len() as u64, is_audio)
            }
            _ => {
                // A packet of a second or more is a lie.
                let n_samples = packet.dur.get().min(u64::from(track.rate_hz));
                sink.push_silence(n_samples as usize);
                (n_samples, false)
            }
        };
        if !is_audio {
            loss.add_silenced(None, n_samples as f64 / f64::from(track.rate_hz));
        }
        n_samples
    }
}

/// blake3 over the data of all packets, as decoding gives it; `None` where there is none.
pub fn hash(file: &[u8]) -> Option<blake3::Hash> {
    let (mut reader, track) = open_track(file).ok()?;
    let mut hasher = blake3::Hasher::new();
    while let Ok(Some(packet)) = reader.next_packet() {
        if packet.track_id == track.id {
            hasher.update(&packet.data);
        }
    }
    (hasher.count() > 0).then(|| hasher.finalize())
}

fn open_track(file: &[u8]) -> Result<(Box<dyn FormatReader + '_>, Track), Reject> {
    let reader = open(file).map_err(|error| reject(Reason::NotAudio, format!("broken header: {error}")))?;
    let track = track(reader.as_ref())?;
    Ok((reader, track))
}

fn open(file: &[u8]) -> Result<Box<dyn FormatReader + '_>, Error> {
    let stream = MediaSourceStream::new(Box::new(Cursor::new(file)), Default::default());
    let options = FormatOptions::default();
    Ok(Box::new(OggReader::try_new(stream, options)?))
}

/// The first audio track, within the limits.
fn track(reader: &dyn FormatReader) -> Result<Track, Reject> {
    let unsupported = || reject(Reason::UnsupportedCodec, "no audio track of a known codec");
    let track = reader.default_track(TrackType::Audio).ok_or_else(unsupported)?;
    let params = track.codec_params.as_ref().and_then(|params| params.audio()).ok_or_else(unsupported)?;
    let n_channels = params.channels.as_ref().map_or(1, |channels| channels.count());
    check_channels(n_channels)?;
    let rate_hz = params.sample_rate.ok_or_else(unsupported)?;
    Ok(Track { id: track.id, rate_hz, n_samples: track.num_frames, params: params.clone() })
}

fn check_channels(n_channels: usize) -> Result<(), Reject> {
    if n_channels > CHANNELS_MAX {
        return Err(reject(Reason::TooLarge, format!("{n_channels} channels, at most {CHANNELS_MAX}")));
    }
    Ok(())
}
