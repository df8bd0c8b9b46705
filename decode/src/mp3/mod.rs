//! Decodes MP3 files with the decoder in `layer3` and accounts for every lost sample.
//!
//! `layer3` decodes single frames. This module finds the frames in two passes: a survey hashes the whole file and
//! determines the stream's format, then the requested duration is decoded. The bit reservoir is kept here too, because
//! it shows which frames are missing.
//!
//! Frames that cannot be decoded become silence of the same length, so that later audio keeps its position; nothing
//! replaces gaps of unknown length. Both count as lost. A stream has the format of most of its frames; frames of other
//! formats become silence.

mod codec;
mod frames;
mod free_format;
mod header;
mod reservoir;
mod survey;
mod tags;

use wavemill_kernels::Level;
use wavemill_kernels::resample::ResampleError;
use wavemill_schemas::reject::{Reason, Reject};

use crate::layer3::SideInfo;

use self::codec::{Codec, Codecs};
use self::frames::{Frame, Frames};
use self::header::Header;
use self::reservoir::Reservoir;
use self::survey::Survey;
pub(super) use self::survey::Surveyor;
use self::tags::Info;
use super::loss::Loss;
use super::output::{Output, Sink};
use super::{DecodeReport, Pcm, reject};

/// Decodes MP3 files one at a time.
pub(super) struct Mp3Decoder {
    surveyor: Surveyor,
    codecs: Codecs,
    reservoir: Reservoir,
}

impl Mp3Decoder {
    /// Creates an MP3 decoder. Each worker needs its own.
    ///
    /// # Errors
    /// [`ResampleError::Level`] if this machine does not support `level`.
    pub(super) fn new(level: Level) -> Result<Self, ResampleError> {
        Ok(Self {
            surveyor: Surveyor::default(),
            codecs: Codecs::new(level)?,
            reservoir: Reservoir::default(),
        })
    }

    /// Restricts decoding to the sub-bands that reach output at `to_hz`, for streams with at least twice that rate.
    pub(super) fn by_band(&mut self, to_hz: u32) {
        self.codecs.by_band(to_hz);
    }

    /// Decodes an MP3 file into `out`, which is cleared first.
    ///
    /// # Errors
    /// A [`Reject`] if the file has no layer III frames.
    pub(super) fn decode(
        &mut self,
        file: &[u8],
        output: &mut Output,
        out: &mut Pcm,
    ) -> Result<DecodeReport, Reject> {
        // The first pass determines the stream's format. The second pass decodes the requested duration of the file.
        let survey = self.surveyor.survey(file);
        out.decode_key = survey.facts().decode;
        let Some(stream) = survey.stream else {
            return Err(no_stream(file, &survey));
        };
        if stream.layer != 3 {
            let detail = format!(
                "MPEG audio layer {} is not decoded, only layer III",
                stream.layer
            );
            return Err(reject(Reason::UnsupportedCodec, detail));
        }

        let codec = if output.channels.is_some() {
            self.codecs.for_both_channels()
        } else {
            self.codecs.for_stream(stream.rate_hz)
        };
        let mut sink = output.open_part(stream.rate_hz, codec.step(), out)?;
        let (start, end) = survey.trim(&stream);
        sink.trim(start, end);

        // The sink trims the encoder's delay and padding, so pass every sample of every frame to it.
        let mut decoder = StreamDecoder::new(codec, &mut self.reservoir, stream, sink);
        let mut frames = Frames::new(file);
        if decoder.decode(&mut frames, &survey) {
            decoder.end(&survey, frames.truncated_at(), file.len());
        }

        Ok(DecodeReport {
            loss: decoder.finish(),
            audio_blake3: survey.audio_blake3,
        })
    }
}

/// The state of decoding one MP3 file.
struct StreamDecoder<'a> {
    codec: Codec<'a>,
    reservoir: &'a mut Reservoir,
    stream: Header,
    sink: Sink<'a>,
    loss: Loss,
    /// Seconds of lost audio that were estimated from the bytes of gaps.
    holes_s: f64,
    /// Number of samples with missing bits before the first complete frame. They count as damage only if no complete
    /// frame follows.
    n_before_complete: u64,
    /// True once a complete frame was decoded within the requested duration.
    was_complete: bool,
}

impl<'a> StreamDecoder<'a> {
    fn new(
        mut codec: Codec<'a>,
        reservoir: &'a mut Reservoir,
        stream: Header,
        sink: Sink<'a>,
    ) -> Self {
        // Codec and reservoir still contain the overlap and the bytes of the previous clip.
        codec.reset();
        reservoir.restart();
        Self {
            codec,
            reservoir,
            stream,
            sink,
            loss: Loss::default(),
            holes_s: 0.0,
            n_before_complete: 0,
            was_complete: false,
        }
    }

    /// Decodes the MP3 frames. Returns true at the end of the file, or false as soon as the output is complete.
    fn decode(&mut self, frames: &mut Frames, survey: &Survey) -> bool {
        for frame in frames {
            // Handle the gap before checking the frame's type: a gap may also precede an Info frame.
            if frame.skipped_bytes > 0 {
                self.hole(&frame, survey);
            }

            if Info::parse(&frame).is_some() {
                continue;
            }
            if frame.header.same_decoder(&self.stream) {
                self.frame(&frame);
            } else {
                self.foreign_frame(&frame);
            }

            if self.sink.is_full() {
                return false;
            }
        }
        true
    }

