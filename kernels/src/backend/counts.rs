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
/// Number of samples of the counted clip at that rate: 64 frames with hop 512, in eight tiles of eight frames.
const N_SAMPLES: usize = 63 * 512;
/// Lines of docs/cuda-kernels.md before and after the table.
const BEGIN: &str = "<!-- counts: begin -->\n";
const END: &str = "<!-- counts: end -->\n";

/// Unit to which counts of memory accesses refer.
#[derive(Clone, Copy)]
enum Per {
    Frame,
    /// 1,000 samples at the features' sample rate.
    ThousandSamples,
}

/// Upper bound of a kernel's memory accesses in a case, per unit: shared memory wavefronts plus global memory lines.
struct Bound {
    kernel: String,
    per: Per,
    most: f64,
}

/// One case: a feature, a clip, and bounds for the kernels whose memory accesses are counted.
struct Case {
    what: String,
    op: Op,
    overrides: FeatureSpec,
    source: Source,
    /// Range of the row that is computed, in samples at the features' sample rate.
    row: Range<usize>,
    bounds: Vec<Bound>,
}

/// Properties of a decoded clip that is the input of a case.
#[derive(Clone, Copy)]
struct Source {
    /// Number of samples after conversion to the features' sample rate.
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

fn frame(kernel: &str, most: f64) -> Bound {
    Bound {
        kernel: kernel.to_owned(),
        per: Per::Frame,
        most,
    }
}

fn samples(kernel: &str, most: f64) -> Bound {
    Bound {
        per: Per::ThousandSamples,
        ..frame(kernel, most)
    }
}

fn mel(what: &str, overrides: FeatureSpec, bounds: Vec<Bound>) -> Case {
    Case {
        what: what.to_owned(),
        op: Op::Mel,
        overrides,
        source: MONO,
        row: 0..N_SAMPLES,
        bounds,
    }
}

/// Returns a case of a mel spectrum with transforms of another length; hop and number of bands are proportional to it.
fn mel_of_length(n_fft: usize, power: f64, most: f64) -> Case {
    let hop_length = n_fft / 4;
    let n_mels = (n_fft / 16).min(128);
    let overrides = FeatureSpec {
        power: Some(power),
        n_fft: Some(n_fft),
        hop_length: Some(hop_length),
        n_mels: Some(n_mels),
        ..FeatureSpec::default()
    };

    let mut what = format!("n_fft {n_fft}, hop {hop_length}, {n_mels} bands");
    let mut kernel = format!("fused_mel_{n_fft}");
    if power != 2.0 {
        what = format!("the same, power {power}");
        kernel += "_pow";
    }
    mel(&what, overrides, vec![frame(&kernel, most)])
}

/// Returns a case of a clip with another sample rate and sample format.
fn source(what: &str, rate_hz: u32, channels: usize, is_s16: bool, bound: Bound) -> Case {
    // Emulating the resampling filters takes long, so this clip is shorter than in other cases.
    let n_samples = N_SAMPLES / 4;
    Case {
        source: Source {
            n_samples,
            rate_hz,
            channels,
            is_s16,
        },
        row: 0..n_samples,
        ..mel(what, FeatureSpec::default(), vec![bound])
    }
}

fn cases() -> Vec<Case> {
    let mut cases = vec![mel(
        "n_fft 2048, hop 512, 128 bands, f16",
        FeatureSpec {
            db: loudest(),
            normalize: Normalize::MinMax,
            ..FeatureSpec::default()
        },
        vec![frame("fused_mel_2048", 1_475.0), frame("pack", 12.0)],
    )];
    for (n_fft, most) in [(256, 260.0), (512, 430.0), (1024, 800.0), (4096, 3_450.0)] {
        cases.push(mel_of_length(n_fft, 2.0, most));
    }
    for (n_fft, most) in [
        (256, 260.0),
        (512, 430.0),
        (1024, 800.0),
        (2048, 1_475.0),
        (4096, 3_450.0),
    ] {
        cases.push(mel_of_length(n_fft, 1.5, most));
    }

    // For part of a clip, a separate kernel computes the peak level; for a whole clip, the conversion computes it.
    let levels = vec![samples("levels", 50.0)];
    cases.push(Case {
        row: 0..N_SAMPLES / 2,
        ..mel("22.05 kHz, half a clip", FeatureSpec::default(), levels)
    });

    // Conversion of clips: whole and other ratios of the sample rates, and equal rates, each for every sample format.
    for (format, channels, is_s16, copy_max) in [
        ("f32", 1, false, 82.0),
        ("f32_stereo", 2, false, 115.0),
        ("s16", 1, true, 82.0),
        ("s16_stereo", 2, true, 82.0),
    ] {
        for (what, rate_hz, kernel, most) in [
            ("44.1 to 22.05 kHz", 44_100, "decimate", 2_400.0),
            ("48 to 22.05 kHz", 48_000, "polyphase", 38_500.0),
            ("22.05 kHz", RATE_HZ, "copy_clips", copy_max),
        ] {
            let bound = samples(&format!("{kernel}_{format}"), most);
            cases.push(source(what, rate_hz, channels, is_s16, bound));
        }
    }

    cases.extend(cases_outside_the_fused_path());
    cases
}

/// Returns the cases that do not use the fused kernels: frames first, transforms by cuFFT, and cepstral coefficients.
fn cases_outside_the_fused_path() -> [Case; 4] {
    let frame_first = FeatureSpec {
        dim_order: Some("frame,mel".to_owned()),
        db: loudest(),
        ..FeatureSpec::default()
    };
    let unlimited = FeatureSpec {
        db: Some(DbSpec {
            top_db: None,
            ..DbArgs::default().into()
        }),
        ..FeatureSpec::default()
    };
    let with_deltas = FeatureSpec {
        delta: Some(2),
        normalize: Normalize::MeanVar,
        ..FeatureSpec::default()
    };

    [
        mel("frame,mel, f16", frame_first, vec![frame("pack", 20.0)]),
        mel(
            "n_fft 2048, through cuFFT in f64, 128 bands",
            unlimited,
            vec![frame("frames_f64", 480.0), frame("bands_f64", 2_100.0)],
        ),
        Case {
            op: Op::Stft,
            ..mel(
                "n_fft 2048, through cuFFT in f32, bins",
                FeatureSpec::default(),
                vec![frame("frames_f32", 350.0), frame("bands_f32", 650.0)],
            )
        },
        Case {
            op: Op::Mfcc,
            ..mel(
                "20 coefficients of 128 bands, two deltas, mean and deviation",
                with_deltas,
                vec![
                    frame("logarithm_in_place", 12.0),
                    frame("mfcc", 165.0),
                    frame("delta", 26.0),
                    frame("row_spread", 18.0),
                ],
            )
        },
    ]
}

/// Returns options for decibels relative to the row's maximum, as in the demo's recipe.
fn loudest() -> Option<DbSpec> {
    Some(DbSpec {
        reference: DbRef::Max.into(),
        ..DbArgs::default().into()
    })
}

/// Runs a case and returns the memory accesses of its kernels.
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
            counts: counter.take_counts(&bound.kernel),
        });
    }
    lines
}

