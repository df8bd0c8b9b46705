//! The first pass over a FLAC file, which determines the format, the length and the hash of its frames.

use wavemill_signal::resample::{MAX_FROM_HZ, MIN_HZ};

use super::frames::{Frame, Frames};
use super::gaps::{Gap, GapTracker};
use super::header::{Header, StreamInfo};
use crate::InputFacts;
use crate::key::KeyHasher;
use crate::loss::is_credible;
use crate::tags;

/// The sample format that all frames of one FLAC stream share.
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

/// The results of scanning a whole FLAC file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Survey {
    /// The file's STREAMINFO block.
    info: Option<StreamInfo>,
    /// The most frequent frame format, or the earlier one if two are equally frequent; `None` without frames.
    pub format: Option<Format>,
    /// Number of samples of the longest frame in the file.
    pub frame_samples_max: u32,
    /// Number of FLAC frames of all formats.
    pub n_frames: u64,
    /// Total size of the frames in bytes.
    pub n_bytes: u64,
    /// Total number of samples in all frames.
    pub n_samples: u64,
    /// Total duration of the frames in seconds, computed with each frame's own sample rate.
    seconds: f64,
    /// Number of samples missing between the frames, according to the frames' numbers.
    n_gap_samples: u64,
    /// blake3 hash over all frames.
    pub audio_blake3: blake3::Hash,
    /// Decode key: a hash over everything that affects decoding.
    decode_key: blake3::Hash,
}

impl Survey {
    /// Scans a whole FLAC file.
    pub(super) fn new(file: &[u8]) -> Self {
        let nothing = blake3::hash(&[]);
        let mut survey = Self {
            info: StreamInfo::parse(&file[tags::skip(file, 0)..]),
            format: None,
            frame_samples_max: 0,
            n_frames: 0,
            n_bytes: 0,
            n_samples: 0,
            seconds: 0.0,
            n_gap_samples: 0,
            audio_blake3: nothing,
            decode_key: nothing,
        };

        let mut key = KeyHasher::new("flac");
        survey.add_info(&mut key);

        let mut formats = FormatCounts::default();
        let mut hasher = blake3::Hasher::new();
        let mut gaps = GapTracker::default();
        let mut run = 0..0;
        let mut frames = Frames::new(file);

        for frame in &mut frames {
            // The audio hash covers the frame's bytes but not where the frame ends, so add its size to the key.
            key.item(
                "frame",
                &[frame.bytes.len() as u64, frame.skipped_bytes as u64],
            );

            let format = survey.format_of(&frame.header);
            let rate_hz = format.map_or(0, |format| format.rate_hz);
            survey.add(&frame, gaps.gap(&frame), rate_hz);
            if let Some(format) = format {
                formats.add(format);
            }

            // Frames without bytes between them are hashed together, because blake3 is fast only for long input.
            if frame.offset != run.end {
                hasher.update(&file[run]);
                run = frame.offset..frame.offset;
            }
            run.end += frame.bytes.len();
        }
        hasher.update(&file[run]);

        // The decoder uses the nominal length of a truncated frame.
        let truncated = frames.broken();
        let n_samples = truncated.map(|(_, header)| u64::from(header.n_samples));
        // Decode keys of existing stores contain this name of the item.
        key.item("piece", n_samples.as_slice());

        survey.format = formats.most_frequent();
        survey.audio_blake3 = hasher.finalize();
        survey.decode_key = key.finish(&survey.audio_blake3);
        survey
    }

    /// Adds to the decode key what the decoder uses of the STREAMINFO block.
    fn add_info(&self, key: &mut KeyHasher) {
        key.item("stream", &[]);
        if let Some(info) = self.info {
            key.item("info", &[u64::from(info.rate_hz), u64::from(info.bits)]);
            key.item("announced", info.n_samples.as_slice());
        }
    }

    /// Returns the file's hashes; none if the file has no frames.
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

    /// Returns an upper bound on the decoded duration in seconds: all frames, and silence for all gaps.
    pub(super) fn longest_s(&self) -> f64 {
        let rate_hz = self
            .format
            .map_or(MIN_HZ, |format| credible_rate_hz(format.rate_hz));
        self.seconds + self.n_gap_samples as f64 / f64::from(rate_hz)
    }

    /// Reports whether the frame numbers are credible: all gaps together are no longer than the actual audio allows.
    pub(super) fn gaps_are_credible(&self) -> bool {
        is_credible(
            self.n_samples.saturating_add(self.n_gap_samples),
            self.n_samples,
        )
    }

    /// Returns the announced length in samples; `None` if the length is missing or not credible.
    pub(super) fn announced(&self) -> Option<u64> {
        self.info?
            .n_samples
            .filter(|&announced| is_credible(announced, self.n_samples))
    }

    /// Returns the format of a frame; `None` if the frame refers to a missing STREAMINFO block.
    pub(super) fn format_of(&self, header: &Header) -> Option<Format> {
        let rate_hz = header.rate_hz.or(self.info.map(|info| info.rate_hz))?;
        Some(Format {
            rate_hz,
            channels: header.channels,
        })
    }

    /// Returns the bits per sample for frames that do not state them; `None` if they are unknown or symphonia does not
    /// support that number.
    pub(super) fn decodable_bits(&self) -> Option<u8> {
        self.info.and_then(|info| info.decodable_bits())
    }
}

/// Formats of FLAC frames, and the number of frames with each format.
#[derive(Default)]
struct FormatCounts {
    counts: Vec<(Format, u64)>,
}

impl FormatCounts {
    /// Maximum number of frame formats that are counted, which is more than any real file has.
    const FORMATS_MAX: usize = 64;

    fn add(&mut self, format: Format) {
        match self.counts.iter().position(|(known, _)| *known == format) {
            Some(at) => self.counts[at].1 += 1,
            // Ignore further formats, because the most frequent format is among the first ones.
            None if self.counts.len() < Self::FORMATS_MAX => self.counts.push((format, 1)),
            None => {}
        }
    }

    /// Returns the most frequent frame format; the earlier one if two are equally frequent.
    fn most_frequent(&self) -> Option<Format> {
        // `max_by_key` returns the last of several maxima, so search in reverse order.
        let most = self.counts.iter().rev().max_by_key(|(_, count)| *count);
        most.map(|(format, _)| *format)
    }
}
