//! One test body for every backend: what a plan computes against the f64 references, case by case.

use proptest::prelude::*;

use crate::args::{DimOrder, FeatureArgs, Op};
use crate::backend::{Backend, Clip, Cpu, Row, Samples};
use crate::db::{DbArgs, DbRef, LogArgs};
use crate::error::KernelError;
use crate::level::Level;
use crate::normalize::Normalize;
use crate::pack::Dtype;
use crate::preset::{Overrides, Preset};
use crate::stft::{Framing, PadMode, Window};
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

/// All levels of this machine.
fn backends() -> Vec<Box<dyn Backend>> {
    let levels = [Level::Scalar, Level::X86_64V3].into_iter().filter(|level| level.is_available());
    levels.map(|level| Box::new(Cpu { level }) as Box<dyn Backend>).collect()
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
    let rows: Vec<_> = clips.iter().map(|pcm| [0..pcm.len()]).collect();
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

#[test]
fn presets_match_their_references() {
    let none = Overrides::default();
    for op in [Op::Stft, Op::Mel, Op::Mfcc] {
        check_all(&resolve(op, Preset::Librosa, 22_050, none.clone()), &signal(5000));
        check_all(&resolve(op, Preset::Torchaudio, 16_000, none.clone()), &signal(4000));
        check_all(&resolve(op, Preset::Kaldi, 16_000, none.clone()), &signal(4000));
    }
    check_all(&resolve(Op::Mel, Preset::Kaldi, 8000, none.clone()), &signal(2000));
    let mut whisper = resolve(Op::Mel, Preset::Whisper, 16_000, none);
    // 30 s would take the reference a minute; padding and cutting are the same at half a second.
    whisper.stft.n_samples = Some(8000);
    check_all(&whisper, &signal(5000));
    check_all(&whisper, &signal(9000));
}

#[test]
fn every_option_matches_its_reference() {
    let pcm = signal(3000);
    let windows = ["hann", "hamming", "blackman", "blackmanharris", "nuttall", "bartlett", "ones", "povey"];
    for window in windows.map(|name| name.parse::<Window>().unwrap()) {
        let overrides = Overrides { window: Some(window), win_length: Some(201), ..small() };
        check_all(&resolve(Op::Stft, Preset::Librosa, 22_050, overrides), &pcm);
    }
    for pad_mode in [PadMode::Constant, PadMode::Reflect, PadMode::Edge] {
        let overrides = Overrides { pad_mode: Some(pad_mode), ..small() };
        check_all(&resolve(Op::Stft, Preset::Librosa, 22_050, overrides), &pcm);
    }
    for power in [0.5, 1.0, 1.7, 2.0] {
        let overrides = Overrides { power: Some(power), center: Some(false), ..small_mel() };
        check_all(&resolve(Op::Mel, Preset::Librosa, 22_050, overrides), &pcm);
    }
    for (htk, norm) in [(true, "slaney"), (true, "none"), (false, "slaney"), (false, "none")] {
        let norm = Some(norm.parse().unwrap());
        let overrides = Overrides { htk: Some(htk), norm, fmin: Some(300.0), fmax: Some(7000.0), ..small_mel() };
        check_all(&resolve(Op::Mel, Preset::Librosa, 22_050, overrides), &pcm);
    }
    for (reference, power) in [(DbRef::Max, 2.0), (DbRef::Max, 1.0), (DbRef::Power(0.5), 2.0), (DbRef::Power(2.0), 1.0)]
    {
        for normalize in [Normalize::None, Normalize::MinMax, Normalize::MeanVar] {
            let overrides = Overrides { db: db(reference, 50.0), power: Some(power), normalize, ..small_mel() };
            check_all(&resolve(Op::Mel, Preset::Librosa, 22_050, overrides), &pcm);
        }
    }
    for (dct_type, lifter) in [(1, 0.0), (2, 22.0), (3, 13.0)] {
        let overrides = Overrides { dct_type: Some(dct_type), lifter: Some(lifter), n_mfcc: Some(20), ..small_mel() };
        check_all(&resolve(Op::Mfcc, Preset::Librosa, 22_050, overrides), &pcm);
    }
}

#[test]
fn deltas_crops_and_axes_match_their_references() {
    for (frames, delta, dim_order) in
        [(None, 2, DimOrder::BandFrame), (Some(12), 1, DimOrder::FrameBand), (Some(50), 2, DimOrder::FrameBand)]
    {
        let overrides = Overrides { frames, delta: Some(delta), dim_order, ..small_mel() };
        check_all(&resolve(Op::Mfcc, Preset::Librosa, 22_050, overrides), &signal(3000));
    }
}

#[test]
fn few_samples_match_their_references() {
    for n_fft in [64, 63] {
        for framing in [Framing::Center(PadMode::Reflect), Framing::Inside, Framing::SnipEdges] {
            for n in [0, 1, 2, n_fft - 1, n_fft, n_fft + 1] {
                let overrides = Overrides {
                    n_fft: Some(n_fft),
                    hop_length: Some(16),
                    win_length: Some(50),
                    ..Overrides::default()
                };
                let mut args = resolve(Op::Stft, Preset::Librosa, 8000, overrides);
                args.stft.framing = framing;
                check_all(&args, &signal(n));
            }
        }
    }
    let delta = Overrides { delta: Some(1), ..small_mel() };
    check_all(&resolve(Op::Mfcc, Preset::Librosa, 22_050, delta), &signal(500));
}

#[test]
fn silence_is_all_zero_after_minmax() {
    for backend in backends() {
        let overrides = Overrides { db: db(DbRef::Max, 80.0), normalize: Normalize::MinMax, ..small_mel() };
        let args = resolve(Op::Mel, Preset::Librosa, 22_050, overrides);
        let out = values(&*backend, &[args], &[&[0.0; 3000]]).unwrap();
        assert!(out[0][0].len() == 20 * 31 && out[0][0].iter().all(|x| *x == 0.0), "{}", name(&*backend));
    }
}

#[test]
fn a_sample_that_is_no_number_is_an_error_that_says_where() {
    for backend in backends() {
        let args = [resolve(Op::Mel, Preset::Kaldi, 16_000, Overrides::default())];
        for bad in [f32::NAN, f32::INFINITY, -f32::INFINITY, 3e7] {
            let mut pcm = signal(3000);
            pcm[1234] = bad;
            let error = values(&*backend, &args, &[&pcm]).unwrap_err();
            assert!(matches!(error, KernelError::Sample { index: 1234, .. }), "{error}");
        }
    }
}

#[test]
fn the_loudest_allowed_samples_stay_finite() {
    for backend in backends() {
        for preset in [Preset::Librosa, Preset::Kaldi] {
            let args = [resolve(Op::Stft, preset, 16_000, Overrides::default())];
            let out = values(&*backend, &args, &[&[stft::SAMPLE_MAX; 5000]]).unwrap();
            assert!(out[0][0].iter().all(|x| x.is_finite()), "{}", name(&*backend));
        }
    }
}

#[test]
fn features_of_one_plan_are_those_of_plans_of_their_own() {
    let pcm = signal(3000);
    let all = [
        resolve(Op::Mel, Preset::Librosa, 22_050, Overrides { db: db(DbRef::Max, 80.0), ..small_mel() }),
        resolve(Op::Mfcc, Preset::Librosa, 22_050, small_mel()),
        resolve(Op::Stft, Preset::Librosa, 22_050, Overrides { frames: Some(9), ..small() }),
        resolve(Op::Mel, Preset::Torchaudio, 22_050, small_mel()),
    ];
    for backend in backends() {
        let together = values(&*backend, &all, &[&signal(4000), &pcm]).unwrap();
        for (args, together) in all.iter().zip(&together[1]) {
            let alone = values(&*backend, std::slice::from_ref(args), &[&pcm]).unwrap();
            assert_eq!(&alone[0][0], together);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn odd_sizes_match_their_references(
        n_fft in 2usize..300, hop in 1usize..120, shorter in 0usize..200, n in 0usize..900, pad in 0usize..4,
    ) {
        let win_length = Some(n_fft.saturating_sub(shorter).max(1));
        let overrides = Overrides { n_fft: Some(n_fft), hop_length: Some(hop), win_length, ..Overrides::default() };
        let mut args = resolve(Op::Stft, Preset::Librosa, 22_050, overrides);
        let modes = [PadMode::Constant, PadMode::Reflect, PadMode::Edge].map(Framing::Center);
        args.stft.framing = modes.get(pad).copied().unwrap_or(Framing::Inside);
        for backend in backends() {
            check(&*backend, &args, &signal(n)).map_err(TestCaseError::fail)?;
        }
    }
}
