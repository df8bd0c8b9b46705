//! FLAC frames, native or in Ogg → symphonia's decoder, with every lost sample accounted for.
//!
//! A frame that does not decode becomes silence of its length. A hole becomes silence as long as the frames' numbers say,
//! so that time stays true; where they do not say it, it is closed. Both count as lost. A stream has one format, that of
//! most of its frames; others count as not decodable.

mod chain;
mod frames;
mod gaps;
mod header;
#[cfg(test)]
mod ogg_tests;
mod pieces;
mod survey;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;

use symphonia::core::codecs::audio::AudioCodecParameters;
use symphonia::core::codecs::audio::well_known::CODEC_ID_FLAC;
use wavemill_schemas::reject::{Reason, Reject};

pub(super) use self::chain::HELD_BYTES_MAX;
use self::frames::{Frame, Frames};
use self::gaps::{Gap, GapTracker};
use self::header::{Header, StreamInfo};
use self::pieces::{Piece, Pieces};
use self::survey::{Format, Survey, credible_rate_hz};
use super::codec::Codec;
use super::loss::Loss;
use super::output::{Output, Sink};
use super::{CHANNELS_MAX, DecodeReport, InputFacts, Pcm, reject};

/// Silence is pushed in pieces of as many samples: what a gap may claim is no reason for a long buffer.
const SILENCE_SAMPLES: u64 = 65_536;

/// Bits a sample that a decoder is told where the stream's first block does not say it.
const BITS_UNSAID: u8 = 16;

/// Seconds of audio that decoding `file` gives at most.
pub(super) fn longest_s(file: &[u8]) -> f64 {
    Survey::new(file).longest_s()
}

/// Decodes a file, native or in Ogg; `out` is emptied first. `audio_blake3` is over all frames.
///
/// # Errors
/// A [`Reject`] where no frame is found, or numbers are over a limit.
pub(super) fn decode(
    file: &[u8],
    output: &mut Output,
    out: &mut Pcm,
) -> Result<DecodeReport, Reject> {
    let survey = Survey::new(file);
    out.decode_key = survey.facts().decode;
    let Some(format) = survey.format else {
        return Err(reject(
            Reason::NotAudio,
            "a FLAC header without a whole frame behind it",
        ));
    };
    if usize::from(format.channels) > CHANNELS_MAX {
        let detail = format!("{} channels, at most {CHANNELS_MAX}", format.channels);
        return Err(reject(Reason::TooLarge, detail));
    }

    let sink = output.open(format.rate_hz, out)?;
    // The codec is told the format that most frames have, whatever the file's own block claims.
    let codec = Codec::new(params(&survey, format, BITS_UNSAID))?;

    let mut decoder = FlacDecoder {
        survey: &survey,
        format,
        codec,
        codec_bits: BITS_UNSAID,
        info: None,
        sink,
        loss: Loss::default(),
        n_samples: 0,
        n_closed: 0,
        broken: None,
    };

    if decoder.decode(&mut Pieces::new(file)) {
        decoder.end(file.len());
    }

    Ok(DecodeReport {
        loss: decoder.finish(),
        audio_blake3: survey.audio_blake3,
    })
}

/// The hashes of a file, as decoding gives them; none where there is no frame.
pub(super) fn facts(file: &[u8]) -> InputFacts {
    Survey::new(file).facts()
}

fn params(survey: &Survey, format: Format, bits: u8) -> AudioCodecParameters {
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

/// One file on its way through the decoder.
struct FlacDecoder<'a> {
    survey: &'a Survey,
    format: Format,
    codec: Codec,
    /// Bits a sample that the codec takes frames to have that do not say it themselves.
    codec_bits: u8,
    /// What the first block of the stream under way says.
    info: Option<StreamInfo>,
    sink: Sink<'a>,
    loss: Loss,
    /// Samples that came out, silence included.
    n_samples: u64,
    /// Samples that holes of unknown length are taken to have had.
    n_closed: u64,
    /// The frame that breaks off at the end of what was read so far.
    broken: Option<CutFrame>,
}

/// A frame whose header is there, and whose end is not.
#[derive(Clone, Copy)]
struct CutFrame {
    file_offset: usize,
    n_samples: u64,
}

