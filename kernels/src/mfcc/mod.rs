//! Mel-frequency cepstral coefficients: the discrete cosine transform of log mel bands, liftered.

mod args;
mod cpu;
mod device;
#[cfg(test)]
pub(crate) mod reference;

pub use args::MfccArgs;
pub(crate) use cpu::MfccPlan;
pub(crate) use device::MfccDevice;
