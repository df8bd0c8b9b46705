//! The first pass over an MP3 file, which determines the stream's format, the hash of its frames, and the encoder's
//! announcements.

use super::CONFIRMING_FRAMES;
use super::frames::Frames;
use super::header::Header;
use super::info::Info;
use crate::InputFacts;
use crate::key::KeyHasher;
use crate::loss::is_credible;

/// The results of scanning a whole MP3 file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Survey {
    /// A frame header in the most frequent format, or in the earlier one if two are equally frequent; `None` without
    /// audio frames.
    pub stream: Option<Header>,
    /// Whether stretches of layer III may have several sample rates.
    pub has_several_rates: bool,
    /// The data announced in the first Info, Xing or VBRI frame.
    pub info: Option<Info>,
    /// Number of audio frames of all formats.
    pub n_frames: u64,
    /// Total size of the audio frames in bytes.
    pub n_bytes: u64,
    /// blake3 hash over all audio frames.
    pub audio_blake3: blake3::Hash,
    /// Decode key: a hash over everything that affects decoding.
    decode_key: blake3::Hash,
}

impl Survey {
    /// Returns the file's hashes; none if the stream is not layer III, because such a file is rejected.
    pub(crate) fn facts(&self) -> InputFacts {
        match self.stream {
            Some(stream) if stream.layer == 3 => {
                InputFacts::from_audio(self.audio_blake3, self.decode_key)
            }
            _ => InputFacts::default(),
        }
    }

    /// Returns the mean size of the audio frames in bytes.
    pub(crate) fn frame_bytes(&self) -> f64 {
        self.n_bytes as f64 / self.n_frames.max(1) as f64
    }

    /// Returns the number of announced frames that are missing; `None` if none is announced or the announcement does
    /// not fit this stream. It fits if its mean frame size is within a factor of two of the actual one, and if the file
    /// contains a credible share of the announced frames and bytes.
    pub(crate) fn missing_frames(&self) -> Option<u64> {
        let info = self
            .info
            .filter(|info| info.n_frames > 0 && info.n_bytes > 0)?;

        // Ratio of the announced mean frame size to the actual one.
        let ratio = info.n_bytes as f64 / info.n_frames as f64 / self.frame_bytes();
        let is_like_this = (0.5..=2.0).contains(&ratio);
        let is_backed =
            is_credible(info.n_frames, self.n_frames) && is_credible(info.n_bytes, self.n_bytes);
        (is_like_this && is_backed).then(|| info.n_frames.saturating_sub(self.n_frames))
    }

    /// Returns the trim announced by the encoder: the number of samples to drop at the start, and the index of the
    /// sample before which the audio ends. If fewer frames are announced than exist, or their lengths differ because the
    /// rate changes, the end is unknown.
    pub(crate) fn trim(&self, stream: &Header) -> (u64, Option<u64>) {
        let Some((info, trim)) = self.info.and_then(|info| Some((info, info.trim?))) else {
            return (0, None);
        };
        let end = (info.n_frames * stream.samples()).saturating_sub(trim.end_samples);
        let is_known = info.n_frames >= self.n_frames && !self.has_several_rates;
        (trim.start_samples, is_known.then_some(end))
    }
}

/// Creates surveys of MP3 files. The buffers are reused from file to file.
#[derive(Debug, Default)]
pub(crate) struct Surveyor {
    hasher: blake3::Hasher,
    formats: Vec<(Header, u64)>,
}

impl Surveyor {
    /// Scans a whole MP3 file.
    pub(crate) fn survey(&mut self, file: &[u8]) -> Survey {
        self.hasher.reset();
        self.formats.clear();

        let mut key = KeyHasher::new("mp3");
        let mut info = None;
        let mut n_frames = 0;
        let mut n_bytes = 0;
        let mut run = 0..0; // adjacent frames that are not yet hashed
        let mut frames = Frames::new(file);
        if let Some(free_bytes) = frames.free_bytes() {
            key.item("free", &[free_bytes as u64]);
        }
        for frame in &mut frames {
            // The audio hash covers the frames and thereby their lengths, so only gaps are added to the key.
            if frame.skipped_bytes > 0 {
                key.item("hole", &[n_frames, frame.skipped_bytes as u64]);
            }

            if let Some(announced) = Info::parse(&frame) {
                // Use the first Info frame, because concatenated files contain one each.
                info.get_or_insert(announced);
                continue;
            }
            n_frames += 1;
            n_bytes += frame.bytes.len() as u64;

            // Frames without bytes between them are hashed together, because blake3 is fast only for long input.
            if frame.offset != run.end {
                self.hasher.update(&file[run]);
                run = frame.offset..frame.offset;
            }
            run.end += frame.bytes.len();
            self.count(&frame.header);
        }
        self.hasher.update(&file[run]);
        let audio_blake3 = self.hasher.finalize();

        if let Some(info) = info {
            key.item("announced", &[info.n_frames, info.n_bytes]);
            if let Some(trim) = info.trim {
                key.item("trim", &[trim.start_samples, trim.end_samples]);
            }
        }
        key.item("truncated", &[u64::from(frames.truncated_at().is_some())]);

        // Do not use `max_by_key`, which returns the last of several maxima: the first is needed.
        let most = self.formats.iter().map(|(_, count)| *count).max();
        let stream = self
            .formats
            .iter()
            .find(|(_, count)| Some(*count) == most)
            .map(|(header, _)| *header);

        // Formats of fewer frames cannot form a stretch of their own.
        let has_several_rates = self.formats.iter().any(|(header, count)| {
            let is_other = !stream.is_some_and(|stream| stream.same_stream(header));
            is_other && header.layer == 3 && *count > CONFIRMING_FRAMES as u64
        });

        Survey {
            stream,
            has_several_rates,
            info,
            n_frames,
            n_bytes,
            audio_blake3,
            decode_key: key.finish(&audio_blake3),
        }
    }

    fn count(&mut self, header: &Header) {
        match self
            .formats
            .iter_mut()
            .find(|(known, _)| known.same_decoder(header))
        {
            Some((_, count)) => *count += 1,
            None => self.formats.push((*header, 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(n_there: u64, n_frames: u64, frame_bytes: u64) -> Option<u64> {
        let info = Info {
            n_frames,
            n_bytes: n_frames * frame_bytes,
            trim: None,
        };
        let nothing = blake3::hash(&[]);
        let n_bytes = 417 * n_there;

        Survey {
            stream: None,
            has_several_rates: false,
            info: Some(info),
            n_frames: n_there,
            n_bytes,
            audio_blake3: nothing,
            decode_key: nothing,
        }
        .missing_frames()
    }

    #[test]
    fn truncated_download_loses_announced_frames_unless_not_credible() {
        assert_eq!(missing(100, 1_000, 417), Some(900));

        assert_eq!(missing(100, 1_001, 417), None);
        assert_eq!(
            missing(1_000, 23_000_000, 210),
            None,
            "604,000 s in a small file"
        );
        assert_eq!(
            missing(100, 900, 800),
            None,
            "more bytes than ten times what is there"
        );
        assert_eq!(
            missing(100, 200, 100),
            None,
            "other frames than those that are there"
        );

        assert_eq!(missing(100, 90, 417), Some(0));
    }
}
