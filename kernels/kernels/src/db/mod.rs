//! Logarithms of a spectrum: decibels as in librosa, the natural logarithm as in Kaldi, and Whisper's scaled log10.

mod cpu;
mod device;
#[cfg(test)]
pub(crate) mod reference;

pub(crate) use cpu::LogPlan;
use cpu::WHISPER_DB;
pub(crate) use device::LogParams;