impl FlacDecoder<'_> {
    /// Decodes until enough has come out (false) or to the end (true).
    fn decode(&mut self, pieces: &mut Pieces) -> bool {
        let mut gaps = GapTracker::default();
        while let Some(piece) = pieces.next() {
            if piece.is_start {
                self.end_of_stream();
                self.begin_stream(StreamInfo::parse(piece.bytes));
                gaps = GapTracker::default();
                // Each stream of a chain numbers its frames from the start.
            }

            let mut frames = Frames::new(&piece);
            for frame in &mut frames {
                self.gap(gaps.gap(&frame), &frame, &piece);
                // The silence may have been all that was still wanted; then the frame is behind the end.
                if self.sink.is_full() {
                    return false;
                }
                self.frame(&frame, &piece);
                if self.sink.is_full() {
                    return false;
                }
            }

            self.broken = frames.broken().map(|(offset, header)| CutFrame {
                file_offset: piece.file_offset(offset),
                n_samples: u64::from(header.n_samples),
            });
        }
        true
    }

    /// Frames refer to the first block of their own stream.
    fn begin_stream(&mut self, info: Option<StreamInfo>) {
        self.info = info;
        let bits = info
            .and_then(|info| info.decodable_bits())
            .unwrap_or(BITS_UNSAID);
        if bits == self.codec_bits {
            return;
        }

        // The codec has from its parameters how many bits a sample has in frames that do not say it.
        if let Ok(codec) = Codec::new(params(self.survey, self.format, bits)) {
            self.codec = codec;
            self.codec_bits = bits;
        }
    }

    /// What is missing before a frame.
    fn gap(&mut self, gap: Gap, frame: &Frame, piece: &Piece) {
        match gap {
            Gap::None => {}
            Gap::Known(n_samples) if self.survey.gaps_are_credible() => {
                self.silence(
                    piece.file_offset(frame.offset - frame.skipped_bytes),
                    n_samples,
                );
            }
            // Numbers that jump farther than is believed tell no length.
            Gap::Known(_) | Gap::Unknown => self.hole(frame, piece),
        }
    }

    fn frame(&mut self, frame: &Frame, piece: &Piece) {
        let n_samples = u64::from(frame.header.n_samples);
        if !self.is_decodable(&frame.header) {
            // A frame of another format: silence that takes as long, at this stream's rate.
            // Without the first block that it refers to, a frame has no rate, and counts at the lowest one.
            let rate_hz = frame
                .header
                .format(self.info.as_ref())
                .map_or(0, |format| format.rate_hz);
            let n_samples =
                n_samples * u64::from(self.format.rate_hz) / u64::from(credible_rate_hz(rate_hz));
            self.silence(piece.file_offset(frame.offset), n_samples);
            return;
        }

        let n_wanted = self.sink.n_wanted(n_samples);
        let is_audio = match self.codec.decode(frame.bytes) {
            Some([mono]) => self.sink.push(mono, None),
            Some([left, right]) => self.sink.push(left, Some(right)),
            _ => {
                self.silence(piece.file_offset(frame.offset), n_samples);
                return;
            }
        };

        self.n_samples += n_samples;
        if !is_audio {
            self.loss.add_silenced(
                Some(piece.file_offset(frame.offset)),
                self.seconds(n_wanted),
            );
        }
    }

    /// A frame of the stream's format that symphonia decodes right.
    fn is_decodable(&self, header: &Header) -> bool {
        // It reads at most 32 bits a sample, and a difference of two 32-bit channels has 33.
        let bits = header
            .bits
            .or(self.info.and_then(|info| info.decodable_bits()));
        header.format(self.info.as_ref()) == Some(self.format)
            && bits.is_some_and(|bits| bits + u8::from(header.has_side) <= 32)
    }

    /// Samples that are lost, and stand in the output as silence.
    fn silence(&mut self, file_offset: usize, n_samples: u64) {
        let n_wanted = self.sink.n_wanted(n_samples);
        self.loss
            .add_silenced(Some(file_offset), self.seconds(n_wanted));

        let mut left = n_samples;
        while left > 0 && !self.sink.is_full() {
            let piece = left.min(SILENCE_SAMPLES);
            self.sink.push_silence(piece as usize);
            left -= piece;
        }
        self.n_samples += n_samples;
    }

    /// A hole of unknown length: lost are as many frames as would fill it, at least one.
    fn hole(&mut self, frame: &Frame, piece: &Piece) {
        let frame_bytes = self.survey.n_bytes as f64 / self.survey.n_frames as f64;
        let n_frames = (frame.skipped_bytes as f64 / frame_bytes).round().max(1.0) as u64;
        let n_samples = n_frames * self.survey.n_samples / self.survey.n_frames;
        // Else the announced length would count it once more.
        self.n_closed += n_samples;

        let file_offset = piece.file_offset(frame.offset - frame.skipped_bytes);
        let n_wanted = self.sink.n_wanted(n_samples);
        self.loss
            .add_missing(Some(file_offset), self.seconds(n_wanted));
    }

    /// Another stream follows: the frame that breaks off before it is lost.
    fn end_of_stream(&mut self) {
        if let Some(broken) = self.broken.take() {
            self.n_closed += broken.n_samples;
            let n_wanted = self.sink.n_wanted(broken.n_samples);
            self.loss
                .add_missing(Some(broken.file_offset), self.seconds(n_wanted));
        }
    }

    /// At the end of the file: what was announced and never came; without an announcement, the frame that breaks off.
    fn end(&mut self, file_bytes: usize) {
        let n_known = self.n_samples + self.n_closed;
        // An announcement counts the frame that breaks off, too.
        let n_missing = match (self.survey.announced(), self.broken) {
            (Some(announced), _) => announced.saturating_sub(n_known),
            (None, Some(broken)) => broken.n_samples,
            (None, None) => 0,
        };
        let file_offset = self.broken.map_or(file_bytes, |broken| broken.file_offset);
        let n_foreign = self.survey.foreign_samples();
        let n_wanted = self.sink.n_wanted(n_missing.saturating_add(n_foreign));
        let n_missing = n_missing.min(n_wanted);
        self.loss
            .add_missing(Some(file_offset), self.seconds(n_missing));
        // An estimate over all other streams together, so it has no offset.
        self.loss
            .add_missing(None, self.seconds(n_wanted - n_missing));
    }

    fn seconds(&self, n_samples: u64) -> f64 {
        n_samples as f64 / f64::from(self.format.rate_hz)
    }

    fn finish(self) -> Loss {
        self.sink.finish();
        self.loss
    }
}
