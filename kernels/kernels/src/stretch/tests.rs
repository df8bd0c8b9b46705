//! Tests each step against its formula, and properties of whole tracks. `kernels/kernels/tests/stretch.rs` compares with
//! librosa.

use wavemill_fft::num_complex::Complex32;
use wavemill_signal::Level;

use super::reference::{self, Bin};
use super::transform::Transform;
use super::{HOP_LENGTH, N_BINS, N_FFT, Spectra, StretchArgs, StretchPlan, Vocoder};

/// Tolerance of a column relative to its largest bin: rounding to f32 with a step of 2^-23, and margin for the f64
/// transform.
const COLUMN_OF_MAX: f64 = 1e-7;
/// Tolerance of samples: a few f32 sums of numbers below 1.
const SAMPLE_MAX: f64 = 1e-6;
/// Relative tolerance of magnitudes, which are computed from f32 values and rounded to f32 again.
const MAGNITUDE_REL: f64 = 5e-7;
/// Tolerance per column of a phase summed in f32, half a step: 2^-14 for 1,608 and its multiples below 4,096.
const PHASE_A_STEP: f64 = 2.5e-4;

fn levels() -> Vec<Level> {
    let levels = [Level::Scalar, Level::X86_64V3];
    levels
        .into_iter()
        .filter(|level| level.is_available())
        .collect()
}

/// Returns two gliding tones and noise from a fixed seed.
fn sound(n: usize) -> Vec<f32> {
    let mut state = 0x1234_5678_u32;

    (0..n)
        .map(|i| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = f64::from(state >> 8) / f64::from(1 << 24) - 0.5;
            let t = i as f64 / 22_050.0;
            let tones = (2_000.0 * t * (1.0 + 0.2 * t)).sin() + 0.5 * (9_100.0 * t).sin();
            (0.3 * tones + 0.02 * noise) as f32
        })
        .collect()
}

fn to_complex(column: &[Bin]) -> Vec<Complex32> {
    column
        .iter()
        .map(|[re, im]| Complex32::new(*re as f32, *im as f32))
        .collect()
}

#[test]
fn lengths_are_rounded_as_python_rounds() {
    for (n, rate, want) in [
        (661_500, 0.85, 778_235),
        (661_500, 1.15, 575_217),
        (5, 2.0, 2),
        (7, 2.0, 4),
        (1, 4.0, 0),
        (0, 0.25, 0),
        (3, 0.25, 12),
    ] {
        assert_eq!(StretchArgs { rate }.output_len(n), want, "{n} at {rate}");
    }

    // Expected numbers of columns, as returned by `len(numpy.arange(0, n, rate))`.
    for (n, rate, want) in [
        (1_292, 0.85, 1_520),
        (1_292, 1.15, 1_124),
        (8, 4.0, 2),
        (9, 4.0, 3),
    ] {
        assert_eq!(StretchArgs { rate }.n_steps(n), want, "{n} at {rate}");
    }
}

#[test]
fn a_rate_out_of_range_is_refused() {
    let mut plan = StretchPlan::new(Level::Scalar).unwrap();
    for rate in [0.0, 0.2, 4.1, f64::NAN, -1.0] {
        let refused = plan.run(StretchArgs { rate }, &[0.5; 10], &mut Vec::new());
        assert!(refused.is_err(), "{rate}");
    }
}

#[test]
fn columns_match_the_formula() {
    for n in [1, 511, 512, 3_000] {
        let pcm = sound(n);
        let want = reference::columns(&pcm);
        assert_eq!(want.len(), super::args::n_columns(n), "{n} samples");

        for level in levels() {
            let mut transform = Transform::new(level).unwrap();
            let mut got = vec![Complex32::default(); N_BINS];
            for (number, want) in want.iter().enumerate() {
                transform.analyse(&pcm, number, &mut got);
                let largest = want
                    .iter()
                    .map(|[re, im]| re.hypot(*im))
                    .fold(0.0, f64::max);
                for (k, (got, [re, im])) in got.iter().zip(want).enumerate() {
                    let error = (f64::from(got.re) - re).hypot(f64::from(got.im) - im);
                    assert!(
                        error <= COLUMN_OF_MAX * largest.max(1e-9),
                        "{level}, {n} samples, column {number}, bin {k}: {got} against {re} {im}"
                    );
                }
            }
        }
    }
}

#[test]
fn overlap_add_matches_the_formula() {
    // Change one column so that it is not the spectrum of any track.
    let mut columns = reference::columns(&sound(2_500));
    columns[2].iter_mut().for_each(|bin| bin[1] = -2.0 * bin[0]);

    for n_out in [100, 1_600, 3_000] {
        let want = reference::overlap_add(&columns, n_out);
        for level in levels() {
            let mut transform = Transform::new(level).unwrap();
            let mut got = vec![0.0; n_out];

            for (number, column) in columns.iter().enumerate() {
                transform.synthesise(&to_complex(column), number, &mut got);
            }
            transform.normalise(&mut got, columns.len());

            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                // The sum of squared windows is nearly 0 after the last frame, which increases errors by the same
                // factor.
                let bound = SAMPLE_MAX * want.abs().max(1.0);
                let is_covered =
                    i + N_FFT / 2 + 1 < columns.len() * HOP_LENGTH + N_FFT - HOP_LENGTH - 64;

                assert!(
                    !is_covered || (f64::from(*got) - want).abs() <= bound,
                    "{level}, {n_out} samples, sample {i}: {got} against {want}"
                );
            }
        }
    }
}

