//! What kernels ask of a GPU's memory, counted on the emulated device and held to an upper bound each.
//!
//! `docs/cuda-kernels.md` has the table and says what the model leaves out; `scripts/cuda_counts.sh --write` makes it.

use std::fmt::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::thread;

use wavemill_options::{DbArgs, DbRef, DimOrder, FeatureArgs, Normalize, Op, Overrides, Preset};

use super::device::DevicePlan;
use super::{Clip, Plan, Samples};
use crate::device::testing::noise;
use crate::device::{Counts, EmulatedDevice, Order, unit};

/// Rate of the features.
const RATE_HZ: u32 = 22_050;
/// Length of the clip that is counted, at that rate: 64 frames of hop 512, which is eight whole tiles.
const N_SAMPLES: usize = 63 * 512;
/// The table lies between these lines of the page.
const BEGIN: &str = "<!-- counts: begin -->\n";
const END: &str = "<!-- counts: end -->\n";

/// What counts are divided by.
#[derive(Clone, Copy)]
enum Per {
    Frame,
    /// A thousand samples at the features' rate.
    ThousandSamples,
}

/// A kernel of a case, and what it may take at most: wavefronts of shared memory and lines of global memory together.
struct Bound {
    kernel: &'static str,
    per: Per,
    most: f64,
}

/// A feature of a clip.
struct Case {
    what: &'static str,
    op: Op,
    overrides: Overrides,
    source: Source,
    /// What is wanted of the clip, samples at the features' rate.
    row: Range<usize>,
    bounds: Vec<Bound>,
}

/// A clip as it is decoded.
#[derive(Clone, Copy)]
struct Source {
    /// Its length once it is at the features' rate.
    n_samples: usize,
    rate_hz: u32,
    channels: usize,
    is_s16: bool,
}

/// One line of the table.
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

fn mel(what: &'static str, overrides: Overrides, bounds: Vec<Bound>) -> Case {
    Case {
        what,
        op: Op::Mel,
        overrides,
        source: MONO,
        row: 0..N_SAMPLES,
        bounds,
    }
}

/// A mel spectrum of another length of transform; hops and bands as they go with it.
fn mel_of_length(n_fft: usize, what: &'static str, power: f64, bound: Bound) -> Case {
    let overrides = Overrides {
        power: Some(power),
        n_fft: Some(n_fft),
        hop_length: Some(n_fft / 4),
        n_mels: Some((n_fft / 16).min(128)),
        ..Overrides::default()
    };
    mel(what, overrides, vec![bound])
}

/// A clip at another rate, in another form.
fn source(what: &'static str, rate_hz: u32, channels: usize, is_s16: bool, bound: Bound) -> Case {
    let mut case = mel(what, Overrides::default(), vec![bound]);
    // The emulation of filters takes long.
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
    let mut case = mel("22.05 kHz, half a clip", Overrides::default(), vec![bound]);
    case.row = 0..N_SAMPLES / 2;
    case
}

fn cases() -> Vec<Case> {
    vec![
        mel(
            "n_fft 2048, hop 512, 128 bands, f16",
            Overrides {
                db: loudest(),
                normalize: Normalize::MinMax,
                ..Overrides::default()
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
        // Levels of parts of clips: whole ones are found along.
        parts(samples("levels", 50.0)),
        // The conversion of clips: both kinds of ratio and equal rates, each for every format of samples.
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
        // What is not part of the fused path: the other order of axes, transforms by cuFFT, coefficients.
        mel(
            "frame,mel, f16",
            Overrides {
                dim_order: DimOrder::FrameBand,
                db: loudest(),
                ..Overrides::default()
            },
            vec![frame("pack", 20.0)],
        ),
        mel(
            "n_fft 2048, through cuFFT in f64, 128 bands",
            Overrides {
                db: Some(DbArgs {
                    top_db: None,
                    ..DbArgs::default()
                }),
                ..Overrides::default()
            },
            vec![frame("frames_f64", 480.0), frame("bands_f64", 2_100.0)],
        ),
        Case {
            what: "n_fft 2048, through cuFFT in f32, bins",
            op: Op::Stft,
            overrides: Overrides::default(),
            source: MONO,
            row: 0..N_SAMPLES,
            bounds: vec![frame("frames_f32", 350.0), frame("bands_f32", 650.0)],
        },
        Case {
            what: "20 coefficients of 128 bands, two deltas, mean and deviation",
            op: Op::Mfcc,
            overrides: Overrides {
                delta: Some(2),
                normalize: Normalize::MeanVar,
                ..Overrides::default()
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

/// Decibels below the loudest, as the demo's recipe.
fn loudest() -> Option<DbArgs> {
    Some(DbArgs {
        reference: DbRef::Max,
        ..DbArgs::default()
    })
}

/// Runs a case and divides what its kernels took.
fn count(at: usize, case: &Case) -> Vec<Line> {
    let args = FeatureArgs::resolve(case.op, Preset::Librosa, RATE_HZ, &case.overrides).unwrap();

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

    // Kernels are counted by thread, whatever the device.
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

/// All cases, each in a thread of its own, which has its own counts.
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

/// As Markdown, a line a kernel and case.
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
fn no_kernel_takes_more_than_its_bound() {
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
            "docs/cuda-kernels.md says otherwise: scripts/cuda_counts.sh --write"
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

/// `packed_value_at` reads one value for an error's message.
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

/// What is counted is what else runs, and a compiler's optimisation changes no bit: g++ 12 fused complex products.
#[test]
fn counting_gives_the_same_bits() {
    for n_fft in [256, 512, 1024, 2048, 4096] {
        let overrides = Overrides {
            n_fft: Some(n_fft),
            db: loudest(),
            ..Overrides::default()
        };
        let args = FeatureArgs::resolve(Op::Mel, Preset::Librosa, RATE_HZ, &overrides).unwrap();

        let pcm = noise(9_001);
        let row = 0..9_001;
        let rows = std::slice::from_ref(&row);
        let clip = Clip {
            samples: Samples::F32(&pcm),
            channels: 1,
            // The other rate makes the comparison cover the resampler, too.
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
