//! Converts f32 values to stored bytes, little-endian. Values that the type cannot represent are errors and are never
//! clipped, except for samples that are stored as 16-bit integers.

mod cpu;
mod device;
#[cfg(test)]
mod device_tests;

pub use cpu::{pack_into, pack_s16};
pub(crate) use device::{PackDevice, PackInput};
