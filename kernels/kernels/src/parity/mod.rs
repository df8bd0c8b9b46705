//! Tests every backend with the same test functions, which compare plans with the f64 references.

mod batches;
mod cases;
mod derived;
mod long_clips;
mod required_gpu;
mod sets;
mod shapes;

use std::sync::{Arc, OnceLock};

use wavemill_options::{
    DbRef, DbSpec, DimOrder, Dtype, FeatureArgs, FeatureSpec, FrameValues, LogArgs, Normalize, Op,
    Preset, ShapeArgs, Word,
};
use wavemill_signal::Level;
use wavemill_tests::options;

use crate::backend::{Backend, Clip, Cpu, Cuda, Emulation, Plan, Row, Samples, bands};
use crate::checks::CheckedDevices;
use crate::device::Order;
use crate::error::KernelError;
use crate::{
    beats, chroma, constant_q, contrast, db, delta, frames, mfcc, normalize, onset, stft, tempogram,
};

/// Relative rounding error of one f32 operation.
const ROUNDING: f64 = f32::EPSILON as f64 / 2.0;
/// Largest prime factor of the lengths that cuFFT transforms directly. It uses Bluestein's algorithm for other lengths;
/// rustfft does so too, or uses Rader's.
const DIRECT_PRIME_MAX: usize = 127;
/// Length of a transform for which the tolerances below are derived. Longer transforms round more often, and so do those
/// whose length has a large prime factor: see [`transform_roundings`].
const USUAL_N_FFT: usize = 2048;
/// Tolerance of linear values, as a fraction of the largest. An f32 transform has an error of about 2^-24 · log2 n of a
/// frame's amplitude (7e-7 at n = 2048) in the worst bin, power doubles that, and a band adds up rounded terms.
const LINEAR_OF_MAX: f64 = 3e-6;
/// Tolerance of decibels within 60 dB of the largest: there the transform's 7e-7 is at most 7e-4 of an amplitude of
/// 1e-3, and statistically a tenth of it: 6e-3 · 0.1 dB, with margin for the worst of some thousand values.
const DB_MAX: f64 = 2e-3;
/// Tolerance of natural logarithms: that of decibels times ln 10 / 10.
const LN_MAX: f64 = DB_MAX * 0.231;
/// Tolerance of numbers that describe the shape of a spectrum, as a fraction of the largest. They are means over bins, so
/// the transform's error of 7e-7 hardly changes them; a small bandwidth is a difference of larger numbers.
const SHAPE_OF_MAX: f64 = 3e-5;
/// Tolerance of coefficients: a norm-preserving sum of decibels, liftered by up to 12; deltas are smaller.
const MFCC_MAX: f64 = 1.2e-2;

/// Tolerance of correlations: products of onset strengths whose errors are far below those of the loudest decibels.
const TEMPOGRAM_MAX: f64 = 2e-4;

/// Backends on which a parity test runs.
struct Machines {
    /// The CPU backend at each level that this machine supports.
    cpus: Vec<Arc<dyn Backend>>,
    /// Backends that compute in batches: emulated devices and GPUs.
    devices: Vec<Arc<dyn Backend>>,
}

impl Machines {
    /// Returns the CPU and the devices selected by the environment, by default the emulated device in all thread
    /// orders.
    fn here() -> Self {
        let levels = [Level::Scalar, Level::X86_64V3]
            .into_iter()
            .filter(|level| level.is_available());
        let cpus = levels
            .map(|level| Arc::new(Cpu { level }) as Arc<dyn Backend>)
            .collect();

        let checked = CheckedDevices::from_environment().unwrap();
        let mut devices: Vec<Arc<dyn Backend>> = Vec::new();
        if checked.emulated {
            for order in [Order::Ascending, Order::Descending, Order::Random(7)] {
                devices.push(Arc::new(Emulation::in_order(order)));
            }
        }
        if checked.cuda_required {
            devices.push(cuda());
        }
        Self { cpus, devices }
    }

