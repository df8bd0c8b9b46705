//! Counts the memory accesses of the kernels on the emulated device and compares each count with an upper bound.
//!
//! The table is in `docs/cuda-kernels.md`, which also lists the limits of the model; `scripts/cuda_counts.sh --write`
//! updates it.

use std::fmt::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::thread;

use wavemill_options::{DbArgs, DbRef, DbSpec, FeatureSpec, Normalize, Op};

use super::device::DevicePlan;
use super::{Clip, Plan, Samples};
use crate::device::testing::noise;
use crate::device::{Counts, EmulatedDevice, Order, unit};

/// Sample rate of the features.
const RATE_HZ: u32 = 22_050;
/// Samples of the counted clip at that rate: 64 frames with hop 512, which is eight whole tiles.
const N_SAMPLES: usize = 63 * 512;
/// Lines of the page that enclose the table.
const BEGIN: &str = "<!-- counts: begin -->\n";
const END: &str = "<!-- counts: end -->\n";

/// Unit by which counts are divided.
#[derive(Clone, Copy)]
enum Per {
    Frame,
    /// 1,000 samples at the features' rate.
    ThousandSamples,
}

/// Upper bound for a kernel of a case: wavefronts of shared memory plus lines of global memory, per unit.
struct Bound {
    kernel: &'static str,
    per: Per,
    most: f64,
}

/// A feature, a clip and the kernels that are counted.
struct Case {
    what: &'static str,
    op: Op,
    overrides: FeatureSpec,
    source: Source,
    /// The row that is computed, in samples at the features' rate.
    row: Range<usize>,
    bounds: Vec<Bound>,
}

/// Properties of a decoded clip.
#[derive(Clone, Copy)]
struct Source {
    /// Number of samples after conversion to the features' rate.
    n_samples: usize,
    rate_hz: u32,
    channels: usize,
    is_s16: bool,
}

/// One line of the table of counts: a kernel in a case.
struct Line {
    case: usize,
    bound: usize,
    units: f64,
    counts: Counts,
}

const MONO: Source = Source {
    n_samples: N_SAMPLES,
    rate_hz: RATE_HZ,
    channels: 1,
    is_s16: false,
};

fn frame(kernel: &'static str, most: f64) -> Bound {
    Bound {
        kernel,
        per: Per::Frame,
        most,
    }
}

fn samples(kernel: &'static str, most: f64) -> Bound {
    Bound {
        kernel,
        per: Per::ThousandSamples,
        most,
    }
}

fn mel(what: &'static str, overrides: FeatureSpec, bounds: Vec<Bound>) -> Case {
    Case {
        what,
        op: Op::Mel,
        overrides,
        source: MONO,
        row: 0..N_SAMPLES,
        bounds,
    }
}

/// A mel spectrum with another length of the transform; hop and number of bands are proportional to it.
fn mel_of_length(n_fft: usize, what: &'static str, power: f64, bound: Bound) -> Case {
    let overrides = FeatureSpec {
        power: Some(power),
        n_fft: Some(n_fft),
        hop_length: Some(n_fft / 4),
        n_mels: Some((n_fft / 16).min(128)),
        ..FeatureSpec::default()
    };
    mel(what, overrides, vec![bound])
}

/// A clip with another rate and sample format.
fn source(what: &'static str, rate_hz: u32, channels: usize, is_s16: bool, bound: Bound) -> Case {
    let mut case = mel(what, FeatureSpec::default(), vec![bound]);
    // Emulating the resampling filters takes long, so the clip is shorter.
    let n_samples = N_SAMPLES / 4;
    case.source = Source {
        n_samples,
        rate_hz,
        channels,
        is_s16,
    };
    case.row = 0..n_samples;
    case
}

/// A row that is half of its clip.
fn parts(bound: Bound) -> Case {
    let mut case = mel(
        "22.05 kHz, half a clip",
        FeatureSpec::default(),
        vec![bound],
    );
    case.row = 0..N_SAMPLES / 2;
    case
}

