//! Decodes MP3 files with the decoder in `layer3` and accounts for every lost sample.
//!
//! `layer3` decodes single frames. This module finds the frames in two passes: a survey hashes the whole file and
//! determines the stream's format, then the requested duration is decoded. The bit reservoir is kept here too, because
//! it shows which frames are missing.
//!
//! Frames that cannot be decoded become silence of the same length, so that later audio keeps its position; nothing
//! replaces gaps of unknown length. Both count as lost.
//!
//! Rate and channels may change within a file, for example where files were joined. A stretch of frames with one rate is
//! decoded and resampled like a file of its own; if only the channels change, decoding continues. Frames of other layers
//! become silence, and so do single frames of another format, whose headers are probably damaged.

mod codec;
mod frames;
mod free_format;
mod header;
mod info;
mod reservoir;
mod survey;

use wavemill_schemas::reject::{Reason, Reject};
use wavemill_signal::Level;
use wavemill_signal::resample::ResampleError;

use crate::layer3::SideInfo;

use self::codec::{Codec, Codecs};
use self::frames::{Frame, Frames};
use self::header::Header;
use self::info::Info;
use self::reservoir::Reservoir;
use self::survey::Survey;
pub(super) use self::survey::Surveyor;
use super::loss::Loss;
use super::output::{Output, STRETCHES_MAX, Sink};
use super::{DecodeReport, Pcm, reject, tags};

/// Number of frames after a change of the format that are examined, and number of those that must have the new format in
/// any case. A header whose damage shows another format is followed by frames of the earlier one.
const CONFIRMING_AMONG: usize = 8;
const CONFIRMING_FRAMES: usize = 2;

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

        let both_channels = output.channels.is_some();
        let step = self.codecs.get(stream.rate_hz, both_channels).step();
        let mut sink = output.open_with(survey.has_several_rates, stream.rate_hz, step, out)?;
        let (start, end) = survey.trim(&stream);
        sink.trim(start, end);

        // The sink trims the encoder's delay and padding, so pass every sample of every frame to it.
        let mut decoder = StreamDecoder {
            codecs: &mut self.codecs,
            both_channels,
            reservoir: &mut self.reservoir,
            stream,
            n_changes: 0,
            sink,
            loss: Loss::default(),
            holes_s: 0.0,
            before_complete_s: 0.0,
            was_complete: false,
        };
        // Codec and reservoir still contain the overlap and the bytes of the previous clip.
        decoder.codec().reset();
        decoder.reservoir.restart();

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
    codecs: &'a mut Codecs,
    /// Whether both channels are decoded instead of their mean.
    both_channels: bool,
    reservoir: &'a mut Reservoir,
    /// A header of the current stretch.
    stream: Header,
    /// Number of changes of the sample rate so far.
    n_changes: u32,
    sink: Sink<'a>,
    loss: Loss,
    /// Seconds of lost audio that were estimated from the bytes of gaps.
    holes_s: f64,
    /// Seconds of audio with missing bits before the first complete frame. They count as damage only if no complete
    /// frame follows.
    before_complete_s: f64,
    /// True once a complete frame was decoded within the requested duration.
    was_complete: bool,
}

impl StreamDecoder<'_> {
    /// Decodes the MP3 frames. Returns true at the end of the file, or false as soon as the output is complete.
    fn decode(&mut self, frames: &mut Frames, survey: &Survey) -> bool {
        while let Some(frame) = frames.next() {
            // Handle the gap before checking the frame's type: a gap may also precede an Info frame.
            if frame.skipped_bytes > 0 {
                self.hole(&frame, survey);
            }

            if Info::parse(&frame).is_some() {
                continue;
            }
            if self.follows(&frame.header, frames) {
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

    /// Reports whether a frame belongs to the current stretch. If another stretch begins with it, prepares decoding that.
    /// `rest` are the frames after it.
    fn follows(&mut self, header: &Header, rest: &Frames) -> bool {
        if header.same_decoder(&self.stream) {
            return true;
        }
        let has_equal_rate = header.same_stream(&self.stream);
        let is_over_limit = !has_equal_rate && self.n_changes == STRETCHES_MAX;
        if header.layer != 3 || is_over_limit || !is_confirmed(header, rest) {
            return false;
        }
        self.stream = *header;
        // Between mono and stereo of one rate, the overlap with earlier frames and the reservoir remain valid.
        if !has_equal_rate {
            self.n_changes += 1;
            self.restart();
            let step = self.codec().step();
            self.sink.begin_stretch(header.rate_hz, step);
        }
        true
    }

    /// Returns the decoder of the current stretch.
    fn codec(&mut self) -> Codec<'_> {
        self.codecs.get(self.stream.rate_hz, self.both_channels)
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
        let mut codec = self.codecs.get(self.stream.rate_hz, self.both_channels);
        let decoded = side.and_then(|side| codec.decode(&header, &side, main_data, phase));
        let n_silent = match decoded {
            Ok(n) => {
                let is_audio = codec.push(n, frame.header.channels, &mut self.sink);
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
            self.before_complete_s += self.seconds(n_silent);
        }
    }

    /// Replaces a frame of another format that belongs to no stretch by silence of the same duration.
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
        self.codec().reset();
        self.reservoir.clear();
    }

    fn seconds(&self, n_samples: u64) -> f64 {
        n_samples as f64 / f64::from(self.stream.rate_hz)
    }

    fn finish(mut self) -> Loss {
        if !self.was_complete {
            self.loss.add_silenced(Some(0), self.before_complete_s);
        }
        self.sink.finish();
        self.loss
    }
}

/// Reports whether the frames after a header show that a stretch of its format begins: no hole is among the next ones,
/// and at least half of them have this format.
fn is_confirmed(header: &Header, rest: &Frames) -> bool {
    let (mut n_next, mut n_alike) = (0, 0);
    for next in rest.clone().take(CONFIRMING_AMONG) {
        if next.skipped_bytes > 0 {
            return false;
        }
        n_next += 1;
        n_alike += usize::from(next.header.same_decoder(header));
    }
    n_alike >= CONFIRMING_FRAMES && 2 * n_alike >= n_next
}

/// Returns the total duration of all frames in seconds, which is an upper bound on the decoded duration.
pub(super) fn longest_s(file: &[u8]) -> f64 {
    // Frames of other formats count too, since each becomes silence of the same length. Gaps become no output, and
    // trimming only shortens the output.
    let frames = Frames::new(file).map(|frame| frame.header);
    let seconds = frames.map(|header| header.samples() as f64 / f64::from(header.rate_hz));
    seconds.sum()
}

/// Returns the reject for an MP3 file without audio frames.
fn no_stream(file: &[u8], survey: &Survey) -> Reject {
    if survey.info.is_some() {
        return reject(Reason::NoAudio, "an Info frame without audio behind it");
    }
    if free_format::is_free_format(file) {
        return reject(Reason::UnsupportedCodec, "MPEG audio in free format");
    }
    if tags::skip(file, 0) > 0 {
        return reject(Reason::NoAudio, "a tag without audio behind it");
    }
    reject(
        Reason::NotAudio,
        "no MPEG audio frames, and no other format that is known",
    )
}
