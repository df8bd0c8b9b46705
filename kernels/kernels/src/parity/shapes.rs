//! Parity of the operations on frames and on the shape of spectra, which only the CPU computes.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;

/// All operations of this file.
const OPS: [Op; 16] = [
    Op::Rms,
    Op::ZeroCrossingRate,
    Op::SpectralCentroid,
    Op::SpectralBandwidth,
    Op::SpectralContrast,
    Op::SpectralFlatness,
    Op::SpectralRolloff,
    Op::OnsetStrength,
    Op::Tempogram,
    Op::BeatTrack,
    Op::ChromaStft,
    Op::Cqt,
    Op::Vqt,
    Op::ChromaCqt,
    Op::ChromaCens,
    Op::Tonnetz,
];

/// Reports whether an operation has filters of its own instead of spectra of frames.
const fn is_constant_q(op: Op) -> bool {
    matches!(
        op,
        Op::Cqt | Op::Vqt | Op::ChromaCqt | Op::ChromaCens | Op::Tonnetz
    )
}

/// Reports whether frames and deltas of an operation are not options.
const fn is_rhythm(op: Op) -> bool {
    matches!(op, Op::Tempogram | Op::BeatTrack)
}

fn shapes_match_their_references(on: &Machines) {
    for op in OPS {
        let at_defaults = librosa(op, FeatureSpec::default());
        // The references of long filters take long.
        let lengths: &[usize] = if is_constant_q(op) {
            &[1, 3000]
        } else {
            &[1, 700, 5000, 9001]
        };
        for n in lengths {
            check_cpus(on, &at_defaults, &signal(*n));
        }

        let overrides = options!(
            hop_length: 100, center: (!is_constant_q(op) && !is_rhythm(op)).then_some(false),
            delta: (!is_rhythm(op)).then_some(1), frames: 20, normalize: Normalize::MeanVar
        );
        check_cpus(
            on,
            &resolve(op, Preset::Librosa, 16_000, overrides),
            &signal(5000),
        );
    }
}

fn options_of_shapes_match_their_references(on: &Machines) {
    let mut cases = vec![
        (Op::SpectralFlatness, options!(power: 1.0, amin: 1e-3)),
        (
            Op::Rms,
            options!(frame_length: 999, pad_mode: Word::from("reflect"), db: db(DbRef::Max, 60.0)),
        ),
        (
            Op::Rms,
            options!(window: Word::from("hann"), hop_length: 256),
        ),
        (
            Op::ZeroCrossingRate,
            options!(frame_length: 33, hop_length: 7),
        ),
    ];
    for (lag, hop_length) in [(3, 100), (1, 512), (2, 700)] {
        cases.push((Op::OnsetStrength, options!(lag, hop_length; small_mel())));
    }
    cases.push((
        Op::OnsetStrength,
        options!(aggregate: Word::from("median"); small_mel()),
    ));
    for (n_chroma, tuning) in [(1, 0.0), (7, -0.5), (12, 0.31), (36, 0.5)] {
        cases.push((Op::ChromaStft, options!(n_chroma, tuning; small())));
    }
    cases.extend(options_of_constant_q());
    for p in [0.5, 1.0, 3.0, 32.0] {
        cases.push((Op::SpectralBandwidth, options!(p; small())));
    }
    for roll_percent in [0.01, 0.5, 0.99] {
        cases.push((Op::SpectralRolloff, options!(roll_percent; small())));
    }
    // Numbers of extremes that are kept ordered, and more of them.
    for (quantile, n_bands, linear) in [(0.02, 4, true), (0.1, 3, false), (0.6, 5, false)] {
        let overrides = options!(
            fmin: 300.0, quantile, n_bands, linear, n_fft: 512;
            small()
        );
        cases.push((Op::SpectralContrast, overrides));
    }

    for (op, overrides) in cases {
        let args = librosa(op, overrides);
        check_cpus(on, &args, &signal(3000));
    }

    // Some bins are 90 dB and more below the loudest: see `with_rounded_valleys`.
    let quietest_bin =
        options!(n_fft: 544, hop_length: 9, fmin: 700.0, n_bands: 1, quantile: 0.001);
    let every_sample = options!(n_fft: 473, hop_length: 1);
    for (op, overrides, n) in [
        (Op::SpectralContrast, quietest_bin, 1870),
        (Op::SpectralFlatness, every_sample, 915),
    ] {
        let args = librosa(op, overrides);
        check_cpus(on, &args, &signal(n));
    }
}

