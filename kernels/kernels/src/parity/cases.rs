//! Fixed cases: every preset and every option compared with the references, and failure cases.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use wavemill_options::{Framing, PadMode};

use super::*;

fn presets_match_their_references(on: &Machines) {
    let none = FeatureSpec::default();
    for op in [Op::Stft, Op::Mel, Op::Mfcc] {
        check_all(on, &librosa(op, none.clone()), &signal(5000));
        check_all(
            on,
            &resolve(op, Preset::Torchaudio, 16_000, none.clone()),
            &signal(4000),
        );
        check_all(
            on,
            &resolve(op, Preset::Kaldi, 16_000, none.clone()),
            &signal(4000),
        );
    }
    check_all(
        on,
        &resolve(Op::Mel, Preset::Kaldi, 8000, none.clone()),
        &signal(2000),
    );

    let mut whisper = resolve(Op::Mel, Preset::Whisper, 16_000, none);
    // With 30 s, the reference would take a minute. Padding and cropping work the same with half a second.
    whisper.stft.n_samples = Some(8000);
    check_all(on, &whisper, &signal(5000));
    check_all(on, &whisper, &signal(9000));
}

/// Checks a feature with librosa's defaults except for `overrides`.
fn check_librosa(on: &Machines, op: Op, overrides: FeatureSpec) {
    check_all(on, &librosa(op, overrides), &signal(3000));
}

fn every_option_matches_its_reference(on: &Machines) {
    let windows = [
        "hann",
        "hamming",
        "blackman",
        "blackmanharris",
        "nuttall",
        "bartlett",
        "ones",
        "povey",
    ];
    for window in windows {
        let overrides = options!(
            window: Word::from(window),
            // A window of odd length is not exactly centred in the frame.
            win_length: 201; small()
        );
        check_librosa(on, Op::Stft, overrides);
    }

    for pad_mode in ["constant", "reflect", "edge"] {
        let overrides = options!(pad_mode: Word::from(pad_mode); small());
        check_librosa(on, Op::Stft, overrides);
    }

    for power in [0.5, 1.0, 1.7, 2.0] {
        let overrides = options!(power, center: false; small_mel());
        check_librosa(on, Op::Mel, overrides);
    }

    for (htk, norm) in [
        (true, "slaney"),
        (true, "none"),
        (false, "slaney"),
        (false, "none"),
    ] {
        let overrides = options!(
            htk, norm: Word::from(norm), fmin: 300.0, fmax: 7000.0; small_mel()
        );
        check_librosa(on, Op::Mel, overrides);
    }

    for (reference, power) in [
        (DbRef::Max, 2.0),
        (DbRef::Max, 1.0),
        (DbRef::Power(0.5), 2.0),
        (DbRef::Power(2.0), 1.0),
    ] {
        for normalize in [Normalize::None, Normalize::MinMax, Normalize::MeanVar] {
            let overrides = options!(
                db: db(reference, 50.0), power, normalize; small_mel()
            );
            check_librosa(on, Op::Mel, overrides);
        }
    }

    for (dct_type, lifter) in [(1, 0.0), (2, 22.0), (3, 13.0)] {
        let overrides = options!(dct_type, lifter, n_mfcc: 20; small_mel());
        check_librosa(on, Op::Mfcc, overrides);
    }
}

fn deltas_crops_and_axes_match_their_references(on: &Machines) {
    for (frames, delta, dim_order) in [
        (None, 2, "coefficient,frame"),
        (Some(12), 1, "frame,coefficient"),
        (Some(50), 2, "frame,coefficient"),
    ] {
        let overrides = options!(
            frames, delta, dim_order: dim_order.to_owned(); small_mel()
        );
        check_librosa(on, Op::Mfcc, overrides);
    }
}

fn few_samples_match_their_references(on: &Machines) {
    for n_fft in [64, 63] {
        for framing in [
            Framing::Center(PadMode::Reflect),
            Framing::Inside,
            Framing::SnipEdges,
        ] {
            for n in [0, 1, 2, n_fft - 1, n_fft, n_fft + 1] {
                let overrides = options!(n_fft, hop_length: 16, win_length: 50);
                let mut args = resolve(Op::Stft, Preset::Librosa, 8000, overrides);
                args.stft.framing = framing;
                check_all(on, &args, &signal(n));
            }
        }
    }

    // There are fewer frames than a delta needs, so both the backend and the reference must return an error.
    let delta = options!(delta: 1; small_mel());
    check_all(on, &librosa(Op::Mfcc, delta), &signal(500));
}

fn silence_is_all_zero_after_minmax(on: &Machines) {
    for backend in on.all() {
        let overrides = options!(
            db: db(DbRef::Max, 80.0), normalize: Normalize::MinMax; small_mel()
        );
        let args = librosa(Op::Mel, overrides);
        let out = alone(backend, &args, &[0.0; 3000]);
        assert_eq!(out, [0.0; 20 * 31], "{}", name(backend));
    }
}

fn a_sample_that_is_no_number_is_an_error_that_says_where(on: &Machines) {
    for backend in on.all() {
        let args = [resolve(
            Op::Mel,
            Preset::Kaldi,
            16_000,
            FeatureSpec::default(),
        )];
        for bad in [f32::NAN, f32::INFINITY, -f32::INFINITY, 3e7] {
            let mut pcm = signal(3000);
            pcm[1234] = bad;
            let error = values(backend, &args, &[&pcm]).unwrap_err();
            assert!(
                matches!(error, KernelError::Sample { index: 1234, .. }),
                "{error}"
            );
        }
    }
}

