//! Computes features from audio signals: STFT, mel bands, decibels, MFCC, deltas, features derived from these, and
//! their packing into bytes.
//!
//! Its purpose is to compute the features that users know from librosa, torchaudio, Kaldi and Whisper at a few per cent
//! of their cost. Each operation has a folder: the fast path (`cpu.rs`), the host side of its device code (`device.rs`,
//! unless only the CPU computes it) and a naive f64 reference (`reference.rs`). [`FeatureArgs`], of the crate
//! `wavemill-options`, specifies a feature; a [`Plan`] created once by a [`Backend`] computes it.
//!
//! The crate does not depend on files, Arrow or recipes.

mod backend;
mod beats;
#[cfg(feature = "emulated")]
mod checks;
mod chroma;
pub mod chromaprint;
mod clip;
mod constant_q;
mod contrast;
mod db;
mod delta;
mod device;
mod error;
mod frames;
mod glibc;
pub mod griffin_lim;
mod mel;
mod mfcc;
mod normalize;
mod onset;
mod pack;
#[cfg(test)]
mod parity;
mod picture;
pub mod resample;
mod shape;
mod statistics;
mod stft;
pub mod stretch;
mod tempo;
mod tempogram;

#[cfg(feature = "emulated")]
pub use backend::Emulation;
pub use backend::{
    Backend, BackendChoice, BatchWithoutRows, ChosenBackend, Clip, Cpu, CpuPlan, Cuda, Plan,
    ResidentBatch, Row, Samples, SpareTensors, Work,
};
pub use backend::{WARM_UP, median, median_s, warm_up};
#[cfg(feature = "emulated")]
pub use checks::CheckedDevices;
pub use device::{CudaReport, FoundDevice, FoundLibrary, wheel_files};
pub use error::KernelError;
pub use glibc::{glibc_version, return_batches, return_large_blocks};
pub use pack::{pack_into, pack_s16};
pub use statistics::StatisticsPlan;
pub use stft::window_values;
// Re-export the types with which a feature is specified.
pub use wavemill_options::{
    DbArgs, DbRef, DbRefSpec, DbSpec, Derived, DimOrder, Dtype, Fault, FeatureArgs, FeatureSpec,
    Framing, LogArgs, MelArgs, MfccArgs, Norm, Normalize, Op, Packing, PadMode, Preset, Ramp,
    STATISTICS, StftArgs, Window, Word,
};
pub use wavemill_signal::{LANES, Lane, Lanes, Level, SampleBuffer};
