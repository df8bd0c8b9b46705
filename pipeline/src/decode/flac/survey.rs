//! The first walk over a FLAC file: what the stream is, how much of it is there, and what its frames hash to.

use super::clock::{Clock, Gap};
use super::frames::{Frame, Frames};
use super::header::{Header, StreamInfo};
use crate::decode::loss::is_credible;

/// What frames must share to be of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Sample rate, Hz; any number.
    pub rate_hz: u32,
    /// 1 to 8.
    pub channels: u8,
}

/// What a whole file holds.
#[derive(Clone, Copy, Debug)]
pub struct Survey {
    /// What the file's first block says.
    info: Option<StreamInfo>,
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
    /// Samples missing between them, by their numbers.
    n_gap_samples: u64,
    /// blake3 over the frames.
    pub audio_blake3: blake3::Hash,
}

impl Survey {
    /// Walks the whole file.
    pub fn new(file: &[u8]) -> Self {
        let info = StreamInfo::parse(file);
        let mut survey = Self {
            info,
            format: None,
            frame_samples_max: 0,
            n_frames: 0,
            n_bytes: 0,
            n_samples: 0,
            n_gap_samples: 0,
            audio_blake3: blake3::hash(&[]),
        };
        let mut formats: Vec<(Format, u64)> = Vec::new();
        let mut hasher = blake3::Hasher::new();
        let mut clock = Clock::default();
        let mut run = 0..0;

        for frame in Frames::new(file) {
            survey.add(&frame, clock.gap(&frame));
            // Neighbours are hashed together: blake3 is fast on long input only.
            if frame.offset != run.end {
                hasher.update(&file[run]);
                run = frame.offset..frame.offset;
            }
            run.end += frame.bytes.len();

            let Some(format) = survey.format_of(&frame.header) else { continue };
            match formats.iter().position(|(known, _)| *known == format) {
                Some(at) => formats[at].1 += 1,
                // More kinds than any real file has: what decides is among the first.
                None if formats.len() < FORMATS_MAX => formats.push((format, 1)),
                None => {}
            }
        }

        hasher.update(&file[run]);
        survey.audio_blake3 = hasher.finalize();
        let most = formats.iter().map(|(_, count)| *count).max();
        survey.format = formats.iter().find(|(_, count)| Some(*count) == most).map(|(format, _)| *format);
        survey
    }

    fn add(&mut self, frame: &Frame, gap: Gap) {
        self.n_frames += 1;
        self.n_bytes += frame.bytes.len() as u64;
        self.n_samples += u64::from(frame.header.n_samples);
        self.frame_samples_max = self.frame_samples_max.max(frame.header.n_samples);
        if let Gap::Known(n_samples) = gap {
            self.n_gap_samples = self.n_gap_samples.saturating_add(n_samples);
        }
    }

    /// The format of a frame; `None` where it refers to a block that is not there.
    pub fn format_of(&self, header: &Header) -> Option<Format> {
        let rate_hz = header.rate_hz.or(self.info.map(|info| info.rate_hz))?;
        Some(Format { rate_hz, channels: header.channels })
    }

    /// Bits a sample of frames that do not say it themselves; `None` where nothing else says it either.
    pub fn bits(&self) -> Option<u8> {
        // symphonia takes no less than four.
        self.info.map(|info| info.bits).filter(|bits| *bits >= 4)
    }

    /// Whether the numbers of frames are believed: all gaps together are no longer than what is there allows.
    pub fn gaps_are_credible(&self) -> bool {
        is_credible(self.n_samples.saturating_add(self.n_gap_samples), self.n_samples)
    }

    /// The announced length in samples, where it is believed.
    pub fn announced(&self) -> Option<u64> {
        self.info?.n_samples.filter(|&announced| is_credible(announced, self.n_samples))
    }
}

/// Formats that are counted.
const FORMATS_MAX: usize = 64;
