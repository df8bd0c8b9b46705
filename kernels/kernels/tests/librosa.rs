//! Compares the kernels with librosa's own values on real clips, for every option set of the reference's manifest, on
//! f32 output before packing. This is done at the CPU's levels, on the emulated device, and on a GPU if there is one
//! (`kernels/kernels/src/checks.rs` documents the variables that select devices). `WAVEMILL_SHOW_PARITY=1` prints the largest
//! error of each array.

#[allow(clippy::unwrap_used, dead_code)] // test code, which uses only a part of it
mod stand_in;

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use wavemill_kernels::{
    Backend, BackendChoice, CheckedDevices, Clip as Sound, DbRef, DbRefSpec, DbSpec, Dtype,
    FeatureArgs, FeatureSpec, Level, Op, Samples, Word,
};
use wavemill_tests::{Arguments, Failed, Trial, options};

use stand_in::Machine;

/// Allowed error of STFT magnitudes as a fraction of the largest: an f32 transform of 2048 samples has an error of some
/// 1e-7 of a frame's energy.
const STFT_OF_MAX: f64 = 1e-6;
/// Allowed relative error of mel bands; librosa itself sums in f32 after an f64 transform.
const MEL_REL_MAX: f64 = 1e-4;
/// Smallest values, relative to the largest, that are compared, for powers and magnitudes. Smaller ones are f32 noise.
const MEL_POWER_FROM: f64 = 1e-7;
const MEL_MAGNITUDE_FROM: f64 = 1e-4;
/// Allowed error in decibels: a relative error of 1e-4 is 4.3e-4 dB.
const DB_MAX: f64 = 1e-3;
/// Allowed error of cepstral coefficients, which reach 1e3, where f32 has steps of 6e-5.
const MFCC_MAX: f64 = 1e-3;

/// Allowed relative error of levels and of shapes of spectra, which are means over samples or bins; librosa sums in f32.
const SHAPE_REL_MAX: f64 = 2e-5;
/// Allowed relative error of the flatness: a geometric mean counts bins at the noise of an f32 transform like others.
const FLATNESS_REL_MAX: f64 = 1e-3;
/// Allowed error of the spectral contrast. The valley of a band may be so far below the loudest bins that it is partly
/// the noise of an f32 transform.
const CONTRAST_DB_MAX: f64 = 0.06;
/// Smallest levels that are compared, relative to the largest: silence has none.
const SHAPE_FROM: f64 = 1e-9;
/// Allowed error of the roll-off: a sum that almost reaches it may do so one bin later.
const BIN_HZ: f64 = 22_050.0 / 2048.0 + 1e-3;

/// Allowed error of chroma, which are 1 at most; librosa sums in f32.
const CHROMA_MAX: f64 = 1e-4;
/// Allowed error of chroma from a constant-Q transform: the resampler differs from librosa's in its transition band, to which
/// the filters are not quite deaf.
const CHROMA_CQ_MAX: f64 = 3e-4;
/// Smallest magnitude of a frame, relative to the largest of the clip, whose chroma are compared. Below it, they are those of
/// the noise that the resampler of either library leaves in digital silence.
const CHROMA_CQ_FROM: f32 = 1e-6;
/// Number of frames before and after a silent one that CENS are not compared at.
const CENS_REACH: usize = 20;
/// Allowed error of CENS: a step of an energy that almost reaches it is 0.25, with a weight of up to 0.048 per frame.
const CENS_MAX: f64 = 0.02;

/// Number of arrays of each clip.
const ARRAYS: usize = 45;
/// Arrays without a feature here, as in docs/features.md. A new operation removes its arrays from this list.
const MISSING: [&str; 1] = ["tonnetz_chroma_stft_tuning0"];

const CLIPS: [&str; 6] = [
    "fma000002",
    "fma000256",
    "like201003",
    "like211500",
    "hungarian",
    "like299998",
];

fn main() {
    let args = Arguments::from_args();
    let mut tests = vec![
        Trial::test(
            "librosa::a_gpu_that_refuses_fails_and_never_passes",
            a_gpu_that_refuses_fails_and_never_passes,
        )
        // This test starts the test program itself, which must not run the test again.
        .with_ignored_flag(std::env::var_os("FAKE_COMPILED").is_some()),
    ];

    for (name, backend) in backends() {
        for clip in CLIPS {
            tests.push(trial(&format!("librosa::{clip}::{name}"), clip, &backend));
        }
    }

    wavemill_tests::run(&args, tests).exit();
}

