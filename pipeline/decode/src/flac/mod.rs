//! Decodes the frames of native FLAC files with symphonia's decoder and accounts for every lost sample.
//!
//! A frame that cannot be decoded becomes silence of the same length. A gap becomes silence whose length follows from
//! the frames' numbers, so that later audio keeps its position; if the numbers do not show the length, nothing replaces
//! the gap. Both count as lost. A stream has the format of most of its frames; frames of other formats become silence.

mod frames;
mod gaps;
mod header;
mod survey;
#[cfg(test)]
mod tests;

use symphonia::core::codecs::audio::AudioCodecParameters;
use symphonia::core::codecs::audio::well_known::CODEC_ID_FLAC;
use wavemill_schemas::reject::Reason;

use self::frames::{Frame, Frames};
use self::gaps::{Gap, GapTracker};
use self::header::{Header, MARKER, StreamInfo};
use self::survey::{Format, Survey, credible_rate_hz};
use super::codec::Codec;
use super::format::{AudioFormat, DecoderParts};
use super::loss::Loss;
use super::output::Sink;
use super::{DecodeReport, DecodeResult, InputFacts, Pcm, reject};

/// Bits per sample that the decoder assumes if the STREAMINFO block does not state them.
const BITS_UNSTATED: u8 = 16;

/// FLAC without a container. `audio_blake3` is computed over all frames.
#[derive(Debug)]
pub(super) struct Flac;

impl AudioFormat for Flac {
    fn matches(&self, bytes: &[u8]) -> bool {
        bytes.starts_with(MARKER)
    }

    fn facts(&self, file: &[u8]) -> InputFacts {
        Survey::new(file).facts()
    }

    fn longest_s(&self, file: &[u8]) -> f64 {
        Survey::new(file).longest_s()
    }

    fn decode(&self, file: &[u8], parts: &mut DecoderParts, out: &mut Pcm) -> DecodeResult {
        let survey = Survey::new(file);
        out.decode_key = survey.facts().decode;
        let Some(format) = survey.format else {
            return Err(reject(
                Reason::NotAudio,
                "a FLAC header without a whole frame behind it",
            ));
        };
        let sink = parts.output.open(format.rate_hz, out)?;
        let mut decoder = FlacDecoder {
            survey: &survey,
            format,
            codec: Codec::new(params(&survey, format))?,
            sink,
            loss: Loss::default(),
            n_samples: 0,
            n_closed: 0,
        };
        decoder.decode(file);

        Ok(DecodeReport {
            loss: decoder.finish(),
            audio_blake3: survey.audio_blake3,
        })
    }
}

/// Returns the parameters for symphonia's decoder: the format of most frames, and the bits per sample of frames that do
/// not state them. Nothing else of the file's own STREAMINFO block is used.
fn params(survey: &Survey, format: Format) -> AudioCodecParameters {
    let bits = survey.decodable_bits().unwrap_or(BITS_UNSTATED);
    let mut params = AudioCodecParameters::new();
    params
        .for_codec(CODEC_ID_FLAC)
        .with_extra_data(StreamInfo::block(
            format.rate_hz,
            format.channels,
            bits,
            survey.frame_samples_max,
        ));
    params
}

/// The state of decoding one FLAC file.
struct FlacDecoder<'a> {
    survey: &'a Survey,
    format: Format,
    codec: Codec,
    sink: Sink<'a>,
    loss: Loss,
    /// Number of output samples so far, including silence.
    n_samples: u64,
    /// Estimated number of lost samples in gaps of unknown length.
    n_closed: u64,
}

