//! f32 values to stored bytes, little-endian. What a type cannot hold is an error: no value is ever clipped.

mod cpu;
mod device;
#[cfg(test)]
mod device_tests;

pub use cpu::pack_into;
pub(crate) use device::{PackDevice, PackInput};
