//! One decoder for all formats: looks at the bytes, hands them on, and judges what came out.

use wavemill_kernels::Level;
use wavemill_kernels::resample::ResampleError;
use wavemill_schemas::reject::{Reason, Reject};
use wavemill_schemas::samples::samples_in;

use super::loss::Loss;
use super::mp3::Mp3Decoder;
use super::ogg;
use super::output::Output;
use super::sniff::{Format, sniff};
use super::{Decode, DecodeArgs, DecodeReport, FILE_BYTES_MAX, Pcm, flac, reject, wav};

/// Decodes MP3 by ourselves and everything else with symphonia. Keeps its parsers, buffers and resampler plans from clip to
/// clip.
pub struct FileDecoder {
    args: DecodeArgs,
    pub(super) output: Output,
    mp3: Mp3Decoder,
    file_bytes_max: usize,
}

impl FileDecoder {
    /// Makes a decoder, one a worker.
    ///
    /// # Errors
    /// [`ResampleError`] for an output rate out of range, or a level that the machine lacks.
    pub fn new(args: DecodeArgs, level: Level) -> Result<Self, ResampleError> {
        let output = Output::new(&args, level)?;
        Ok(Self {
            args,
            output,
            mp3: Mp3Decoder::new(level)?,
            file_bytes_max: FILE_BYTES_MAX,
        })
    }

    /// Of MP3 files at twice the wanted rate or more, only what reaches the wanted rate is computed. Default: the full band
    /// of all files.
    #[must_use]
    pub fn by_band(mut self) -> Self {
        self.mp3.by_band(self.args.sample_rate_hz);
        self
    }

    /// Longer clips than this, in seconds, are rejects where no less is asked for. Default: three hours.
    #[must_use]
    pub fn at_most(mut self, seconds: f64) -> Self {
        self.output.set_most(&self.args, seconds);
        self
    }

    /// Larger files than this are rejects. Default: [`FILE_BYTES_MAX`].
    #[must_use]
    pub fn at_most_bytes(mut self, bytes: usize) -> Self {
        self.file_bytes_max = bytes;
        self
    }

    /// A clip with too little audio in it is a reject, or with too much. It judges by counts alone, because `out.samples`
    /// is empty where samples are only counted, and at another rate where the file's is kept.
    fn judge(&self, loss: &Loss, out: &Pcm) -> Result<(), Reject> {
        let rate_hz = self.args.sample_rate_hz;
        let duration_s = out.n_samples as f64 / f64::from(rate_hz);
        // In whole samples, as the end of the clip is: what is cut at its least duration is long enough.
        let n_least = samples_in(self.args.min_duration_s, rate_hz)
            .max(usize::from(self.args.min_duration_s > 0.0));
        let min_duration_s = n_least as f64 / f64::from(rate_hz);
        // Silence in the place of what was lost is no audio. Less than nothing can be left where a part of it was trimmed.
        let audio_s = duration_s - loss.silenced_s;

        // Damage before the two reasons below it: what is short or empty because audio was lost is `damaged`.
        let (reason, detail) = if self.output.is_too_long(out.n_samples) {
            (
                Reason::TooLarge,
                format!(
                    "longer than {} s, and no less is asked for",
                    self.output.most_s()
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
        self.output.expect(longest_s);
    }

    fn measure(&mut self, extension: &str, bytes: &[u8], out: &mut Pcm) -> Result<f64, Reject> {
        // The way of decoding itself, so that both always agree.
        self.output.is_measuring = true;
        let decoded = self.decode(extension, bytes, out);
        // Also after a reject. After a panic the caller drops this decoder.
        self.output.is_measuring = false;
        decoded.map(|()| out.n_samples as f64 / f64::from(self.args.sample_rate_hz))
    }

    fn decode(&mut self, _extension: &str, bytes: &[u8], out: &mut Pcm) -> Result<(), Reject> {
        // The formats set it as soon as they have it, since rejects have one too.
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

        // By the bytes alone: the extensions in archives lie.
        let DecodeReport { loss, audio_blake3 } = match sniff(bytes) {
            Format::Mpeg => self.mp3.decode(bytes, &mut self.output, out)?,
            Format::Unsupported(name) => {
                return Err(reject(
                    Reason::UnsupportedCodec,
                    format!("{name} is not decoded"),
                ));
            }
            Format::Flac => flac::decode(bytes, &mut self.output, out)?,
            Format::Wav => wav::decode(bytes, &mut self.output, out)?,
            Format::Ogg if ogg::holds_flac(bytes) => flac::decode(bytes, &mut self.output, out)?,
            Format::Ogg => ogg::decode(bytes, &mut self.output, out)?,
        };

        // The clip's permit was taken for what `expect` was told.
        debug_assert!(
            self.output.is_as_expected(out.n_samples),
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
