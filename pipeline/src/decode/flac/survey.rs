//! The first walk over a FLAC file: what the stream is, how much of it is there, and what its frames hash to.

use super::frames::{Frame, Frames};
use super::gaps::{Gap, GapTracker};
use super::header::{Header, StreamInfo};
use super::pieces::{Piece, Pieces};
use crate::decode::InputFacts;
use crate::decode::key::KeyHasher;
use crate::decode::loss::{credible_max, is_credible};
use wavemill_kernels::resample::{MAX_FROM_HZ, MIN_HZ};

/// What frames must share to be of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    /// Sample rate, Hz; any number.
    pub rate_hz: u32,
    /// 1 to 8.
    pub channels: u8,
}

/// Frames of a rate that no decoder takes are taken to have the nearest that one does.
pub(super) fn credible_rate_hz(rate_hz: u32) -> u32 {
    rate_hz.clamp(MIN_HZ, MAX_FROM_HZ)
}

/// What a whole file holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Survey {
    /// What the first blocks of all its streams say of their length; `None` where one says nothing.
    announced_samples: Option<u64>,
    /// The format that most frames have, the earlier one where two are equal; `None` without frames.
    pub format: Option<Format>,
    /// Samples of the longest frame.
    pub frame_samples_max: u32,
    /// Frames of all formats.
    pub n_frames: u64,
    /// Their bytes.
    pub n_bytes: u64,
    /// Their samples.
    pub n_samples: u64,
    /// Seconds of them, each at its own rate.
    seconds: f64,
    /// Samples missing between them, by their numbers.
    n_gap_samples: u64,
    /// Bytes of streams of other codecs that are chained to it.
    n_foreign_bytes: u64,
    /// blake3 over the frames. Where other codecs are chained to them, their own hash is behind.
    pub audio_blake3: blake3::Hash,
    /// A hash over everything that decoding reads.
    decode_key: blake3::Hash,
}

impl Survey {
    /// Walks the whole file.
    pub(super) fn new(file: &[u8]) -> Self {
        let mut surveyor = Surveyor::new();
        let mut pieces = Pieces::new(file);
        while let Some(piece) = pieces.next() {
            surveyor.piece(&piece);
        }
        if let Some(foreign) = pieces.foreign() {
            surveyor.survey.n_foreign_bytes = foreign.n_bytes;
            // Only where there are such streams: otherwise the hash is that of the same frames in a native file.
            surveyor.hasher.update(foreign.hasher.finalize().as_bytes());
            surveyor.key.item("foreign", &[foreign.n_bytes]);
        }
        surveyor.finish()
    }

    /// The hashes of the file; none where there is no frame.
    pub(super) fn facts(&self) -> InputFacts {
        if self.n_frames == 0 {
            return InputFacts::default();
        }
        InputFacts::of_audio(self.audio_blake3, self.decode_key)
    }

    fn add(&mut self, frame: &Frame, gap: Gap, rate_hz: u32) {
        self.n_frames += 1;
        self.n_bytes += frame.bytes.len() as u64;
        self.n_samples += u64::from(frame.header.n_samples);
        self.seconds += f64::from(frame.header.n_samples) / f64::from(credible_rate_hz(rate_hz));
        self.frame_samples_max = self.frame_samples_max.max(frame.header.n_samples);
        if let Gap::Known(n_samples) = gap {
            self.n_gap_samples = self.n_gap_samples.saturating_add(n_samples);
        }
    }

    /// Seconds that decoding gives at most: all frames, and all gaps between them as silence.
    pub(super) fn longest_s(&self) -> f64 {
        let rate_hz = self
            .format
            .map_or(MIN_HZ, |format| credible_rate_hz(format.rate_hz));
        self.seconds + self.n_gap_samples as f64 / f64::from(rate_hz)
    }

    /// Whether the numbers of frames are believed: all gaps together are no longer than what is there allows.
    pub(super) fn gaps_are_credible(&self) -> bool {
        is_credible(
            self.n_samples.saturating_add(self.n_gap_samples),
            self.n_samples,
        )
    }

    /// What the streams of other codecs would hold at the mean of the frames, as far as an announcement is believed.
    pub(super) fn foreign_samples(&self) -> u64 {
        let estimate =
            self.n_foreign_bytes as f64 * self.n_samples as f64 / self.n_bytes.max(1) as f64;
        (estimate as u64).min(credible_max(self.n_samples) - self.n_samples)
    }

