//! Signal to features: STFT, mel bands, decibels, MFCC, deltas and their packing into bytes.
//!
//! It exists so that the numbers users know from librosa, torchaudio, Kaldi and Whisper cost a few per cent of what
//! they cost there. One folder an operation: its arguments (`args.rs`), the fast path (`cpu.rs`) and a naive f64
//! reference (`reference.rs`). [`FeatureArgs`] says what is wanted, a [`Plan`] made once by a [`Backend`] computes it.
//!
//! It knows no files, no Arrow and no recipes.

mod args;
mod backend;
#[cfg(feature = "emulated")]
mod checks;
mod db;
mod delta;
mod device;
mod error;
mod level;
mod malloc;
mod mel;
mod mfcc;
mod normalize;
mod pack;
#[cfg(test)]
mod parity;
mod preset;
pub mod resample;
mod samples;
mod stft;

pub use args::{DimOrder, FeatureArgs, Op};
#[cfg(feature = "emulated")]
pub use backend::Emulation;
pub use backend::{
    Backend, BackendChoice, ChosenBackend, Clip, Cpu, CpuPlan, Cuda, Plan, ResidentBatch, Row,
    Samples, Work,
};
pub use backend::{WARM_UP, median, median_s, warm_up};
#[cfg(feature = "emulated")]
pub use checks::CheckedDevices;
pub use db::{DbArgs, DbRef, LogArgs};
pub use device::{CudaReport, FoundDevice, FoundLibrary};
pub use error::KernelError;
pub use level::Level;
pub use malloc::return_large_blocks;
pub use mel::{MelArgs, Norm, Ramp};
pub use mfcc::MfccArgs;
pub use normalize::Normalize;
pub use pack::{Dtype, Packing, pack_into};
pub use preset::{Overrides, Preset};
pub use samples::SampleBuffer;
pub use stft::{Framing, PadMode, StftArgs, Window};
