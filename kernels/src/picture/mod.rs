//! Values as a coloured picture, as librosa's `specshow` and matplotlib's `imshow` draw a spectrogram.
//!
//! Shape: `[bands, n_frames]` → `[3, height, width]`, colours in 0 to 1. The row's least value is 0 and its greatest 1; a
//! constant row is all 0, as after `normalize = "minmax"`. The lowest band is the lowest row of pixels. What has to be
//! resized is resized before it is coloured, so every pixel has one of the map's colours: a pixel's centre, at
//! `(i + 0.5) · n_in / n_out − 0.5` and kept within the values, is interpolated bilinearly between the four values about
//! it, without smoothing where the picture shrinks (as torch's `interpolate` with `align_corners=False`).
//!
//! There is no device code, and the backends of devices refuse pictures.

mod colours;
mod cpu;
#[cfg(test)]
pub(crate) mod reference;

pub(crate) use cpu::PicturePlan;