    /// The announced length in samples, where it is believed.
    pub(super) fn announced(&self) -> Option<u64> {
        self.announced_samples
            .filter(|&announced| is_credible(announced, self.n_samples))
    }
}

/// Formats that are counted: more than any real file has.
const FORMATS_MAX: usize = 64;

impl Header {
    /// The format of a frame; `None` where it refers to a first block that is not there.
    pub(super) fn format(&self, info: Option<&StreamInfo>) -> Option<Format> {
        let rate_hz = self.rate_hz.or(info.map(|info| info.rate_hz))?;
        Some(Format {
            rate_hz,
            channels: self.channels,
        })
    }
}

/// A survey under way.
struct Surveyor {
    survey: Survey,
    /// What the first block of the stream under way says.
    info: Option<StreamInfo>,
    n_streams: usize,
    /// Formats, and how many frames have each.
    formats: Vec<(Format, u64)>,
    hasher: blake3::Hasher,
    key: KeyHasher,
    gaps: GapTracker,
}

impl Surveyor {
    fn new() -> Self {
        let nothing = blake3::hash(&[]);
        let survey = Survey {
            announced_samples: None,
            format: None,
            frame_samples_max: 0,
            n_frames: 0,
            n_bytes: 0,
            n_samples: 0,
            seconds: 0.0,
            n_gap_samples: 0,
            n_foreign_bytes: 0,
            audio_blake3: nothing,
            decode_key: nothing,
        };

        Self {
            survey,
            info: None,
            n_streams: 0,
            formats: Vec::new(),
            hasher: blake3::Hasher::new(),
            key: KeyHasher::of("flac"),
            gaps: GapTracker::default(),
        }
    }

    /// Takes note of the first block of a stream.
    fn begin_stream(&mut self, info: Option<StreamInfo>) {
        let n_samples = info.and_then(|info| info.n_samples);
        // The announcement is the sum over all streams, if each of them makes one.
        self.survey.announced_samples = match self.n_streams {
            0 => n_samples,
            _ => self
                .survey
                .announced_samples
                .zip(n_samples)
                .map(|(before, this)| before.saturating_add(this)),
        };

        self.key.item("stream", &[]);
        if let Some(info) = info {
            self.key
                .item("info", &[u64::from(info.rate_hz), u64::from(info.bits)]);
            self.key.item("announced", info.n_samples.as_slice());
        }

        self.info = info;
        self.n_streams += 1;
        self.gaps = GapTracker::default();
    }

    fn piece(&mut self, piece: &Piece) {
        if piece.is_start {
            self.begin_stream(StreamInfo::parse(piece.bytes));
        }

        let mut run = 0..0;
        let mut frames = Frames::new(piece);
        for frame in &mut frames {
            // The frame itself is in the audio's hash, but nothing in it says where it ends.
            self.key.item(
                "frame",
                &[frame.bytes.len() as u64, frame.skipped_bytes as u64],
            );

            let format = frame.header.format(self.info.as_ref());
            let rate_hz = format.map_or(0, |format| format.rate_hz);
            self.survey.add(&frame, self.gaps.gap(&frame), rate_hz);

            // Neighbours are hashed together: blake3 is fast on long input only.
            if frame.offset != run.end {
                self.hasher.update(&piece.bytes[run]);
                run = frame.offset..frame.offset;
            }
            run.end += frame.bytes.len();

            if let Some(format) = format {
                self.count(format);
            }
        }
        self.hasher.update(&piece.bytes[run]);

        // Of a frame that breaks off, decoding reads how long it should have been. What the last piece says of it
        // counts, so every piece says something.
        let broken = frames.broken();
        let n_samples = broken.map(|(_, header)| u64::from(header.n_samples));
        self.key.item("piece", n_samples.as_slice());
    }

    fn count(&mut self, format: Format) {
        match self.formats.iter().position(|(known, _)| *known == format) {
            Some(at) => self.formats[at].1 += 1,
            // What decides is among the first.
            None if self.formats.len() < FORMATS_MAX => self.formats.push((format, 1)),
            None => {}
        }
    }

    fn finish(mut self) -> Survey {
        self.survey.audio_blake3 = self.hasher.finalize();
        self.survey.decode_key = self.key.finish(&self.survey.audio_blake3);
        // Not `max_by_key`, which gives the last one of equals.
        let most = self.formats.iter().map(|(_, count)| *count).max();
        let main = self.formats.iter().find(|(_, count)| Some(*count) == most);
        self.survey.format = main.map(|(format, _)| *format);
        self.survey
    }
}
