//! Measures the time to resample 30 s of mono audio, compared with rubato's FFT resampler.
//!
//! `cargo bench --profile dev -p wavemill-signal --bench resample`: the profile optimises the measured code.

// Criterion's macros define undocumented functions; a benchmark may panic.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use rubato::audioadapter_buffers::direct::SequentialSlice;
use rubato::{Fft, FixedSync, Resampler};
use wavemill_signal::resample::ResampleArgs;
use wavemill_signal::{Level, SampleBuffer};

/// Number of samples that an MP3 decoder outputs per call.
const PACKET_SAMPLES: usize = 1_152;
const CLIP_S: usize = 30;

fn clip(rate_hz: u32) -> Vec<f32> {
    (0..CLIP_S * rate_hz as usize)
        .map(|i| (i as f32 * 0.37).sin() * 0.5)
        .collect()
}

fn ours(group: &mut Criterion, args: ResampleArgs, level: Level) {
    let input = clip(args.from_hz);
    let mut out = SampleBuffer::default();
    let mut resampler = args.plan(level).unwrap();

    group.bench_function(
        &format!("wavemill {level:?} {} to {} Hz", args.from_hz, args.to_hz),
        |bencher| {
            bencher.iter(|| {
                out.clear();
                input
                    .chunks(PACKET_SAMPLES)
                    .for_each(|packet| resampler.push(packet, &mut out));
                resampler.finish(&mut out);
                black_box(&out);
            });
        },
    );
}

fn theirs(group: &mut Criterion, args: ResampleArgs) {
    let input = clip(args.from_hz);
    let (from, to) = (args.from_hz as usize, args.to_hz as usize);
    let mut resampler = Fft::<f32>::new(from, to, 2_048, 1, FixedSync::Input).unwrap();
    let mut out = vec![0.0; resampler.output_frames_max()];

    group.bench_function(&format!("rubato {from} to {to} Hz"), |bencher| {
        bencher.iter(|| {
            for packet in input.chunks_exact(resampler.input_frames_next()) {
                let frames = out.len();
                let source = SequentialSlice::new(packet, 1, packet.len()).unwrap();
                let mut target = SequentialSlice::new_mut(&mut out, 1, frames).unwrap();
                resampler
                    .process_into_buffer(&source, &mut target, None)
                    .unwrap();
            }
            black_box(&out);
        });
    });
}

fn resample(criterion: &mut Criterion) {
    for (from_hz, to_hz) in [(44_100, 22_050), (48_000, 22_050), (22_050, 44_100)] {
        let args = ResampleArgs { from_hz, to_hz };
        ours(criterion, args, Level::Scalar);
        if Level::detect() != Level::Scalar {
            ours(criterion, args, Level::detect());
        }
        theirs(criterion, args);
    }
}

fn quick() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .measurement_time(Duration::from_secs(2))
        .warm_up_time(Duration::from_millis(300))
}

criterion_group! { name = benches; config = quick(); targets = resample }
criterion_main!(benches);
