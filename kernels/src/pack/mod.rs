//! f32 values to stored bytes, little-endian. What a type cannot hold is an error: no value is ever clipped.

mod args;
mod cpu;

pub use args::{Dtype, Packing};
pub use cpu::pack_into;