fn options_of_constant_q() -> Vec<(Op, FeatureSpec)> {
    let with = |hop_length: usize, fmin: f64, bins_per_octave: usize, tuning: Option<f64>| {
        options!(hop_length, fmin, bins_per_octave, tuning)
    };
    let mut cases = Vec::new();
    // Bins that fill no whole octave, filters that reach almost half the rate, and a rate that cannot be halved.
    for (op, n_bins, overrides) in [
        (Op::Cqt, 1, with(64, 440.0, 12, None)),
        (Op::Cqt, 7, with(64, 440.0, 12, Some(0.3))),
        (Op::Cqt, 30, with(99, 500.0, 12, Some(-0.5))),
        (Op::Vqt, 61, with(160, 100.0, 10, Some(0.5))),
        (Op::Cqt, 45, with(200, 200.0, 8, None)),
    ] {
        cases.push((op, options!(n_bins; overrides)));
    }

    let db = options!(
        db: db(DbRef::Max, 60.0), filter_scale: 0.5, gamma: 20.0; with(256, 65.0, 12, None)
    );
    cases.push((Op::Vqt, db));
    for (op, n_chroma, chroma, win_len_smooth) in [
        (Op::ChromaCqt, 6, None, None),
        (Op::ChromaCens, 24, None, Some(1)),
        (Op::ChromaCens, 12, None, Some(20)),
        (Op::Tonnetz, 12, Some("cens"), Some(9)),
        (Op::Tonnetz, 8, Some("cqt"), None),
    ] {
        let overrides = options!(
            n_chroma, chroma: chroma.map(Word::from), win_len_smooth,
            n_octaves: 4; with(128, 110.0, 24, None)
        );
        cases.push((op, overrides));
    }
    cases
}

/// Clicks at a steady tempo and at other places, at a low rate: the references of many lags take long.
fn rhythms_match_their_references(on: &Machines) {
    let mut pcm = signal(6000);
    for at in [50, 600, 1200, 1810, 2400, 2700, 3000, 3600, 4810, 5400] {
        pcm[at..at + 20].iter_mut().for_each(|x| *x += 0.9);
    }

    let mut cases = Vec::new();
    for win_length in [2, 3, 61] {
        cases.push((Op::Tempogram, options!(win_length, hop_length: 200, lag: 2)));
    }
    // The last interval has few frames.
    for (start_bpm, tightness, trim, hop_length) in [
        (120.0, 100.0, true, 100),
        (240.0, 1.0, false, 150),
        (300.0, 1000.0, true, 700),
    ] {
        let beats = options!(start_bpm, tightness, trim, hop_length);
        cases.push((Op::BeatTrack, beats));
    }

    for (op, overrides) in cases {
        let args = resolve(op, Preset::Librosa, 2000, overrides);
        for n in [pcm.len(), 300] {
            check_cpus(on, &args, &pcm[..n]);
        }
    }
}

