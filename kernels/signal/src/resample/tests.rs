//! Tests the resampler's documented properties at every level that this machine supports.

use std::f64::consts::PI;

use super::{PASS_BAND, ResampleArgs, ResampleError, reference};
use crate::level::Level;
use crate::samples::SampleBuffer;

/// Tolerance of samples, 100 dB below full scale: the specified stop band. The design (120 dB) and f32 rounding in the
/// FFTs (about 1e-7 of the largest sample times the square root of log2 of the length) are well below it. In the pass
/// band it is much stricter than the specified ripple: 0.01 dB is 1.15e-3.
const ERROR_MAX: f64 = 1e-5;

const RATIOS: [(u32, u32); 21] = [
    (44_100, 22_050),
    (48_000, 22_050),
    (22_050, 44_100),
    (44_100, 16_000),
    (32_000, 22_050),
    (24_000, 22_050),
    (11_025, 22_050),
    (8_000, 48_000),
    (96_000, 8_000),
    (96_000, 44_100),
    (44_100, 48_000),
    (8_009, 8_011),
    (44_101, 22_050),
    (8_009, 48_000),
    (96_000, 8_009),
    (95_999, 8_000),
    (176_400, 22_050),
    (192_000, 22_050),
    (352_800, 48_000),
    (384_000, 22_050),
    (384_000, 8_000),
];

fn levels() -> Vec<Level> {
    if Level::detect() == Level::Scalar {
        vec![Level::Scalar]
    } else {
        vec![Level::Scalar, Level::detect()]
    }
}

fn noise(n: usize) -> Vec<f32> {
    let mut state = 1_u32;
    let mut samples = Vec::with_capacity(n);
    for _ in 0..n {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        samples.push((state >> 8) as f32 / 8_388_608.0 - 1.0);
    }
    samples
}

fn whole(args: ResampleArgs, level: Level, input: &[f32]) -> Vec<f32> {
    let mut out = SampleBuffer::default();
    let mut resampler = args.plan(level).unwrap();
    resampler.push(input, &mut out);
    resampler.finish(&mut out);
    out.to_vec()
}

fn tone(hz: f64, rate_hz: u32, n: usize) -> Vec<f32> {
    (0..n)
        .map(|i| (2.0 * PI * hz * i as f64 / f64::from(rate_hz)).sin() as f32)
        .collect()
}

/// Checks that `input_len` is the minimum, and that later samples do not change the output.
#[test]
fn input_len_suffices_for_the_output() {
    let input = noise(40_000);

    for (from_hz, to_hz) in RATIOS.into_iter().chain([(22_050, 22_050)]) {
        let args = ResampleArgs { from_hz, to_hz };
        for n_out in [1, 1_000, 7_000] {
            let n_in = args.input_len(n_out) as usize;
            let mut out = SampleBuffer::default();
            let mut resampler = args.plan(Level::Scalar).unwrap();

            resampler.push(&noise(n_in - 1), &mut out);
            assert!(
                (out.len() as u64) < n_out,
                "{args:?}: {n_out} of {} samples",
                n_in - 1
            );

            resampler.push(&[0.0], &mut out);
            assert!(
                out.len() as u64 >= n_out,
                "{args:?}: {n_out} of {n_in} samples"
            );

            if n_in <= input.len() {
                let n_out = n_out as usize;
                let (cut, all) = (
                    whole(args, Level::Scalar, &input[..n_in]),
                    whole(args, Level::Scalar, &input),
                );
                assert_eq!(
                    cut[..n_out],
                    all[..n_out],
                    "{args:?}: {n_out} of {n_in} samples"
                );
            }
        }

        assert_eq!(args.input_len(0), 0);
    }
}

#[test]
fn matches_reference() {
    let input = noise(5_000);
    for level in levels() {
        for (from_hz, to_hz) in RATIOS {
            let args = ResampleArgs { from_hz, to_hz };
            let got = whole(args, level, &input);

            for m in (0..got.len()).step_by(97).chain([1, got.len() - 1]) {
                let want = reference::resample_at(args, &input, m);
                let error = (f64::from(got[m]) - want).abs();
                assert!(
                    error <= ERROR_MAX,
                    "{args:?} {level:?} sample {m}: {} instead of {want}",
                    got[m]
                );
            }
        }
    }
}

