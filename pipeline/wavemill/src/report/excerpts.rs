//! Audio excerpts of clips for the page, read from the archive that the version was made from.
//!
//! The archive may have changed since the version was made, and may contain arbitrary files. If a clip cannot be read,
//! the page therefore states the reason instead of failing.

use wavemill_decode as decode;
use wavemill_decode::{Decode, DecodeArgs, FileDecoder, Pcm};
use wavemill_extract::single;
use wavemill_kernels::Level;
use wavemill_pages::Sound;
use wavemill_runtime::panics;
use wavemill_schemas::recipe::{AudioSpec, DecodePath};
use wavemill_schemas::samples::samples_in;
use wavemill_source::{ReadFailure, Source};

/// Maximum duration of an excerpt in seconds, enough to recognize a clip.
const EXCERPT_S_MAX: f64 = 10.0;
/// Maximum number of samples in all excerpts of a page. Each sample takes two bytes, plus a third for base64. These 6
/// MB leave room for everything else in a page of 10 MB.
const SAMPLES_MAX: usize = 2_250_000;

/// Origin of a feature row: a clip and an offset in the clip.
#[derive(Clone, Debug)]
pub(super) struct RowOrigin {
    pub clip_key: String,
    /// Offset of the row in the clip, in seconds.
    pub offset_s: f64,
    /// Hash of the clip's decoded audio; `None` if the version does not record it.
    pub audio_blake3: Option<String>,
}

/// Reads excerpts of clips from an archive, one at a time.
pub(super) struct Excerpts<'a> {
    archive: &'a dyn Source,
    audio: &'a AudioSpec,
    /// Maximum number of samples in one excerpt.
    samples_max: usize,
    /// Clips of rows whose audio could not be read, each with the reason.
    pub unheard: Vec<(String, String)>,
    bytes: Vec<u8>,
    pcm: Pcm,
}

impl<'a> Excerpts<'a> {
    /// Creates a reader for at most `n_excerpts` excerpts of clips decoded according to `audio`. The excerpts share the
    /// space available on a page.
    pub(super) fn new(archive: &'a dyn Source, audio: &'a AudioSpec, n_excerpts: usize) -> Self {
        // An excerpt is at most as long as a row, so that its audio matches the picture.
        let row_s = audio.segment_s.or(audio.duration_s);
        let excerpt_s = row_s.unwrap_or(EXCERPT_S_MAX).min(EXCERPT_S_MAX);
        let share = SAMPLES_MAX / n_excerpts.max(1);
        Self {
            archive,
            audio,
            samples_max: samples_in(excerpt_s, audio.sample_rate_hz).min(share),
            unheard: Vec::new(),
            bytes: Vec::new(),
            pcm: Pcm::default(),
        }
    }

    /// Returns the audio at the beginning of a feature row, or adds the clip to [`Excerpts::unheard`].
    pub(super) fn of_row(&mut self, row: &RowOrigin) -> Option<Sound> {
        match self.read(row) {
            Ok(sound) => Some(sound),
            Err(why) => {
                self.unheard.push((row.clip_key.clone(), why));
                None
            }
        }
    }

    /// Reads the audio at the beginning of a feature row, decoded in the same way as for the features.
    ///
    /// # Errors
    /// The reason why the audio cannot be read, as a sentence without a final period.
    pub(super) fn read(&mut self, row: &RowOrigin) -> Result<Sound, String> {
        let read = self.archive.read(&row.clip_key, &mut self.bytes);
        read.map_err(|failure| match failure {
            ReadFailure::Reject(reject) => single::describe_reject(&reject),
            ReadFailure::Io(error) => error.to_string(),
        })?;

        let rate_hz = self.audio.sample_rate_hz;
        let most_s = self.audio.max_duration_s;
        let from = samples_in(row.offset_s.min(most_s), rate_hz);
        let to = from + self.samples_max;
        self.decode(to as f64 / f64::from(rate_hz))?;

        // By now, the archive may contain another recording under the name of the clip.
        let recording = row.audio_blake3.as_ref();
        if recording.is_some_and(|recording| *recording != self.pcm.audio_blake3) {
            return Err("the archive contains another recording under this name".to_owned());
        }

        let decoded = &self.pcm.samples[..self.pcm.n_samples];
        let heard = decoded.get(from..to.min(decoded.len()));
        match heard {
            Some(samples) if !samples.is_empty() => Ok(Sound {
                sample_rate_hz: rate_hz,
                from_s: from as f64 / f64::from(rate_hz),
                samples: samples.to_vec(),
            }),
            _ => Err("the recording ends before this row".to_owned()),
        }
    }

