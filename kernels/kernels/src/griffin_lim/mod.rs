//! Approximate reconstruction of sound from mel bands, like `librosa.feature.inverse.mel_to_audio` (0.11).
//!
//! Computing the bands loses information in three steps, none of which can be inverted exactly. The logarithm cuts off
//! quiet values (`amin`, `top_db`, a floor). The bands are sums of bins: a spectrum with these sums is computed, one of
//! many possible. The phase is dropped: a phase is estimated that is consistent with neighbouring frames. D. Griffin
//! and J. Lim, Signal estimation from modified short-time Fourier transform, 1984; with the momentum of N. Perraudin,
//! P. Balazs and P. Søndergaard, A fast Griffin-Lim algorithm, 2013.
//!
//! No function of the C library is used, so at the scalar level equal bands produce equal bits on every machine. Only
//! the CPU is supported.

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
