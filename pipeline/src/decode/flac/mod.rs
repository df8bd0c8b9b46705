//! FLAC frames → symphonia's decoder, with every lost sample accounted for.
//!
//! A frame that does not decode becomes silence of its length. A hole becomes silence as long as the frames' numbers say,
//! so that time stays true; where they do not say it, it is closed. Both count as lost. A stream has one format, that of
//! most of its frames; others count as not decodable.

mod clock;
mod frames;
mod header;
mod survey;
#[cfg(test)]
mod tests;

use symphonia::core::codecs::audio::AudioCodecParameters;
use symphonia::core::codecs::audio::well_known::CODEC_ID_FLAC;
use wavemill_schemas::reject::{Reason, Reject};

use self::clock::{Clock, Gap};
use self::frames::{Frame, Frames};
use self::header::{Header, StreamInfo};
use self::survey::{Format, Survey};
use super::codec::Codec;
use super::loss::Loss;
use super::mp3::behind_tags;
use super::output::{Output, Sink};
use super::{CHANNELS_MAX, Decoded, Pcm, reject};

/// Silence is pushed in pieces of as many samples: what a gap may claim is no reason for a long buffer.
const SILENCE_SAMPLES: u64 = 65_536;

/// Decodes a file; `out` is emptied first. `audio_blake3` is over all frames.
///
/// # Errors
/// A [`Reject`] where no frame is found, or numbers are over a limit.
pub fn decode(file: &[u8], output: &mut Output, out: &mut Pcm) -> Result<Decoded, Reject> {
    // Offsets in rejects are those of the file, tags included.
    let start = behind_tags(file);
    let stream = &file[start..];
    let survey = Survey::new(stream);
    let Some(format) = survey.format else {
        return Err(reject(Reason::NotAudio, "a FLAC header without a whole frame behind it"));
    };
    if usize::from(format.channels) > CHANNELS_MAX {
        let detail = format!("{} channels, at most {CHANNELS_MAX}", format.channels);
        return Err(reject(Reason::TooLarge, detail));
    }

    let sink = output.open(format.rate_hz, out)?;
    let codec = Codec::new(params(&survey, format))?;
    let mut run = Run { survey: &survey, format, codec, sink, loss: Loss::default(), n_samples: 0, n_closed: 0, start };
    let mut frames = Frames::new(stream);
    if run.decode(&mut frames) {
        run.end(frames.broken(), stream.len());
    }
    Ok(Decoded { loss: run.finish(), audio_blake3: survey.audio_blake3 })
}

/// blake3 over all frames, as decoding gives it; `None` where there is none.
pub fn hash(file: &[u8]) -> Option<blake3::Hash> {
    let survey = Survey::new(&file[behind_tags(file)..]);
    (survey.n_frames > 0).then_some(survey.audio_blake3)
}

fn params(survey: &Survey, format: Format) -> AudioCodecParameters {
    let bits = survey.bits().unwrap_or(16);
    let mut params = AudioCodecParameters::new();
    params.for_codec(CODEC_ID_FLAC).with_extra_data(StreamInfo::block(
        format.rate_hz,
        format.channels,
        bits,
        survey.frame_samples_max,
    ));
    params
}

/// One file on its way through the decoder.
struct Run<'a> {
    survey: &'a Survey,
    format: Format,
    codec: Codec,
    sink: Sink<'a>,
    loss: Loss,
    /// Samples that came out, silence included.
    n_samples: u64,
    /// Samples that holes of unknown length are taken to have had.
    n_closed: u64,
    /// Where the stream starts in the file.
    start: usize,
}

impl Run<'_> {
    /// Decodes until enough has come out (false) or to the end (true).
    fn decode(&mut self, frames: &mut Frames) -> bool {
        let mut clock = Clock::default();
        for frame in frames {
            match clock.gap(&frame) {
                Gap::None => {}
                Gap::Known(n_samples) if self.survey.gaps_are_credible() => {
                    self.silence(frame.offset - frame.skipped_bytes, n_samples);
                }
                Gap::Known(_) | Gap::Unknown => self.hole(&frame),
            }
            if self.sink.is_full() {
                return false;
            }
            self.frame(&frame);
            if self.sink.is_full() {
                return false;
            }
        }
        true
    }

    fn frame(&mut self, frame: &Frame) {
        let n_samples = u64::from(frame.header.n_samples);
        if !self.is_decodable(&frame.header) {
            let rate_hz = self.survey.format_of(&frame.header).map_or(0, |format| format.rate_hz);
            let n_samples = n_samples * u64::from(self.format.rate_hz) / u64::from(rate_hz.max(1));
            self.silence(frame.offset, n_samples);
            return;
        }

        let is_audio = match self.codec.decode(frame.bytes) {
            Some([mono]) => self.sink.push(mono, None),
            Some([left, right]) => self.sink.push(left, Some(right)),
            _ => {
                self.silence(frame.offset, n_samples);
                return;
            }
        };
        self.n_samples += n_samples;
        if !is_audio {
            self.loss.add_silenced(Some(self.start + frame.offset), self.seconds(n_samples));
        }
    }

    /// A frame of the stream's format that symphonia decodes right.
    fn is_decodable(&self, header: &Header) -> bool {
        // It reads at most 32 bits a sample, and a difference of two 32-bit channels has 33.
        let bits = header.bits.or(self.survey.bits());
        self.survey.format_of(header) == Some(self.format)
            && bits.is_some_and(|bits| bits + u8::from(header.has_side) <= 32)
    }

    /// Samples that are lost, and stand in the output as silence.
    fn silence(&mut self, offset: usize, n_samples: u64) {
        let mut left = n_samples;
        while left > 0 && !self.sink.is_full() {
            let piece = left.min(SILENCE_SAMPLES);
            self.sink.push_silence(piece as usize);
            left -= piece;
        }
        self.n_samples += n_samples;
        self.loss.add_silenced(Some(self.start + offset), self.seconds(n_samples - left));
    }

    /// A hole of unknown length: lost are as many frames as would fill it, at least one.
    fn hole(&mut self, frame: &Frame) {
        let frame_bytes = self.survey.n_bytes as f64 / self.survey.n_frames as f64;
        let n_frames = (frame.skipped_bytes as f64 / frame_bytes).round().max(1.0) as u64;
        let n_samples = n_frames * self.survey.n_samples / self.survey.n_frames;
        self.n_closed += n_samples;
        let offset = self.start + frame.offset - frame.skipped_bytes;
        self.loss.add_missing(Some(offset), self.seconds(n_samples));
    }

    /// At the end of the file: what was announced and never came; without an announcement, the frame that breaks off.
    fn end(&mut self, broken: Option<(usize, Header)>, stream_bytes: usize) {
        let n_known = self.n_samples + self.n_closed;
        let n_missing = match (self.survey.announced(), broken) {
            (Some(announced), _) => announced.saturating_sub(n_known),
            (None, Some((_, header))) => u64::from(header.n_samples),
            (None, None) => 0,
        };
        if n_missing > 0 {
            let offset = broken.map_or(stream_bytes, |(offset, _)| offset);
            self.loss.add_missing(Some(self.start + offset), self.seconds(n_missing));
        }
    }

    fn seconds(&self, n_samples: u64) -> f64 {
        n_samples as f64 / f64::from(self.format.rate_hz)
    }

    fn finish(self) -> Loss {
        self.sink.finish();
        self.loss
    }
}