fn the_loudest_allowed_samples_stay_finite(on: &Machines) {
    for backend in on.all() {
        for preset in [Preset::Librosa, Preset::Kaldi] {
            let args = resolve(Op::Stft, preset, 16_000, FeatureSpec::default());
            let out = alone(backend, &args, &[stft::SAMPLE_MAX; 5000]);
            assert!(out.iter().all(|x| x.is_finite()), "{}", name(backend));
        }
    }
}

/// The failing batch has a row with more samples than kernels can count, detected after copies have been queued.
fn a_plan_whose_batch_failed_computes_the_next(on: &Machines) {
    let args = [librosa(Op::Mel, small_mel())];
    let failing_pcm = signal(4000);
    let failing = Clip {
        samples: Samples::F32(&failing_pcm),
        channels: 1,
        sample_rate_hz: 22_050,
        rows: &[0..4000, 0..1 << 31],
    };
    let next_pcm = signal(3000);
    let next = Clip {
        samples: Samples::F32(&next_pcm),
        channels: 1,
        sample_rate_hz: 22_050,
        rows: &[0..2000, 1000..3000],
    };

    for backend in on.devices.iter().map(|device| &**device) {
        let want = run(&mut *backend.plan(0, &args).unwrap(), &[next]);

        let mut plan = backend.plan(0, &args).unwrap();
        let error = plan.run(&[failing]).unwrap_err();
        assert!(error.to_string().contains("samples of a row"), "{error}");
        assert_eq!(run(&mut *plan, &[next]), want, "{}", name(backend));
    }
}

fn a_sample_without_its_partner_is_left_out(on: &Machines) {
    let args = [librosa(Op::Mel, small_mel())];
    let pcm = signal(2 * 3000 + 1);
    let uneven = Clip {
        samples: Samples::F32(&pcm),
        channels: 2,
        sample_rate_hz: 22_050,
        rows: &[0..2000, 1000..3000],
    };
    let even = Clip {
        samples: Samples::F32(&pcm[..6000]),
        ..uneven
    };

    for backend in on.all() {
        let mut plan = backend.plan(0, &args).unwrap();
        let got = run(&mut *plan, &[uneven]);
        assert_eq!(got, run(&mut *plan, &[even]), "{}", name(backend));
    }
}

fn features_of_one_plan_are_those_of_plans_of_their_own(on: &Machines) {
    let pcm = signal(3000);
    let in_decibels = options!(db: db(DbRef::Max, 80.0); small_mel());
    let cropped = options!(frames: 9; small());
    let all = [
        librosa(Op::Mel, in_decibels),
        librosa(Op::Mfcc, small_mel()),
        librosa(Op::Stft, cropped),
        resolve(Op::Mel, Preset::Torchaudio, 22_050, small_mel()),
    ];

    for backend in on.all() {
        let together = values(backend, &all, &[&signal(4000), &pcm]).unwrap();
        for (args, together) in all.iter().zip(&together[1]) {
            assert_eq!(&alone(backend, args, &pcm), together);
        }
    }
}

fn odd_sizes_match_their_references(on: &Machines) {
    let sizes = (
        2usize..300,
        1usize..120,
        0usize..200,
        0usize..900,
        0usize..4,
    );
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(40)
    };
    TestRunner::new(config)
        .run(&sizes, |(n_fft, hop, shorter, n, pad)| {
            let overrides = options!(
                n_fft, hop_length: hop, win_length: n_fft.saturating_sub(shorter).max(1)
            );
            let mut args = librosa(Op::Stft, overrides);
            let modes = [PadMode::Constant, PadMode::Reflect, PadMode::Edge].map(Framing::Center);
            args.stft.framing = modes.get(pad).copied().unwrap_or(Framing::Inside);

            for backend in on.all() {
                check(backend, &args, &signal(n)).map_err(TestCaseError::fail)?;
            }
            Ok(())
        })
        .unwrap();
}

/// The CPU transforms eight frames of 2,048 samples at once: test frames that share samples, frames that do not, and
/// frames that are mostly padding.
fn frames_of_2048_match_at_every_hop(on: &Machines) {
    for (hop, n) in [(1, 10), (63, 600), (441, 3000), (2048, 9000), (3000, 9000)] {
        for preemphasis in [0.0, 0.97] {
            let overrides = options!(hop_length: hop);
            let mut args = librosa(Op::Stft, overrides);
            args.stft.framing = Framing::Center(PadMode::Reflect);
            args.stft.preemphasis = preemphasis;
            check_cpus(on, &args, &signal(n));
        }
    }
}

parity!(
    presets_match_their_references,
    every_option_matches_its_reference,
    deltas_crops_and_axes_match_their_references,
    few_samples_match_their_references,
    silence_is_all_zero_after_minmax,
    a_sample_that_is_no_number_is_an_error_that_says_where,
    the_loudest_allowed_samples_stay_finite,
    a_plan_whose_batch_failed_computes_the_next,
    a_sample_without_its_partner_is_left_out,
    features_of_one_plan_are_those_of_plans_of_their_own,
    odd_sizes_match_their_references,
    frames_of_2048_match_at_every_hop,
);
