//! Renders values as a coloured picture, like a spectrogram drawn by librosa's `specshow` and matplotlib's `imshow`.
//!
//! Shape: `[bands, n_frames]` → `[3, height, width]`, with colours from 0 to 1. The smallest value of the row is mapped
//! to 0 and the largest to 1; a constant row is all 0, as after `normalize = "minmax"`. The lowest band is the lowest
//! row of pixels. Resizing comes before colouring, so every pixel has one of the map's colours. The centre of a pixel,
//! at `(i + 0.5) · n_in / n_out − 0.5` and clamped to the values, is interpolated bilinearly between the four values
//! around it, without smoothing if the picture shrinks (as in torch's `interpolate` with `align_corners=False`).
//!
//! There is no device code: device backends reject pictures.

mod colours;
mod cpu;
#[cfg(test)]
pub(crate) mod reference;

pub(crate) use cpu::PicturePlan;
