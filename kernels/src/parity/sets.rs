//! Sets drawn at random: batches of ragged clips at mixed rates, on every device against the CPU, and against the
//! references where a row is short.

use std::ops::Range;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::*;
use crate::resample::ResampleArgs;
use crate::stft::PadMode;

/// Powers: of the row's largest, and of themselves.
const POWER_OF_MAX: f64 = 1e-6;
const POWER_REL: f64 = 1e-4;
/// Decibels: an f32 transform errs by at most this part of a row's largest amplitude, so quiet cells by more decibels.
const AMPLITUDE_OF_MAX: f64 = 1e-6;
/// Rounding of the logarithm and of the row's reference.
const DB_ROUNDING: f64 = 2e-4;
/// Rows of more frames than this are compared with the CPU alone: the references are naive.
const REFERENCE_FRAMES: usize = 8;
/// Products that the references of one set may cost: n_fft² / 2 a frame.
const REFERENCE_PRODUCTS: usize = 20_000_000;
/// Frames of a set, nearly: more of them show nothing more, and take long in the emulation.
const SET_FRAMES: usize = 3000;

/// What a clip sounds like.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sound {
    Noise,
    Silence,
    /// A square wave at full scale: lines far above everything between them.
    Square,
}

/// One clip of a set.
#[derive(Clone, Debug)]
struct Take {
    sound: Sound,
    /// Samples a channel.
    n: usize,
    channels: usize,
    sixteen_bits: bool,
    sample_rate_hz: u32,
    rows: Vec<Range<usize>>,
}

/// A feature and a batch.
#[derive(Clone, Debug)]
struct Set {
    args: FeatureArgs,
    takes: Vec<Take>,
}

impl Take {
    fn samples(&self) -> Vec<f32> {
        let mono = match self.sound {
            Sound::Noise => signal(self.n),
            Sound::Silence => vec![0.0; self.n],
            Sound::Square => (0..self.n).map(|i| if i / 25 % 2 == 0 { 1.0 } else { -1.0 }).collect(),
        };
        // The channels differ; their mean is what `mono` is, nearly.
        let tilt = |x: f32, side: usize| if side == 0 { x * 0.75 } else { x };
        mono.iter().flat_map(|x| (0..self.channels).map(|side| tilt(*x, side))).collect()
    }
}

fn op_strategy() -> impl Strategy<Value = (Op, Preset)> {
    prop_oneof![
        4 => Just((Op::Mel, Preset::Librosa)),
        2 => Just((Op::Stft, Preset::Librosa)),
        1 => Just((Op::Mfcc, Preset::Librosa)),
        1 => Just((Op::Mel, Preset::Torchaudio)),
        1 => Just((Op::Mel, Preset::Kaldi)),
        1 => Just((Op::Mfcc, Preset::Kaldi)),
    ]
}

fn overrides_strategy() -> impl Strategy<Value = Overrides> {
    let n_fft = prop_oneof![
        3 => prop::sample::select(vec![256usize, 512, 1024, 2048, 4096]),
        2 => 256usize..=2500,
        1 => 2500usize..=8192,
    ];
    let shape = (n_fft, 1usize..=100, 30usize..=100, 20usize..=256, any::<bool>(), 0usize..3);
    let values = (0usize..4, 0usize..4, 0usize..3, any::<bool>(), prop::option::weighted(0.2, 9usize..40), 0u8..=2);
    (shape, values).prop_map(|((n_fft, hop, win, n_mels, center, pad), (power, log, scale, htk, frames, delta))| {
        let pads = [PadMode::Constant, PadMode::Reflect, PadMode::Edge];
        let ranges = [(DbRef::Max, Some(80.0)), (DbRef::Power(1.0), Some(60.0)), (DbRef::Max, None)];
        let db =
            ranges.get(log).map(|(reference, top_db)| DbArgs { reference: *reference, amin: 1e-10, top_db: *top_db });
        Overrides {
            n_fft: Some(n_fft),
            hop_length: Some((n_fft * hop / 100).max(16)),
            win_length: Some((n_fft * win / 100).max(1)),
            n_mels: Some(n_mels),
            center: Some(center),
            pad_mode: Some(pads[pad]),
            power: Some(if db.is_some() { [2.0, 2.0, 2.0, 1.0][power] } else { [2.0, 2.0, 1.0, 1.5][power] }),
            db,
            normalize: [Normalize::None, Normalize::MinMax, Normalize::MeanVar][scale],
            norm: Some(if htk { crate::Norm::None } else { crate::Norm::Slaney }),
            htk: Some(htk),
            frames,
            delta: Some(delta),
            dim_order: if htk { DimOrder::FrameBand } else { DimOrder::BandFrame },
            ..Overrides::default()
        }
    })
}