fn cases() -> Vec<Case> {
    vec![
        mel(
            "n_fft 2048, hop 512, 128 bands, f16",
            FeatureSpec {
                db: loudest(),
                normalize: Normalize::MinMax,
                ..FeatureSpec::default()
            },
            vec![frame("fused_mel_2048", 1_475.0), frame("pack", 12.0)],
        ),
        mel_of_length(
            256,
            "n_fft 256, hop 64, 16 bands",
            2.0,
            frame("fused_mel_256", 260.0),
        ),
        mel_of_length(
            512,
            "n_fft 512, hop 128, 32 bands",
            2.0,
            frame("fused_mel_512", 430.0),
        ),
        mel_of_length(
            1024,
            "n_fft 1024, hop 256, 64 bands",
            2.0,
            frame("fused_mel_1024", 800.0),
        ),
        mel_of_length(
            4096,
            "n_fft 4096, hop 1024, 128 bands",
            2.0,
            frame("fused_mel_4096", 3_450.0),
        ),
        mel_of_length(
            256,
            "the same, power 1.5",
            1.5,
            frame("fused_mel_256_pow", 260.0),
        ),
        mel_of_length(
            512,
            "the same, power 1.5",
            1.5,
            frame("fused_mel_512_pow", 430.0),
        ),
        mel_of_length(
            1024,
            "the same, power 1.5",
            1.5,
            frame("fused_mel_1024_pow", 800.0),
        ),
        mel_of_length(
            2048,
            "the same, power 1.5",
            1.5,
            frame("fused_mel_2048_pow", 1_475.0),
        ),
        mel_of_length(
            4096,
            "the same, power 1.5",
            1.5,
            frame("fused_mel_4096_pow", 3_450.0),
        ),
        // Levels of parts of clips: those of whole clips are computed during conversion.
        parts(samples("levels", 50.0)),
        // Conversion of clips: both kinds of ratio and equal rates, each for every sample format.
        source(
            "44.1 to 22.05 kHz",
            44_100,
            1,
            false,
            samples("decimate_f32", 2_400.0),
        ),
        source(
            "48 to 22.05 kHz",
            48_000,
            1,
            false,
            samples("polyphase_f32", 38_500.0),
        ),
        source(
            "22.05 kHz",
            RATE_HZ,
            1,
            false,
            samples("copy_clips_f32", 82.0),
        ),
        source(
            "44.1 to 22.05 kHz",
            44_100,
            2,
            false,
            samples("decimate_f32_stereo", 2_400.0),
        ),
        source(
            "48 to 22.05 kHz",
            48_000,
            2,
            false,
            samples("polyphase_f32_stereo", 38_500.0),
        ),
        source(
            "22.05 kHz",
            RATE_HZ,
            2,
            false,
            samples("copy_clips_f32_stereo", 115.0),
        ),
        source(
            "44.1 to 22.05 kHz",
            44_100,
            1,
            true,
            samples("decimate_s16", 2_400.0),
        ),
        source(
            "48 to 22.05 kHz",
            48_000,
            1,
            true,
            samples("polyphase_s16", 38_500.0),
        ),
        source(
            "22.05 kHz",
            RATE_HZ,
            1,
            true,
            samples("copy_clips_s16", 82.0),
        ),
        source(
            "44.1 to 22.05 kHz",
            44_100,
            2,
            true,
            samples("decimate_s16_stereo", 2_400.0),
        ),
        source(
            "48 to 22.05 kHz",
            48_000,
            2,
            true,
            samples("polyphase_s16_stereo", 38_500.0),
        ),
        source(
            "22.05 kHz",
            RATE_HZ,
            2,
            true,
            samples("copy_clips_s16_stereo", 82.0),
        ),
        // Kernels outside the fused path: the other axis order, transforms by cuFFT, coefficients.
        mel(
            "frame,mel, f16",
            FeatureSpec {
                dim_order: Some("frame,mel".to_owned()),
                db: loudest(),
                ..FeatureSpec::default()
            },
            vec![frame("pack", 20.0)],
        ),
        mel(
            "n_fft 2048, through cuFFT in f64, 128 bands",
            FeatureSpec {
                db: Some(DbSpec {
                    top_db: None,
                    ..DbArgs::default().into()
                }),
                ..FeatureSpec::default()
            },
            vec![frame("frames_f64", 480.0), frame("bands_f64", 2_100.0)],
        ),
        Case {
            what: "n_fft 2048, through cuFFT in f32, bins",
            op: Op::Stft,
            overrides: FeatureSpec::default(),
            source: MONO,
            row: 0..N_SAMPLES,
            bounds: vec![frame("frames_f32", 350.0), frame("bands_f32", 650.0)],
        },
        Case {
            what: "20 coefficients of 128 bands, two deltas, mean and deviation",
            op: Op::Mfcc,
            overrides: FeatureSpec {
                delta: Some(2),
                normalize: Normalize::MeanVar,
                ..FeatureSpec::default()
            },
            source: MONO,
            row: 0..N_SAMPLES,
            bounds: vec![
                frame("logarithm_in_place", 12.0),
                frame("mfcc", 165.0),
                frame("delta", 26.0),
                frame("row_spread", 18.0),
            ],
        },
    ]
}

