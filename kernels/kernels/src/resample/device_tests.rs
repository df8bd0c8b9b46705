//! Tests resampling on a device: results match the formula and the CPU, and do not depend on other clips in the batch.

use wavemill_signal::{Level, SampleBuffer};

use super::device::ClipBuffers;
use super::{LevelsDevice, ResampleArgs, ResampleDevice, SourceClip, is_for_device, reference};
use crate::backend::{Clip, Samples, downmix};
use crate::device::testing::{fetched_f32, noise, on_devices, sent};
use crate::device::{Device, RowEntry, RowTable, bytes_of};

/// Tolerance of samples: some 400 additions in f32, each with an error of up to 6e-8 of a partial sum of about 1:
/// statistically 6e-8 times the square root of their number, which is 1.2e-6. The specified stop band is 1e-5.
const ERROR_MAX: f64 = 2e-6;

const RATES_HZ: [u32; 7] = [44_100, 48_000, 32_000, 22_050, 16_000, 8_000, 11_025];
/// Lengths below and above the outputs of a tile, which are 1024 for whole ratios and up to some 5,000 for others.
const LENGTHS: [usize; 5] = [0, 1, 100, 2_048, 12_345];

/// A clip's samples as decoded, in f32 and 16 bits.
struct Source {
    f32: Vec<f32>,
    s16: Vec<i16>,
    is_s16: bool,
    channels: usize,
    rate_hz: u32,
}

impl Source {
    fn new(n: usize, rate_hz: u32, channels: usize, is_s16: bool) -> Self {
        let f32 = noise(n * channels);
        let s16 = f32.iter().map(|x| (x * 32_768.0) as i16).collect();
        Self {
            f32,
            s16,
            is_s16,
            channels,
            rate_hz,
        }
    }

    fn clip(&self) -> Clip<'_> {
        let samples = if self.is_s16 {
            Samples::S16(&self.s16)
        } else {
            Samples::F32(&self.f32)
        };

        Clip {
            samples,
            channels: self.channels,
            sample_rate_hz: self.rate_hz,
            rows: &[],
        }
    }

    fn mono(&self) -> Vec<f32> {
        let mut mono = Vec::new();
        downmix(&self.clip(), &mut mono);
        mono
    }

    fn bytes(&self) -> Vec<u8> {
        match self.clip().samples {
            Samples::F32(samples) => bytes_of(samples).to_vec(),
            Samples::S16(samples) => samples.iter().flat_map(|x| x.to_ne_bytes()).collect(),
        }
    }
}

/// Converts every source to `to_hz` in one batch.
fn converted<D: Device>(device: &D, sources: &[Source], to_hz: u32) -> Vec<Vec<f32>> {
    converted_and_levels(device, sources, to_hz).0
}