/// Returns the test of a clip on a backend. If the backend cannot be used, the test is ignored, or fails if the backend
/// is required.
fn trial(name: &str, clip: &'static str, backend: &BackendAvailability) -> Trial {
    match backend {
        BackendAvailability::Here(backend) => {
            let backend = Arc::clone(backend);
            wavemill_tests::real(name, move |data| {
                Clip::read(&data.join("librosa_ref"), clip)?.check(&*backend)
            })
        }
        BackendAvailability::Absent => {
            Trial::test(name, || Err("no GPU can be used".into())).with_ignored_flag(true)
        }
        BackendAvailability::Required(why) => {
            let why = why.clone();
            Trial::test(name, move || Err(why.into()))
        }
    }
}

/// The result of opening a backend for the tests.
enum BackendAvailability {
    Here(Arc<dyn Backend>),
    /// The backend cannot be used, and is not required: its tests are ignored.
    Absent,
    /// The backend cannot be used, but is required: its tests fail with this reason.
    Required(String),
}

/// Returns all available backends with their names, and CUDA in any case.
fn backends() -> Vec<(String, BackendAvailability)> {
    let mut found = Vec::new();
    for level in [Level::Scalar, Level::X86_64V3]
        .into_iter()
        .filter(|level| level.is_available())
    {
        found.push((level.to_string(), opened(BackendChoice::Cpu, level)));
    }

    let checked = CheckedDevices::from_environment().unwrap_or_else(|error| panic!("{error}"));
    if checked.emulated {
        found.push((
            "emulated".to_owned(),
            opened(BackendChoice::Emulated, Level::detect()),
        ));
    }
    let cuda = match checked.cuda() {
        Ok(Some(cuda)) => BackendAvailability::Here(Arc::new(cuda)),
        Ok(None) => BackendAvailability::Absent,
        Err(error) => BackendAvailability::Required(error.to_string()),
    };
    found.push(("cuda".to_owned(), cuda));
    found
}

/// Opens a backend that is available on every machine.
fn opened(choice: BackendChoice, level: Level) -> BackendAvailability {
    choice.open(&[], level, None).map_or_else(
        |error| BackendAvailability::Required(error.to_string()),
        |opened| BackendAvailability::Here(opened.backend),
    )
}

fn a_gpu_that_refuses_fails_and_never_passes() -> Result<(), Failed> {
    let refusing = Machine::new("librosa").with("FAKE_INIT", "999");
    let arguments = ["--exact", "librosa::fma000002::cuda"];

    let asked = refusing.start(&arguments, &[]);
    let said = String::from_utf8_lossy(&asked.stdout).into_owned();
    if !asked.status.success() || !said.contains("0 passed; 0 failed; 1 ignored") {
        return Err(format!("not ignored: {said}").into());
    }

    let required = refusing.start(
        &arguments,
        &[
            ("WAVEMILL_REQUIRE_CUDA", "1"),
            ("WAVEMILL_PARITY_DEVICES", "cuda"),
        ],
    );
    let said = String::from_utf8_lossy(&required.stdout).into_owned();
    if required.status.success() || !said.contains("CUDA_ERROR_UNKNOWN") {
        return Err(format!("not failed: {said}").into());
    }
    Ok(())
}

/// A clip's PCM and the arrays that librosa computed from it, as the reference.
struct Clip {
    folder: std::path::PathBuf,
    pcm: Vec<f32>,
    excerpt: std::ops::Range<usize>,
    arrays: serde_json::Map<String, Value>,
}

/// The allowed difference between an array and its reference.
#[derive(Clone, Copy)]
enum Bound {
    /// The allowed absolute difference.
    Absolute(f64),
    /// The allowed relative difference of values above a fraction of the largest.
    Relative(f64, f64),
    /// The allowed difference as a fraction of the largest value.
    OfMax(f64),
}