    /// Returns only a GPU, which must be available.
    fn cuda() -> Self {
        Self {
            cpus: Vec::new(),
            devices: vec![cuda()],
        }
    }

    /// Returns all backends.
    fn all(&self) -> impl Iterator<Item = &dyn Backend> {
        self.cpus
            .iter()
            .chain(&self.devices)
            .map(|backend| &**backend)
    }
}

/// Returns the CUDA backend with the first GPU, opened once. Panics with the error if the GPU cannot be used.
fn cuda() -> Arc<Cuda> {
    static CUDA: OnceLock<Arc<Cuda>> = OnceLock::new();
    let opened = CUDA.get_or_init(|| match Cuda::open(&[]) {
        Ok(cuda) => Arc::new(cuda),
        Err(error) => panic!("a GPU is required: {error}"),
    });
    opened.clone()
}

/// Defines two tests for each check: `here` uses the backends that every machine has; `cuda` is ignored unless it is
/// selected (`cargo test … -- --ignored ::cuda`), and then fails if no GPU can be used.
macro_rules! parity {
    ($($check:ident),* $(,)?) => {
        $(mod $check {
            #[test]
            fn here() {
                super::$check(&super::Machines::here());
            }

            #[test]
            #[ignore = "needs a GPU"]
            fn cuda() {
                super::$check(&super::Machines::cuda());
            }
        })*
    };
}
use parity;

/// Returns noise with a tone, part of which is quiet: no cell is far below the others.
fn signal(n: usize) -> Vec<f32> {
    let mut state = 7u32;
    let mut samples = Vec::with_capacity(n);
    for i in 0..n {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise = f32::from((state >> 16) as u16) / 32_768.0 - 1.0;
        let tone = (i as f32 * 0.11).sin();
        let loudness = if i * 3 > n { 0.6 } else { 0.1 };
        samples.push(loudness * (0.5 * noise + 0.5 * tone) + 0.01);
    }
    samples
}

/// Computes the reference values of a feature from its definitions, row-major.
fn reference(args: &FeatureArgs, pcm: &[f32]) -> Result<Vec<f64>, KernelError> {
    reference_of_frames(args, &frames_of(args, pcm))
}

/// Computes the values of each frame that a feature is derived from, usually powers: `[n_bins][n_frames]`.
fn frames_of(args: &FeatureArgs, pcm: &[f32]) -> Vec<Vec<f64>> {
    let frames_min = args.frames.unwrap_or(0);
    match args.frame_values() {
        FrameValues::Spectrum => stft::reference::power(&args.stft, pcm, frames_min),
        FrameValues::ConstantQ => constant_q::reference::powers(args, pcm, frames_min),
        values => frames::reference::values(&args.stft, values, pcm, frames_min),
    }
}

