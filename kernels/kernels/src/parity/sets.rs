//! Random sets: batches of clips of different lengths and sample rates, compared on every device with the CPU, and with
//! the references if a row is short.

use std::ops::Range;
use std::thread;

use super::*;
use crate::resample::ResampleArgs;
use crate::stft::Signal;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Allowed error of a power, relative to the row's largest power (`POWER_REL_TO_MAX`) and to the power itself
/// (`POWER_REL`). An error d of the amplitude changes a power x by about 2 d √(x · max), which is at most 1e-4 x plus
/// 1e4 d² max. The bounds therefore hold for any d up to 1e-5, which is more than any length in these tests has.
const POWER_REL_TO_MAX: f64 = 1e-6;
const POWER_REL: f64 = 1e-4;
/// Error of an amplitude relative to a row's largest amplitude if the transform is computed in f64, which rounds too little
/// to matter: that of the f32 samples from different resamplers. It does not grow with the length of the transform.
const WIDE_REL_TO_MAX: f64 = 1e-6;
/// Tolerance in decibels for the rounding of the logarithm and of the row's reference.
const DB_ROUNDING: f64 = 2e-4;
/// Rows with more frames are compared only with the CPU, because the references are slow.
const REFERENCE_FRAMES: usize = 8;
/// Limit of the products that the references compute for one set, at n_fft² / 2 products per frame.
const REFERENCE_PRODUCTS: usize = 20_000_000;
/// Approximate limit of frames per set: more frames reveal no more errors and take long in the emulation.
const SET_FRAMES: usize = 3000;

/// Kind of sound in a test clip.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sound {
    Noise,
    Silence,
    /// A square wave at full scale, whose spectral lines are far above everything between them.
    Square,
}

/// One clip of a random set.
#[derive(Clone, Debug)]
struct SetClip {
    sound: Sound,
    /// Number of samples per channel.
    n: usize,
    channels: usize,
    sixteen_bits: bool,
    sample_rate_hz: u32,
    rows: Vec<Range<usize>>,
}

/// A random set: a feature and a batch of clips.
#[derive(Clone, Debug)]
struct Set {
    args: FeatureArgs,
    clips: Vec<SetClip>,
}

