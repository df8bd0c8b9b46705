//! Compares the phase vocoder with librosa's on the short-time Fourier transforms of real clips;
//! `scripts/peers/stretch.py` writes both. Runs only with `WAVEMILL_PEERS=1`, using the Python of `WAVEMILL_PYTHON`;
//! ignored otherwise. `WAVEMILL_SHOW_PARITY=1` prints the largest errors.

#![allow(clippy::unwrap_used)] // test code

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use wavemill_kernels::Level;
use wavemill_kernels::stretch::{Complex32, N_BINS, Spectra, StretchArgs, Vocoder};
use wavemill_tests::{Arguments, Failed};

/// Allowed error of a magnitude relative to itself: both magnitudes are rounded to f32 twice, which is 2e-7.
const MAGNITUDE_REL_MAX: f64 = 1e-6;
/// Allowed error of the first column's phases in radians: an angle in f32, with its sine and cosine.
const PHASE_MAX: f64 = 1e-5;
/// Fraction of the second column's phases that may differ from librosa's. Phases reach 1,608 there, where f32 has steps
/// of 1.2e-4: if the last bit of an angle differs, one in a few hundred phases is rounded to the other side.
const SECOND_OFF_MAX: f64 = 0.01;

const CLIPS: [&str; 6] = [
    "fma000002",
    "fma000256",
    "like201003",
    "like211500",
    "hungarian",
    "like299998",
];
const RATES: [f64; 2] = [0.85, 1.15];

fn main() {
    let args = Arguments::from_args();
    let asked = std::env::var("WAVEMILL_PEERS").is_ok_and(|value| value == "1");
    let folder = std::env::temp_dir().join(format!("wavemill-stretch-{}", std::process::id()));
    let librosa = Arc::new(Librosa {
        folder: folder.clone(),
        asked: OnceLock::new(),
    });

    let mut tests = Vec::new();
    for clip in CLIPS {
        for rate in RATES {
            let librosa = Arc::clone(&librosa);
            let trial = wavemill_tests::real(&format!("stretch::{clip}::{rate}"), move |data| {
                vocoder_is_librosas(&librosa, data, clip, rate)
            });
            tests.push(if asked {
                trial
            } else {
                trial.with_ignored_flag(true)
            });
        }
    }

    let done = wavemill_tests::run(&args, tests);
    // The folder does not exist if no transforms were requested, so ignore an error.
    let _ = std::fs::remove_dir_all(folder);
    done.exit();
}

/// librosa's transforms of all clips, computed by one Python process, because it takes seconds to start.
struct Librosa {
    folder: PathBuf,
    asked: OnceLock<Result<(), String>>,
}

impl Librosa {
    /// Reads a transform of little-endian complex64 values, column by column.
    fn columns(&self, data: &Path, name: &str) -> Result<Vec<Complex32>, Failed> {
        let asked = self
            .asked
            .get_or_init(|| self.ask(data).map_err(|error| format!("{error:?}")));
        asked.clone()?;

        let bytes = std::fs::read(self.folder.join(format!("{name}.c64")))?;
        let mut columns = Vec::new();
        for bin in bytes.chunks_exact(8) {
            let [re, im] =
                [&bin[..4], &bin[4..]].map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
            columns.push(Complex32::new(re, im));
        }
        Ok(columns)
    }

    fn ask(&self, data: &Path) -> Result<(), Failed> {
        std::fs::create_dir_all(&self.folder)?;
        let python = std::env::var_os("WAVEMILL_PYTHON")
            .ok_or("WAVEMILL_PYTHON is not set: run scripts/peers/setup.sh")?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/peers/stretch.py");
        let clips = CLIPS.map(|clip| {
            data.join("librosa_ref")
                .join(clip)
                .join("input_22k_mono.wav")
        });

        let asked = Command::new(python)
            .arg(script)
            .arg("--columns")
            .arg(&self.folder)
            .args(clips)
            .output()?;
        if asked.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&asked.stderr).into_owned().into())
    }
}

/// Provides the columns that librosa computed, and collects the vocoder's output columns.
struct GivenColumns {
    columns: Vec<Complex32>,
    made: Vec<Complex32>,
}

impl Spectra for GivenColumns {
    fn read(&mut self, column: usize, spectrum: &mut [Complex32]) {
        spectrum.copy_from_slice(&self.columns[column * N_BINS..][..N_BINS]);
    }

    fn write(&mut self, _column: usize, spectrum: &[Complex32]) {
        self.made.extend_from_slice(spectrum);
    }
}

fn vocoder_is_librosas(
    librosa: &Librosa,
    data: &Path,
    clip: &str,
    rate: f64,
) -> Result<(), Failed> {
    let columns = librosa.columns(data, clip)?;
    let want = librosa.columns(data, &format!("{clip}-{rate}"))?;

    let args = StretchArgs { rate };
    let n_columns = columns.len() / N_BINS;
    let n_steps = args.n_steps(n_columns);
    for level in [Level::Scalar, Level::X86_64V3] {
        if !level.is_available() {
            continue;
        }
        let mut given = GivenColumns {
            columns: columns.clone(),
            made: Vec::new(),
        };
        Vocoder::new(level)?.run(args, n_columns, n_steps, &mut given);
        compare(&format!("{clip} {rate} {level}"), &given.made, &want)?;
    }
    Ok(())
}

fn compare(name: &str, got: &[Complex32], want: &[Complex32]) -> Result<(), Failed> {
    if got.len() != want.len() {
        let columns = [got.len() / N_BINS, want.len() / N_BINS];
        return Err(format!("{name}: {columns:?} columns").into());
    }

    let mut worst_magnitude = 0.0_f64;
    let mut worst_phase = 0.0_f64;
    let mut n_second = 0_u32;
    let mut n_off = 0_u32;
    let mut n_equal = 0;

    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        n_equal += usize::from(got == want);
        let magnitude = magnitude(*want);
        // Skip zeros, whose angle is undefined.
        if magnitude < 1e-30 {
            continue;
        }

        let error = (self::magnitude(*got) - magnitude).abs() / magnitude;
        worst_magnitude = worst_magnitude.max(error);

        let turned = (angle(*got) - angle(*want)).abs();
        let phase = turned.min(std::f64::consts::TAU - turned);
        match i / N_BINS {
            0 => worst_phase = worst_phase.max(phase),
            1 => {
                n_second += 1;
                n_off += u32::from(phase > PHASE_MAX);
            }
            _ => {}
        }
    }

    let off = f64::from(n_off) / f64::from(n_second.max(1));
    if std::env::var_os("WAVEMILL_SHOW_PARITY").is_some() {
        let equal = n_equal as f64 / got.len() as f64;
        println!(
            "{name}: magnitudes {worst_magnitude:.1e}, first phases {worst_phase:.1e}, second phases off {off:.4}, equal bins {equal:.4}"
        );
    }
    if worst_magnitude > MAGNITUDE_REL_MAX || worst_phase > PHASE_MAX || off > SECOND_OFF_MAX {
        return Err(format!(
            "{name}: magnitudes {worst_magnitude:e} (at most {MAGNITUDE_REL_MAX:e}), \
             first phases {worst_phase:e} (at most {PHASE_MAX:e}), \
             second phases off {off} (at most {SECOND_OFF_MAX})"
        )
        .into());
    }
    Ok(())
}

fn magnitude(z: Complex32) -> f64 {
    f64::from(z.re).hypot(f64::from(z.im))
}

fn angle(z: Complex32) -> f64 {
    f64::from(z.im).atan2(f64::from(z.re))
}