    /// Decodes the clip's bytes, which were read before, up to `end_s`, in the same way as an extraction run.
    fn decode(&mut self, end_s: f64) -> Result<(), String> {
        let args = DecodeArgs {
            sample_rate_hz: self.audio.sample_rate_hz,
            duration_s: Some(end_s),
            min_duration_s: 0.0,
            keep_rate: false,
        };
        let decoder = FileDecoder::new(args, Level::detect());
        let mut decoder = decoder.map_err(|error| error.to_string())?;
        if self.audio.decode.path == DecodePath::Band {
            decoder = decoder.by_band();
        }

        decoder.expect(decode::longest_s(&self.bytes).min(end_s));
        // A decoder is not reused after a panic, which may leave it in an invalid state.
        match panics::caught(|| decoder.decode("", &self.bytes, &mut self.pcm)) {
            Ok(decoded) => decoded.map_err(|reject| single::describe_reject(&reject)),
            Err(_panic) => Err("the decoder panicked on this clip".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use wavemill_source as source;
    use wavemill_source::Media;

    use super::*;

    /// Creates a WAVE file with 8 kHz, 16 bits and one channel whose samples increase by one.
    fn wave_file(n_samples: u16) -> Vec<u8> {
        let sample_bytes = 2 * u32::from(n_samples);
        let mut file = b"RIFF".to_vec();
        file.extend((36 + sample_bytes).to_le_bytes());
        file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data");
        file.extend(sample_bytes.to_le_bytes());
        for sample in 0..n_samples {
            file.extend(sample.to_le_bytes());
        }
        file
    }

    fn audio() -> AudioSpec {
        let text = "sample_rate_hz = 8000\nduration_s = 2.0";
        toml::from_str(text).expect("a section")
    }

    fn row(clip_key: &str, offset_s: f64) -> RowOrigin {
        RowOrigin {
            clip_key: clip_key.to_owned(),
            offset_s,
            audio_blake3: None,
        }
    }

    #[test]
    fn an_excerpt_begins_with_its_row_and_is_no_longer() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("a.wav"), wave_file(20_000)).expect("room");
        let archive = source::open(folder.path(), Media::Audio, false).expect("an archive");
        let audio = audio();

        let mut excerpts = Excerpts::new(archive.as_ref(), &audio, 1);

        let sound = excerpts.read(&row("a.wav", 0.25)).expect("a sound");
        assert_eq!((sound.from_s, sound.samples.len()), (0.25, 16_000));
        assert!((sound.samples[3] - 2003.0 / 32_768.0).abs() < 1e-6);

        let end = excerpts.read(&row("a.wav", 2.25)).expect("a sound");
        assert_eq!(end.samples.len(), 2_000, "the recording ends");

        let behind = excerpts.read(&row("a.wav", 1e30)).expect_err("nothing");
        assert!(behind.contains("ends before"), "{behind}");

        // With many excerpts, each may have only a small share of the page's samples.
        let mut excerpts = Excerpts::new(archive.as_ref(), &audio, 1_000);
        let sound = excerpts.read(&row("a.wav", 0.0)).expect("a sound");
        assert_eq!(sound.samples.len(), 2_250);
    }

    #[test]
    fn unreadable_excerpts_return_the_reason() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        std::fs::write(root.join("a.wav"), wave_file(20_000)).expect("room");
        std::fs::write(root.join("text.mp3"), "no sound").expect("room");
        std::fs::write(root.join("empty.mp3"), "").expect("room");
        std::os::unix::fs::symlink("/etc/passwd", root.join("link.mp3")).expect("room");

        let archive = source::open(folder.path(), Media::Audio, false).expect("an archive");
        let audio = audio();
        let mut excerpts = Excerpts::new(archive.as_ref(), &audio, 4);

        let cases = [
            ("text.mp3", "not_audio"),
            ("empty.mp3", "empty"),
            ("link.mp3", "outside_root"),
            ("gone.mp3", "missing_file"),
            ("../../etc/passwd", "outside_root"),
        ];
        for (key, reason) in cases {
            let why = excerpts.read(&row(key, 0.0)).expect_err(key);
            assert!(why.starts_with(reason), "{key}: {why}");
        }

        let other = RowOrigin {
            audio_blake3: Some("00".to_owned()),
            ..row("a.wav", 0.0)
        };
        let why = excerpts.read(&other).expect_err("another recording");
        assert!(why.contains("another recording"), "{why}");
        // Earlier errors do not affect later reads.
        assert!(excerpts.read(&row("a.wav", 0.0)).is_ok());
    }
}