impl SetClip {
    fn samples(&self) -> Vec<f32> {
        let mono = match self.sound {
            Sound::Noise => signal(self.n),
            Sound::Silence => vec![0.0; self.n],
            Sound::Square => (0..self.n)
                .map(|i| if i / 25 % 2 == 0 { 1.0 } else { -1.0 })
                .collect(),
        };

        // The second channel differs in level; the mean of both is close to `mono`.
        let mut samples = Vec::with_capacity(self.n * self.channels);
        for x in mono {
            for side in 0..self.channels {
                samples.push(if side == 0 { x * 0.75 } else { x });
            }
        }
        samples
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

fn overrides_strategy() -> impl Strategy<Value = FeatureSpec> {
    (transform_strategy(), values_strategy()).prop_map(|(transform, values)| FeatureSpec {
        n_fft: transform.n_fft,
        hop_length: transform.hop_length,
        win_length: transform.win_length,
        n_mels: transform.n_mels,
        center: transform.center,
        pad_mode: transform.pad_mode,
        ..values
    })
}

/// Generates random options of framing, padding and bands.
fn transform_strategy() -> impl Strategy<Value = FeatureSpec> {
    let n_fft = prop_oneof![
        3 => prop::sample::select(vec![256usize, 512, 1024, 2048, 4096]),
        2 => 256usize..=2500,
        1 => 2500usize..=8192,
    ];
    let hop_percent = 1usize..=100;
    let win_percent = 30usize..=100;
    let n_mels = 20usize..=256;
    let pad = 0usize..3;

    let drawn = (n_fft, hop_percent, win_percent, n_mels, any::<bool>(), pad);
    drawn.prop_map(|(n_fft, hop_percent, win_percent, n_mels, center, pad)| {
        let pads = ["constant", "reflect", "edge"];
        FeatureSpec {
            n_fft: Some(n_fft),
            hop_length: Some((n_fft * hop_percent / 100).max(16)),
            win_length: Some((n_fft * win_percent / 100).max(1)),
            n_mels: Some(n_mels),
            center: Some(center),
            pad_mode: Some(pads[pad].into()),
            ..FeatureSpec::default()
        }
    })
}

/// Generates random options for the values of the bands.
fn values_strategy() -> impl Strategy<Value = FeatureSpec> {
    let power = 0usize..4;
    let range = 0usize..4;
    let scale = 0usize..3;
    let frames = prop::option::weighted(0.2, 9usize..40);
    let delta = 0u8..=2;

    let drawn = (power, range, scale, any::<bool>(), frames, delta);
    drawn.prop_map(|(power, range, scale, htk, frames, delta)| {
        // An index beyond the end of `ranges` means no decibels.
        let ranges = [
            (DbRef::Max, Some(80.0)),
            (DbRef::Power(1.0), Some(60.0)),
            (DbRef::Max, None),
        ];
        let db = ranges.get(range).map(|(reference, top_db)| DbSpec {
            reference: (*reference).into(),
            amin: 1e-10,
            top_db: *top_db,
        });
        // Decibels exist only for powers and magnitudes.
        let powers = if db.is_some() {
            [2.0, 2.0, 2.0, 1.0]
        } else {
            [2.0, 2.0, 1.0, 1.5]
        };

        FeatureSpec {
            power: Some(powers[power]),
            db,
            normalize: [Normalize::None, Normalize::MinMax, Normalize::MeanVar][scale],
            norm: Some(if htk { "none" } else { "slaney" }.into()),
            htk: Some(htk),
            frames,
            delta: Some(delta),
            ..FeatureSpec::default()
        }
    })
}

/// Resolves the options after removing those that the op or the preset does not support.
fn args_of(op: Op, preset: Preset, mut overrides: FeatureSpec) -> FeatureArgs {
    let dim_order = if overrides.htk == Some(true) {
        DimOrder::FrameBand
    } else {
        DimOrder::BandFrame
    };
    if op == Op::Stft {
        overrides.n_mels = None;
        overrides.htk = None;
        overrides.norm = None;
        overrides.normalize = Normalize::None;
    }

    if op == Op::Mfcc {
        overrides.normalize = Normalize::None;
        overrides.power = Some(2.0);
        // As in the presets: with a linear or unlimited range, the largest coefficients would hide the errors of the
        // others.
        overrides.db = overrides.db.filter(|db| db.top_db.is_some());
    } else {
        overrides.delta = None;
    }

    if preset == Preset::Kaldi {
        overrides.center = None;
        overrides.pad_mode = None;
        overrides.db = None;
    } else if overrides.db.is_none() {
        overrides.normalize = Normalize::None;
    }
    FeatureArgs {
        dim_order,
        ..resolve(op, preset, 22_050, overrides)
    }
}

fn clips_strategy() -> impl Strategy<Value = Vec<SetClip>> {
    let count = prop_oneof![6 => 1usize..6, 2 => 6usize..40, 1 => Just(257usize)];
    let is_long = prop::bool::weighted(0.1);
    (count, is_long).prop_flat_map(|(count, is_long)| {
        let n_max = if is_long {
            2_000_000 / count
        } else {
            60_000 / count + 2
        };
        prop::collection::vec(clip_strategy(n_max, count < 40), count)
    })
}

/// Generates a random clip of up to `n_max` samples per channel, which may be cut into segments.
fn clip_strategy(n_max: usize, may_be_cut: bool) -> impl Strategy<Value = SetClip> {
    let sound = prop_oneof![
        3 => Just(Sound::Noise),
        1 => Just(Sound::Silence),
        1 => Just(Sound::Square),
    ];
    let n = prop_oneof![
        1 => Just(0usize),
        2 => 1usize..300,
        2 => 300usize..6000,
        4 => (n_max / 2)..n_max.max(2),
    ];
    let rate = prop_oneof![
        3 => Just(22_050u32),
        1 => prop::sample::select(vec![44_100u32, 48_000, 16_000, 32_000]),
    ];
    let cut = 0usize..4;

    let drawn = (sound, n, any::<bool>(), any::<bool>(), rate, cut);
    drawn.prop_map(
        move |(sound, n, is_stereo, sixteen_bits, sample_rate_hz, cut)| {
            let n = n.min(n_max);
            let rates = ResampleArgs {
                from_hz: sample_rate_hz,
                to_hz: 22_050,
            };
            let resampled = rates.output_len(n as u64) as usize;
            let rows = match cut {
                // Overlapping segments, the last of which extends beyond the end of the clip.
                0 if may_be_cut => vec![0..resampled / 2, resampled / 3..resampled + 100],
                _ => std::iter::once(0..resampled).collect(),
            };
            SetClip {
                sound,
                n,
                channels: 1 + usize::from(is_stereo),
                sixteen_bits,
                sample_rate_hz,
                rows,
            }
        },
    )
}

fn set_strategy() -> impl Strategy<Value = Set> {
    (op_strategy(), overrides_strategy(), clips_strategy()).prop_map(
        |((op, preset), overrides, mut clips)| {
            let mut args = args_of(op, preset, overrides);
            let n_samples: usize = clips.iter().map(|clip| clip.n).sum();
            args.stft.hop_length = args.stft.hop_length.max(n_samples / SET_FRAMES);

            for clip in &mut clips {
                // Normalization, cosine transforms and deltas combine quiet values with loud ones.
                let is_mixed = args.normalize != Normalize::None || args.op == Op::Mfcc;
                if clip.sound == Sound::Square && is_mixed {
                    clip.sound = Sound::Noise;
                }
                // Beyond a range of 80 dB, the different rounding of the CPU's resampler becomes visible.
                if is_mixed && (args.is_wide() || matches!(args.log, LogArgs::Ln { .. })) {
                    clip.sample_rate_hz = args.sample_rate_hz;
                }
            }

            Set {
                args: FeatureArgs {
                    dtype: Dtype::F32,
                    ..args
                },
                clips,
            }
        },
    )
}

type Rows = Vec<Result<Row, KernelError>>;

fn run(backend: &dyn Backend, set: &Set) -> Result<Rows, KernelError> {
    let samples: Vec<Vec<f32>> = set.clips.iter().map(SetClip::samples).collect();
    let shorts: Vec<Vec<i16>> = samples
        .iter()
        .map(|pcm| pcm.iter().map(|x| (x * 32_767.0) as i16).collect())
        .collect();

    let mut clips = Vec::with_capacity(set.clips.len());
    for (i, clip) in set.clips.iter().enumerate() {
        clips.push(Clip {
            samples: if clip.sixteen_bits {
                Samples::S16(&shorts[i])
            } else {
                Samples::F32(&samples[i])
            },
            channels: clip.channels,
            sample_rate_hz: clip.sample_rate_hz,
            rows: &clip.rows,
        });
    }

    backend
        .plan(0, std::slice::from_ref(&set.args))?
        .run(&clips)
}

/// Returns the values of a row that has only one feature.
fn values_of(row: &Row) -> Vec<f64> {
    floats(&row.tensors[0]).into_iter().map(f64::from).collect()
}

/// Returns the allowed difference of each value from `want`.
pub(super) fn bounds(args: &FeatureArgs, want: &[f64]) -> Vec<f64> {
    if args.normalize != Normalize::None || args.op == Op::Mfcc {
        return vec![tolerance(args, want); want.len()];
    }

    let largest = want.iter().fold(f64::NEG_INFINITY, |a, b| a.max(*b));
    let error = if args.is_wide() {
        WIDE_REL_TO_MAX
    } else {
        // Both values come from a transform whose error, relative to the largest amplitude, is that of its roundings.
        2.0 * ROUNDING * transform_roundings(args.stft.n_fft)
    };
    let decibel = match args.log {
        LogArgs::Linear => None,
        LogArgs::Db(_) => Some(1.0),
        LogArgs::Ln { .. } => Some(std::f64::consts::LN_10 / 20.0 * args.power),
        LogArgs::Whisper => Some(1.0 / 40.0),
    };

    let mut bounds = Vec::with_capacity(want.len());
    for &x in want {
        bounds.push(match decibel {
            None => linear_bound(args.power, largest, x),
            // The error is larger relative to a quieter amplitude.
            Some(unit) => decibel_bound(unit, error * 10f64.powf((largest - x) / unit / 20.0)),
        });
    }
    bounds
}

/// Returns the allowed difference of a magnitude to the power `exponent`, derived from the allowed error of its power
/// in both directions.
fn linear_bound(exponent: f64, largest: f64, x: f64) -> f64 {
    let power = x.powf(2.0 / exponent);
    let most = POWER_REL_TO_MAX * largest.powf(2.0 / exponent) + POWER_REL * power;

    let above = (power + most).max(0.0).powf(exponent / 2.0);
    let below = (power - most).max(0.0).powf(exponent / 2.0);
    (above - x).max(x - below)
}

/// Returns the allowed difference of a logarithmic value in which one decibel equals `unit`, if its amplitude has the
/// relative error `amplitude_error`.
fn decibel_bound(unit: f64, amplitude_error: f64) -> f64 {
    unit * (20.0 * (1.0 + amplitude_error).log10() + DB_ROUNDING)
}

fn compare(what: &str, args: &FeatureArgs, got: &[f64], want: &[f64]) -> Result<(), TestCaseError> {
    prop_assert_eq!(got.len(), want.len(), "{}: number of values", what);
    let bounds = bounds(args, want);
    for (i, most) in bounds.into_iter().enumerate() {
        let got = got[i];
        let want = want[i];
        if (got - want).abs() > most || got.is_nan() {
            return Err(TestCaseError::fail(format!(
                "{what}: value {i} is {got}, should be {want} ± {most:.1e}"
            )));
        }
    }
    Ok(())
}

/// Compares the CPU's rows with the references, if these are fast enough.
fn check_references(set: &Set, rows: &Rows) -> Result<(), TestCaseError> {
    let mut left = REFERENCE_PRODUCTS;
    let owners = set
        .clips
        .iter()
        .flat_map(|clip| clip.rows.iter().map(move |row| (clip, row.clone())));

    for ((clip, place), row) in owners.zip(rows) {
        let stft = &set.args.stft;
        let n_signal = Signal::len_of(place.len(), stft, set.args.frames);
        let n_frames = stft.n_frames(n_signal);
        let products = n_frames * set.args.stft.n_fft.pow(2) / 2;
        // The references take mono f32 samples at the feature's sample rate.
        let usual = clip.sample_rate_hz == set.args.sample_rate_hz
            && clip.channels == 1
            && !clip.sixteen_bits;
        if !usual || n_frames > REFERENCE_FRAMES || products > left {
            continue;
        }
        left -= products;

        let mut pcm = clip.samples();
        pcm.resize(pcm.len().max(place.end), 0.0);
        match (reference(&set.args, &pcm[place]), row) {
            (Ok(want), Ok(row)) => compare("cpu, reference", &set.args, &values_of(row), &want)?,
            (want, got) => prop_assert!(
                want.is_err() && got.is_err(),
                "reference {:?}, cpu {:?}",
                want,
                got
            ),
        }
    }
    Ok(())
}

fn check_set(on: &Machines, set: &Set) -> Result<(), TestCaseError> {
    let backend = Cpu {
        level: Level::detect(),
    };
    let (cpu, by_device) = thread::scope(|scope| {
        let devices = on.devices.iter();
        let running: Vec<_> = devices
            .map(|device| scope.spawn(|| run(&**device, set)))
            .collect();
        let cpu = run(&backend, set);
        let by_device: Vec<_> = running
            .into_iter()
            .map(|device| device.join().unwrap())
            .collect();
        (cpu, by_device)
    });
    let cpu = cpu.map_err(failure)?;
    check_references(set, &cpu)?;

    let mut first: Option<Rows> = None;
    for (device, rows) in on.devices.iter().zip(by_device) {
        let what = name(&**device);
        let rows = rows.map_err(failure)?;
        prop_assert_eq!(rows.len(), cpu.len(), "{}: rows", &what);
        for (row, want) in rows.iter().zip(&cpu) {
            match (row, want) {
                (Ok(row), Ok(want)) => {
                    prop_assert_eq!(row.silent, want.silent, "{}: silent", &what);
                    compare(&what, &set.args, &values_of(row), &values_of(want))?;
                }
                (row, want) => prop_assert!(
                    row.is_err() && want.is_err(),
                    "{}: {:?}, cpu {:?}",
                    &what,
                    row,
                    want
                ),
            }
        }

        // Bits must not depend on the emulated device's order of threads. A GPU may produce different bits.
        match &first {
            Some(first) if device.kind() == "emulated" => {
                let equal = first
                    .iter()
                    .zip(&rows)
                    .all(|(a, b)| a.as_ref().ok() == b.as_ref().ok());
                prop_assert!(equal, "{}: bits depend on the order of threads", &what);
            }
            _ => first = Some(rows),
        }
    }
    Ok(())
}

fn failure(error: KernelError) -> TestCaseError {
    TestCaseError::fail(error.to_string())
}

/// Returns the value of an environment variable, if it is a number.
fn number_of(variable: &str) -> Option<u32> {
    std::env::var(variable).ok()?.parse().ok()
}

fn drawn_sets_agree_on_every_device(on: &Machines) {
    let cases = number_of("WAVEMILL_PARITY_CASES").unwrap_or(200);
    // The sets are the same in each run, so that only a change of the code makes a run fail; another seed generates
    // others.
    let seed = number_of("WAVEMILL_PARITY_SEED").unwrap_or(0);
    let seed_bytes = [seed.to_le_bytes(); 8].concat();

    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(
        config,
        TestRng::from_seed(RngAlgorithm::ChaCha, &seed_bytes),
    );
    runner
        .run(&set_strategy(), |set| check_set(on, &set))
        .unwrap();
}

parity!(drawn_sets_agree_on_every_device);
