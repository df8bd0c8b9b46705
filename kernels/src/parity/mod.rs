//! One test body for every backend: what a plan computes against the f64 references, case by case.

mod cases;
mod sets;

use crate::args::{DimOrder, FeatureArgs, Op};
use crate::backend::{Backend, Clip, Cpu, Cuda, Emulated, Row, Samples};
use crate::db::{DbArgs, DbRef, LogArgs};
use crate::device::Order;
use crate::error::KernelError;
use crate::level::Level;
use crate::normalize::Normalize;
use crate::pack::Dtype;
use crate::preset::{Overrides, Preset};
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

/// All levels of this machine, and what computes in batches.
fn backends() -> Vec<Box<dyn Backend>> {
    let levels = [Level::Scalar, Level::X86_64V3].into_iter().filter(|level| level.is_available());
    levels.map(|level| Box::new(Cpu { level }) as Box<dyn Backend>).chain(devices()).collect()
}

/// The emulated device in all orders of its threads, and a GPU where there is one.
fn devices() -> Vec<Box<dyn Backend>> {
    let orders = [Order::Ascending, Order::Descending, Order::Random(7)];
    let emulated = orders.map(|order| Box::new(Emulated::in_order(order)) as Box<dyn Backend>);
    let cuda = Cuda::open(&[]).map(|cuda| Box::new(cuda) as Box<dyn Backend>);
    emulated.into_iter().chain(cuda).collect()
}

/// Noise with a tone in it, some of it quiet: no cell is much below the rest.
fn signal(n: usize) -> Vec<f32> {
    let mut state = 7u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from((state >> 16) as u16) / 32_768.0 - 1.0
    };
    let loud = |i: usize| if i * 3 > n { 0.6 } else { 0.1 };
    (0..n).map(|i| loud(i) * (0.5 * noise() + 0.5 * (i as f32 * 0.11).sin()) + 0.01).collect()
}

/// The feature by its definitions, row-major.
fn reference(args: &FeatureArgs, pcm: &[f32]) -> Result<Vec<f64>, KernelError> {
    let power = stft::reference::power(&args.stft, pcm, args.frames.unwrap_or(0));
    if power[0].is_empty() {
        return Ok(Vec::new());
    }
    let raise = |row: &Vec<f64>| row.iter().map(|x| x.powf(args.power / 2.0)).collect();
    let mut rows: Vec<Vec<f64>> = power.iter().map(raise).collect();
    if let Some(mel) = &args.mel {
        rows = mel::reference::bands(mel, args.sample_rate_hz, args.stft.n_fft, &rows);
    }
    rows = db::reference::log(&args.log, args.power, &rows);
    if let Some(mfcc) = &args.mfcc {
        rows = mfcc::reference::mfcc(mfcc, &rows);
    }
    if args.delta > 0 && rows[0].len() < 9 {
        return Err(KernelError::TooFewFrames { frames: rows[0].len(), needed: 9 });
    }
    let deltas =
        (1..=usize::from(args.delta)).flat_map(|order| delta::reference::delta(&rows, order)).collect::<Vec<_>>();
    rows.extend(deltas);
    let kept = args.frames.unwrap_or(usize::MAX).min(rows[0].len());
    let flat: Vec<f64> = rows.iter().flat_map(|row| row[..kept].to_vec()).collect();
    let scaled = normalize::reference::normalize(args.normalize, &flat);
    Ok(match args.dim_order {
        DimOrder::BandFrame => scaled,
        DimOrder::FrameBand => (0..kept).flat_map(|t| scaled.iter().skip(t).step_by(kept).copied()).collect(),
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
    if args.normalize == Normalize::None { unscaled } else { unscaled / 2.0 }
}

fn name(backend: &dyn Backend) -> String {
    format!("{} {}", backend.kind(), backend.level())
}

/// Values of every feature of every clip before packing: `[clip][feature]`.
fn values(backend: &dyn Backend, args: &[FeatureArgs], clips: &[&[f32]]) -> Result<Vec<Vec<Vec<f32>>>, KernelError> {
    let unpacked: Vec<FeatureArgs> =
        args.iter().map(|args| FeatureArgs { dtype: Dtype::F32, ..args.clone() }).collect();
    let mut plan = backend.plan(0, &unpacked)?;
    let rows: Vec<_> = clips.iter().map(|pcm| std::iter::once(0..pcm.len()).collect::<Vec<_>>()).collect();
    let clip =
        |(pcm, rows)| Clip { samples: Samples::F32(pcm), channels: 1, sample_rate_hz: args[0].sample_rate_hz, rows };
    let clips: Vec<_> = clips.iter().copied().zip(rows.iter().map(|rows| &rows[..])).map(clip).collect();
    // Twice: buffers that were used must not show.
    plan.run(&clips)?;
    let floats = |bytes: Vec<u8>| bytes.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)).collect();
    let row = |row: Result<Row, KernelError>| Ok(row?.tensors.into_iter().map(floats).collect());
    plan.run(&clips)?.into_iter().map(row).collect()
}

/// Runs `args` over `pcm` on `backend`, compares shape and every value.
fn check(backend: &dyn Backend, args: &FeatureArgs, pcm: &[f32]) -> Result<(), String> {
    let name = name(backend);
    let want = reference(args, pcm);
    let ran = values(backend, std::slice::from_ref(args), &[pcm]);
    let (Ok(out), Ok(want)) = (&ran, &want) else {
        let agree = ran.is_err() && want.is_err();
        return if agree { Ok(()) } else { Err(format!("{name}: {ran:?}, reference {want:?}, for {args:?}")) };
    };
    let got = &out[0][0];
    let [rows, columns] = args.shape(pcm.len());
    if got.len() != want.len() || got.len() != rows * columns {
        return Err(format!("{name}: {} values, reference {}, shape {rows} × {columns}", got.len(), want.len()));
    }
    let most = tolerance(args, want);
    let close = |(got, want): (&f32, &f64)| (f64::from(*got) - want).abs() <= most;
    match got.iter().zip(want).position(|pair| !close(pair)) {
        None => Ok(()),
        Some(i) => Err(format!("{name}: value {i} is {}, reference {}, ± {most:.1e}, for {args:?}", got[i], want[i])),
    }
}

fn check_all(args: &FeatureArgs, pcm: &[f32]) {
    for backend in backends() {
        check(&*backend, args, pcm).unwrap();
    }
}

fn resolve(op: Op, preset: Preset, rate: u32, overrides: Overrides) -> FeatureArgs {
    FeatureArgs::resolve(op, preset, rate, &overrides).unwrap()
}

fn db(reference: DbRef, top_db: f64) -> Option<DbArgs> {
    Some(DbArgs { reference, amin: 1e-10, top_db: Some(top_db) })
}

/// A small transform, so that the references stay quick.
fn small() -> Overrides {
    Overrides { n_fft: Some(256), hop_length: Some(100), ..Overrides::default() }
}

fn small_mel() -> Overrides {
    Overrides { n_mels: Some(20), ..small() }
}