/// Decibels relative to the row's maximum, as in the demo's recipe.
fn loudest() -> Option<DbSpec> {
    Some(DbSpec {
        reference: DbRef::Max.into(),
        ..DbArgs::default().into()
    })
}

/// Runs a case and returns the counts of its kernels.
fn count(at: usize, case: &Case) -> Vec<Line> {
    let spec = FeatureSpec {
        op: case.op,
        ..case.overrides.clone()
    };
    let args = spec.resolve(&[], RATE_HZ).unwrap();

    let source = case.source;
    let n_source = (source.n_samples * source.rate_hz as usize).div_ceil(RATE_HZ as usize);
    let pcm = noise(n_source * source.channels);
    let pcm_s16: Vec<i16> = pcm.iter().map(|x| (x * 32_768.0) as i16).collect();
    let samples = if source.is_s16 {
        Samples::S16(&pcm_s16)
    } else {
        Samples::F32(&pcm)
    };
    let clip = Clip {
        samples,
        channels: source.channels,
        sample_rate_hz: source.rate_hz,
        rows: std::slice::from_ref(&case.row),
    };

    // Counts are per host thread and independent of the device instance.
    let counter = EmulatedDevice::counting().unwrap();
    let device = EmulatedDevice::counting().unwrap();
    let mut plan = DevicePlan::new(device, std::slice::from_ref(&args)).unwrap();
    plan.run(&[clip]).unwrap()[0].as_ref().unwrap();

    let mut lines = Vec::with_capacity(case.bounds.len());
    for (place, bound) in case.bounds.iter().enumerate() {
        let units = match bound.per {
            Per::Frame => args.n_frames(case.row.len()) as f64,
            Per::ThousandSamples => case.row.len() as f64 / 1e3,
        };
        lines.push(Line {
            case: at,
            bound: place,
            units,
            counts: counter.take_counts(bound.kernel),
        });
    }
    lines
}

/// Counts all cases, each in its own thread, because counts are per thread.
fn count_all(cases: &[Case]) -> Vec<Line> {
    thread::scope(|scope| {
        let counts: Vec<_> = cases
            .iter()
            .enumerate()
            .map(|(at, case)| scope.spawn(move || count(at, case)))
            .collect();
        counts
            .into_iter()
            .flat_map(|lines| lines.join().unwrap())
            .collect()
    })
}

