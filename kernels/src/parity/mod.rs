//! One test body for every backend: what a plan computes against the f64 references, case by case.

mod batches;
mod cases;
mod derived;
mod long_clips;
mod refusal;
mod sets;

use std::sync::{Arc, OnceLock};

use wavemill_options::{
    DbArgs, DbRef, DimOrder, Dtype, FeatureArgs, LogArgs, Normalize, Op, Overrides, Preset,
};

use crate::backend::{Backend, Clip, Cpu, Cuda, Emulation, Row, Samples};
use crate::checks::CheckedDevices;
use crate::device::Order;
use crate::error::KernelError;
use crate::level::Level;
use crate::{db, delta, mel, mfcc, normalize, stft};

/// Linear values, as a fraction of the largest. An f32 transform errs by about 2^-24 · log2 n of a frame's amplitude
/// (7e-7 at n = 2048) in the worst bin, power doubles that, and a band adds up rounded terms.
const LINEAR_OF_MAX: f64 = 3e-6;
/// Decibels within 60 dB of the largest: there the transform's 7e-7 is at most 7e-4 of an amplitude's 1e-3, and by
/// chance a tenth of it: 6e-3 · 0.1 dB, with room for the worst of some thousand values.
const DB_MAX: f64 = 2e-3;
/// Natural logarithms: the same, by ln 10 / 10.
const LN_MAX: f64 = DB_MAX * 0.231;
/// Coefficients: a norm-preserving sum of decibels, liftered by up to 12, deltas shrink them.
const MFCC_MAX: f64 = 1.2e-2;

/// What a check runs on.
struct Machines {
    /// The CPU, at all levels of this machine.
    cpus: Vec<Arc<dyn Backend>>,
    /// What computes in batches.
    devices: Vec<Arc<dyn Backend>>,
}

impl Machines {
    /// The CPU, and the devices that the environment names: if none, the emulated one in all orders of its threads.
    fn here() -> Self {
        let levels = [Level::Scalar, Level::X86_64V3]
            .into_iter()
            .filter(|level| level.is_available());
        let cpus = levels
            .map(|level| Arc::new(Cpu { level }) as Arc<dyn Backend>)
            .collect();

        let checked = CheckedDevices::of_environment().unwrap();
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

    /// A GPU alone, which must be there.
    fn cuda() -> Self {
        Self {
            cpus: Vec::new(),
            devices: vec![cuda()],
        }
    }

    /// All of them.
    fn all(&self) -> impl Iterator<Item = &dyn Backend> {
        self.cpus
            .iter()
            .chain(&self.devices)
            .map(|backend| &**backend)
    }
}

/// The first GPU, opened once. Panics with what was answered where it cannot be used.
fn cuda() -> Arc<Cuda> {
    static CUDA: OnceLock<Arc<Cuda>> = OnceLock::new();
    let opened = CUDA.get_or_init(|| match Cuda::open(&[]) {
        Ok(cuda) => Arc::new(cuda),
        Err(error) => panic!("a GPU is required: {error}"),
    });
    opened.clone()
}

/// Makes of each check two tests: `here`, on what every machine has, and `cuda`, which shows as ignored unless it is
/// asked for (`cargo test … -- --ignored ::cuda`) and then fails where no GPU can be used.
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

/// Noise with a tone in it, some of it quiet: no cell is much below the rest.
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

/// The feature by its definitions, row-major.
fn reference(args: &FeatureArgs, pcm: &[f32]) -> Result<Vec<f64>, KernelError> {
    let power = stft::reference::power(&args.stft, pcm, args.frames.unwrap_or(0));
    if power[0].is_empty() {
        return Ok(Vec::new());
    }

    let mut rows: Vec<Vec<f64>> = power
        .iter()
        .map(|row| row.iter().map(|x| x.powf(args.power / 2.0)).collect())
        .collect();
    if let Some(mel) = &args.mel {
        rows = mel::reference::bands(mel, args.sample_rate_hz, args.stft.n_fft, &rows);
    }
    rows = db::reference::log(&args.log, args.power, &rows);
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

/// How far values may be apart.
fn tolerance(args: &FeatureArgs, want: &[f64]) -> f64 {
    let largest = want.iter().fold(0.0f64, |a, b| a.max(b.abs()));
    let unscaled = match (args.op, args.log) {
        (Op::Mfcc, _) => MFCC_MAX,
        (_, LogArgs::Linear) => return LINEAR_OF_MAX * largest,
        (_, LogArgs::Db(_)) => DB_MAX,
        (_, LogArgs::Ln { .. }) => LN_MAX,
        (_, LogArgs::Whisper) => DB_MAX / 40.0,
    };
    // Scaling divides by a span or a deviation of several units.
    if args.normalize == Normalize::None {
        unscaled
    } else {
        unscaled / 2.0
    }
}

fn name(backend: &dyn Backend) -> String {
    format!("{} {}", backend.kind(), backend.level())
}

/// Values of every feature of every clip before packing: `[clip][feature]`.
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

    // Twice: buffers that were used must not show.
    plan.run(&batch)?;
    let mut values = Vec::with_capacity(clips.len());
    for row in plan.run(&batch)? {
        let row = row?;
        values.push(row.tensors.iter().map(|tensor| floats(tensor)).collect());
    }
    Ok(values)
}

/// A tensor of f32 as numbers.
fn floats(tensor: &[u8]) -> Vec<f32> {
    let (words, _) = tensor.as_chunks();
    words.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

/// Runs `args` over `pcm` on `backend`, compares shape and every value.
fn check(backend: &dyn Backend, args: &FeatureArgs, pcm: &[f32]) -> Result<(), String> {
    let name = name(backend);
    let want = reference(args, pcm);
    let ran = values(backend, std::slice::from_ref(args), &[pcm]);
    let (Ok(out), Ok(want)) = (&ran, &want) else {
        // Where the reference gives an error, the backend must give one too.
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
        // This is false if the value is NaN.
        let is_close = (f64::from(*got) - want).abs() <= most;
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

fn resolve(op: Op, preset: Preset, rate: u32, overrides: Overrides) -> FeatureArgs {
    FeatureArgs::resolve(op, preset, rate, &overrides).unwrap()
}

fn db(reference: DbRef, top_db: f64) -> Option<DbArgs> {
    Some(DbArgs {
        reference,
        amin: 1e-10,
        top_db: Some(top_db),
    })
}

/// A small transform, so that the references stay quick.
fn small() -> Overrides {
    Overrides {
        n_fft: Some(256),
        hop_length: Some(100),
        ..Overrides::default()
    }
}

fn small_mel() -> Overrides {
    Overrides {
        n_mels: Some(20),
        ..small()
    }
}
