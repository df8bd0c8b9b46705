//! Compares whole batches of clips with realistic lengths on a GPU with the CPU. The emulation is too slow for them; it
//! uses [`super::sets`].

use super::*;
use crate::resample::ResampleArgs;

/// Number of clips in a batch of `extract`.
const CLIPS: usize = 64;
const CLIP_S: usize = 30;

/// Returns noise and tones that differ between clips, in 16 bits.
fn clip(place: usize, n: usize) -> Vec<i16> {
    let mut state = 1 + place as u32;
    let step = 0.002 + place as f64 * 0.003;
    let mut samples = Vec::with_capacity(n);
    for i in 0..n {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise = f64::from(state >> 16) / 32_768.0 - 1.0;
        samples.push((12_000.0 * (i as f64 * step).sin() + 4000.0 * noise) as i16);
    }
    samples
}

fn features() -> Vec<FeatureArgs> {
    let in_decibels = options!(db: db(DbRef::Max, 80.0));
    vec![
        librosa(Op::Mel, FeatureSpec::default()),
        librosa(Op::Mel, in_decibels),
    ]
}

/// Fails at the first value outside of its tolerance, which is that of random sets.
fn agree(features: &[FeatureArgs], got: &Row, want: &Row, what: &str) {
    for (feature, (got, want)) in got.tensors.iter().zip(&want.tensors).enumerate() {
        let got: Vec<f64> = floats(got).into_iter().map(f64::from).collect();
        let want: Vec<f64> = floats(want).into_iter().map(f64::from).collect();
        assert_eq!(got.len(), want.len(), "{what}: values of feature {feature}");

        let bounds = sets::bounds(&features[feature], &want);
        for (at, most) in bounds.into_iter().enumerate() {
            let got = got[at];
            let want = want[at];
            assert!(
                (got - want).abs() <= most,
                "{what}, feature {feature}, value {at}: {got}, not {want} ± {most:.1e}"
            );
        }
    }
}

#[test]
#[ignore = "needs a GPU"]
fn clips_of_30_s_agree_with_the_cpu() {
    let mut features = features();
    for args in &mut features {
        args.dtype = Dtype::F32;
    }
    let cuda = cuda();
    let mut by_cuda = cuda.plan(0, &features).unwrap();
    let mut by_cpu = Cpu {
        level: Level::detect(),
    }
    .plan(0, &features)
    .unwrap();

    for sample_rate_hz in [44_100, 48_000, 32_000] {
        let n = CLIP_S * sample_rate_hz as usize;
        let sounds: Vec<Vec<i16>> = (0..CLIPS).map(|place| clip(place, n)).collect();
        let converted = ResampleArgs {
            from_hz: sample_rate_hz,
            to_hz: 22_050,
        }
        .output_len(n as u64) as usize;
        let row = 0..converted;

        let mut clips = Vec::new();
        for samples in &sounds {
            let samples = Samples::S16(samples);
            clips.push(Clip {
                samples,
                channels: 1,
                sample_rate_hz,
                rows: std::slice::from_ref(&row),
            });
        }

        let got = by_cuda.run(&clips).unwrap();
        let want = by_cpu.run(&clips).unwrap();
        for (place, (got, want)) in got.into_iter().zip(want).enumerate() {
            agree(
                &features,
                &got.unwrap(),
                &want.unwrap(),
                &format!("{sample_rate_hz} Hz, clip {place}"),
            );
        }
    }
}
