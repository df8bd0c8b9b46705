//! Time stretch: changes the tempo of a track without changing its pitch, like `librosa.effects.time_stretch` (0.11).
//!
//! The steps are a short-time Fourier transform, a phase vocoder that reads its columns at another rate, and the
//! inverse transform. librosa sums the vocoder's phase in single precision. This sum is ill-conditioned: in double
//! precision it produces another waveform. Therefore the precision of each step is the same as in librosa and affects
//! the result.
//!
//! Of the spectra, only the two columns of the current step are stored, so memory grows only with the samples. Only the
//! CPU is supported.

mod angles;
mod args;
mod cpu;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
mod transform;
mod vocoder;

pub use args::{HOP_LENGTH, N_BINS, N_FFT};
pub use cpu::StretchPlan;
pub use vocoder::{Spectra, Vocoder};
pub use wavemill_fft::num_complex::Complex32;
pub use wavemill_options::{STRETCH_MAX, STRETCH_MIN, STRETCHES_MAX, StretchArgs};
