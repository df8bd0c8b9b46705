//! Mel-frequency cepstral coefficients: the discrete cosine transform of log mel bands, liftered.

mod cpu;
mod device;
mod matrix;
#[cfg(test)]
pub(crate) mod reference;

pub(crate) use cpu::MfccPlan;
pub(crate) use device::MfccDevice;
