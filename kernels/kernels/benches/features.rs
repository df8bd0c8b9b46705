//! Measures clips per second on one core for each feature: clips of 30 s at 22,050 Hz.

use criterion::{Criterion, Throughput};
use wavemill_kernels::chromaprint::Fingerprinter;
use wavemill_kernels::{
    CpuPlan, DbArgs, DbRef, FeatureArgs, FeatureSpec, Level, Normalize, Op, Packing, Preset,
    pack_into,
};
use wavemill_tests::options;

/// Length in samples and sample rate of an FMA clip.
const RATE_HZ: u32 = 22_050;
const N_SAMPLES: usize = 661_500;

/// Returns noise with a slow tremolo, so that all frequency bins and many floating-point exponents occur.
fn clip() -> Vec<f32> {
    let mut state = 1u32;
    let mut samples = Vec::with_capacity(N_SAMPLES);
    for i in 0..N_SAMPLES {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise = f32::from((state >> 16) as u16) / 32_768.0 - 1.0;
        samples.push(noise * (1.0 + (i as f32 * 1e-4).sin()) * 0.4);
    }
    samples
}

fn make(op: Op, preset: Preset, rate_hz: u32, overrides: &FeatureSpec) -> FeatureArgs {
    let spec = options!(op, preset; overrides.clone());
    spec.resolve(&[], rate_hz)
        .expect("a preset and these overrides agree")
}

fn features() -> Vec<(&'static str, Vec<FeatureArgs>)> {
    let db = DbArgs {
        reference: DbRef::Max,
        ..DbArgs::default()
    };
    let db = Some(db.into());
    let log_mel = options!(db, normalize: Normalize::MinMax);

    let none = FeatureSpec::default();
    let stft = make(
        Op::Stft,
        Preset::Librosa,
        RATE_HZ,
        &options!(hop_length: 512; none.clone()),
    );
    let log_mel = make(Op::Mel, Preset::Librosa, RATE_HZ, &log_mel);
    let mfcc = make(Op::Mfcc, Preset::Librosa, RATE_HZ, &none);
    let shapes = [
        Op::Rms,
        Op::ZeroCrossingRate,
        Op::SpectralCentroid,
        Op::SpectralBandwidth,
        Op::SpectralContrast,
        Op::SpectralFlatness,
        Op::SpectralRolloff,
    ];
    let shapes = shapes.map(|op| make(op, Preset::Librosa, RATE_HZ, &none));
    let beside_mel = |shapes: &[FeatureArgs]| [&[log_mel.clone(), mfcc.clone()], shapes].concat();
    let all = beside_mel(&shapes);
    let each = shapes.iter().map(|shape| {
        let with_shape = beside_mel(std::slice::from_ref(shape));
        (shape.op.name(), with_shape)
    });
    let each: Vec<_> = each.collect();

    let mut features = vec![
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
        ("log_mel + mfcc + all shapes", all),
    ];
    features.extend(each);
    features
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

    // 30 s at the rate of fingerprints.
    let pcm_of_fingerprint = &pcm[..N_SAMPLES / 2];
    let mut fingerprinter = Fingerprinter::new(Level::detect()).expect("the level is available");
    group.bench_function("fingerprint", |bencher| {
        bencher.iter(|| {
            let items = fingerprinter.run(pcm_of_fingerprint);
            items.expect("the clip is sound").len()
        });
    });

    let values: Vec<f32> = pcm[..128 * 1292].to_vec();
    let mut bytes = Vec::new();
    group.bench_function("pack f16", |bencher| {
        bencher.iter(|| pack_into(&values, Packing::F16, &mut bytes).expect("the values fit"));
    });

    group.finish();
    criterion.final_summary();
}