/// Keys that an op or a sound cannot have are left out.
fn args_of((op, preset): (Op, Preset), mut o: Overrides) -> FeatureArgs {
    if op == Op::Stft {
        (o.n_mels, o.htk, o.norm) = (None, None, None);
        (o.normalize, o.delta) = (Normalize::None, None);
    }
    if op == Op::Mfcc {
        (o.normalize, o.power) = (Normalize::None, Some(2.0));
        // As its presets have it: a linear or an endless range would drown coefficients in their largest.
        o.db = o.db.filter(|db| db.top_db.is_some());
    }
    if op != Op::Mfcc {
        o.delta = None;
    }
    if preset == Preset::Kaldi {
        (o.center, o.pad_mode, o.db) = (None, None, None);
    }
    if o.db.is_none() && preset != Preset::Kaldi {
        o.normalize = Normalize::None;
    }
    FeatureArgs::resolve(op, preset, 22_050, &o).unwrap()
}

fn takes_strategy() -> impl Strategy<Value = Vec<Take>> {
    let count = prop_oneof![6 => 1usize..6, 2 => 6usize..40, 1 => Just(257usize)];
    let sound = prop_oneof![3 => Just(Sound::Noise), 1 => Just(Sound::Silence), 1 => Just(Sound::Square)];
    let rate = prop_oneof![3 => Just(22_050u32), 1 => prop::sample::select(vec![44_100u32, 48_000, 16_000, 32_000])];
    let long = prop::bool::weighted(0.1);
    (count, long).prop_flat_map(move |(count, long)| {
        let most = if long { 2_000_000 / count } else { 60_000 / count + 2 };
        let n = prop_oneof![1 => Just(0usize), 2 => 1usize..300, 2 => 300usize..6000, 4 => (most / 2)..most.max(2)];
        let take = (sound.clone(), n, any::<bool>(), any::<bool>(), rate.clone(), 0usize..4);
        let take = take.prop_map(move |(sound, n, stereo, sixteen_bits, sample_rate_hz, cut)| {
            let n = n.min(most);
            let resampled = ResampleArgs { from_hz: sample_rate_hz, to_hz: 22_050 }.output_len(n as u64) as usize;
            let rows = match cut {
                // Segments that overlap, the last reaching beyond the end.
                0 if count < 40 => vec![0..resampled / 2, resampled / 3..resampled + 100],
                _ => std::iter::once(0..resampled).collect(),
            };
            Take { sound, n, channels: 1 + usize::from(stereo), sixteen_bits, sample_rate_hz, rows }
        });
        prop::collection::vec(take, count)
    })
}

fn set_strategy() -> impl Strategy<Value = Set> {
    (op_strategy(), overrides_strategy(), takes_strategy()).prop_map(|(op, overrides, mut takes)| {
        let mut args = args_of(op, overrides);
        let n_samples: usize = takes.iter().map(|take| take.n).sum();
        args.stft.hop_length = args.stft.hop_length.max(n_samples / SET_FRAMES);
        for take in &mut takes {
            // Scaling by a span, cosine transforms and deltas mix quiet cells with loud ones.
            let is_mixed = args.normalize != Normalize::None || args.op == Op::Mfcc;
            if take.sound == Sound::Square && is_mixed {
                take.sound = Sound::Noise;
            }
            // Below 80 dB it shows that the CPU's resampler rounds otherwise.
            if is_mixed && (args.is_wide() || matches!(args.log, LogArgs::Ln { .. })) {
                take.sample_rate_hz = args.sample_rate_hz;
            }
        }
        Set { args: FeatureArgs { dtype: Dtype::F32, ..args }, takes }
    })
}

type Rows = Vec<Result<Row, KernelError>>;

fn run(backend: &dyn Backend, set: &Set) -> Result<Rows, KernelError> {
    let samples: Vec<Vec<f32>> = set.takes.iter().map(Take::samples).collect();
    let shorts: Vec<Vec<i16>> = samples.iter().map(|pcm| pcm.iter().map(|x| (x * 32_767.0) as i16).collect()).collect();
    let clip = |i: usize| {
        let take = &set.takes[i];
        let samples = if take.sixteen_bits { Samples::S16(&shorts[i]) } else { Samples::F32(&samples[i]) };
        Clip { samples, channels: take.channels, sample_rate_hz: take.sample_rate_hz, rows: &take.rows }
    };
    let clips: Vec<Clip<'_>> = (0..set.takes.len()).map(clip).collect();
    backend.plan(0, std::slice::from_ref(&set.args))?.run(&clips)
}

fn floats(row: &Row) -> Vec<f64> {
    row.tensors[0].as_chunks().0.iter().map(|x| f64::from(f32::from_le_bytes(*x))).collect()
}

