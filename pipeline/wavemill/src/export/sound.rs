//! The format `wav`: one sound per row, in one folder per class. Stored samples are written unchanged. From mel bands,
//! the sound is reconstructed and only approximates the clip.

use std::path::Path;

use serde_json::{Value, json};
use wavemill_kernels::griffin_lim::{GriffinLimArgs, GriffinLimPlan};
use wavemill_kernels::{DbRef, DimOrder, FeatureArgs, KernelError, Level, LogArgs, Op};
use wavemill_pages::wave_of_floats;
use wavemill_schemas::recipe::Normalize;
use wavemill_schemas::rng::{Rng, row_key};
use wavemill_schemas::samples::samples_in;

use super::Format;
use super::class_files::{self, Rows};
use super::content::Content;
use super::error::ExportError;
use super::reader::Reader;

/// Seed of the random phases, which also depend on the row's key.
const SEED: u64 = 0;
/// Name of the stream of random numbers from which the phases are drawn.
const STREAM: &str = "wavemill export: phases of a sound";

/// Instruction set of the computation, fixed so that equal versions give equal bytes on every machine.
const LEVEL: Level = Level::Scalar;

/// Peak to which the samples of a row are scaled if the original level of the row is unknown.
const PEAK: f32 = 0.5;

/// Part of error messages that describes which features can be exported.
const ALLOWED: &str = "only features with op = \"pcm\", or with op = \"mel\" and normalize = \"none\" can be exported";

/// Writes a sound for each row of all exported splits below `folder`; returns notes for users of the files.
///
/// # Errors
/// [`ExportError`] if rows cannot be read or a file cannot be written.
pub(super) fn write(
    content: &Content<'_>,
    reader: &Reader<'_>,
    folder: &Path,
) -> Result<Vec<String>, ExportError> {
    if content.feature.is_pcm() {
        return write_samples(content, reader, folder);
    }

    let args = invertible(content).map_err(unfit)?;
    let mut sounds = Sounds::new(content, args)?;
    let mut notes = class_files::write(content, reader, folder, Format::Wav, |rows, row| {
        sounds.file(rows, row)
    })?;

    notes.push(
        "an approximation (Griffin-Lim): the bands have no phase, so it is invented".to_owned(),
    );
    if let Some(top_db) = top_db(args) {
        notes.push(format!(
            "top_db: what was more than {top_db} dB below a row's loudest band is at that floor"
        ));
    }
    if has_no_level(args) {
        notes.push(format!(
            "db.ref = \"max\": the level of a row is not stored; the loudest sample of each file is {PEAK}"
        ));
    }
    Ok(notes)
}

/// Writes the samples of each row.
fn write_samples(
    content: &Content<'_>,
    reader: &Reader<'_>,
    folder: &Path,
) -> Result<Vec<String>, ExportError> {
    let rate_hz = content.feature.sample_rate_hz;
    let rate_hz = rate_hz.ok_or_else(|| ExportError::rows("samples without a sample rate"))?;
    let mut samples = Vec::new();
    class_files::write(content, reader, folder, Format::Wav, |rows, row| {
        samples.clear();
        rows.tensors.read(row, &mut samples);
        encoded(&samples, rate_hz, rows, row)
    })
}

/// Encodes the sound of a row.
fn encoded(
    samples: &[f32],
    rate_hz: u32,
    rows: &Rows<'_>,
    row: usize,
) -> Result<Vec<u8>, ExportError> {
    wave_of_floats(samples, rate_hz).ok_or_else(|| {
        let key = rows.keys.clip_key.value(row);
        unfit(format!("{key}: too long for a WAVE file of 4 GB"))
    })
}

/// Returns the parameters by which sound is reconstructed, for `export.json`.
pub(super) fn about(content: &Content<'_>) -> Value {
    let args = content.args.as_ref();
    json!({
        "method": "griffin_lim",
        "n_iter": GriffinLimPlan::N_ITER,
        "momentum": GriffinLimPlan::MOMENTUM,
        "phase": "invented",
        "top_db": args.and_then(top_db),
        "peak": args.is_some_and(has_no_level).then_some(PEAK),
    })
}

/// Returns the feature's arguments if sound can be computed from its values.
///
/// # Errors
/// The reason as a sentence, if sound cannot be computed from the feature.
pub(super) fn invertible<'a>(content: &'a Content<'_>) -> Result<&'a FeatureArgs, String> {
    let name = &content.feature.name;
    // Picture files and files of audio have no sample rate.
    if content.feature.sample_rate_hz.is_none() {
        return Err(format!("{name} is not a mel spectrogram: {ALLOWED}"));
    }
    let Some(args) = &content.args else {
        return Err(format!("the manifest's recipe does not describe {name}"));
    };

    if args.op != Op::Mel || args.derived.is_some() {
        return Err(format!("{name} is not a mel spectrogram: {ALLOWED}"));
    }
    let scaling = match args.normalize {
        Normalize::None => None,
        Normalize::MinMax => Some("minmax"),
        Normalize::MeanVar => Some("meanvar"),
    };
    if let Some(scaling) = scaling {
        return Err(format!(
            "{name} has normalize = \"{scaling}\", and the scale factors of normalized rows are not stored: {ALLOWED}"
        ));
    }
    if args.stft.hop_length > args.stft.win_length {
        return Err(format!(
            "the frames of {name} are further apart (hop_length {}) than they are long (win_length {}), so the samples \
             between them are lost",
            args.stft.hop_length, args.stft.win_length
        ));
    }
    Ok(args)
}

