//! Tests each step against its formula, and properties of whole rows. `scripts/peers/read_export.py` compares the
//! result with librosa.

use wavemill_options::{
    DbArgs, DbRef, DimOrder, Dtype, FeatureArgs, FeatureSpec, Framing, LogArgs, PadMode, Preset,
};
use wavemill_signal::Level;
use wavemill_tests::options;

use super::{GriffinLimArgs, GriffinLimPlan, reference};
use crate::backend::CpuPlan;

/// Tolerance relative to the largest sample: signals are rounded to f32 in each step, and rounding changes the phase of
/// bins that are nearly 0.
const OF_REFERENCE_MAX: f64 = 1e-4;
/// Tolerance of the mean difference of the bands of the recovered spectrum, in dB. Quiet bands next to a loud tone
/// would need more steps.
const BANDS_DB_MAX: f64 = 1.0;
/// Tolerance of the mean difference of whole rows in dB, caused by the reconstructed phases, over all audible bands.
const MEAN_DB_MAX: f64 = 2.0;

/// Returns two gliding tones and noise from a fixed seed.
fn sound(n: usize) -> Vec<f32> {
    let mut noise = noise(5);
    (0..n)
        .map(|i| {
            let t = i as f64 / 22_050.0;
            let tones = (2_000.0 * t * (1.0 + 0.2 * t)).sin() + 0.5 * (9_100.0 * t).sin();
            (0.3 * tones + 0.05 * (noise() - 0.5)) as f32
        })
        .collect()
}

/// Returns a generator of pseudo-random numbers from 0 to 1.
fn noise(seed: u32) -> impl FnMut() -> f64 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 8) / f64::from(1 << 24)
    }
}

/// Returns the arguments of a mel feature with frames first, stored in f32.
fn mel(preset: Preset, overrides: &FeatureSpec) -> FeatureArgs {
    let spec = options!(preset; overrides.clone());
    let args = spec.resolve(&[], 22_050).unwrap();
    FeatureArgs {
        dim_order: DimOrder::FrameBand,
        dtype: Dtype::F32,
        ..args
    }
}

fn griffin_lim_args(feature: &FeatureArgs) -> GriffinLimArgs {
    GriffinLimArgs {
        sample_rate_hz: feature.sample_rate_hz,
        stft: feature.stft.clone(),
        power: feature.power,
        mel: feature.mel.clone().unwrap(),
        log: feature.log,
    }
}

fn plan(feature: &FeatureArgs) -> GriffinLimPlan {
    GriffinLimPlan::new(&griffin_lim_args(feature), Level::Scalar).unwrap()
}

/// Returns the values of a feature of `pcm`, computed by the CPU plan.
fn values(feature: &FeatureArgs, pcm: &[f32]) -> Vec<f32> {
    let mut out = vec![Vec::new()];
    let mut plan = CpuPlan::new(std::slice::from_ref(feature), Level::Scalar).unwrap();
    plan.run(pcm, &mut out).unwrap();
    out.remove(0)
}

fn back(feature: &FeatureArgs, values: &[f32]) -> Vec<f32> {
    let mut out = Vec::new();
    plan(feature).run(values, noise(7), &mut out);
    out
}

fn with_log(log: LogArgs) -> FeatureArgs {
    FeatureArgs {
        log,
        ..mel(Preset::Librosa, &FeatureSpec::default())
    }
}

#[test]
fn phases_match_the_formula() {
    let small = options!(n_fft: 32, hop_length: 8, win_length: 32, n_mels: 4);
    let base = mel(Preset::Librosa, &small);
    let framings = [
        Framing::Center(PadMode::Constant),
        Framing::Center(PadMode::Reflect),
        Framing::Center(PadMode::Edge),
        Framing::Inside,
        Framing::SnipEdges,
    ];

    for framing in framings {
        for (n_fft, win_length, hop_length, n_frames) in [
            (32, 32, 8, 6),
            (31, 31, 7, 5),
            (32, 20, 5, 4),
            (32, 32, 32, 3),
            (32, 32, 8, 1),
        ] {
            let mut feature = base.clone();
            feature.stft.framing = framing;
            feature.stft.n_fft = n_fft;
            feature.stft.win_length = win_length;
            feature.stft.hop_length = hop_length;

            let args = griffin_lim_args(&feature);
            let n_bins = args.stft.n_bins();

            let mut draw = noise(3);
            let magnitudes: Vec<f32> = (0..n_frames * n_bins).map(|_| draw() as f32).collect();
            let rows = magnitudes.chunks_exact(n_bins);
            let wide: Vec<Vec<f64>> = rows
                .map(|row| row.iter().map(|x| f64::from(*x)).collect())
                .collect();
            let mut draw = noise(4);
            let turns: Vec<Vec<f64>> = (0..n_frames)
                .map(|_| (0..n_bins).map(|_| draw()).collect())
                .collect();

            for n_iter in [0, 1, 4] {
                let n_samples = args.n_covered(n_frames);
                let want = reference::griffin_lim(&args.stft, n_samples, &wide, &turns, n_iter);
                let mut plan = plan(&feature);
                plan.magnitudes_mut().clone_from(&magnitudes);
                plan.find_phases(n_frames, n_iter, &mut noise(4));

                let got = plan.signal();
                assert_eq!(got.len(), want.len());
                let largest = want.iter().fold(0.0, |a: f64, b| a.max(b.abs()));
                for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                    assert!(
                        (f64::from(*got) - want).abs() <= OF_REFERENCE_MAX * largest,
                        "{:?}, {n_iter} steps, sample {i}: {got} against {want}",
                        args.stft
                    );
                }
            }
        }
    }
}