impl Clip {
    fn read(root: &Path, name: &str) -> Result<Self, Failed> {
        let manifest: Value = serde_json::from_slice(&std::fs::read(root.join("manifest.json"))?)?;
        let clip = &manifest[name];
        let [from, to] = [0, 1].map(|i| clip["excerpt"][i].as_u64().ok_or("excerpt"));

        let arrays = clip["arrays"].as_object().ok_or("arrays")?.clone();
        let folder = root.join(name);
        let pcm = read_wav(&folder.join("input_22k_mono.wav"))?;

        Ok(Self {
            excerpt: from? as usize..to? as usize,
            pcm,
            arrays,
            folder,
        })
    }

    /// Checks every array except those in [`MISSING`]. Devices skip the operations that only the CPU computes.
    fn check(&self, backend: &dyn Backend) -> Result<(), Failed> {
        let n_arrays = self.arrays.len();
        if n_arrays != ARRAYS {
            return Err(format!("{n_arrays} arrays, expected {ARRAYS}").into());
        }

        for (name, entry) in &self.arrays {
            let Some((args, bound)) = wanted(name, &entry["kwargs"])? else {
                continue;
            };
            if args.cpu_only_op().is_none() || backend.kind() == "cpu" {
                self.check_one(name, &args, bound, backend)?;
            }
        }
        Ok(())
    }

    fn check_one(
        &self,
        name: &str,
        args: &FeatureArgs,
        bound: Bound,
        backend: &dyn Backend,
    ) -> Result<(), Failed> {
        let (shape, mut want) = read_npy(&self.folder.join(name).with_extension("npy"))?;
        let pcm = if name.starts_with("full_") {
            &self.pcm[..]
        } else {
            &self.pcm[self.excerpt.clone()]
        };

        let values = values(args, pcm, backend)?;
        let n_rows = args.n_bands();
        let n_frames = args.n_frames(pcm.len());
        // The reference contains 24 frames of a spectrum, and deltas without the coefficients that they were computed
        // from.
        let first_row = n_rows - shape[0];
        let mut got: Vec<f32> = values
            .chunks(n_frames)
            .skip(first_row)
            .flat_map(|row| &row[..shape[1]])
            .copied()
            .collect();
        if args.chroma_cq().is_some() {
            let silent = near_silence(pcm, backend)?;
            for values in [&mut got, &mut want] {
                let frames = values.iter_mut().zip(silent.iter().cycle());
                frames.for_each(|(value, silent)| *value *= f32::from(u8::from(!silent)));
            }
        }

        let worst = compare(&got, &want, bound)
            .map_err(|error| format!("{name} on {}: {error}", backend.kind()))?;
        if std::env::var_os("WAVEMILL_SHOW_PARITY").is_some() {
            eprintln!("{worst:.1e} {name} {}", backend.kind());
        }
        Ok(())
    }
}

/// Computes the values of a feature.
fn values(args: &FeatureArgs, pcm: &[f32], backend: &dyn Backend) -> Result<Vec<f32>, Failed> {
    let args = FeatureArgs {
        dtype: Dtype::F32,
        ..args.clone()
    };
    let whole = 0..pcm.len();
    let clip = Sound {
        samples: Samples::F32(pcm),
        channels: 1,
        sample_rate_hz: args.sample_rate_hz,
        rows: std::slice::from_ref(&whole),
    };

    let mut rows = backend.plan(0, std::slice::from_ref(&args))?.run(&[clip])?;
    let bytes = rows.remove(0)?.tensors.remove(0);
    let (words, _) = bytes.as_chunks();
    Ok(words.iter().map(|x| f32::from_le_bytes(*x)).collect())
}

/// Returns the frames of a clip near which the constant-Q transform is digital silence.
fn near_silence(pcm: &[f32], backend: &dyn Backend) -> Result<Vec<bool>, Failed> {
    let cqt = options!(op: Op::Cqt);
    let args = cqt.resolve(&[], 22_050)?;
    let magnitudes = values(&args, pcm, backend)?;
    let n_frames = args.n_frames(pcm.len());
    let largest = magnitudes.iter().copied().fold(0.0, f32::max);
    let is_loud = |frame: usize| {
        let mut bins = magnitudes.iter().skip(frame).step_by(n_frames);
        bins.any(|x| *x > CHROMA_CQ_FROM * largest)
    };
    let loud: Vec<bool> = (0..n_frames).map(is_loud).collect();
    let is_near = |frame: usize| {
        let around = frame.saturating_sub(CENS_REACH)..(frame + CENS_REACH + 1).min(n_frames);
        !loud[around].iter().all(|loud| *loud)
    };
    Ok((0..n_frames).map(is_near).collect())
}