fn reference_of_frames(args: &FeatureArgs, frames: &[Vec<f64>]) -> Result<Vec<f64>, KernelError> {
    if frames[0].is_empty() {
        return Ok(Vec::new());
    }

    let spectrum = frames
        .iter()
        .map(|row| row.iter().map(|x| x.powf(args.power / 2.0)).collect())
        .collect();
    let mut rows = bands::reference(args, spectrum);
    rows = match args.contrast() {
        None => db::reference::log(&args.log, args.power, &rows),
        Some(_) => {
            let (peaks, valleys) = rows.split_at(rows.len() / 2);
            let each = [peaks, valleys].map(|rows| db::reference::log(&args.log, args.power, rows));
            contrast::reference::difference(&each.concat())
        }
    };
    if let Some(args_of_chroma) = args.chroma() {
        rows =
            chroma::reference::chroma(args_of_chroma, args.sample_rate_hz, args.stft.n_fft, &rows);
    }
    if args.smoothed_frames().is_some() {
        rows = chroma::reference::smoothed(args, &rows);
    }
    if let Some(onset) = args.onset() {
        let envelope = onset::reference::strength(onset, &args.stft, &rows);
        rows = match &args.shape {
            Some(ShapeArgs::Tempogram(tempogram)) => {
                tempogram::reference::tempogram(tempogram.win_length, &envelope)
            }
            Some(ShapeArgs::Beats(beats)) => vec![beats::reference::beats(beats, args, &envelope)],
            _ => vec![envelope],
        };
    }
    if let Some(mfcc) = &args.mfcc {
        rows = mfcc::reference::mfcc(mfcc, &rows);
    }

    if args.delta > 0 && rows[0].len() < 9 {
        return Err(KernelError::TooFewFrames {
            frames: rows[0].len(),
            needed: 9,
        });
    }
    let deltas = (1..=usize::from(args.delta))
        .flat_map(|order| delta::reference::delta(&rows, order))
        .collect::<Vec<_>>();
    rows.extend(deltas);

    let kept = args.frames.unwrap_or(usize::MAX).min(rows[0].len());
    let flat: Vec<f64> = rows.iter().flat_map(|row| row[..kept].to_vec()).collect();
    let scaled = normalize::reference::normalize(args.normalize, &flat);
    Ok(match args.dim_order {
        DimOrder::BandFrame => scaled,
        DimOrder::FrameBand => (0..kept)
            .flat_map(|t| scaled.iter().skip(t).step_by(kept).copied())
            .collect(),
    })
}

/// Returns how often an amplitude is rounded in a transform of windowed f32 samples, one rounding after another: once by
/// the window, and once per halving of the length.
fn transform_roundings(n_fft: usize) -> f64 {
    if largest_prime_factor(n_fft) <= DIRECT_PRIME_MAX {
        return 1.0 + (n_fft as f64).log2();
    }
    // Bluestein's algorithm transforms to a power of two at which a convolution fits, and back, and multiplies by chirps
    // before and after. With scipy's f32 transforms, it had 1.4 to 2.2 times the largest error of a direct transform of
    // about the same length, at primes from 257 to 8191.
    let padded = (2 * n_fft - 1).next_power_of_two();
    1.0 + 2.0 * f64::from(padded.ilog2()) + 4.0
}

fn largest_prime_factor(n: usize) -> usize {
    let mut rest = n;
    let mut largest = 1;
    for factor in 2.. {
        if factor * factor > rest {
            break;
        }
        while rest.is_multiple_of(factor) {
            rest /= factor;
            largest = factor;
        }
    }
    largest.max(rest)
}

/// Returns the allowed difference between a value and its reference.
fn tolerance(args: &FeatureArgs, want: &[f64]) -> f64 {
    let roundings = transform_roundings(args.stft.n_fft) / transform_roundings(USUAL_N_FFT);
    // Transforms in f64 round too little to matter.
    let growth = if args.is_wide() {
        1.0
    } else {
        roundings.max(1.0)
    };

    let largest = want.iter().fold(0.0f64, |a, b| a.max(b.abs()));
    let unscaled = match (args.op, args.log) {
        (Op::Mfcc, _) => MFCC_MAX,
        (Op::Tempogram, _) => TEMPOGRAM_MAX,
        // A sum that almost reaches the roll-off may do so one bin later.
        (Op::SpectralRolloff, _) => f64::from(args.sample_rate_hz) / args.stft.n_fft as f64 * 1.001,
        (Op::SpectralCentroid | Op::SpectralBandwidth | Op::SpectralFlatness, _) => {
            return SHAPE_OF_MAX * largest;
        }
        (_, LogArgs::Linear) => return growth * LINEAR_OF_MAX * largest,
        (_, LogArgs::Db(_)) => DB_MAX,
        (_, LogArgs::Ln { .. }) => LN_MAX,
        (_, LogArgs::Whisper) => DB_MAX / 40.0,
    };
    // Normalization divides values by several units: a range or a deviation.
    if args.normalize == Normalize::None {
        growth * unscaled
    } else {
        growth * unscaled / 2.0
    }
}