fn unfit(problem: String) -> ExportError {
    ExportError::unfit(&Format::Wav.name(), problem)
}

/// Returns how far below the loudest band of a row its values were cut off, in dB; `None` if they were not cut off.
fn top_db(args: &FeatureArgs) -> Option<f64> {
    match args.log {
        LogArgs::Db(db) => db.top_db,
        LogArgs::Whisper => Some(80.0),
        LogArgs::Linear | LogArgs::Ln { .. } => None,
    }
}

/// Reports whether decibels are relative to the loudest band of each row.
fn has_no_level(args: &FeatureArgs) -> bool {
    matches!(args.log, LogArgs::Db(db) if db.reference == DbRef::Max)
}

/// Converts mel spectrograms of rows to WAVE files.
struct Sounds<'a> {
    args: &'a FeatureArgs,
    plan: GriffinLimPlan,
    n_mels: usize,
    /// Scratch buffer: a row's values as stored.
    values: Vec<f32>,
    /// Scratch buffer: a row's mel bands frame by frame, without deltas.
    frames: Vec<f32>,
    /// Scratch buffer: the samples of a sound.
    samples: Vec<f32>,
}

impl<'a> Sounds<'a> {
    fn new(content: &Content<'_>, args: &'a FeatureArgs) -> Result<Self, ExportError> {
        let Some(mel) = &args.mel else {
            return Err(unfit(format!("{}: {ALLOWED}", content.feature.name)));
        };

        let of_bands = GriffinLimArgs {
            sample_rate_hz: args.sample_rate_hz,
            stft: args.stft.clone(),
            power: args.power,
            mel: mel.clone(),
            log: args.log,
        };

        let plan = GriffinLimPlan::new(&of_bands, LEVEL);
        let plan = plan.map_err(|error: KernelError| unfit(error.to_string()))?;

        Ok(Self {
            args,
            plan,
            n_mels: mel.n_mels,
            values: Vec::new(),
            frames: Vec::new(),
            samples: Vec::new(),
        })
    }

    fn file(&mut self, rows: &Rows<'_>, row: usize) -> Result<Vec<u8>, ExportError> {
        let n_frames = self.load(rows, row)?;
        if rows.silent.value(row) {
            // Silence is written as zeros: its decibels may be 0, which in other rows is the loudest band's value.
            self.samples.clear();
            self.samples
                .resize(n_frames * self.args.stft.hop_length, 0.0);
        } else {
            let key = row_key(
                rows.keys.clip_key.value(row),
                rows.keys.segment.value(row),
                rows.keys.variant.value(row),
            );
            let mut rng = Rng::for_row(SEED, 0, key, STREAM);
            self.plan
                .run(&self.frames, || rng.uniform(), &mut self.samples);
            if has_no_level(self.args) {
                raise_to_peak(&mut self.samples);
            }
        }

        encoded(&self.samples, self.args.sample_rate_hz, rows, row)
    }

    /// Loads the mel bands of a row frame by frame, up to the end of the clip; returns the number of frames.
    fn load(&mut self, rows: &Rows<'_>, row: usize) -> Result<usize, ExportError> {
        let shape = rows.tensors.shape(row)?;
        self.values.clear();
        rows.tensors.read(row, &mut self.values);

        let &[height, width] = shape.as_slice() else {
            return Err(ExportError::rows("a mel spectrogram has two dimensions"));
        };
        let (n_bands, n_stored) = match self.args.dim_order {
            DimOrder::BandFrame => (height, width),
            DimOrder::FrameBand => (width, height),
        };
        if n_bands < self.n_mels {
            let problem = format!("{n_bands} bands, but {} in the recipe", self.n_mels);
            return Err(ExportError::rows(problem));
        }

        let n_frames = self.n_valid_frames(rows, row, n_stored);
        self.frames.clear();
        for frame in 0..n_frames {
            // The values of deltas follow those of the mel bands and are not used.
            for band in 0..self.n_mels {
                let at = match self.args.dim_order {
                    DimOrder::BandFrame => band * n_stored + frame,
                    DimOrder::FrameBand => frame * n_bands + band,
                };
                self.frames.push(self.values[at]);
            }
        }
        Ok(n_frames)
    }

    /// Returns how many of a row's `n_stored` frames contain samples of the clip, at least one. The rest is padding.
    fn n_valid_frames(&self, rows: &Rows<'_>, row: usize, n_stored: usize) -> usize {
        let rate_hz = self.args.sample_rate_hz;
        let variant = f64::from(rows.keys.variant.value(row));
        let clip_s = f64::from(rows.duration_s.value(row));
        let clip = samples_in(clip_s / variant, rate_hz);
        let start = samples_in(f64::from(rows.keys.offset_s.value(row)), rate_hz);

        let stft = &self.args.stft;
        // The number of samples is limited, because an invalid duration could overflow the number of frames.
        let most = stft.hop_length.saturating_mul(n_stored) + stft.n_fft;
        let n_samples = clip.saturating_sub(start).min(most);
        stft.n_frames(n_samples).max(1).min(n_stored)
    }
}

/// Scales samples so that their maximum absolute value is [`PEAK`].
fn raise_to_peak(samples: &mut [f32]) {
    let loudest = samples.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
    if loudest > 0.0 {
        for sample in samples {
            *sample *= PEAK / loudest;
        }
    }
}
