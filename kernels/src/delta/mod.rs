//! Deltas: how a feature changes from frame to frame, by a polynomial fitted to nine of them.

mod cpu;
pub(crate) mod device;
#[cfg(test)]
pub(crate) mod reference;

pub(crate) use cpu::append;
use cpu::taps;

/// Frames under the fit; `librosa.feature.delta`'s default.
pub(crate) const WIDTH: usize = 9;
