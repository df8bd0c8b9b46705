//! Measures the time to decode an MP3 clip, compared with symphonia and nanomp3. The clip is part of the real test
//! data; without that file nothing is measured.
//!
//! `cargo bench --profile dev -p wavemill-decode --bench layer3`: the profile optimises the measured code.

// Criterion's macros define functions without documentation; a benchmark may panic.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../tests/layer3/peer.rs"]
mod peer;
#[path = "../tests/layer3/stream.rs"]
#[expect(dead_code, reason = "only the tests compare rates")]
mod stream;

use std::fs;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use peer::Peer;
use stream::{Reservoir, Stream};
use wavemill_decode::layer3::{Band, FRAME_SAMPLES, FrameDecoder, MonoDecoder};
use wavemill_signal::Level;

/// A stereo clip of 30 s with 256 kbit/s on average.
const CLIP: &str = "fma_like/201/201003.mp3";

fn ours(criterion: &mut Criterion, file: &[u8], level: Level) {
    let frames = stream::frames(file);
    criterion.bench_function(&format!("wavemill {level}"), |bencher| {
        bencher.iter(|| {
            let mut stream = Stream::new(FrameDecoder::new(level).unwrap());
            for frame in &frames {
                black_box(stream.decode(frame).is_ok());
            }
        });
    });
}

/// Decodes a clip to mono, with the full bandwidth or a part of it.
fn mono(criterion: &mut Criterion, file: &[u8], name: &str, band: Band) {
    let frames = stream::frames(file);
    let mut samples = [0.0; FRAME_SAMPLES];

    criterion.bench_function(name, |bencher| {
        bencher.iter(|| {
            let mut decoder = MonoDecoder::new(band, Level::detect()).unwrap();
            let mut reservoir = Reservoir::default();

            for frame in &frames {
                let decoded = reservoir.feed(frame, |side, main| {
                    decoder.decode(&frame.header, side, main, 0, &mut samples)
                });
                black_box(decoded.is_ok());
            }
        });
    });
}

fn symphonia(criterion: &mut Criterion, file: &[u8]) {
    let frames = stream::frames(file);
    criterion.bench_function("symphonia", |bencher| {
        bencher.iter(|| {
            let mut peer = Peer::new();
            for frame in &frames {
                black_box(peer.decode(frame.bytes).is_some());
            }
        });
    });
}

fn mp3(criterion: &mut Criterion) {
    let Some(data) = wavemill_tests::data_dir() else {
        eprintln!("the real test data is absent: set WAVEMILL_DATA to its folder");
        return;
    };

    let file = fs::read(data.join(CLIP)).unwrap();
    ours(criterion, &file, Level::Scalar);
    if Level::detect() != Level::Scalar {
        ours(criterion, &file, Level::detect());
    }

    mono(criterion, &file, "wavemill, mono", Band::WHOLE);
    mono(
        criterion,
        &file,
        "wavemill, mono at half of the rate",
        Band::HALF,
    );

    symphonia(criterion, &file);
    criterion.bench_function("nanomp3", |bencher| {
        bencher.iter(|| black_box(nanomp3::decode_all::<f32>(&file)));
    });
}

fn quick() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .measurement_time(Duration::from_secs(2))
        .warm_up_time(Duration::from_secs(1))
}

criterion_group! {
    name = benches;
    config = quick();
    targets = mp3
}
criterion_main!(benches);
