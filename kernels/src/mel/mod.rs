//! Mel bands: sums of a spectrum under overlapping triangles that widen as hearing's resolution falls.

mod args;
mod cpu;
mod device;
#[cfg(test)]
pub(crate) mod reference;

pub use args::{MelArgs, Norm, Ramp};
pub(crate) use cpu::MelPlan;
pub(crate) use device::BandTables;
