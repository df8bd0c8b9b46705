//! Measures clips per second for each feature: 30 s at 22,050 Hz, on one core.

use criterion::{Criterion, Throughput};
use wavemill_kernels::{
    CpuPlan, DbArgs, DbRef, FeatureArgs, FeatureSpec, Level, Normalize, Op, Packing, Preset,
    pack_into,
};

/// Length in samples and sample rate of an FMA clip.
const RATE_HZ: u32 = 22_050;
const N_SAMPLES: usize = 661_500;

/// Returns noise with a slow tremolo, which uses all bins and many exponents.
fn clip() -> Vec<f32> {
    let mut state = 1u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from((state >> 16) as u16) / 32_768.0 - 1.0
    };
    (0..N_SAMPLES)
        .map(|i| noise() * (1.0 + (i as f32 * 1e-4).sin()) * 0.4)
        .collect()
}

fn features() -> Vec<(&'static str, Vec<FeatureArgs>)> {
    let db = DbArgs {
        reference: DbRef::Max,
        ..DbArgs::default()
    };
    let db = Some(db.into());
    let log_mel = FeatureSpec {
        db,
        normalize: Normalize::MinMax,
        ..FeatureSpec::default()
    };

    let make = |op, preset, rate, overrides: &FeatureSpec| {
        FeatureSpec {
            op,
            preset,
            ..overrides.clone()
        }
        .resolve(&[], rate)
        .expect("a preset and these overrides agree")
    };

    let none = FeatureSpec::default();
    let stft = make(
        Op::Stft,
        Preset::Librosa,
        RATE_HZ,
        &FeatureSpec {
            hop_length: Some(512),
            ..none.clone()
        },
    );
    let log_mel = make(Op::Mel, Preset::Librosa, RATE_HZ, &log_mel);
    let mfcc = make(Op::Mfcc, Preset::Librosa, RATE_HZ, &none);

    vec![
        ("stft", vec![stft]),
        ("log_mel", vec![log_mel.clone()]),
        ("mfcc", vec![mfcc.clone()]),
        ("log_mel + mfcc", vec![log_mel, mfcc]),
        (
            "kaldi fbank",
            vec![make(Op::Mel, Preset::Kaldi, RATE_HZ, &none)],
        ),
        (
            "whisper",
            vec![make(Op::Mel, Preset::Whisper, 16_000, &none)],
        ),
    ]
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let pcm = clip();

    let mut group = criterion.benchmark_group("features");
    group.throughput(Throughput::Elements(1));

    for level in [Level::Scalar, Level::X86_64V3]
        .into_iter()
        .filter(|level| level.is_available())
    {
        for (name, args) in features() {
            let mut plan = CpuPlan::new(&args, level).expect("the level is available");
            let mut out = vec![Vec::new(); args.len()];
            let id = format!("{name}/{level}");
            group.bench_function(id, |bencher| {
                bencher.iter(|| plan.run(&pcm, &mut out).expect("the clip is sound"))
            });
        }
    }

    let values: Vec<f32> = pcm[..128 * 1292].to_vec();
    let mut bytes = Vec::new();
    group.bench_function("pack f16", |bencher| {
        bencher.iter(|| pack_into(&values, Packing::F16, &mut bytes).expect("the values fit"));
    });

    group.finish();
    criterion.final_summary();
}
