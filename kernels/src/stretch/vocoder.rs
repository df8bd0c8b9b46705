//! The phase vocoder of librosa 0.11, with the precision of each of its steps.
//!
//! Column t of the result lies at `t · rate` of the original. Its magnitudes are interpolated between the two columns
//! around that place, and its phases go on by what the angle turns from one of them to the other. D. P. W. Ellis, A phase
//! vocoder in Matlab, 2002.

use std::f64::consts::PI;

use wavemill_fft::num_complex::Complex32;

use super::angles::{angle, nearest, sin_cos};
use super::args::{HOP_LENGTH, N_BINS, N_FFT, StretchArgs};
use crate::error::KernelError;
use crate::level::{Lanes, Level};

/// A whole turn.
const TURN: f64 = 2.0 * PI;

/// Where the vocoder takes columns from, and where it puts them.
pub trait Spectra {
    /// Writes column `column` of the original, [`N_BINS`] bins.
    fn read(&mut self, column: usize, spectrum: &mut [Complex32]);

    /// Takes column `column` of the result.
    fn write(&mut self, column: usize, spectrum: &[Complex32]);
}

/// Tables and buffers.
pub struct Vocoder {
    lanes: Lanes,
    /// What the phase of each bin's own frequency goes on by from frame to frame.
    advances: Vec<f64>,
    /// Summed in f32, as librosa does: f64 would give another waveform.
    phases: Vec<f32>,
    /// Column c lies at c mod 2, so that two neighbours are both there.
    columns: [Column; 2],
    /// A column before it is taken apart, and one that is put together.
    spectrum: Vec<Complex32>,
}

/// A column by magnitude and angle.
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
    /// Plans; `run` allocates nothing.
    ///
    /// # Errors
    /// [`KernelError::Level`] where this machine lacks `level`.
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

    /// Makes the first `n_steps` columns of the result of a track of `n_columns` columns.
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

    /// Takes a column of the original apart, unless it is there already. Behind the last one all are zero.
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

/// `hop_length · 2π k / n_fft`, with the roundings of `librosa.fft_frequencies(sr=2 * np.pi)`.
fn advances() -> Vec<f64> {
    let spacing = 1.0 / TURN;
    let step = 1.0 / (N_FFT as f64 * spacing);
    (0..N_BINS)
        .map(|k| HOP_LENGTH as f64 * (k as f64 * step))
        .collect()
}

/// Magnitudes and angles of a column, each rounded to f32.
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

/// What one step is made of.
struct Bins<'a> {
    before: &'a Column,
    behind: &'a Column,
    /// How far the step lies from the one to the other, 0 to 1.
    part: f64,
    advances: &'a [f64],
}

impl Bins<'_> {
    /// Writes a column of the result, and moves the phases on to the next one.
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

            // The difference of the angles is f32 there, and all that follows f64, up to the sum.
            let turned = f64::from(*angles.1 - *angles.0) - advance;
            let wrapped = turned - TURN * nearest(turned / TURN);
            *phase = (f64::from(*phase) + (advance + wrapped)) as f32;
        }
    }
}