/// Formats the counts as Markdown, one line per kernel and case.
fn table(cases: &[Case], lines: &[Line]) -> String {
    let mut text = String::from(
        "| kernel | of | per | shared: accesses | wavefronts | global: accesses | lines | wavefronts and lines | at most |\n\
         |---|---|---|---:|---:|---:|---:|---:|---:|\n",
    );
    for line in lines {
        let case = &cases[line.case];
        let bound = &case.bounds[line.bound];
        let per = match bound.per {
            Per::Frame => "frame",
            Per::ThousandSamples => "1,000 samples",
        };
        write!(text, "| `{}` | {} | {per} |", bound.kernel, case.what).unwrap();

        let counts = &line.counts;
        for n in [
            counts.shared_accesses,
            counts.shared_wavefronts,
            counts.global_accesses,
            counts.global_lines,
            counts.sum(),
        ] {
            write!(text, " {:.0} |", n as f64 / line.units).unwrap();
        }
        writeln!(text, " {} |", bound.most).unwrap();
    }
    text
}

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cuda-kernels.md")
}

#[test]
fn kernels_stay_within_their_bounds() {
    let cases = cases();
    let lines = count_all(&cases);
    let text = table(&cases, &lines);

    let old = std::fs::read_to_string(page()).unwrap();
    let (before, rest) = old.split_once(BEGIN).unwrap();
    let (written, after) = rest.split_once(END).unwrap();
    if std::env::var_os("WAVEMILL_BLESS").is_some() {
        std::fs::write(page(), format!("{before}{BEGIN}{text}{END}{after}")).unwrap();
    } else {
        assert_eq!(
            written, text,
            "docs/cuda-kernels.md is out of date: run scripts/cuda_counts.sh --write"
        );
    }

    for line in &lines {
        let Case { what, bounds, .. } = &cases[line.case];
        let Bound { kernel, most, .. } = &bounds[line.bound];
        let sum = line.counts.sum() as f64 / line.units;
        assert!(sum > 0.0, "{kernel} did not run for {what}");
        assert!(
            sum <= *most,
            "{kernel}, {what}: {sum:.0} wavefronts and lines, at most {most}"
        );
    }
}

/// Exempts `packed_value_at`, which reads one value for an error message.
#[test]
fn every_kernel_is_counted() {
    let source = unit();
    let declared = source.lines().filter_map(|line| {
        let rest = line
            .strip_prefix("KERNEL(")
            .or_else(|| line.strip_prefix("KERNEL_OF("))?;
        rest.split(',').next()
    });
    let counted: Vec<&str> = cases()
        .iter()
        .flat_map(|case| case.bounds.iter().map(|bound| bound.kernel))
        .collect();
    for kernel in declared.filter(|kernel| *kernel != "packed_value_at") {
        assert!(counted.contains(&kernel), "{kernel} has no bound");
    }
}

/// Counting must not change the code that runs, and compiler optimisation must not change a bit: g++ 12 fused complex
/// products.
#[test]
fn counting_does_not_change_results() {
    for n_fft in [256, 512, 1024, 2048, 4096] {
        let spec = FeatureSpec {
            n_fft: Some(n_fft),
            db: loudest(),
            ..FeatureSpec::default()
        };
        let args = spec.resolve(&[], RATE_HZ).unwrap();

        let pcm = noise(9_001);
        let row = 0..9_001;
        let rows = std::slice::from_ref(&row);
        let clip = Clip {
            samples: Samples::F32(&pcm),
            channels: 1,
            // The different rate makes the comparison include the resampler.
            sample_rate_hz: 2 * RATE_HZ,
            rows,
        };
        let [counted, usual] = [
            EmulatedDevice::counting(),
            EmulatedDevice::new(Order::Descending),
        ]
        .map(|device| {
            let mut plan = DevicePlan::new(device.unwrap(), std::slice::from_ref(&args)).unwrap();
            plan.run(&[clip]).unwrap().remove(0).unwrap()
        });
        assert!(counted == usual, "n_fft {n_fft}");
    }
}
