//! Sample rate conversion on a device. The crate `wavemill-signal` has the CPU's, the filter and its reference.

mod device;
#[cfg(test)]
mod device_tests;

pub(crate) use device::{ClipBuffers, LevelsDevice, ResampleDevice, SourceClip, is_for_device};
pub(crate) use wavemill_signal::resample::Filter;
#[cfg(test)]
pub(crate) use wavemill_signal::resample::reference;
pub use wavemill_signal::resample::{
    MAX_DEVICE_HZ, MAX_FROM_HZ, MAX_TO_HZ, MIN_HZ, PASS_BAND, PLANS_MAX, ResampleArgs,
    ResampleError, Resampler, Resamplers, STOP_BAND_DB,
};
