//! The decoder for all formats: detects a file's format, decodes the file by it, and checks the output.

use wavemill_schemas::reject::{Reason, Reject};
use wavemill_schemas::samples::samples_in;
use wavemill_signal::Level;
use wavemill_signal::resample::ResampleError;

use super::channels::{Channels, ClipFacts};
use super::format::DecoderParts;
use super::formats::detect;
use super::loss::Loss;
use super::mp3::Mp3Decoder;
use super::output::Output;
use super::{Decode, DecodeArgs, DecodeReport, FILE_BYTES_MAX, Pcm, reject};

/// Decodes MP3 with wavemill's own decoder and all other formats with symphonia. Parsers, buffers and resampler plans
/// are kept from clip to clip.
pub struct FileDecoder {
    args: DecodeArgs,
    parts: DecoderParts,
    file_bytes_max: usize,
}

impl FileDecoder {
    /// Creates a decoder. Each worker thread needs its own.
    ///
    /// # Errors
    /// [`ResampleError`] if the output rate is out of range or the machine does not support `level`.
    pub fn new(args: DecodeArgs, level: Level) -> Result<Self, ResampleError> {
        let output = Output::new(&args, level)?;
        Ok(Self {
            args,
            parts: DecoderParts {
                output,
                mp3: Mp3Decoder::new(level)?,
            },
            file_bytes_max: FILE_BYTES_MAX,
        })
    }

    /// For MP3 files with at least twice the requested rate, decodes only the sub-bands that reach the output. Default:
    /// the full band of all files.
    #[must_use]
    pub fn by_band(mut self) -> Self {
        self.parts.mp3.by_band(self.args.sample_rate_hz);
        self
    }

    /// Rejects clips longer than this many seconds, unless the requested duration is no longer. Default: three hours.
    #[must_use]
    pub fn at_most(mut self, seconds: f64) -> Self {
        self.parts.output.set_most(&self.args, seconds);
        self
    }

    /// Rejects files larger than this many bytes. Default: [`FILE_BYTES_MAX`].
    #[must_use]
    pub fn at_most_bytes(mut self, bytes: usize) -> Self {
        self.file_bytes_max = bytes;
        self
    }

    /// Rejects clips with too little or too much audio. Uses only sample counts, because `out.samples` is empty if the
    /// duration is only measured, and has another rate if the file's rate is kept.
    fn judge(&self, loss: &Loss, out: &Pcm) -> Result<(), Reject> {
        let rate_hz = self.args.sample_rate_hz;
        let duration_s = out.n_samples as f64 / f64::from(rate_hz);
        // Compare whole samples: a clip whose output is cut at exactly the minimum duration is long enough.
        let n_least = samples_in(self.args.min_duration_s, rate_hz)
            .max(usize::from(self.args.min_duration_s > 0.0));
        let min_duration_s = n_least as f64 / f64::from(rate_hz);
        // Silence that replaces lost audio does not count as audio. The difference is negative if a part of that
        // silence was trimmed.
        let audio_s = duration_s - loss.silenced_s;

        // Check for damage before the reasons `too short` and `empty`: a clip that is short or empty because audio was
        // lost is `Damaged`.
        let (reason, detail) = if self.parts.output.is_too_long(out.n_samples) {
            (
                Reason::TooLarge,
                format!(
                    "longer than {} s, and no less is asked for",
                    self.parts.output.most_s()
                ),
            )
        } else if audio_s < min_duration_s && loss.lost_s > 0.0 {
            (
                Reason::Damaged,
                format!(
                    "{:.3} s of audio are left, {:.3} s are lost to damage",
                    audio_s.max(0.0),
                    loss.lost_s
                ),
            )
        } else if out.n_samples == 0 {
            (Reason::NoAudio, "no audio sample comes out".to_owned())
        } else if duration_s < min_duration_s {
            (
                Reason::TooShort,
                format!(
                    "{duration_s:.3} s of audio, at least {} s are wanted",
                    self.args.min_duration_s
                ),
            )
        } else {
            return Ok(());
        };

        let decoded_s = Some(duration_s as f32);
        Err(Reject {
            byte_offset: loss.byte_offset,
            decoded_s,
            ..reject(reason, detail)
        })
    }
}

