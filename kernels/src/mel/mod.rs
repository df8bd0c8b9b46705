//! Mel bands: sums of a spectrum under overlapping triangles that widen as hearing's resolution falls.

mod cpu;
mod device;
#[cfg(test)]
pub(crate) mod reference;

pub(crate) use cpu::MelPlan;
pub(crate) use device::BandTables;
