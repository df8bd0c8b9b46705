//! Parity of the operations on frames and on the shape of spectra, which only the CPU computes.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;

/// All operations of this file.
const OPS: [Op; 9] = [
    Op::Rms,
    Op::ZeroCrossingRate,
    Op::SpectralCentroid,
    Op::SpectralBandwidth,
    Op::SpectralContrast,
    Op::SpectralFlatness,
    Op::SpectralRolloff,
    Op::OnsetStrength,
    Op::ChromaStft,
];

fn shapes_match_their_references(on: &Machines) {
    for op in OPS {
        let at_defaults = resolve(op, Preset::Librosa, 22_050, FeatureSpec::default());
        for n in [1, 700, 5000, 9001] {
            check_cpus(on, &at_defaults, &signal(n));
        }

        let overrides = FeatureSpec {
            hop_length: Some(100),
            center: Some(false),
            delta: Some(1),
            frames: Some(20),
            normalize: Normalize::MeanVar,
            ..FeatureSpec::default()
        };
        check_cpus(
            on,
            &resolve(op, Preset::Librosa, 16_000, overrides),
            &signal(5000),
        );
    }
}

fn options_of_shapes_match_their_references(on: &Machines) {
    let none = FeatureSpec::default();
    let mut cases = vec![
        (
            Op::SpectralFlatness,
            FeatureSpec {
                power: Some(1.0),
                amin: Some(1e-3),
                ..none.clone()
            },
        ),
        (
            Op::Rms,
            FeatureSpec {
                frame_length: Some(999),
                pad_mode: Some("reflect".into()),
                db: db(DbRef::Max, 60.0),
                ..none.clone()
            },
        ),
        (
            Op::ZeroCrossingRate,
            FeatureSpec {
                frame_length: Some(33),
                hop_length: Some(7),
                ..none.clone()
            },
        ),
    ];
    for (lag, hop_length) in [(3, 100), (1, 512), (2, 700)] {
        let overrides = FeatureSpec {
            lag: Some(lag),
            hop_length: Some(hop_length),
            ..small_mel()
        };
        cases.push((Op::OnsetStrength, overrides));
    }
    for (n_chroma, tuning) in [(1, 0.0), (7, -0.5), (12, 0.31), (36, 0.5)] {
        let overrides = FeatureSpec {
            n_chroma: Some(n_chroma),
            tuning: Some(tuning),
            ..small()
        };
        cases.push((Op::ChromaStft, overrides));
    }
    for p in [0.5, 1.0, 3.0, 32.0] {
        let p = FeatureSpec {
            p: Some(p),
            ..small()
        };
        cases.push((Op::SpectralBandwidth, p));
    }
    for roll_percent in [0.01, 0.5, 0.99] {
        let roll_percent = FeatureSpec {
            roll_percent: Some(roll_percent),
            ..small()
        };
        cases.push((Op::SpectralRolloff, roll_percent));
    }
    // Numbers of extremes that are kept ordered, and more of them.
    for (quantile, n_bands, linear) in [(0.02, 4, true), (0.1, 3, false), (0.6, 5, false)] {
        let overrides = FeatureSpec {
            fmin: Some(300.0),
            quantile: Some(quantile),
            n_bands: Some(n_bands),
            linear: Some(linear),
            n_fft: Some(512),
            ..small()
        };
        cases.push((Op::SpectralContrast, overrides));
    }

    for (op, overrides) in cases {
        let args = resolve(op, Preset::Librosa, 22_050, overrides);
        check_cpus(on, &args, &signal(3000));
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
            let args = resolve(op, Preset::Librosa, 22_050, FeatureSpec::default());
            for cpu in &on.cpus {
                let got = values(cpu.as_ref(), std::slice::from_ref(&args), &[&pcm]).unwrap();
                assert!(got[0][0].iter().all(|x| x.is_finite()), "{op:?}");
            }
        }
    }

    let silence = |op: Op| {
        let args = resolve(op, Preset::Librosa, 22_050, FeatureSpec::default());
        let cpu = on.cpus[0].as_ref();
        values(cpu, &[args], &[&[0.0; 4000]]).unwrap()[0][0][0]
    };
    assert_eq!(
        OPS.map(silence),
        [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    );
}

/// All features of one plan share its spectra, and are those of plans of their own.
fn shapes_beside_mel_are_the_same(on: &Machines) {
    let mut all = vec![resolve(
        Op::Mel,
        Preset::Librosa,
        22_050,
        FeatureSpec::default(),
    )];
    all.extend(OPS.map(|op| resolve(op, Preset::Librosa, 22_050, FeatureSpec::default())));
    let pcm = signal(9001);
    for cpu in &on.cpus {
        let together = values(cpu.as_ref(), &all, &[&pcm]).unwrap();
        for (args, together) in all.iter().zip(&together[0]) {
            let alone = values(cpu.as_ref(), std::slice::from_ref(args), &[&pcm]).unwrap();
            assert!(alone[0][0] == *together, "{args:?}");
        }
    }
}

fn drawn_options_of_shapes_match_their_references(on: &Machines) {
    let drawn = (
        0..OPS.len(),
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
            let op = OPS[op];
            let is_contrast = op == Op::SpectralContrast;
            let is_spectral = !matches!(op, Op::Rms | Op::ZeroCrossingRate);
            let overrides = FeatureSpec {
                n_fft: is_spectral.then_some(n_fft),
                frame_length: (!is_spectral).then_some(n_fft),
                hop_length: Some(hop),
                n_bands: is_contrast.then_some(n_bands),
                quantile: is_contrast.then_some(part),
                fmin: is_contrast.then_some(700.0),
                roll_percent: (op == Op::SpectralRolloff).then_some(part),
                // An estimate may be another step if one peak is rounded to the next.
                tuning: (op == Op::ChromaStft).then_some(part - 0.4),
                ..FeatureSpec::default()
            };

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
    extreme_signals_have_finite_shapes,
    shapes_beside_mel_are_the_same,
    drawn_options_of_shapes_match_their_references,
);
