//! The first pass over a FLAC file, which determines its format, its length and the hash of its frames.

use wavemill_kernels::resample::{MAX_FROM_HZ, MIN_HZ};

use super::frames::{Frame, Frames};
use super::gaps::{Gap, GapTracker};
use super::header::{Header, StreamInfo};
use super::pieces::{Piece, Pieces};
use crate::InputFacts;
use crate::key::KeyHasher;
use crate::loss::{credible_max, is_credible};

/// Properties that all frames of one stream share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    /// Sample rate, Hz; not validated.
    pub rate_hz: u32,
    /// Number of channels, 1 to 8.
    pub channels: u8,
}

/// Clamps the sample rate of a frame to the range that can be decoded.
pub(super) fn credible_rate_hz(rate_hz: u32) -> u32 {
    rate_hz.clamp(MIN_HZ, MAX_FROM_HZ)
}

/// The results of scanning a whole file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Survey {
    /// Sum of the lengths announced by the STREAMINFO blocks of all streams, in samples; `None` if one of them has no
    /// length.
    announced_samples: Option<u64>,
    /// The most frequent format, or the earlier one if two are equally frequent; `None` without frames.
    pub format: Option<Format>,
    /// Number of samples of the longest frame.
    pub frame_samples_max: u32,
    /// Number of frames of all formats.
    pub n_frames: u64,
    /// Total size of the frames in bytes.
    pub n_bytes: u64,
    /// Total number of samples of the frames.
    pub n_samples: u64,
    /// Total duration of the frames in seconds, each at its own rate.
    seconds: f64,
    /// Number of samples missing between the frames, according to their numbers.
    n_gap_samples: u64,
    /// Total size in bytes of chained streams with other codecs.
    n_foreign_bytes: u64,
    /// blake3 hash of the frames, followed by the hash of chained streams with other codecs, if there are any.
    pub audio_blake3: blake3::Hash,
    /// Hash over everything that affects decoding.
    decode_key: blake3::Hash,
}

impl Survey {
    /// Scans a whole file.
    pub(super) fn new(file: &[u8]) -> Self {
        let mut surveyor = Surveyor::new();
        let mut pieces = Pieces::new(file);
        while let Some(piece) = pieces.next() {
            surveyor.piece(&piece);
        }
        if let Some(foreign) = pieces.foreign() {
            surveyor.survey.n_foreign_bytes = foreign.n_bytes;
            // Only if there are such streams: otherwise the hash equals that of the same frames in a native file.
            surveyor.hasher.update(foreign.hasher.finalize().as_bytes());
            surveyor.key.item("foreign", &[foreign.n_bytes]);
        }
        surveyor.finish()
    }

    /// Returns the file's hashes; none if it has no frames.
    pub(super) fn facts(&self) -> InputFacts {
        if self.n_frames == 0 {
            return InputFacts::default();
        }
        InputFacts::from_audio(self.audio_blake3, self.decode_key)
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

    /// Returns an upper bound on the decoded duration in seconds: all frames, and all gaps between them as silence.
    pub(super) fn longest_s(&self) -> f64 {
        let rate_hz = self
            .format
            .map_or(MIN_HZ, |format| credible_rate_hz(format.rate_hz));
        self.seconds + self.n_gap_samples as f64 / f64::from(rate_hz)
    }

    /// Reports whether the frame numbers are credible: the gaps are in total no longer than the actual audio allows.
    pub(super) fn gaps_are_credible(&self) -> bool {
        is_credible(
            self.n_samples.saturating_add(self.n_gap_samples),
            self.n_samples,
        )
    }

    /// Estimates the number of samples in streams of other codecs from the mean bytes per sample of the frames, limited
    /// to the largest credible announcement.
    pub(super) fn foreign_samples(&self) -> u64 {
        let estimate =
            self.n_foreign_bytes as f64 * self.n_samples as f64 / self.n_bytes.max(1) as f64;
        (estimate as u64).min(credible_max(self.n_samples) - self.n_samples)
    }

    /// Returns the announced length in samples; `None` if it is missing or not credible.
    pub(super) fn announced(&self) -> Option<u64> {
        self.announced_samples
            .filter(|&announced| is_credible(announced, self.n_samples))
    }
}

/// Maximum number of formats that are counted, which is more than any real file has.
const FORMATS_MAX: usize = 64;

impl Header {
    /// Returns the format of a frame; `None` if it refers to a missing STREAMINFO block.
    pub(super) fn format(&self, info: Option<&StreamInfo>) -> Option<Format> {
        let rate_hz = self.rate_hz.or(info.map(|info| info.rate_hz))?;
        Some(Format {
            rate_hz,
            channels: self.channels,
        })
    }
}

/// Computes a survey incrementally.
struct Surveyor {
    survey: Survey,
    /// STREAMINFO block of the current stream.
    info: Option<StreamInfo>,
    n_streams: usize,
    /// Formats, and the number of frames with each.
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
            key: KeyHasher::new("flac"),
            gaps: GapTracker::default(),
        }
    }

    /// Starts a stream and records its STREAMINFO block.
    fn begin_stream(&mut self, info: Option<StreamInfo>) {
        let n_samples = info.and_then(|info| info.n_samples);
        // If every stream announces its length, the lengths are added up.
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
            // The frame is covered by the audio hash, but the hash does not show where the frame ends.
            self.key.item(
                "frame",
                &[frame.bytes.len() as u64, frame.skipped_bytes as u64],
            );

            let format = frame.header.format(self.info.as_ref());
            let rate_hz = format.map_or(0, |format| format.rate_hz);
            self.survey.add(&frame, self.gaps.gap(&frame), rate_hz);

            // Adjacent frames are hashed together, because blake3 is fast only for long input.
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

        // Decoding uses the nominal length of a truncated frame. Only the last piece's value counts, so every piece
        // adds an item.
        let broken = frames.broken();
        let n_samples = broken.map(|(_, header)| u64::from(header.n_samples));
        self.key.item("piece", n_samples.as_slice());
    }

    fn count(&mut self, format: Format) {
        match self.formats.iter().position(|(known, _)| *known == format) {
            Some(at) => self.formats[at].1 += 1,
            // The most frequent format is among the first ones.
            None if self.formats.len() < FORMATS_MAX => self.formats.push((format, 1)),
            None => {}
        }
    }

    fn finish(mut self) -> Survey {
        self.survey.audio_blake3 = self.hasher.finalize();
        self.survey.decode_key = self.key.finish(&self.survey.audio_blake3);
        // `max_by_key` would return the last of several maxima; the first is needed.
        let most = self.formats.iter().map(|(_, count)| *count).max();
        let main = self.formats.iter().find(|(_, count)| Some(*count) == most);
        self.survey.format = main.map(|(format, _)| *format);
        self.survey
    }
}