impl FlacDecoder<'_> {
    /// Decodes the FLAC frames until the output is complete, or else to the end of the file.
    fn decode(&mut self, file: &[u8]) {
        let mut gaps = GapTracker::default();
        let mut frames = Frames::new(file);

        for frame in &mut frames {
            self.gap(gaps.gap(&frame), &frame);
            // If the silence in place of the gap completed the output, the frame starts after the end of the output.
            if self.sink.is_full() {
                return;
            }
            self.frame(&frame);
            if self.sink.is_full() {
                return;
            }
        }

        self.end(file.len(), frames.broken());
    }

    /// Handles the gap before a FLAC frame.
    fn gap(&mut self, gap: Gap, frame: &Frame) {
        match gap {
            Gap::None => {}
            Gap::Known(n_samples) if self.survey.gaps_are_credible() => {
                self.silence(frame.offset - frame.skipped_bytes, n_samples);
            }
            // Jumps in the frame numbers that are not credible do not determine the length of a gap.
            Gap::Known(_) | Gap::Unknown => self.hole(frame),
        }
    }

    fn frame(&mut self, frame: &Frame) {
        let n_samples = u64::from(frame.header.n_samples);
        if !self.is_decodable(&frame.header) {
            // Replace a frame of another format by silence of the same duration at this stream's rate. A frame that
            // refers to a missing STREAMINFO block has no rate; the lowest supported rate is assumed.
            let format = self.survey.format_of(&frame.header);
            let rate_hz = format.map_or(0, |format| format.rate_hz);
            let n_samples =
                n_samples * u64::from(self.format.rate_hz) / u64::from(credible_rate_hz(rate_hz));
            self.silence(frame.offset, n_samples);
            return;
        }

        let n_wanted = self.sink.n_wanted(n_samples);
        let is_audio = match self.codec.decode(frame.bytes) {
            Some(planes) => self.sink.push(planes, 0..frame.header.n_samples as usize),
            None => {
                self.silence(frame.offset, n_samples);
                return;
            }
        };

        self.n_samples += n_samples;
        if !is_audio {
            self.loss
                .add_silenced(Some(frame.offset), self.seconds(n_wanted));
        }
    }

    /// Reports whether a frame has the stream's format and symphonia decodes the frame correctly.
    fn is_decodable(&self, header: &Header) -> bool {
        // symphonia reads at most 32 bits per sample, but the difference of two 32-bit channels has 33 bits.
        let bits = header.bits.or(self.survey.decodable_bits());
        self.survey.format_of(header) == Some(self.format)
            && bits.is_some_and(|bits| bits + u8::from(header.has_side) <= 32)
    }

    /// Counts `n_samples` samples as lost and outputs silence in their place.
    fn silence(&mut self, file_offset: usize, n_samples: u64) {
        let n_wanted = self.sink.n_wanted(n_samples);
        self.loss
            .add_silenced(Some(file_offset), self.seconds(n_wanted));
        self.sink.push_silence(n_samples as usize);
        self.n_samples += n_samples;
    }

    /// Counts a gap of unknown length as lost: as many frames as its bytes could contain, but at least one.
    fn hole(&mut self, frame: &Frame) {
        let frame_bytes = self.survey.n_bytes as f64 / self.survey.n_frames as f64;
        let n_frames = (frame.skipped_bytes as f64 / frame_bytes).round().max(1.0) as u64;
        // The product may exceed 64 bits if half of a large file is a hole.
        let n_samples = u128::from(n_frames) * u128::from(self.survey.n_samples)
            / u128::from(self.survey.n_frames);
        let n_samples = n_samples as u64;
        // Remember the lost samples, so that the announced length does not count them again.
        self.n_closed += n_samples;

        let file_offset = frame.offset - frame.skipped_bytes;
        let n_wanted = self.sink.n_wanted(n_samples);
        self.loss
            .add_missing(Some(file_offset), self.seconds(n_wanted));
    }

    /// Counts the loss at the end of the file: the announced samples that are missing or, without an announced length,
    /// the truncated frame `broken`.
    fn end(&mut self, file_bytes: usize, broken: Option<(usize, Header)>) {
        // The announced length includes the samples of the truncated frame.
        let n_missing = match (self.survey.announced(), broken) {
            (Some(announced), _) => announced.saturating_sub(self.n_samples + self.n_closed),
            (None, Some((_, header))) => u64::from(header.n_samples),
            (None, None) => 0,
        };

        let file_offset = broken.map_or(file_bytes, |(offset, _)| offset);
        let n_missing = self.sink.n_wanted(n_missing);
        self.loss
            .add_missing(Some(file_offset), self.seconds(n_missing));
    }

    fn seconds(&self, n_samples: u64) -> f64 {
        n_samples as f64 / f64::from(self.format.rate_hz)
    }

    fn finish(self) -> Loss {
        self.sink.finish();
        self.loss
    }
}
