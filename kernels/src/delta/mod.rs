//! Deltas: how a feature changes from frame to frame, by a polynomial fitted to nine of them.

mod cpu;
pub(crate) mod device;
#[cfg(test)]
pub(crate) mod reference;

pub(crate) use cpu::append;
use cpu::taps;

pub(crate) use wavemill_options::DELTA_WIDTH as WIDTH;
