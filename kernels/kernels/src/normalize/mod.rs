//! Normalization of one clip's (or segment's) feature to a fixed range or spread.

mod cpu;
mod device;
#[cfg(test)]
pub(crate) mod reference;

pub(crate) use cpu::{Extremes, extremes, normalize, sum};
pub(crate) use device::{NormalizeDevice, Scale};
