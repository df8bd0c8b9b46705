//! One decoder for all formats: looks at the bytes, hands them on, and judges what came out.

use wavemill_kernels::Level;
use wavemill_kernels::resample::ResampleError;
use wavemill_schemas::reject::{Reason, Reject};

use super::container::ContainerDecoder;
use super::loss::Loss;
use super::mp3::Mp3Decoder;
use super::ogg;
use super::output::Output;
use super::sniff::{Format, sniff};
use super::{Decode, DecodeArgs, Decoded, FILE_BYTES_MAX, OUTPUT_S_MAX, Pcm, flac, reject, wav};

/// Decodes with symphonia. Keeps its parsers, buffers and resampler plans from clip to clip.
pub struct SymphoniaDecoder {
    args: DecodeArgs,
    pub(super) output: Output,
    mp3: Mp3Decoder,
    container: ContainerDecoder,
}

impl SymphoniaDecoder {
    /// Makes a decoder, one a worker.
    ///
    /// # Errors
    /// [`ResampleError`] for an output rate out of range, or a level that the machine lacks.
    pub fn new(args: DecodeArgs, level: Level) -> Result<Self, ResampleError> {
        let output = Output::new(&args, level)?;
        Ok(Self { args, output, mp3: Mp3Decoder::default(), container: ContainerDecoder::default() })
    }

    /// A clip with too little audio in it is a reject.
    fn judge(&self, loss: &Loss, out: &Pcm) -> Result<(), Reject> {
        let duration_s = out.n_samples as f64 / f64::from(self.args.sample_rate_hz);
        let audio_s = duration_s - loss.silenced_s;
        let is_cut = self.args.duration_s.is_none() && duration_s >= OUTPUT_S_MAX;
        let (reason, detail) = if is_cut {
            (Reason::TooLarge, format!("longer than {OUTPUT_S_MAX} s, and no duration is asked for"))
        } else if audio_s < self.args.min_duration_s && loss.lost_s > 0.0 {
            (Reason::Damaged, format!("{audio_s:.3} s of audio are left, {:.3} s are lost to damage", loss.lost_s))
        } else if out.samples.is_empty() {
            (Reason::NoAudio, "no audio sample comes out".to_owned())
        } else if duration_s < self.args.min_duration_s {
            (
                Reason::TooShort,
                format!("{duration_s:.3} s of audio, at least {} s are wanted", self.args.min_duration_s),
            )
        } else {
            return Ok(());
        };
        let decoded_s = Some(duration_s as f32);
        Err(Reject { byte_offset: loss.byte_offset, decoded_s, ..reject(reason, detail) })
    }
}

impl Decode for SymphoniaDecoder {
    fn decode(&mut self, _extension: &str, bytes: &[u8], out: &mut Pcm) -> Result<(), Reject> {
        if bytes.is_empty() {
            return Err(reject(Reason::Empty, "the file has no bytes"));
        }
        if bytes.len() > FILE_BYTES_MAX {
            return Err(reject(Reason::TooLarge, format!("{} bytes, at most {FILE_BYTES_MAX}", bytes.len())));
        }
        let Decoded { loss, audio_blake3 } = match sniff(bytes) {
            Format::Mpeg => self.mp3.decode(bytes, &mut self.output, out)?,
            Format::Unsupported(name) => {
                return Err(reject(Reason::UnsupportedCodec, format!("{name} is not decoded")));
            }
            Format::Flac => flac::decode(bytes, &mut self.output, out)?,
            Format::Wav => wav::decode(bytes, &mut self.output, out)?,
            Format::Ogg if ogg::holds_flac(bytes) => self.container.decode(bytes, &mut self.output, out)?,
            Format::Ogg => ogg::decode(bytes, &mut self.output, out)?,
        };
        self.judge(&loss, out)?;
        out.duration_s = out.n_samples as f32 / self.args.sample_rate_hz as f32;
        out.lost_s = loss.lost_s as f32;
        out.audio_blake3.clear();
        out.audio_blake3.push_str(&audio_blake3.to_hex());
        Ok(())
    }
}