/// Returns the arguments and the bound for a reference array, or `None` if it is one of [`MISSING`].
fn wanted(name: &str, kwargs: &Value) -> Result<Option<(FeatureArgs, Bound)>, Failed> {
    fn db(reference: DbRef, top_db: Option<f64>) -> Option<DbSpec> {
        Some(DbSpec {
            reference: DbRefSpec::from(reference),
            amin: 1e-10,
            top_db,
        })
    }

    let none = FeatureSpec::default();
    let shape = Bound::Relative(SHAPE_REL_MAX, SHAPE_FROM);
    let (decibels, coefficients) = (Bound::Absolute(DB_MAX), Bound::Absolute(MFCC_MAX));
    let (op, bound, overrides) = match name {
        "full_mel_default_db_refmax_top80" | "db_refmax_top80" => {
            (Op::Mel, decibels, options!(db: db(DbRef::Max, Some(80.0))))
        }
        "db_ref1_topnone" => (Op::Mel, decibels, options!(db: db(DbRef::Power(1.0), None))),
        "db_ref1_top80" => (
            Op::Mel,
            decibels,
            options!(db: db(DbRef::Power(1.0), Some(80.0))),
        ),
        "ampdb_power1_refmax_top80" => (
            Op::Mel,
            decibels,
            options!(db: db(DbRef::Max, Some(80.0)), power: 1.0),
        ),
        "stft_abs_first24" => (Op::Stft, Bound::OfMax(STFT_OF_MAX), none),
        "stft_abs_first24_reflect" => (
            Op::Stft,
            Bound::OfMax(STFT_OF_MAX),
            options!(pad_mode: Word::from("reflect")),
        ),
        "full_mfcc20" | "mfcc20" => (Op::Mfcc, coefficients, none),
        "mfcc13_lifter22" => (Op::Mfcc, coefficients, options!(n_mfcc: 13, lifter: 22.0)),
        "mfcc20_htk_reflect" => (
            Op::Mfcc,
            coefficients,
            options!(htk: true, pad_mode: Word::from("reflect")),
        ),
        "mfcc20_delta" => (Op::Mfcc, coefficients, options!(delta: 1)),
        "mfcc20_delta2" => (Op::Mfcc, coefficients, options!(delta: 2)),
        "spectral_centroid" => (Op::SpectralCentroid, shape, none),
        "spectral_bandwidth" => (Op::SpectralBandwidth, shape, none),
        "spectral_flatness" => (
            Op::SpectralFlatness,
            Bound::Relative(FLATNESS_REL_MAX, SHAPE_FROM),
            none,
        ),
        "spectral_contrast" => (Op::SpectralContrast, Bound::Absolute(CONTRAST_DB_MAX), none),
        "spectral_rolloff" => (Op::SpectralRolloff, Bound::Absolute(BIN_HZ), none),
        "spectral_rolloff_95" => (
            Op::SpectralRolloff,
            Bound::Absolute(BIN_HZ),
            options!(roll_percent: 0.95),
        ),
        "rms" => (Op::Rms, shape, none),
        "rms_center_false" => (Op::Rms, shape, options!(center: false)),
        "onset_strength" => (Op::OnsetStrength, decibels, none),
        "chroma_cqt" => (Op::ChromaCqt, Bound::Absolute(CHROMA_CQ_MAX), none),
        "chroma_cens" => (Op::ChromaCens, Bound::Absolute(CENS_MAX), none),
        "tonnetz_default" => (Op::Tonnetz, Bound::Absolute(CHROMA_CQ_MAX), none),
        "chroma_stft_default" => (Op::ChromaStft, Bound::Absolute(CHROMA_MAX), none),
        "chroma_stft_tuning0" => (
            Op::ChromaStft,
            Bound::Absolute(CHROMA_MAX),
            options!(tuning: 0.0),
        ),
        "zcr" => (Op::ZeroCrossingRate, Bound::Absolute(1e-7), none),
        _ if name.starts_with("mel_") => {
            let overrides = mel_overrides(kwargs)?;
            let from = if overrides.power == Some(1.0) {
                MEL_MAGNITUDE_FROM
            } else {
                MEL_POWER_FROM
            };
            (Op::Mel, Bound::Relative(MEL_REL_MAX, from), overrides)
        }
        _ if MISSING.contains(&name) => return Ok(None),
        _ => return Err(format!("unknown array: {name}").into()),
    };

    let spec = FeatureSpec { op, ..overrides };
    Ok(Some((spec.resolve(&[], 22_050)?, bound)))
}