/// Counts memory accesses of all cases, each in its own thread, because counts are kept per thread.
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

/// Formats the counts as a Markdown table with one line per kernel and case.
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

/// Checks that counts exist for every kernel except `packed_value_at`, which reads one value for an error message.
#[test]
fn every_kernel_is_counted() {
    let source = unit();
    let declared = source.lines().filter_map(|line| {
        let rest = line
            .strip_prefix("KERNEL(")
            .or_else(|| line.strip_prefix("KERNEL_OF("))?;
        rest.split(',').next()
    });
    let cases = cases();
    let counted: Vec<&str> = cases
        .iter()
        .flat_map(|case| case.bounds.iter().map(|bound| bound.kernel.as_str()))
        .collect();
    for kernel in declared.filter(|kernel| *kernel != "packed_value_at") {
        assert!(counted.contains(&kernel), "{kernel} has no bound");
    }
}

/// Code compiled for counting, without optimisation, must return the same bits as optimised code: neither counting nor
/// the compiler may change a result. (g++ 12 fused complex products.)
#[test]
fn counting_does_not_change_results() {
    for n_fft in [256, 512, 1024, 2048, 4096] {
        let overrides = FeatureSpec {
            n_fft: Some(n_fft),
            db: loudest(),
            ..FeatureSpec::default()
        };
        let args = overrides.resolve(&[], RATE_HZ).unwrap();

        let pcm = noise(9_001);
        let row = 0..9_001;
        let rows = std::slice::from_ref(&row);
        let clip = Clip {
            samples: Samples::F32(&pcm),
            channels: 1,
            // Twice the features' sample rate, so that the resampler is compared, too.
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
