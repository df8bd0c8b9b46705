//! Definition of features: names of options, defaults of presets, allowed values, and the resulting shapes.
//!
//! Each of these rules is implemented once, in this crate. Recipes are checked against it before a run, and the kernels
//! compute the features that it describes. [`Op`] lists the operations. An option is a field of [`FeatureSpec`], where
//! it may be absent, and of [`FeatureArgs`], where every value is set; [`FeatureSpec::resolve`] converts a
//! `FeatureSpec` to `FeatureArgs`. [`TensorArgs`] also covers the operations that compute nothing from spectra.
//!
//! This crate does not depend on TOML, audio or devices.

mod args;
mod constant_q;
mod db;
mod derive;
mod derived;
pub mod exact;
mod fault;
mod image;
mod mel;
mod mfcc;
mod named;
mod onnx;
mod op;
mod pack;
mod preset;
mod rates;
mod resolve;
mod rhythm;
mod shape;
mod sound;
mod spec;
mod stft;
mod stretch;
mod tensor;
mod words;

pub use args::{DELTA_WIDTH, DimOrder, FeatureArgs, Normalize};
pub use constant_q::{C1_HZ, ChromaCqArgs, ChromaKind, ConstantQArgs, Octave};
pub use db::{DbArgs, DbRef, DbRefSpec, DbSpec, LogArgs};
pub use derived::{CHANNELS, ColourMap, Derived, PICTURE_SIDE_MAX, PictureArgs, STATISTICS};
pub use fault::{Fault, Faults};
pub use image::{
    CropBox, DECODED_PIXELS_MAX, DECODED_SIDE_MAX, IMAGE_SIDE_MAX, ImageArgs, ImageFilter,
};
pub use mel::{Band, MelArgs, N_MELS_MAX, Norm, Ramp};
pub use mfcc::{MfccArgs, N_MFCC_MAX};
pub use onnx::{ModelSizes, OnnxArgs, Pooling, STANDARDIZE_EPS};
pub use op::{FrameValues, Input, Op, SpectralOp};
pub use pack::{Dtype, Packing};
pub use preset::Preset;
pub use rates::{MAX_DEVICE_HZ, MAX_FROM_HZ, MAX_TO_HZ, MIN_HZ};
pub use rhythm::{Aggregate, BeatArgs, OnsetArgs, TempoArgs, TempogramArgs};
pub use shape::{ChromaArgs, ContrastArgs, ContrastBand, ShapeArgs};
pub use sound::{LOUDNESS, S16_FULL_SCALE, SoundArgs};
pub use spec::{FeatureSpec, Word};
pub use stft::{Framing, N_FFT_MAX, PadMode, StftArgs, Window};
pub use stretch::{STRETCH_MAX, STRETCH_MIN, STRETCHES_MAX, StretchArgs};
pub use tensor::TensorArgs;
pub use words::did_you_mean;