/// Converts librosa's keyword arguments to overrides with the same names.
fn mel_overrides(kwargs: &Value) -> Result<FeatureSpec, Failed> {
    let counts = ["n_fft", "hop_length", "win_length", "n_mels"]
        .map(|key| kwargs[key].as_u64().map(|n| n as usize));
    let [n_fft, hop_length, win_length, n_mels] = counts;
    let known = [
        "n_fft",
        "hop_length",
        "win_length",
        "window",
        "center",
        "pad_mode",
        "power",
        "n_mels",
        "fmin",
        "fmax",
        "htk",
        "norm",
    ];

    let given = kwargs.as_object().ok_or("kwargs")?;
    if let Some(key) = given.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(format!("the reference uses an option that is unknown here: {key}").into());
    }

    Ok(FeatureSpec {
        n_fft,
        hop_length,
        win_length,
        window: kwargs["window"].as_str().map(Word::from),
        center: kwargs["center"].as_bool(),
        pad_mode: kwargs["pad_mode"].as_str().map(Word::from),
        power: kwargs["power"].as_f64(),
        n_mels,
        fmin: kwargs["fmin"].as_f64(),
        fmax: kwargs["fmax"].as_f64(),
        htk: kwargs["htk"].as_bool(),
        norm: given
            .get("norm")
            .map(|norm| norm.as_str().unwrap_or("none").into()),
        ..FeatureSpec::default()
    })
}

/// Returns the largest error of an array, in the unit of its bound.
fn compare(got: &[f32], want: &[f32], bound: Bound) -> Result<f64, String> {
    if got.len() != want.len() {
        return Err(format!("{} values, librosa has {}", got.len(), want.len()));
    }

    let largest = want
        .iter()
        .fold(0.0f64, |largest, x| largest.max(f64::from(x.abs())));

    let (mut index, mut worst) = (0, 0.0);
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let (got, want) = (f64::from(*got), f64::from(*want));
        let error = match bound {
            Bound::Absolute(_) => (got - want).abs(),
            Bound::OfMax(_) => (got - want).abs() / largest,
            Bound::Relative(_, from) if want < from * largest => 0.0,
            Bound::Relative(..) => (got - want).abs() / want,
        };
        if error > worst || error.is_nan() {
            (index, worst) = (i, error);
        }
    }

    let (Bound::Absolute(most) | Bound::Relative(most, _) | Bound::OfMax(most)) = bound;
    if worst <= most {
        return Ok(worst);
    }
    Err(format!(
        "value {index} is {}, librosa has {}: off by {worst:.3e}, allowed {most:.0e}",
        got[index], want[index]
    ))
}

/// Reads the samples of a 16-bit mono WAV with a plain 44-byte header, the format of the reference.
fn read_wav(path: &Path) -> Result<Vec<f32>, Failed> {
    let bytes = std::fs::read(path)?;
    let at = bytes
        .windows(4)
        .position(|tag| tag == b"data")
        .ok_or("no data chunk")?
        + 8;

    Ok(bytes[at..]
        .chunks_exact(2)
        .map(|s| f32::from(i16::from_le_bytes([s[0], s[1]])) / 32_768.0)
        .collect())
}

/// Reads shape and values of a two-dimensional little-endian f32 `.npy` in C order.
fn read_npy(path: &Path) -> Result<([usize; 2], Vec<f32>), Failed> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let header_len = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..10 + header_len])?;
    if !header.contains("'<f4'") || !header.contains("False") {
        return Err(format!(
            "{}: not little-endian f32 in C order: {header}",
            path.display()
        )
        .into());
    }

    let shape = header.split(['(', ')']).nth(1).ok_or("no shape")?;
    let dims: Vec<usize> = shape
        .split(',')
        .filter_map(|dim| dim.trim().parse().ok())
        .collect();
    let values = bytes[10 + header_len..]
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));

    Ok((
        dims.try_into().map_err(|_| "not two-dimensional")?,
        values.collect(),
    ))
}
