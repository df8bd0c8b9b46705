//! MP3 files → frames → the layer III decoder of the kernels, with every lost sample accounted for.
//!
//! The decoder knows single frames. Here they are found, twice: a survey hashes the whole file and decides what the stream
//! is, then as much as is wanted is decoded. The reservoir is kept here too, because it tells which frames are gone.
//!
//! Frames that cannot be decoded become silence of their length, so that time stays true; holes of unknown length are
//! closed. Both count as lost. A stream has one format, that of most of its frames; others count as not decodable.

mod codec;
mod frames;
mod free_format;
mod header;
mod reservoir;
mod survey;
mod tags;

use wavemill_kernels::mp3::FrameHeader;
use wavemill_kernels::resample::ResampleError;
use wavemill_kernels::{Level, mp3};
use wavemill_schemas::reject::{Reason, Reject};

use self::codec::{Codec, Codecs};
use self::frames::{Frame, Frames};
use self::header::{Header, SideInfo};
use self::reservoir::Reservoir;
use self::survey::Survey;
pub(super) use self::survey::Surveyor;
use self::tags::Info;
use super::loss::Loss;
use super::output::{Output, Sink};
use super::{DecodeReport, Pcm, reject};

/// Decodes MP3 files, one after the other.
pub(super) struct Mp3Decoder {
    surveyor: Surveyor,
    codecs: Codecs,
    reservoir: Reservoir,
}

impl Mp3Decoder {
    /// Makes a decoder, one a worker.
    ///
    /// # Errors
    /// [`ResampleError::Level`] where this machine lacks the level.
    pub(super) fn new(level: Level) -> Result<Self, ResampleError> {
        Ok(Self {
            surveyor: Surveyor::default(),
            codecs: Codecs::new(level)?,
            reservoir: Reservoir::default(),
        })
    }

    /// Of streams at twice this rate or more, only what reaches it is computed.
    pub(super) fn by_band(&mut self, to_hz: u32) {
        self.codecs.by_band(to_hz);
    }

    /// Decodes a file; `out` is emptied first.
    ///
    /// # Errors
    /// A [`Reject`] where no layer III frame is found.
    pub(super) fn decode(
        &mut self,
        file: &[u8],
        output: &mut Output,
        out: &mut Pcm,
    ) -> Result<DecodeReport, Reject> {
        // The first walk decides what the stream is. The second one decodes as much as is wanted.
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
            self.codecs.of_both_channels()
        } else {
            self.codecs.of_stream(stream.rate_hz)
        };
        let mut sink = output.open_part(stream.rate_hz, codec.step(), out)?;
        let (start, end) = survey.trim(&stream);
        sink.trim(start, end);

        // The sink trims by what the encoder announced, so every sample of every frame goes there.
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

/// One file on its way through the decoder.
struct StreamDecoder<'a> {
    codec: Codec<'a>,
    reservoir: &'a mut Reservoir,
    stream: Header,
    sink: Sink<'a>,
    loss: Loss,
    /// The part of the loss that is estimated from the bytes of holes.
    holes_s: f64,
    /// Samples without bits before the first complete frame: no damage, unless no such frame comes.
    n_before_complete: u64,
    /// One came before the end of the wanted duration.
    was_complete: bool,
}

