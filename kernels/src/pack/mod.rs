//! Converts f32 values to stored bytes, little-endian. Values that the type cannot represent are errors and are never
//! clipped.

mod cpu;
mod device;
#[cfg(test)]
mod device_tests;

pub use cpu::pack_into;
pub(crate) use device::{PackDevice, PackInput};