/// Test double of the vocoder's input and output: given columns, and a list of the output columns.
struct GivenColumns {
    columns: Vec<Vec<Complex32>>,
    made: Vec<Vec<Complex32>>,
}

impl Spectra for GivenColumns {
    fn read(&mut self, column: usize, spectrum: &mut [Complex32]) {
        spectrum.copy_from_slice(&self.columns[column]);
    }

    fn write(&mut self, column: usize, spectrum: &[Complex32]) {
        assert_eq!(column, self.made.len());
        self.made.push(spectrum.to_vec());
    }
}

#[test]
fn vocoder_matches_the_formula() {
    let columns = reference::columns(&sound(6_000));
    for rate in [0.25, 0.85, 1.15, 2.0, 3.7] {
        let args = StretchArgs { rate };
        let want = reference::vocode(&columns, rate);
        assert_eq!(want.len(), args.n_steps(columns.len()));

        for level in levels() {
            let mut given = GivenColumns {
                columns: columns.iter().map(|column| to_complex(column)).collect(),
                made: Vec::new(),
            };

            let mut vocoder = Vocoder::new(level).unwrap();
            vocoder.run(args, columns.len(), want.len(), &mut given);
            assert_eq!(given.made.len(), want.len());

            for (step, (got, want)) in given.made.iter().zip(&want).enumerate() {
                for (k, (got, (magnitude, phase))) in got.iter().zip(want).enumerate() {
                    let at = format!("{level}, rate {rate}, step {step}, bin {k}");
                    let found = f64::from(got.re).hypot(f64::from(got.im));
                    let error = (found - magnitude).abs();
                    assert!(error <= MAGNITUDE_REL * magnitude + 1e-30, "{at}: {found}");

                    // The angle of a bin that is nearly 0 is meaningless.
                    if step < 3 && *magnitude > 1e-3 {
                        let turned = f64::from(got.im).atan2(f64::from(got.re)) - phase;
                        let whole = std::f64::consts::TAU;
                        let error = (turned - whole * (turned / whole).round()).abs();
                        let bound = 1e-4 + PHASE_A_STEP * step as f64;
                        assert!(error <= bound, "{at}: off by {error}");
                    }
                }
            }
        }
    }
}

#[test]
fn all_levels_and_earlier_tracks_give_the_same_sound() {
    let pcm = sound(9_000);
    let args = StretchArgs { rate: 0.85 };
    let mut sounds = Vec::new();
    for level in levels() {
        let mut plan = StretchPlan::new(level).unwrap();
        let mut first = Vec::new();
        plan.run(args, &pcm, &mut first).unwrap();
        assert_eq!(first.len(), args.output_len(pcm.len()));

        let mut other = Vec::new();
        plan.run(StretchArgs { rate: 3.0 }, &pcm[100..5_000], &mut other)
            .unwrap();
        plan.run(args, &pcm, &mut other).unwrap();
        assert!(first == other, "{level}: another track came before");
        sounds.push(first);
    }

    // Results of different levels differ only by the rounding of the transforms.
    for sound in &sounds[1..] {
        let energy: f64 = sound.iter().map(|x| f64::from(*x).powi(2)).sum();
        let differences = sound.iter().zip(&sounds[0]);
        let error: f64 = differences.map(|(a, b)| f64::from(a - b).powi(2)).sum();
        assert!(error <= 1e-4 * energy, "{error} of {energy}");
    }
}

#[test]
fn silence_and_short_tracks_are_stretched() {
    let mut plan = StretchPlan::new(Level::detect()).unwrap();
    let mut out = Vec::new();
    for n in [0, 1, 2, 511, 2_047, 5_000] {
        for rate in [0.25, 0.85, 1.15, 4.0] {
            let args = StretchArgs { rate };
            plan.run(args, &vec![0.0; n], &mut out).unwrap();
            assert_eq!(out.len(), args.output_len(n));
            assert!(out.iter().all(|x| *x == 0.0), "{n} samples at {rate}");

            plan.run(args, &sound(n), &mut out).unwrap();
            assert!(out.iter().all(|x| x.is_finite()), "{n} samples at {rate}");
        }
    }
}

#[test]
fn pitch_is_preserved() {
    // A tone in bin 40, which must stay there at both tempos.
    let mut pcm = Vec::new();
    for i in 0..20_000 {
        let tone = (2.0 * std::f64::consts::PI * 40.0 * f64::from(i) / N_FFT as f64).sin();
        pcm.push(0.5 * tone as f32);
    }

    let mut plan = StretchPlan::new(Level::detect()).unwrap();
    for rate in [0.5, 1.5] {
        let mut out = Vec::new();
        plan.run(StretchArgs { rate }, &pcm, &mut out).unwrap();

        let column = &reference::columns(&out)[8];
        let magnitudes: Vec<f64> = column.iter().map(|[re, im]| re.hypot(*im)).collect();
        let loudest = (0..N_BINS).max_by(|a, b| magnitudes[*a].total_cmp(&magnitudes[*b]));
        assert_eq!(loudest, Some(40), "rate {rate}");
    }
}