impl<'a> StreamDecoder<'a> {
    fn new(
        mut codec: Codec<'a>,
        reservoir: &'a mut Reservoir,
        stream: Header,
        sink: Sink<'a>,
    ) -> Self {
        // They still have the overlap and the bytes of the last clip.
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

    /// Decodes until enough has come out (false) or to the end (true).
    fn decode(&mut self, frames: &mut Frames, survey: &Survey) -> bool {
        for frame in frames {
            // Before the frame itself is looked at: an Info frame may stand behind a hole, too.
            if frame.skipped_bytes > 0 {
                self.hole(&frame, survey);
            }

            if Info::of(&frame).is_some() {
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

    /// Bytes that are no frames: lost are as many frames as would fill them, at least one.
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

    /// At the end of the file: frames that were announced and never came, which tells more of holes than their bytes
    /// do; without such an announcement, the frame that the file breaks off in.
    fn end(&mut self, survey: &Survey, truncated_at: Option<usize>, file_bytes: usize) {
        let n_wanted = self.sink.n_wanted(u64::MAX);
        // Where the wanted duration is full, the end of the file changes nothing, and the estimates of its holes stand.
        if n_wanted == 0 {
            return;
        }

        let announced = survey.missing_frames();
        let n_frames = announced.unwrap_or(u64::from(truncated_at.is_some()));
        let missing_s = self.seconds(n_frames * self.stream.samples());
        let mut wanted_s = self.seconds(n_wanted);

        // The announcement also counts what was lost in holes.
        if announced.is_some() {
            self.loss.lost_s -= self.holes_s;
            wanted_s += self.holes_s;
        }
        let offset = truncated_at.or(Some(file_bytes));
        self.loss.add_missing(offset, missing_s.min(wanted_s));
    }

    fn frame(&mut self, frame: &Frame) {
        let side = SideInfo::parse(&frame.header, frame.bytes);
        let main_data = &frame.bytes[frame.header.main_data_offset()..];
        let missing = self.reservoir.enter(&side, main_data);

        let n_samples = frame.header.samples();
        let n_wanted = self.sink.n_wanted(n_samples);
        if n_wanted > 0 {
            self.was_complete = self.reservoir.was_complete();
        }

        let n_silent = match self.decode_frame(frame) {
            Some(n) => {
                let is_audio = self.codec.push(n, frame.header.channels, &mut self.sink);
                if is_audio { missing.samples } else { n_samples }
            }
            None => {
                // Whatever is at fault, what follows it in the main data is in doubt.
                self.reservoir.clear();
                self.sink.push_silence(n_samples as usize);
                n_samples
            }
        };

        let n_silent = n_silent.min(n_wanted);
        // A stream copy begins with frames that lack their bits. Whether it was one, `finish` knows.
        if missing.is_damage {
            self.loss
                .add_silenced(Some(frame.offset), self.seconds(n_silent));
        } else {
            self.n_before_complete += n_silent;
        }
    }

    /// Decodes a frame; returns how many samples come of it, or `None` where it does not decode.
    fn decode_frame(&mut self, frame: &Frame) -> Option<usize> {
        let header = FrameHeader::parse(*frame.bytes.first_chunk()?)?;
        let side = mp3::SideInfo::parse(&header, frame.side_info()).ok()?;
        let main_data = self.reservoir.main_data();
        let phase = self.sink.phase();
        self.codec.decode(&header, &side, main_data, phase).ok()
    }

    /// A frame of another layer, rate or channel count: silence as long as it.
    fn foreign_frame(&mut self, frame: &Frame) {
        self.restart();
        // In samples of this stream's rate, so that time stays true.
        let n_samples = frame.header.samples() * u64::from(self.stream.rate_hz)
            / u64::from(frame.header.rate_hz);
        let n_wanted = self.sink.n_wanted(n_samples);
        self.sink.push_silence(n_samples as usize);
        self.loss
            .add_silenced(Some(frame.offset), self.seconds(n_wanted));
    }

    /// Forgets bits of before a hole: used behind it, they would be noise.
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

/// Seconds of all frames: decoding gives no more.
pub(super) fn longest_s(file: &[u8]) -> f64 {
    // Foreign frames count too, since each becomes silence of its length. Holes are closed, and trimming takes away.
    let frames = Frames::new(file).map(|frame| frame.header);
    let seconds = frames.map(|header| header.samples() as f64 / f64::from(header.rate_hz));
    seconds.sum()
}

/// Where the tags at the start of a file end.
pub(super) fn behind_tags(file: &[u8]) -> usize {
    tags::skip(file, 0)
}

/// Why there is nothing to decode.
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