#[test]
fn length_is_the_ceiling() {
    for (from_hz, to_hz) in RATIOS {
        for n in [0, 1, 2, 1_151, 1_152, 40_003] {
            let args = ResampleArgs { from_hz, to_hz };
            let got = whole(args, Level::detect(), &noise(n)).len() as u64;
            let want = (n as f64 * f64::from(to_hz) / f64::from(from_hz)).ceil() as u64;
            assert_eq!(got, want, "{args:?} of {n} samples");
        }
    }

    assert_eq!(
        ResampleArgs {
            from_hz: 44_100,
            to_hz: 22_050
        }
        .output_len(1_321_967),
        660_984
    );
}

#[test]
fn pass_band_is_flat_and_in_phase() {
    for level in levels() {
        for (from_hz, to_hz) in RATIOS {
            let args = ResampleArgs { from_hz, to_hz };
            let nyquist = f64::from(from_hz.min(to_hz)) / 2.0;

            for part in [0.001, 0.1, 0.33, 0.5, 0.7, 0.816, 0.9, PASS_BAND] {
                let hz = part * nyquist;
                let got = whole(args, level, &tone(hz, from_hz, 2 * from_hz as usize));
                let middle = got.len() / 4..got.len() * 3 / 4;

                for m in middle.step_by(11) {
                    let want = (2.0 * PI * hz * m as f64 / f64::from(to_hz)).sin();
                    let error = (f64::from(got[m]) - want).abs();
                    assert!(
                        error <= ERROR_MAX,
                        "{args:?} {level:?} {hz} Hz, sample {m}: {error}"
                    );
                }
            }
        }
    }
}

#[test]
fn stop_band_is_100_db_down() {
    for level in levels() {
        for (from_hz, to_hz) in RATIOS
            .into_iter()
            .filter(|(from_hz, to_hz)| from_hz > to_hz)
        {
            let args = ResampleArgs { from_hz, to_hz };
            let (low, high) = (f64::from(to_hz) / 2.0, f64::from(from_hz) / 2.0);

            for part in [0.0, 0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.99] {
                let hz = low + part * (high - low);
                let got = whole(args, level, &tone(hz, from_hz, from_hz as usize));
                let middle = &got[got.len() / 4..got.len() * 3 / 4];
                let peak = middle
                    .iter()
                    .fold(0.0_f64, |peak, &sample| peak.max(f64::from(sample).abs()));

                assert!(
                    peak <= ERROR_MAX,
                    "{args:?} {level:?}: {hz} Hz comes through at {peak}"
                );
            }
        }
    }
}

#[test]
fn cutting_the_input_changes_no_bit() {
    let input = noise(70_001);
    for level in levels() {
        for (from_hz, to_hz) in RATIOS {
            let args = ResampleArgs { from_hz, to_hz };
            let want = whole(args, level, &input);
            let mut resampler = args.plan(level).unwrap();

            for size in [1, 1_152, 65_536] {
                let mut got = SampleBuffer::default();
                got.push(7.0);
                input
                    .chunks(size)
                    .for_each(|chunk| resampler.push(chunk, &mut got));
                resampler.finish(&mut got);

                assert!(
                    got[1..] == want[..],
                    "{args:?} {level:?} in pieces of {size}"
                );
            }
        }
    }
}

#[test]
fn reset_clears_state() {
    let args = ResampleArgs {
        from_hz: 44_100,
        to_hz: 22_050,
    };
    let mut resampler = args.plan(Level::detect()).unwrap();
    let mut thrown = SampleBuffer::default();
    let mut got = SampleBuffer::default();

    resampler.push(&noise(12_345), &mut thrown);
    resampler.reset();

    resampler.push(&[1.0; 9_999], &mut got);
    resampler.finish(&mut got);

    assert_eq!(got.to_vec(), whole(args, Level::detect(), &[1.0; 9_999]));
}

#[test]
fn equal_rates_copy() {
    let input = noise(3_333);
    assert_eq!(
        whole(
            ResampleArgs {
                from_hz: 22_050,
                to_hz: 22_050
            },
            Level::Scalar,
            &input
        ),
        input
    );
}

#[test]
fn rates_out_of_range_are_refused() {
    for (from_hz, to_hz) in [
        (0, 22_050),
        (7_999, 22_050),
        (384_001, 22_050),
        (44_100, 0),
        (44_100, 48_001),
    ] {
        let planned = ResampleArgs { from_hz, to_hz }.plan(Level::Scalar);
        assert!(
            matches!(planned, Err(ResampleError::Rate { .. })),
            "{from_hz} to {to_hz}"
        );
    }
}
