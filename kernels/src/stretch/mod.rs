//! Time stretch: the same track, faster or slower, at the same pitch. As `librosa.effects.time_stretch` (0.11) does it.
//!
//! A short-time Fourier transform, a phase vocoder that walks through its columns at another pace, and the inverse
//! transform. librosa sums the vocoder's phase in single precision. That sum is ill-conditioned: a sum in double
//! precision gives another waveform. So the precision of each step is librosa's, and is part of the result.
//!
//! Nothing is held of the spectra but the two columns that a step lies between, so memory grows with the samples alone.
//! On the CPU only: no device has a kernel for it.

mod angles;
mod args;
mod cpu;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
mod transform;
mod vocoder;

pub use args::{HOP_LENGTH, N_BINS, N_FFT, StretchArgs};
pub use cpu::StretchPlan;
pub use vocoder::{Spectra, Vocoder};
pub use wavemill_fft::num_complex::Complex32;
pub use wavemill_options::{STRETCH_MAX, STRETCH_MIN, STRETCHES_MAX};
