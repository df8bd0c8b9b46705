//! The phase vocoder of librosa 0.11, with the precision of each of its steps.
//!
//! Column t of the result corresponds to position `t · rate` of the original. Its magnitudes are interpolated between
//! the two neighbouring columns, and its phases advance by the difference of the angles of these columns. D. P. W.
//! Ellis, A phase vocoder in Matlab, 2002.

use std::f64::consts::PI;

use wavemill_fft::num_complex::Complex32;
use wavemill_signal::{Lanes, Level};

use super::StretchArgs;
use super::angles::{angle, nearest, sin_cos};
use super::args::{HOP_LENGTH, N_BINS, N_FFT};
use crate::error::KernelError;

/// A full turn in radians.
const TURN: f64 = 2.0 * PI;

/// Source of the vocoder's input columns, and destination of its output columns.
pub trait Spectra {
    /// Writes column `column` of the original, [`N_BINS`] bins, to `spectrum`.
    fn read(&mut self, column: usize, spectrum: &mut [Complex32]);

    /// Receives column `column` of the result.
    fn write(&mut self, column: usize, spectrum: &[Complex32]);
}

/// Tables and buffers of the phase vocoder.
pub struct Vocoder {
    lanes: Lanes,
    /// Phase advance per hop at each bin's centre frequency, in radians.
    advances: Vec<f64>,
    /// Phases of the result, summed in f32 as in librosa: f64 would produce another waveform.
    phases: Vec<f32>,
    /// The two current columns of the original: column c is at index c mod 2.
    columns: [Column; 2],
    /// A column before its conversion to polar form, or a column of the result.
    spectrum: Vec<Complex32>,
}

/// A column of the original as magnitudes and angles.
struct Column {
    number: Option<usize>,
    magnitudes: Vec<f32>,
    angles: Vec<f32>,
}

impl Column {
    fn new() -> Self {
        Self {
            number: None,
            magnitudes: vec![0.0; N_BINS],
            angles: vec![0.0; N_BINS],
        }
    }
}

impl Vocoder {
    /// Creates tables and buffers; `run` allocates no memory.
    ///
    /// # Errors
    /// [`KernelError::Level`] if this machine does not support `level`.
    pub fn new(level: Level) -> Result<Self, KernelError> {
        let lanes = Lanes::new(level).ok_or(KernelError::Level { level })?;
        Ok(Self {
            lanes,
            advances: advances(),
            phases: vec![0.0; N_BINS],
            columns: [Column::new(), Column::new()],
            spectrum: vec![Complex32::default(); N_BINS],
        })
    }

    /// Computes the first `n_steps` columns of the result of a track of `n_columns` columns.
    pub fn run(
        &mut self,
        args: StretchArgs,
        n_columns: usize,
        n_steps: usize,
        spectra: &mut impl Spectra,
    ) {
        for column in &mut self.columns {
            column.number = None;
        }

        for step in 0..n_steps {
            let place = step as f64 * args.rate;
            let number = place as usize;
            let part = place - number as f64;
            self.load(number, n_columns, spectra);
            self.load(number + 1, n_columns, spectra);

            let [even, odd] = &self.columns;
            let (before, behind) = if number.is_multiple_of(2) {
                (even, odd)
            } else {
                (odd, even)
            };
            if step == 0 {
                self.phases.copy_from_slice(&before.angles);
            }

            let bins = Bins {
                before,
                behind,
                part,
                advances: &self.advances,
            };
            let phases = &mut self.phases;
            let spectrum = &mut self.spectrum;
            self.lanes.run(
                #[inline(always)]
                || bins.step(phases, spectrum),
            );
            spectra.write(step, &self.spectrum);
        }
    }

    /// Converts a column of the original to polar form, unless it is loaded already. After the last column all are
    /// zero.
    fn load(&mut self, number: usize, n_columns: usize, spectra: &mut impl Spectra) {
        let column = &mut self.columns[number % 2];
        if column.number == Some(number) {
            return;
        }

        column.number = Some(number);
        if number >= n_columns {
            column.magnitudes.fill(0.0);
            column.angles.fill(0.0);
            return;
        }
        spectra.read(number, &mut self.spectrum);
        let spectrum = &self.spectrum;
        self.lanes.run(
            #[inline(always)]
            || take_apart(spectrum, &mut column.magnitudes, &mut column.angles),
        );
    }
}

/// Returns `hop_length · 2π k / n_fft`, with the rounding of `librosa.fft_frequencies(sr=2 * np.pi)`.
fn advances() -> Vec<f64> {
    let spacing = 1.0 / TURN;
    let step = 1.0 / (N_FFT as f64 * spacing);
    (0..N_BINS)
        .map(|k| HOP_LENGTH as f64 * (k as f64 * step))
        .collect()
}

/// Computes magnitudes and angles of a column, each rounded to f32.
#[inline(always)]
fn take_apart(spectrum: &[Complex32], magnitudes: &mut [f32], angles: &mut [f32]) {
    let polar = magnitudes.iter_mut().zip(angles);
    for (bin, (magnitude, turned)) in spectrum.iter().zip(polar) {
        let re = f64::from(bin.re);
        let im = f64::from(bin.im);
        *magnitude = (re * re + im * im).sqrt() as f32;
        *turned = angle(re, im) as f32;
    }
}

/// Input of one step of the vocoder: two neighbouring columns.
struct Bins<'a> {
    before: &'a Column,
    behind: &'a Column,
    /// Position of the step between the two columns, from 0 to 1.
    part: f64,
    advances: &'a [f64],
}

impl Bins<'_> {
    /// Writes a column of the result, and advances the phases to the next one.
    #[inline(always)]
    fn step(&self, phases: &mut [f32], spectrum: &mut [Complex32]) {
        let magnitudes = self.before.magnitudes.iter().zip(&self.behind.magnitudes);
        let angles = self.before.angles.iter().zip(&self.behind.angles);
        let columns = magnitudes.zip(angles).zip(self.advances);
        let out = phases.iter_mut().zip(spectrum);
        for (((magnitudes, angles), advance), (phase, bin)) in columns.zip(out) {
            let near = f64::from(*magnitudes.0);
            let far = f64::from(*magnitudes.1);
            let magnitude = (1.0 - self.part) * near + self.part * far;
            // Sine and cosine are f32 in librosa.
            let (sin, cos) = sin_cos(f64::from(*phase));
            let re = f64::from(cos as f32) * magnitude;
            let im = f64::from(sin as f32) * magnitude;
            *bin = Complex32::new(re as f32, im as f32);

            // In librosa, the difference of the angles is f32, and all following values up to the sum are f64.
            let turned = f64::from(*angles.1 - *angles.0) - advance;
            let wrapped = turned - TURN * nearest(turned / TURN);
            *phase = (f64::from(*phase) + (advance + wrapped)) as f32;
        }
    }
}
