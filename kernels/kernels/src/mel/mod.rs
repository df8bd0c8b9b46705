//! Mel bands: sums of a spectrum under overlapping triangles, which become wider as the resolution of hearing
//! decreases.

mod cpu;
mod device;
#[cfg(test)]
pub(crate) mod reference;

pub(crate) use cpu::MelPlan;
pub(crate) use device::BandTables;
