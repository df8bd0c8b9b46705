//! Scaling of one clip's (or segment's) feature to a known range or spread.

mod args;
mod cpu;
mod device;
#[cfg(test)]
pub(crate) mod reference;

pub use args::Normalize;
pub(crate) use cpu::{extremes, normalize};
pub(crate) use device::{NormalizeDevice, Scale};