#[test]
fn the_spectrum_has_the_bands_that_were_given() {
    let feature = mel(Preset::Librosa, &options!(n_mels: 40));
    let args = griffin_lim_args(&feature);
    let bands = values(&feature, &sound(8_000));
    let mut plan = plan(&feature);
    plan.run(&bands, noise(1), &mut Vec::new());

    let mel = feature.mel.as_ref().unwrap();
    let n_bins = args.stft.n_bins();
    let mut spectrum = Vec::new();
    for bin in 0..n_bins {
        let column = plan.magnitudes_mut().iter().skip(bin).step_by(n_bins);
        spectrum.push(column.map(|x| f64::from(*x).powi(2)).collect());
    }

    let found = crate::mel::reference::bands(mel, 22_050, args.stft.n_fft, &spectrum);
    let mut errors_db = Vec::new();
    for (t, frame) in bands.chunks_exact(40).enumerate() {
        for (band, want) in frame.iter().enumerate() {
            let ratio = found[band][t] / f64::from(*want);
            errors_db.push(10.0 * ratio.log10().abs());
        }
    }

    let mean = errors_db.iter().sum::<f64>() / errors_db.len() as f64;
    assert!(mean <= BANDS_DB_MAX, "{mean} dB");
}

#[test]
fn spectra_converge() {
    let feature = mel(Preset::Librosa, &FeatureSpec::default());
    let args = griffin_lim_args(&feature);
    let pcm = sound(22_050);
    let n_frames = args.stft.n_frames(pcm.len());
    let n_bins = args.stft.n_bins();
    let power = crate::stft::reference::power(&args.stft, &pcm, 0);

    let mut plan = plan(&feature);
    let mut errors = Vec::new();
    for n_iter in [0, 2, 8, 32] {
        let magnitudes = plan.magnitudes_mut();
        magnitudes.clear();
        for t in 0..n_frames {
            magnitudes.extend(power.iter().map(|row| row[t].sqrt() as f32));
        }
        plan.find_phases(n_frames, n_iter, &mut noise(9));
        let found = crate::stft::reference::power(&args.stft, plan.signal(), 0);

        let mut error = 0.0;
        let mut norm = 0.0;
        for bin in 0..n_bins {
            for t in 0..n_frames {
                error += (found[bin][t].sqrt() - power[bin][t].sqrt()).powi(2);
                norm += power[bin][t];
            }
        }
        errors.push((error / norm).sqrt());
    }
    assert!(
        errors.windows(2).all(|pair| pair[1] < pair[0]),
        "{errors:?}"
    );
    assert!(errors[3] < 0.1, "{errors:?}");
}

#[test]
fn a_sine_comes_back_at_its_frequency_and_level() {
    let feature = with_log(LogArgs::Db(DbArgs::default()));
    // A tone at the centre of bin 93 of a 2,048-point transform: 1,001 Hz.
    let mut pcm = Vec::new();
    for i in 0..22_050 {
        let tone = (std::f64::consts::TAU * 93.0 * f64::from(i) / 2_048.0).sin();
        pcm.push(0.5 * tone as f32);
    }
    let sound = back(&feature, &values(&feature, &pcm));
    assert_eq!(sound.len(), 44 * 512);

    let power = crate::stft::reference::power(&feature.stft, &sound[8_192..12_288], 0);
    let loudest = (0..power.len()).max_by(|a, b| power[*a][4].total_cmp(&power[*b][4]));
    // A mel band is three bins wide at this frequency, which limits the resolution.
    assert!(loudest.unwrap().abs_diff(93) <= 2, "{loudest:?}");
    let [got, want] = [&sound, &pcm].map(|pcm| {
        let middle = &pcm[4_096..18_000];
        middle.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>()
    });
    let ratio = got / want;
    assert!((0.6..1.5).contains(&ratio), "{ratio}");
}

