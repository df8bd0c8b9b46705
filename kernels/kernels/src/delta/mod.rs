//! Deltas: the change of a feature from frame to frame, from a polynomial fitted to nine frames.

mod cpu;
pub(crate) mod device;
#[cfg(test)]
pub(crate) mod reference;

pub(crate) use cpu::append;
use cpu::taps;

pub(crate) use wavemill_options::DELTA_WIDTH as WIDTH;