/// Like [`converted`], but also returns each clip's largest magnitude, which the conversion computes.
fn converted_and_levels<D: Device>(
    device: &D,
    sources: &[Source],
    to_hz: u32,
) -> (Vec<Vec<f32>>, Vec<f32>) {
    let (mut bytes, mut clips, mut n_mono) = (Vec::new(), Vec::new(), 0);
    for (row, source) in sources.iter().enumerate() {
        let clip = SourceClip {
            level: Some(row),
            ..SourceClip::new(&source.clip(), bytes.len(), n_mono)
        };
        bytes.extend(source.bytes());
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        n_mono += clip.n_out(to_hz);
        clips.push(clip);
    }

    // Reinterpret the bytes as 4-byte words, because the test helper copies numbers to the device.
    let words = bytes
        .chunks_exact(4)
        .map(|word| f32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    let upload = sent(device, &words.collect::<Vec<f32>>());
    let mono = device.alloc(4 * n_mono).unwrap();

    let mut found = LevelsDevice::default();
    let levels = found.start(device, sources.len()).unwrap();
    let buffers = ClipBuffers {
        upload: device.address(&upload),
        mono: device.address(&mono),
        levels,
    };

    ResampleDevice::new(to_hz)
        .run(device, &clips, buffers)
        .unwrap();
    found.fetch(device).unwrap();

    let mono = fetched_f32(device, &mono, n_mono);
    let each = clips
        .iter()
        .map(|clip| mono[clip.out..clip.out + clip.n_out(to_hz)].to_vec())
        .collect();
    (each, found.largest().collect())
}

fn on_cpu(args: ResampleArgs, mono: &[f32]) -> Vec<f32> {
    let mut resampler = args.plan(Level::Scalar).unwrap();
    let mut out = SampleBuffer::default();
    resampler.push(mono, &mut out);
    resampler.finish(&mut out);
    out.to_vec()
}

fn assert_converted(source: &Source, to_hz: u32, got: &[f32]) {
    let args = ResampleArgs {
        from_hz: source.rate_hz,
        to_hz,
    };

    let mono = source.mono();
    if source.rate_hz == to_hz {
        return assert_eq!(got, mono, "{args:?} copies");
    }

    let case = format!(
        "{args:?}, {} samples, {} channels",
        mono.len(),
        source.channels
    );

    let cpu = on_cpu(args, &mono);
    assert_eq!(got.len(), cpu.len(), "{case}");
    for (m, (got, cpu)) in got.iter().zip(&cpu).enumerate() {
        // The CPU's error adds to the device's, so twice the tolerance is allowed.
        let error = f64::from((got - cpu).abs());
        assert!(
            error <= 2.0 * ERROR_MAX,
            "{case} sample {m}: {got}, the CPU has {cpu}"
        );
    }

    for m in (0..got.len()).step_by(997).chain(got.len().checked_sub(1)) {
        let want = reference::resample_at(args, &mono, m);
        let error = (f64::from(got[m]) - want).abs();
        assert!(
            error <= ERROR_MAX,
            "{case} sample {m}: {} instead of {want}",
            got[m]
        );
    }
}

fn matches_reference_and_cpu<D: Device>(device: &D) {
    for to_hz in [22_050, 16_000] {
        let kinds = [(1, false), (2, false), (1, true), (2, true)];
        let mut sources = Vec::new();
        for (i, rate_hz) in RATES_HZ.into_iter().enumerate() {
            for (j, n) in LENGTHS.into_iter().enumerate() {
                let (channels, is_s16) = kinds[(i + j) % kinds.len()];
                sources.push(Source::new(n, rate_hz, channels, is_s16));
            }
        }

        let got = converted(device, &sources, to_hz);
        for (source, got) in sources.iter().zip(&got) {
            assert_converted(source, to_hz, got);
        }
    }
}

fn every_kind_of_sample_is_averaged<D: Device>(device: &D) {
    for rate_hz in [22_050, 44_100] {
        for (channels, is_s16) in [(1, false), (2, false), (1, true), (2, true)] {
            let source = Source::new(1_501, rate_hz, channels, is_s16);
            let got = converted(device, std::slice::from_ref(&source), 22_050);
            assert_converted(&source, 22_050, &got[0]);
        }
    }
}

fn bits_do_not_depend_on_the_batch<D: Device>(device: &D) {
    let others = [
        Source::new(77, 48_000, 1, false),
        Source::new(5_001, 44_100, 2, true),
        Source::new(9_000, 44_100, 1, true),
        Source::new(5_001, 48_000, 2, true),
    ];

    let together = converted(device, &others, 22_050);
    for at in [1, 3] {
        let alone = converted(device, &others[at..=at], 22_050);
        assert!(alone[0] == together[at], "{} Hz", others[at].rate_hz);
    }
}

fn unusual_ratios_match_too<D: Device>(device: &D) {
    for (from_hz, to_hz) in [
        (96_000, 8_000),
        (96_000, 22_050),
        (88_200, 22_050),
        (96_000, 44_100),
        (11_025, 48_000),
    ] {
        let source = Source::new(4_000, from_hz, 1, false);
        let got = converted(device, std::slice::from_ref(&source), to_hz);
        assert_converted(&source, to_hz, &got[0]);
    }
}

#[test]
fn rates_with_huge_tables_use_the_cpu() {
    for from_hz in RATES_HZ.into_iter().chain([12_000, 24_000, 88_200, 96_000]) {
        assert!(
            [22_050, 16_000, 44_100, 48_000]
                .into_iter()
                .all(|to_hz| is_for_device(from_hz, to_hz)),
            "{from_hz} Hz"
        );
    }

    assert!(is_for_device(5_000, 5_000), "equal rates copy");
    for (from_hz, to_hz) in [
        (44_101, 22_050),
        (8_009, 8_011),
        (5_000, 22_050),
        (192_000, 22_050),
    ] {
        assert!(!is_for_device(from_hz, to_hz), "{from_hz} to {to_hz} Hz");
    }
}

fn the_largest_magnitude_of_a_whole_clip_is_found_along<D: Device>(device: &D) {
    let mut sources = Vec::new();
    for rate_hz in [22_050, 44_100, 48_000] {
        for (channels, is_s16) in [(1, false), (2, false), (1, true), (2, true)] {
            sources.push(Source::new(
                3_001 + sources.len(),
                rate_hz,
                channels,
                is_s16,
            ));
        }
    }

    sources.push(Source {
        f32: vec![-0.0; 5_000],
        ..Source::new(0, 44_100, 1, false)
    });
    sources.push(Source::new(0, 48_000, 1, true));

    let (got, levels) = converted_and_levels(device, &sources, 22_050);
    for (at, (got, level)) in got.iter().zip(&levels).enumerate() {
        let want = got.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        assert_eq!(*level, want, "source {at}");
    }

    assert_eq!(levels[12..], [0.0, 0.0]);

    let mut source = Source::new(3_000, 44_100, 1, false);
    source.f32[1_000] = f32::NAN;
    assert!(converted_and_levels(device, &[source], 22_050).1[0].is_nan());
}

fn the_largest_magnitude_of_each_row_is_found<D: Device>(device: &D) {
    let mut pcm = noise(50_000);
    pcm[10_000..10_100].fill(0.0);
    pcm[10_050] = -0.0;
    (pcm[20_000], pcm[40_000], pcm[45_000]) = (-7.0, f32::NAN, f32::NEG_INFINITY);

    let entries = [
        (0, 0),
        (10_000, 100),
        (15_000, 20_000),
        (0, 50_000),
        (44_000, 2_000),
        (7, 1),
    ]
    .map(|(pcm, n_pcm)| RowEntry {
        pcm,
        frame: 0,
        n_pcm,
        n_signal: n_pcm,
        n_frames: 0,
        n_kept: 0,
    });

    let (mono, rows) = (sent(device, &pcm), sent(device, &entries));
    let address = device.address(&rows);
    let table = RowTable {
        address,
        n_rows: entries.len(),
        n_pcm_max: 50_000,
        n_frames_max: 0,
    };

    let mut levels = LevelsDevice::default();
    let answers = levels.start(device, entries.len()).unwrap();
    LevelsDevice::run(device, &table, device.address(&mono), answers).unwrap();
    levels.fetch(device).unwrap();
    device.synchronize().unwrap();

    let got: Vec<f32> = levels.largest().collect();
    assert_eq!(
        [got[0], got[1], got[2], got[4], got[5]],
        [0.0, 0.0, 7.0, f32::INFINITY, pcm[7].abs()]
    );
    assert!(got[3].is_nan(), "{}", got[3]);
}

on_devices!(
    matches_reference_and_cpu,
    every_kind_of_sample_is_averaged,
    bits_do_not_depend_on_the_batch,
    unusual_ratios_match_too,
    the_largest_magnitude_of_a_whole_clip_is_found_along,
    the_largest_magnitude_of_each_row_is_found,
);
