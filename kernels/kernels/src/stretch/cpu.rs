//! Stretches whole tracks.

use wavemill_fft::num_complex::Complex32;
use wavemill_signal::Level;

use super::StretchArgs;
use super::args::{HOP_LENGTH, N_FFT, n_columns, validate};
use super::transform::Transform;
use super::vocoder::{Spectra, Vocoder};
use crate::error::KernelError;

/// Tables and buffers of one thread, for all tempo factors. After planning, only the output buffer is allocated.
pub struct StretchPlan {
    transform: Transform,
    vocoder: Vocoder,
}

impl StretchPlan {
    /// Upper bound of the size of tables and buffers in bytes.
    pub const BYTES: usize = 1 << 19;

    /// Creates tables and buffers.
    ///
    /// # Errors
    /// [`KernelError::Level`] if this machine does not support `level`.
    pub fn new(level: Level) -> Result<Self, KernelError> {
        Ok(Self {
            transform: Transform::new(level)?,
            vocoder: Vocoder::new(level)?,
        })
    }

    /// Stretches `pcm` (mono) to [`StretchArgs::output_len`] samples, which replace the content of `out`.
    ///
    /// # Errors
    /// [`KernelError::Argument`] for a tempo factor out of range.
    pub fn run(
        &mut self,
        args: StretchArgs,
        pcm: &[f32],
        out: &mut Vec<f32>,
    ) -> Result<(), KernelError> {
        validate(args)?;
        let n_out = args.output_len(pcm.len());
        out.clear();
        out.resize(n_out, 0.0);
        // An input of one or two samples may have no output.
        if n_out == 0 {
            return Ok(());
        }

        let n_columns = n_columns(pcm.len());
        // Columns after this number would begin after the last output sample.
        let reached = (n_out + N_FFT).div_ceil(HOP_LENGTH);
        let n_steps = args.n_steps(n_columns).min(reached);

        let mut track = Track {
            transform: &mut self.transform,
            pcm,
            out,
        };
        self.vocoder.run(args, n_columns, n_steps, &mut track);
        self.transform.normalise(out, n_steps);
        Ok(())
    }
}

/// Input and output samples of a track, between which the vocoder converts columns.
struct Track<'a> {
    transform: &'a mut Transform,
    pcm: &'a [f32],
    out: &'a mut [f32],
}

impl Spectra for Track<'_> {
    fn read(&mut self, column: usize, spectrum: &mut [Complex32]) {
        self.transform.analyse(self.pcm, column, spectrum);
    }

    fn write(&mut self, column: usize, spectrum: &[Complex32]) {
        self.transform.synthesise(spectrum, column, self.out);
    }
}
