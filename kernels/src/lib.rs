//! Signal to features: STFT, mel bands, decibels, MFCC, deltas, what is made of those, and their packing into bytes.
//!
//! It exists so that the numbers users know from librosa, torchaudio, Kaldi and Whisper cost a few per cent of what
//! they cost there. One folder an operation: the fast path (`cpu.rs`), the host side of its device code (`device.rs`)
//! and a naive f64 reference (`reference.rs`). [`FeatureArgs`], of the crate `wavemill-options`, says what is wanted; a
//! [`Plan`] made once by a [`Backend`] computes it.
//!
//! It knows no files, no Arrow and no recipes.

mod backend;
#[cfg(feature = "emulated")]
mod checks;
mod clip;
mod db;
mod delta;
mod device;
mod error;
mod glibc;
pub mod griffin_lim;
mod lane;
mod level;
mod mel;
mod mfcc;
pub mod mp3;
mod normalize;
mod pack;
#[cfg(test)]
mod parity;
mod picture;
pub mod resample;
mod samples;
mod statistics;
mod stft;
pub mod stretch;

#[cfg(feature = "emulated")]
pub use backend::Emulation;
pub use backend::{
    Backend, BackendChoice, ChosenBackend, Clip, Cpu, CpuPlan, Cuda, Plan, ResidentBatch, Row,
    Samples, Work,
};
pub use backend::{WARM_UP, median, median_s, warm_up};
#[cfg(feature = "emulated")]
pub use checks::CheckedDevices;
pub use device::{CudaReport, FoundDevice, FoundLibrary};
pub use error::KernelError;
pub use glibc::{glibc_version, return_large_blocks};
pub use level::Level;
pub use pack::pack_into;
pub use samples::SampleBuffer;
// What a feature is, for whoever asks for one.
pub use wavemill_options::{
    DbArgs, DbRef, Derived, DimOrder, Dtype, Fault, FeatureArgs, Framing, LogArgs, MelArgs,
    MfccArgs, Norm, Normalize, Op, Overrides, Packing, PadMode, Preset, Ramp, StftArgs, Window,
};
