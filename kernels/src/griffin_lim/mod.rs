//! Mel bands back to sound, approximately, as `librosa.feature.inverse.mel_to_audio` (0.11) does it.
//!
//! Three things were lost when the bands were made, and none of them comes back. The logarithm cut off what was too
//! quiet (`amin`, `top_db`, a floor). The bands summed bins, and only their sums are left: a spectrum that has these
//! sums is found, out of many that have them. The phase was dropped: one is invented that suits neighbouring frames. D.
//! Griffin and J. Lim, Signal estimation from modified short-time Fourier transform, 1984; with the momentum of N.
//! Perraudin, P. Balazs and P. Søndergaard, A fast Griffin-Lim algorithm, 2013.
//!
//! No function of the C library is used, so at the scalar level equal bands give equal bits on every machine. On the
//! CPU only.

mod args;
mod bands;
mod cpu;
mod phases;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

pub use args::GriffinLimArgs;
pub use cpu::GriffinLimPlan;