/// Returns the spectrum with the roundings of an f32 transform in the bins that [`DB_MAX`] does not cover: those more
/// than 60 dB below the loudest of their frame. Up to a tenth of the frames of [`signal`] have such a bin, and one in
/// some hundreds has one 80 dB below. At 90 dB, the transform (scipy's as well) is off by some thousandths of the
/// amplitude, which shows in values that depend on single quiet bins: contrasts with a small quantile, and flatness.
fn with_rounded_valleys(args: &FeatureArgs, powers: &[Vec<f64>]) -> Vec<Vec<f64>> {
    // A third of the largest possible error, which is more than the largest of some thousand values: as in DB_MAX.
    let rounding = ROUNDING * transform_roundings(args.stft.n_fft) / 3.0;
    let loudest = |frame: usize| powers.iter().map(|bin| bin[frame]).fold(0.0, f64::max);
    let loudest: Vec<f64> = (0..powers[0].len()).map(loudest).collect();

    let rounded = |(power, loudest): (&f64, &f64)| {
        if *power > 1e-6 * loudest {
            *power
        } else {
            (power.sqrt() + rounding * loudest.sqrt()).powi(2)
        }
    };
    let bins = powers.iter();
    bins.map(|bin| bin.iter().zip(&loudest).map(rounded).collect())
        .collect()
}

fn name(backend: &dyn Backend) -> String {
    format!("{} {}", backend.kind(), backend.level())
}

/// Computes the values of every feature of every clip before packing: `[clip][feature]`.
fn values(
    backend: &dyn Backend,
    args: &[FeatureArgs],
    clips: &[&[f32]],
) -> Result<Vec<Vec<Vec<f32>>>, KernelError> {
    let as_f32: Vec<FeatureArgs> = args
        .iter()
        .map(|args| FeatureArgs {
            dtype: Dtype::F32,
            ..args.clone()
        })
        .collect();
    let mut plan = backend.plan(0, &as_f32)?;

    let whole_clips: Vec<_> = clips.iter().map(|pcm| 0..pcm.len()).collect();
    let mut batch = Vec::with_capacity(clips.len());
    for (pcm, row) in clips.iter().zip(&whole_clips) {
        batch.push(Clip {
            samples: Samples::F32(pcm),
            channels: 1,
            sample_rate_hz: args[0].sample_rate_hz,
            rows: std::slice::from_ref(row),
        });
    }

    // Run the plan twice, because used buffers must not affect the result.
    plan.run(&batch)?;
    let mut values = Vec::with_capacity(clips.len());
    for row in plan.run(&batch)? {
        let row = row?;
        values.push(row.tensors.iter().map(|tensor| floats(tensor)).collect());
    }
    Ok(values)
}

/// Computes the values of a feature of a clip, without other features.
fn alone(backend: &dyn Backend, args: &FeatureArgs, pcm: &[f32]) -> Vec<f32> {
    let values = values(backend, std::slice::from_ref(args), &[pcm]);
    values.unwrap().remove(0).remove(0)
}

