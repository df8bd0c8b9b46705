//! Samples, before they are features: the buffers that decoders write and kernels read, and the conversion of sample
//! rates.
//!
//! Code of this crate, of the decoders and of the kernels is compiled for several instruction set levels, which are
//! defined here. The crate does not know formats, features or devices.

mod lane;
mod level;
pub mod resample;
mod samples;

pub use lane::{LANES, Lane};
pub use level::{Lanes, Level};
pub use samples::{AllocateLocked, LockedMemory, SampleBuffer};