    /// Counts the skipped bytes of a gap as lost: as many frames as these bytes could contain, but at least one.
    fn hole(&mut self, frame: &Frame, survey: &Survey) {
        self.restart();
        let n_frames = (frame.skipped_bytes as f64 / survey.frame_bytes())
            .round()
            .max(1.0);
        let n_samples = self.sink.n_wanted(n_frames as u64 * self.stream.samples());
        let seconds = self.seconds(n_samples);
        self.holes_s += seconds;
        self.loss
            .add_missing(Some(frame.offset - frame.skipped_bytes), seconds);
    }

    /// Counts the loss at the end of the file: the announced frames that are missing, which replace the estimates for
    /// gaps. Without an announced number, only the frame in which the file ends is lost.
    fn end(&mut self, survey: &Survey, truncated_at: Option<usize>, file_bytes: usize) {
        let n_wanted = self.sink.n_wanted(u64::MAX);
        // If the requested duration is complete, the end of the file does not matter, and the estimates for gaps are
        // kept.
        if n_wanted == 0 {
            return;
        }

        let announced = survey.missing_frames();
        let n_frames = announced.unwrap_or(u64::from(truncated_at.is_some()));
        let missing_s = self.seconds(n_frames * self.stream.samples());
        let mut wanted_s = self.seconds(n_wanted);

        // The announced number of frames includes frames that were lost in gaps.
        if announced.is_some() {
            self.loss.lost_s -= self.holes_s;
            wanted_s += self.holes_s;
        }
        let offset = truncated_at.or(Some(file_bytes));
        self.loss.add_missing(offset, missing_s.min(wanted_s));
    }

    fn frame(&mut self, frame: &Frame) {
        let header = frame.layer3_header();
        let side = SideInfo::parse(&header, frame.side_info());
        let granule_bits = side.as_ref().map(SideInfo::granule_bits);
        let missing = self.reservoir.enter(
            SideInfo::main_data_begin(&header, frame.side_info()),
            // Without granule sizes, the frame fails below and the reservoir is discarded.
            &granule_bits.unwrap_or_default()[..header.n_granules()],
            &frame.bytes[frame.header.main_data_offset()..],
        );

        let n_samples = frame.header.samples();
        let n_wanted = self.sink.n_wanted(n_samples);
        if n_wanted > 0 {
            self.was_complete = self.reservoir.was_complete();
        }

        let main_data = self.reservoir.main_data();
        let phase = self.sink.phase();
        let decoded = side.and_then(|side| self.codec.decode(&header, &side, main_data, phase));
        let n_silent = match decoded {
            Ok(n) => {
                let is_audio = self.codec.push(n, frame.header.channels, &mut self.sink);
                if is_audio { missing.samples } else { n_samples }
            }
            Err(_) => {
                // Discard the reservoir: after a decoding failure, later main data in it cannot be trusted.
                self.reservoir.clear();
                self.sink.push_silence(n_samples as usize);
                n_samples
            }
        };

        let n_silent = n_silent.min(n_wanted);
        // A file cut by stream copy begins with frames whose bits are missing. `finish` detects such files.
        if missing.is_damage {
            self.loss
                .add_silenced(Some(frame.offset), self.seconds(n_silent));
        } else {
            self.n_before_complete += n_silent;
        }
    }

    /// Replaces a frame of another layer, rate or channel count by silence of the same duration.
    fn foreign_frame(&mut self, frame: &Frame) {
        self.restart();
        // Convert the frame's length to samples of this stream's rate, so that the duration is kept.
        let n_samples = frame.header.samples() * u64::from(self.stream.rate_hz)
            / u64::from(frame.header.rate_hz);
        let n_wanted = self.sink.n_wanted(n_samples);
        self.sink.push_silence(n_samples as usize);
        self.loss
            .add_silenced(Some(frame.offset), self.seconds(n_wanted));
    }

    /// Discards the decoder state from before a gap, which would turn into noise after the gap.
    fn restart(&mut self) {
        self.codec.reset();
        self.reservoir.clear();
    }

    fn seconds(&self, n_samples: u64) -> f64 {
        n_samples as f64 / f64::from(self.stream.rate_hz)
    }

    fn finish(mut self) -> Loss {
        if !self.was_complete {
            self.loss
                .add_silenced(Some(0), self.seconds(self.n_before_complete));
        }
        self.sink.finish();
        self.loss
    }
}

/// Returns the total duration of all frames in seconds, which is an upper bound on the decoded duration.
pub(super) fn longest_s(file: &[u8]) -> f64 {
    // Frames of other formats count too, since each becomes silence of the same length. Gaps become no output, and
    // trimming only shortens the output.
    let frames = Frames::new(file).map(|frame| frame.header);
    let seconds = frames.map(|header| header.samples() as f64 / f64::from(header.rate_hz));
    seconds.sum()
}

/// Returns the offset of the end of the tags at the start of a file.
pub(super) fn behind_tags(file: &[u8]) -> usize {
    tags::skip(file, 0)
}

/// Returns the offset of the end of the tags that start at `at`, or `at` if there are none.
pub(super) fn skip_tags(file: &[u8], at: usize) -> usize {
    tags::skip(file, at)
}

/// Reports whether a tag starts at the beginning of `bytes`.
pub(super) fn begins_with_tag(bytes: &[u8]) -> bool {
    tags::tag_bytes(bytes).is_some()
}

/// Returns the reject for an MP3 file without audio frames.
fn no_stream(file: &[u8], survey: &Survey) -> Reject {
    if survey.info.is_some() {
        return reject(Reason::NoAudio, "an Info frame without audio behind it");
    }
    if free_format::is_free_format(file) {
        return reject(Reason::UnsupportedCodec, "MPEG audio in free format");
    }
    if behind_tags(file) > 0 {
        return reject(Reason::NoAudio, "a tag without audio behind it");
    }
    reject(
        Reason::NotAudio,
        "no MPEG audio frames, and no other format that is known",
    )
}