#[test]
fn all_logarithms_are_inverted() {
    fn db(reference: DbRef, top_db: Option<f64>) -> LogArgs {
        LogArgs::Db(DbArgs {
            reference,
            top_db,
            ..DbArgs::default()
        })
    }

    let magnitudes = FeatureArgs {
        power: 1.0,
        ..with_log(db(DbRef::Power(1.0), Some(80.0)))
    };
    let none = FeatureSpec::default();
    let whisper = FeatureArgs {
        // Use librosa's framing here, because Whisper's pads the signal to 30 s.
        stft: magnitudes.stft.clone(),
        ..mel(Preset::Librosa, &none)
    };

    let features = [
        with_log(LogArgs::Linear),
        with_log(db(DbRef::Power(1.0), Some(80.0))),
        with_log(db(DbRef::Power(1e-3), None)),
        with_log(db(DbRef::Max, Some(80.0))),
        with_log(LogArgs::Ln { floor: 1e-10 }),
        magnitudes,
        FeatureArgs {
            power: 1.0,
            ..with_log(LogArgs::Linear)
        },
        FeatureArgs {
            power: 0.5,
            ..with_log(LogArgs::Linear)
        },
        FeatureArgs {
            log: LogArgs::Whisper,
            ..whisper
        },
        mel(Preset::Kaldi, &none),
    ];

    let pcm = sound(20_000);
    for feature in features {
        let sound = back(&feature, &values(&feature, &pcm));

        // Compare levels as well, unless decibels were relative to the unknown largest value.
        let is_relative = matches!(feature.log, LogArgs::Db(db) if db.reference == DbRef::Max);
        let reference = if is_relative {
            DbRef::Max
        } else {
            DbRef::Power(1.0)
        };
        let compared = FeatureArgs {
            power: 2.0,
            log: db(reference, Some(60.0)),
            ..feature.clone()
        };

        let want = values(&compared, &pcm[..18_000]);
        let got = values(&compared, &sound[..18_000]);
        let differences = want.iter().zip(&got).map(|(a, b)| f64::from((a - b).abs()));
        let mean = differences.sum::<f64>() / want.len() as f64;
        assert!(mean <= MEAN_DB_MAX, "{mean} dB: {feature:?}");
    }
}

#[test]
fn extreme_values_are_accepted() {
    let db = with_log(LogArgs::Db(DbArgs::default()));
    let odd = [
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        f32::MIN,
        0.0,
        -100.0,
        300.0,
    ];

    for feature in [
        with_log(LogArgs::Linear),
        with_log(LogArgs::Ln { floor: 1e-10 }),
        with_log(LogArgs::Whisper),
        FeatureArgs {
            power: 0.1,
            ..with_log(LogArgs::Linear)
        },
        db.clone(),
    ] {
        let n_mels = feature.n_bands();
        for n_values in [0, 1, n_mels - 1, n_mels, 3 * n_mels + 5] {
            let mixed: Vec<f32> = (0..n_values).map(|i| odd[i % odd.len()]).collect();
            let mut rows = vec![mixed];
            rows.extend(odd.map(|value| vec![value; n_values]));

            for row in rows {
                let sound = back(&feature, &row);
                assert_eq!(sound.len(), n_values / n_mels * 512);
                assert!(sound.iter().all(|x| x.is_finite()), "{row:?}");
            }
        }
    }

    let silence = back(&db, &vec![f32::NEG_INFINITY; 5 * db.n_bands()]);
    assert!(silence.iter().all(|x| *x == 0.0));
}

#[test]
fn results_do_not_depend_on_earlier_calls() {
    let feature = with_log(LogArgs::Db(DbArgs::default()));
    let long = values(&feature, &sound(15_000));
    let short = &long[..7 * feature.n_bands()];
    let alone = back(&feature, short);

    let mut plan = plan(&feature);
    let mut out = vec![9.0; 10];
    plan.run(&long, noise(1), &mut out);
    assert_eq!(out.len(), 30 * 512);
    plan.run(short, noise(7), &mut out);
    assert!(out == alone);
    plan.run(short, noise(8), &mut out);
    assert!(out != alone);
}