/// Returns the rows of a batch without errors, in the order of the clips.
fn run(plan: &mut dyn Plan, clips: &[Clip<'_>]) -> Vec<Row> {
    let rows = plan.run(clips).unwrap();
    rows.into_iter().map(Result::unwrap).collect()
}

/// Returns the rows of `n_frames` values each in f64, for a reference.
fn rows_of(values: &[f32], n_frames: usize) -> Vec<Vec<f64>> {
    let wide: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
    wide.chunks_exact(n_frames).map(<[f64]>::to_vec).collect()
}

/// Converts the bytes of an f32 tensor to numbers.
fn floats(tensor: &[u8]) -> Vec<f32> {
    let (words, _) = tensor.as_chunks();
    words.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

/// Returns by how much value `i` of the reference, `want`, differs if [`with_rounded_valleys`]; 0 for operations that do
/// not depend on single quiet bins.
fn off_in_valleys(args: &FeatureArgs, frames: &[Vec<f64>], i: usize, want: f64) -> f64 {
    if !matches!(args.op, Op::SpectralContrast | Op::SpectralFlatness) {
        return 0.0;
    }
    let rounded = reference_of_frames(args, &with_rounded_valleys(args, frames));
    rounded.map_or(0.0, |rounded| (rounded[i] - want).abs())
}

/// Runs `args` over `pcm` on `backend`, and compares the shape and every value.
fn check(backend: &dyn Backend, args: &FeatureArgs, pcm: &[f32]) -> Result<(), String> {
    let name = name(backend);
    let frames = frames_of(args, pcm);
    let want = reference_of_frames(args, &frames);
    let ran = values(backend, std::slice::from_ref(args), &[pcm]);
    let (Ok(out), Ok(want)) = (&ran, &want) else {
        // If the reference returns an error, the backend must return one, too.
        let agree = ran.is_err() && want.is_err();
        return if agree {
            Ok(())
        } else {
            Err(format!("{name}: {ran:?}, reference {want:?}, for {args:?}"))
        };
    };

    let got = &out[0][0];
    if got.len() != want.len() || got.len() != args.n_values(pcm.len()) {
        return Err(format!(
            "{name}: {} values, reference {}, shape {:?}",
            got.len(),
            want.len(),
            args.shape(pcm.len())
        ));
    }

    let most = tolerance(args, want);
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        // Comparisons are false if the value is NaN.
        let error = (f64::from(*got) - want).abs();
        let is_close = error <= most || error <= most + off_in_valleys(args, &frames, i, *want);
        if !is_close {
            return Err(format!(
                "{name}: value {i} is {got}, reference {want}, ± {most:.1e}, for {args:?}"
            ));
        }
    }
    Ok(())
}

fn check_all(on: &Machines, args: &FeatureArgs, pcm: &[f32]) {
    for backend in on.all() {
        check(backend, args, pcm).unwrap();
    }
}

/// Checks what only the CPU computes, or computes in another way than devices.
fn check_cpus(on: &Machines, args: &FeatureArgs, pcm: &[f32]) {
    for cpu in &on.cpus {
        check(cpu.as_ref(), args, pcm).unwrap();
    }
}

fn resolve(op: Op, preset: Preset, rate: u32, overrides: FeatureSpec) -> FeatureArgs {
    let spec = options!(op, preset; overrides);
    spec.resolve(&[], rate).unwrap()
}

/// Resolves a feature with librosa's defaults except for `overrides`.
fn librosa(op: Op, overrides: FeatureSpec) -> FeatureArgs {
    resolve(op, Preset::Librosa, 22_050, overrides)
}

fn db(reference: DbRef, top_db: f64) -> Option<DbSpec> {
    Some(DbSpec {
        reference: reference.into(),
        amin: 1e-10,
        top_db: Some(top_db),
    })
}

/// Options with a small transform, which keeps the references fast.
fn small() -> FeatureSpec {
    options!(n_fft: 256, hop_length: 100)
}

fn small_mel() -> FeatureSpec {
    options!(n_mels: 20; small())
}

#[test]
fn lengths_with_a_large_prime_factor_round_more_often() {
    assert_eq!(transform_roundings(2048), 12.0);
    assert_eq!(largest_prime_factor(1), 1);
    assert_eq!(largest_prime_factor(2 * 127 * 9), 127);
    assert!(transform_roundings(2 * 127 * 9) < 13.0);

    // Convolutions of 1024 and 16,384 points.
    assert_eq!(transform_roundings(257), 25.0);
    assert_eq!(transform_roundings(8191), 33.0);
}