impl Decode for FileDecoder {
    fn expect(&mut self, longest_s: f64) {
        self.parts.output.expect(longest_s);
    }

    fn measure(&mut self, extension: &str, bytes: &[u8], out: &mut Pcm) -> Result<f64, Reject> {
        // Measure the duration by decoding, so that `measure` and `decode` always agree.
        self.parts.output.is_measuring = true;
        let decoded = self.decode(extension, bytes, out);
        // Reset the flag even if the clip was rejected. After a panic the caller drops this decoder.
        self.parts.output.is_measuring = false;
        decoded.map(|()| out.n_samples as f64 / f64::from(self.args.sample_rate_hz))
    }

    fn decode(&mut self, _extension: &str, bytes: &[u8], out: &mut Pcm) -> Result<(), Reject> {
        out.decode_key = None;
        if bytes.is_empty() {
            return Err(reject(Reason::Empty, "the file has no bytes"));
        }
        if bytes.len() > self.file_bytes_max {
            return Err(reject(
                Reason::TooLarge,
                format!("{} bytes, at most {}", bytes.len(), self.file_bytes_max),
            ));
        }

        // Ignore the file name's extension: archives contain files with wrong extensions.
        let DecodeReport { loss, audio_blake3 } =
            detect(bytes).decode(bytes, &mut self.parts, out)?;

        // The memory reserved for the clip depends on the duration bound given to `expect`.
        debug_assert!(
            self.parts.output.is_as_expected(out.n_samples),
            "longer than it was thought possible"
        );
        self.judge(&loss, out)?;

        out.duration_s = out.n_samples as f32 / self.args.sample_rate_hz as f32;
        out.lost_s = loss.lost_s as f32;
        out.audio_blake3.clear();
        out.audio_blake3.push_str(&audio_blake3.to_hex());
        Ok(())
    }
}

impl Channels {
    /// Decodes a file without mixing its channels, at least up to `end_s` seconds: a packet that begins before the end
    /// is complete. `None` decodes the whole file.
    ///
    /// # Errors
    /// A [`Reject`] as for any clip, except that no clip is too short.
    pub fn decode(bytes: &[u8], end_s: Option<f64>) -> Result<Self, Reject> {
        let mut decoder = keeping_channels(end_s);
        let mut pcm = Pcm::default();
        decoder.decode("", bytes, &mut pcm)?;

        let mut channels = decoder.parts.output.channels.take().unwrap_or_default();
        channels.lost_s = pcm.lost_s;
        channels.unify();
        Ok(channels)
    }

    /// Decodes a whole file without keeping its samples.
    ///
    /// # Errors
    /// Same as [`Self::decode`].
    pub fn inspect(bytes: &[u8]) -> Result<ClipFacts, Reject> {
        let mut decoder = keeping_channels(None);
        let mut pcm = Pcm::default();
        let duration_s = decoder.measure("", bytes, &mut pcm)?;

        let channels = decoder.parts.output.channels.take().unwrap_or_default();
        Ok(ClipFacts {
            rate_hz: channels.rate_hz,
            n_channels: channels.planes.len().max(1),
            duration_s,
            lost_s: pcm.lost_s,
        })
    }
}

/// Returns a decoder that keeps the channels of a file up to `end_s` seconds.
fn keeping_channels(end_s: Option<f64>) -> FileDecoder {
    let args = DecodeArgs {
        // The mean of the channels keeps the file's rate and is discarded, so any sample rate would do.
        sample_rate_hz: 44_100,
        duration_s: end_s,
        min_duration_s: 0.0,
        keep_rate: true,
    };
    let mut decoder = FileDecoder::new(args, Level::detect())
        .expect("44.1 kHz and the detected level work on this machine");
    decoder.parts.output.channels = Some(Channels::default());
    decoder
}