/// Silence, a click, DC and a full-scale square wave give finite values.
fn extreme_signals_have_finite_shapes(on: &Machines) {
    let click: Vec<f32> = (0..4000).map(|i| f32::from(u8::from(i == 2000))).collect();
    let square: Vec<f32> = (0..4000)
        .map(|i| if i % 20 < 10 { 1.0 } else { -1.0 })
        .collect();
    let loudest = vec![1_048_576.0; 4000];
    for pcm in [vec![0.0; 4000], vec![0.5; 4000], click, square, loudest] {
        for op in OPS {
            let args = librosa(op, FeatureSpec::default());
            for cpu in &on.cpus {
                let got = alone(cpu.as_ref(), &args, &pcm);
                assert!(got.iter().all(|x| x.is_finite()), "{op:?}");
            }
        }
    }

    let silence = |op: Op| {
        let args = librosa(op, FeatureSpec::default());
        alone(on.cpus[0].as_ref(), &args, &[0.0; 4000])[0]
    };
    let is_flat = |op: Op| f32::from(u8::from(op == Op::SpectralFlatness));
    assert_eq!(OPS.map(silence), OPS.map(is_flat));
}

/// All features of one plan share its spectra, and are those of plans of their own.
fn shapes_beside_mel_are_the_same(on: &Machines) {
    let mut all = vec![librosa(Op::Mel, FeatureSpec::default())];
    all.extend(OPS.map(|op| librosa(op, FeatureSpec::default())));
    let pcm = signal(9001);
    for cpu in &on.cpus {
        let together = values(cpu.as_ref(), &all, &[&pcm]).unwrap();
        for (args, together) in all.iter().zip(&together[0]) {
            assert!(alone(cpu.as_ref(), args, &pcm) == *together, "{args:?}");
        }
    }
}

/// A plan may free its buffers between two clips.
fn shapes_after_freed_buffers_are_the_same(on: &Machines) {
    let all = OPS.map(|op| librosa(op, FeatureSpec::default()));
    let pcm = signal(9001);
    let whole = 0..pcm.len();
    let clip = Clip {
        samples: Samples::F32(&pcm),
        channels: 1,
        sample_rate_hz: 22_050,
        rows: std::slice::from_ref(&whole),
    };

    for cpu in &on.cpus {
        let mut plan = cpu.plan(0, &all).unwrap();
        let before = run(&mut *plan, &[clip]);
        plan.forget_scratch();
        assert!(run(&mut *plan, &[clip])[0].tensors == before[0].tensors);
    }
}

fn drawn_options_of_shapes_match_their_references(on: &Machines) {
    let drawn = (
        // Long filters have slow references; `scripts/peers/shapes.py` draws their options.
        proptest::sample::select(
            OPS.map(|op| (!is_constant_q(op) && !is_rhythm(op)).then_some(op))
                .into_iter()
                .flatten()
                .collect::<Vec<_>>(),
        ),
        64usize..700,
        1usize..300,
        0usize..4000,
        1usize..5,
        0.001f64..0.9,
    );

    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(60)
    };

    TestRunner::new(config)
        .run(&drawn, |(op, n_fft, hop, n, n_bands, part)| {
            let is_contrast = op == Op::SpectralContrast;
            let is_on_samples = matches!(op, Op::Rms | Op::ZeroCrossingRate);
            let overrides = options!(
                n_fft: (!is_on_samples).then_some(n_fft),
                frame_length: is_on_samples.then_some(n_fft), hop_length: hop,
                n_bands: is_contrast.then_some(n_bands), quantile: is_contrast.then_some(part),
                fmin: is_contrast.then_some(700.0),
                roll_percent: (op == Op::SpectralRolloff).then_some(part),
                // An estimate may be another step if one peak is rounded to the next.
                tuning: (op == Op::ChromaStft).then_some(part - 0.4)
            );

            let spec = FeatureSpec { op, ..overrides };
            // Bands without a bin are refused.
            if let Ok(args) = spec.resolve(&[], 22_050) {
                for cpu in &on.cpus {
                    check(cpu.as_ref(), &args, &signal(n)).map_err(TestCaseError::fail)?;
                }
            }
            Ok(())
        })
        .unwrap();
}

parity!(
    shapes_match_their_references,
    options_of_shapes_match_their_references,
    rhythms_match_their_references,
    extreme_signals_have_finite_shapes,
    shapes_beside_mel_are_the_same,
    shapes_after_freed_buffers_are_the_same,
    drawn_options_of_shapes_match_their_references,
);
