//! Decodes FLAC frames, native or in Ogg, with symphonia's decoder and accounts for every lost sample.
//!
//! A frame that cannot be decoded becomes silence of the same length. A gap becomes silence whose length follows from
//! the frames' numbers, so that later audio keeps its position; if the numbers do not show the length, the gap is
//! closed. Both count as lost. A stream has the format of most of its frames; frames of other formats are not decoded.

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

/// Maximum number of samples of silence pushed at once, so that a gap with an arbitrary claimed length needs no long
/// buffer.
const SILENCE_SAMPLES: u64 = 65_536;

/// Bits per sample for the decoder if the STREAMINFO block does not state them.
const BITS_UNSTATED: u8 = 16;

/// Returns an upper bound on the seconds of audio that decoding `file` returns.
pub(super) fn longest_s(file: &[u8]) -> f64 {
    Survey::new(file).longest_s()
}

/// Decodes a file, native or in Ogg, into `out`, which is cleared first. `audio_blake3` is computed over all frames.
///
/// # Errors
/// A [`Reject`] if the file has no frames, or values are over a limit.
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
    // The codec receives the format of most frames, regardless of the file's own STREAMINFO block.
    let codec = Codec::new(params(&survey, format, BITS_UNSTATED))?;

    let mut decoder = FlacDecoder {
        survey: &survey,
        format,
        codec,
        codec_bits: BITS_UNSTATED,
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

/// Returns the same hashes of a file as decoding; none if it has no frames.
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

/// The state of decoding one file.
struct FlacDecoder<'a> {
    survey: &'a Survey,
    format: Format,
    codec: Codec,
    /// Bits per sample that the codec assumes for frames that do not state them.
    codec_bits: u8,
    /// STREAMINFO block of the current stream.
    info: Option<StreamInfo>,
    sink: Sink<'a>,
    loss: Loss,
    /// Number of samples output so far, including silence.
    n_samples: u64,
    /// Estimated number of samples in gaps of unknown length.
    n_closed: u64,
    /// The truncated frame at the end of the data read so far.
    broken: Option<CutFrame>,
}

/// A frame whose header is present and whose end is missing.
#[derive(Clone, Copy)]
struct CutFrame {
    file_offset: usize,
    n_samples: u64,
}

impl FlacDecoder<'_> {
    /// Decodes frames. Returns true at the end of the file, or false as soon as the output is complete.
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
                // If the silence completed the output, the frame is after its end.
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

    /// Starts a stream, to whose STREAMINFO block the following frames refer.
    fn begin_stream(&mut self, info: Option<StreamInfo>) {
        self.info = info;
        let bits = info
            .and_then(|info| info.decodable_bits())
            .unwrap_or(BITS_UNSTATED);
        if bits == self.codec_bits {
            return;
        }

        // The bits per sample of frames that do not state them are set by the codec's parameters.
        if let Ok(codec) = Codec::new(params(self.survey, self.format, bits)) {
            self.codec = codec;
            self.codec_bits = bits;
        }
    }

    /// Handles the gap before a frame.
    fn gap(&mut self, gap: Gap, frame: &Frame, piece: &Piece) {
        match gap {
            Gap::None => {}
            Gap::Known(n_samples) if self.survey.gaps_are_credible() => {
                self.silence(
                    piece.file_offset(frame.offset - frame.skipped_bytes),
                    n_samples,
                );
            }
            // Jumps that are not credible do not determine a length.
            Gap::Known(_) | Gap::Unknown => self.hole(frame, piece),
        }
    }

    fn frame(&mut self, frame: &Frame, piece: &Piece) {
        let n_samples = u64::from(frame.header.n_samples);
        if !self.is_decodable(&frame.header) {
            // Replace a frame of another format by silence of the same duration at this stream's rate. A frame that
            // refers to a missing STREAMINFO block has no rate, and is counted at the lowest supported one.
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

    /// Reports whether a frame has the stream's format and symphonia decodes it correctly.
    fn is_decodable(&self, header: &Header) -> bool {
        // symphonia reads at most 32 bits per sample, and the difference of two 32-bit channels has 33.
        let bits = header
            .bits
            .or(self.info.and_then(|info| info.decodable_bits()));
        header.format(self.info.as_ref()) == Some(self.format)
            && bits.is_some_and(|bits| bits + u8::from(header.has_side) <= 32)
    }

    /// Counts `n_samples` samples as lost and outputs silence in their place.
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

    /// Counts a gap of unknown length as lost: as many frames as would fill it, but at least one.
    fn hole(&mut self, frame: &Frame, piece: &Piece) {
        let frame_bytes = self.survey.n_bytes as f64 / self.survey.n_frames as f64;
        let n_frames = (frame.skipped_bytes as f64 / frame_bytes).round().max(1.0) as u64;
        let n_samples = n_frames * self.survey.n_samples / self.survey.n_frames;
        // Prevents the announced length from counting the same samples again.
        self.n_closed += n_samples;

        let file_offset = piece.file_offset(frame.offset - frame.skipped_bytes);
        let n_wanted = self.sink.n_wanted(n_samples);
        self.loss
            .add_missing(Some(file_offset), self.seconds(n_wanted));
    }

    /// Counts the truncated frame at the end of a stream as lost before another stream begins.
    fn end_of_stream(&mut self) {
        if let Some(broken) = self.broken.take() {
            self.n_closed += broken.n_samples;
            let n_wanted = self.sink.n_wanted(broken.n_samples);
            self.loss
                .add_missing(Some(broken.file_offset), self.seconds(n_wanted));
        }
    }

    /// Counts the loss at the end of the file: the announced samples that are missing or, without an announcement, the
    /// truncated frame.
    fn end(&mut self, file_bytes: usize) {
        let n_known = self.n_samples + self.n_closed;
        // An announced length includes the truncated frame.
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
        // The estimate covers all other streams together, so it has no offset.
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