/// How far each value may be from `want`.
fn bounds(args: &FeatureArgs, want: &[f64]) -> Vec<f64> {
    let largest = want.iter().fold(f64::NEG_INFINITY, |a, b| a.max(*b));
    let decibels = |unit: f64| {
        let below = move |x: f64| AMPLITUDE_OF_MAX * 10f64.powf((largest - x) / unit / 20.0);
        want.iter().map(|x| unit * (20.0 * (1.0 + below(*x)).log10() + DB_ROUNDING)).collect()
    };
    match args.log {
        _ if args.normalize != Normalize::None || args.op == Op::Mfcc => vec![tolerance(args, want); want.len()],
        LogArgs::Linear => {
            let power = |x: f64| x.powf(2.0 / args.power);
            let back = |p: f64| p.max(0.0).powf(args.power / 2.0);
            let bound = |x: &f64| {
                let most = POWER_OF_MAX * power(largest) + POWER_REL * power(*x);
                (back(power(*x) + most) - x).max(x - back(power(*x) - most))
            };
            want.iter().map(bound).collect()
        }
        LogArgs::Db(_) => decibels(1.0),
        LogArgs::Ln { .. } => decibels(std::f64::consts::LN_10 / 20.0 * args.power),
        LogArgs::Whisper => decibels(1.0 / 40.0),
    }
}

fn compare(what: &str, args: &FeatureArgs, got: &[f64], want: &[f64]) -> Result<(), TestCaseError> {
    prop_assert_eq!(got.len(), want.len(), "{}: number of values", what);
    let bounds = bounds(args, want);
    let far = (0..want.len()).find(|&i| (got[i] - want[i]).abs() > bounds[i] || got[i].is_nan());
    match far {
        None => Ok(()),
        Some(i) => {
            let words = format!("{what}: value {i} is {}, should be {} ± {:.1e}", got[i], want[i], bounds[i]);
            Err(TestCaseError::fail(words))
        }
    }
}

/// The CPU's rows against the references, where those are quick.
fn check_references(set: &Set, rows: &Rows) -> Result<(), TestCaseError> {
    let mut left = REFERENCE_PRODUCTS;
    let owners = set.takes.iter().flat_map(|take| take.rows.iter().map(move |row| (take, row.clone())));
    for ((take, place), row) in owners.zip(rows) {
        let n_frames =
            set.args.stft.n_frames(crate::stft::Signal::len_of(place.len(), &set.args.stft, set.args.frames));
        let products = n_frames * set.args.stft.n_fft.pow(2) / 2;
        let usual = take.sample_rate_hz == set.args.sample_rate_hz && take.channels == 1 && !take.sixteen_bits;
        if !usual || n_frames > REFERENCE_FRAMES || products > left {
            continue;
        }
        left -= products;
        let mut pcm = take.samples();
        pcm.resize(pcm.len().max(place.end), 0.0);
        match (reference(&set.args, &pcm[place]), row) {
            (Ok(want), Ok(row)) => compare("cpu, reference", &set.args, &floats(row), &want)?,
            (want, got) => prop_assert!(want.is_err() && got.is_err(), "reference {:?}, cpu {:?}", want, got),
        }
    }
    Ok(())
}

fn check_set(set: &Set) -> Result<(), TestCaseError> {
    let fail = |error: KernelError| TestCaseError::fail(error.to_string());
    let cpu = run(&Cpu { level: Level::detect() }, set).map_err(fail)?;
    check_references(set, &cpu)?;
    let mut first: Option<Rows> = None;
    for device in devices() {
        let what = name(&*device);
        let rows = run(&*device, set).map_err(fail)?;
        prop_assert_eq!(rows.len(), cpu.len(), "{}: rows", &what);
        for (row, want) in rows.iter().zip(&cpu) {
            match (row, want) {
                (Ok(row), Ok(want)) => {
                    prop_assert_eq!(row.silent, want.silent, "{}: silent", &what);
                    compare(&what, &set.args, &floats(row), &floats(want))?;
                }
                (row, want) => prop_assert!(row.is_err() && want.is_err(), "{}: {:?}, cpu {:?}", &what, row, want),
            }
        }
        // Whatever the order of threads: the same bits. Another device has its own.
        match &first {
            Some(first) if device.kind() == "emulated" => {
                let equal = first.iter().zip(&rows).all(|(a, b)| a.as_ref().ok() == b.as_ref().ok());
                prop_assert!(equal, "{}: bits depend on the order of threads", &what);
            }
            _ => first = Some(rows),
        }
    }
    Ok(())
}

#[test]
fn drawn_sets_agree_on_every_device() {
    let number = |key: &str| std::env::var(key).ok().and_then(|number| number.parse::<u32>().ok());
    let cases = number("WAVEMILL_PARITY_CASES").unwrap_or(200);
    // The same sets each time, so that a change is what makes a run fail; another seed draws others.
    let seed = [number("WAVEMILL_PARITY_SEED").unwrap_or(0).to_le_bytes(); 8].concat();
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    runner.run(&set_strategy(), |set| check_set(&set)).unwrap();
}
