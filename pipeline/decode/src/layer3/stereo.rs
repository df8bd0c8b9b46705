//! Converts jointly coded channels, which are middle and side or intensity stereo, to left and right (ISO/IEC 11172-3
//! §2.4.3.4.9, ISO/IEC 13818-3 §2.4.3.2).
//!
//! The channels of a granule may have different block types. A line of one channel belongs to the line of the other with
//! the same place among the coded lines, before short blocks are reordered, and the bands of intensity stereo are those of
//! the right channel. ffmpeg and minimp3 do the same; mpg123 reorders first.

use std::sync::LazyLock;

use super::LINES;
use super::bands::{BANDS_MAX, Bands};
use super::header::Version;
use super::scale_factors::ScaleFactors;

const SQRT_HALF: f32 = std::f32::consts::FRAC_1_SQRT_2;

/// Parameters for converting a granule of joint stereo to left and right.
pub(super) struct JointGranule<'a> {
    /// Bands of the right channel.
    pub(super) bands: &'a Bands,
    /// Whether scale factor bands without intensity stereo are coded as middle and side.
    pub(super) mid_side: bool,
    /// Stereo positions of the bands, if the granule uses intensity stereo.
    pub(super) intensity: Option<Positions<'a>>,
}

/// The positions of intensity stereo bands between left and right.
pub(super) struct Positions<'a> {
    /// Scale factors of the right channel, which are the positions.
    pub(super) factors: &'a ScaleFactors,
    pub(super) version: Version,
    /// `intensity_scale` of MPEG-2: the lowest bit of the right channel's `scalefac_compress`.
    pub(super) is_coarse: bool,
}

/// Converts jointly coded channels to left and right. All lines of both channels from `n_lines` on are zero.
pub(super) fn decode(
    granule: &JointGranule,
    n_lines: usize,
    left: &mut [f32; LINES],
    right: &mut [f32; LINES],
) {
    let Some(positions) = &granule.intensity else {
        if granule.mid_side {
            unmix(&mut left[..n_lines], &mut right[..n_lines]);
        }
        return;
    };

    let is_intensity = intensity_bands(granule.bands, right);
    for band in 0..granule.bands.n {
        let lines = granule.bands.lines(band);
        if lines.start >= n_lines {
            break;
        }
        let left = &mut left[lines.clone()];
        let right = &mut right[lines];
        let weights = if is_intensity[band] {
            positions.weights(granule.bands, band, &is_intensity)
        } else {
            None
        };
        match weights {
            Some(weights) => pan(left, right, weights),
            None if granule.mid_side => unmix(left, right),
            None => {}
        }
    }
}

/// Converts lines of middle and side to left and right.
fn unmix(middle: &mut [f32], side: &mut [f32]) {
    for (middle, side) in middle.iter_mut().zip(side) {
        let left = (*middle + *side) * SQRT_HALF;
        let right = (*middle - *side) * SQRT_HALF;
        *middle = left;
        *side = right;
    }
}

/// Computes left and right by multiplying the lines of one channel by two weights.
fn pan(left: &mut [f32], right: &mut [f32], weights: [f32; 2]) {
    for (left, right) in left.iter_mut().zip(right) {
        *right = *left * weights[1];
        *left *= weights[0];
    }
}

/// Returns which bands use intensity stereo: those above the last nonzero band of the right channel in the same window.
/// Long bands of a mixed block use it only if all windows are zero.
fn intensity_bands(bands: &Bands, right: &[f32; LINES]) -> [bool; BANDS_MAX] {
    let mut is_intensity = [false; BANDS_MAX];
    let mut is_silent = [true; 3];
    for band in (0..bands.n).rev() {
        let lines = &right[bands.lines(band)];
        let is_zero = lines.iter().all(|&line| line == 0.0);
        if band < bands.n_long {
            let all = is_silent == [true; 3] && is_zero;
            is_silent = [all; 3];
            is_intensity[band] = all;
        } else {
            let window = bands.window(band);
            is_silent[window] &= is_zero;
            is_intensity[band] = is_silent[window];
        }
    }
    is_intensity
}

impl Positions<'_> {
    /// Returns the weights of left and right in an intensity stereo band; `None` if its position is not legal.
    fn weights(&self, bands: &Bands, band: usize, is_intensity: &[bool]) -> Option<[f32; 2]> {
        // Take the highest band's position from the band below it, in the same window.
        let is_highest = band >= bands.n_transmitted();
        let source = if is_highest {
            band - (bands.n - bands.n_transmitted())
        } else {
            band
        };

        // If the source band does not use intensity stereo, its scale factor is not a position. The sound is then
        // placed in the middle, as in the reference output of the test vectors `l3-test45` and `l3-test46`.
        let position = match self.factors.values[source] {
            _ if !is_intensity[source] => self.middle(),
            position if position == self.factors.illegal[source] => return None,
            position => position,
        };

        let weights = Weights::get();
        let table = match (self.version, self.is_coarse) {
            // Position 7 means "no position". Larger positions, which no encoder writes, are treated in the same way.
            (Version::Mpeg1, _) => return weights.mpeg1.get(usize::from(position)).copied(),
            (_, false) => &weights.fine,
            (_, true) => &weights.coarse,
        };
        Some(table[usize::from(position) % 32])
    }

    /// Returns the position at which left and right have equal weights.
    fn middle(&self) -> u8 {
        if self.version == Version::Mpeg1 { 3 } else { 0 }
    }
}

/// Weights of left and right for each intensity stereo position.
struct Weights {
    mpeg1: [[f32; 2]; 7],
    /// Weights in MPEG-2, in steps of a quarter of an octave.
    fine: [[f32; 2]; 32],
    /// Weights in MPEG-2, in steps of half an octave.
    coarse: [[f32; 2]; 32],
}

impl Weights {
    fn get() -> &'static Self {
        static WEIGHTS: LazyLock<Weights> = LazyLock::new(|| Weights {
            mpeg1: std::array::from_fn(|position| mpeg1_weights(position).map(|w| w as f32)),
            fine: std::array::from_fn(|position| mpeg2_weights(position, 0.25).map(|w| w as f32)),
            coarse: std::array::from_fn(|position| mpeg2_weights(position, 0.5).map(|w| w as f32)),
        });
        &WEIGHTS
    }
}

/// Returns the weights `r / (1 + r)` and `1 / (1 + r)` with `r = tan(position · π / 12)`, avoiding the pole at 6.
pub(super) fn mpeg1_weights(position: usize) -> [f64; 2] {
    let angle = position as f64 * std::f64::consts::PI / 12.0;
    let (sin, cos) = libm::sincos(angle);
    if position == 6 {
        return [1.0, 0.0];
    }
    [sin / (sin + cos), cos / (sin + cos)]
}

/// Returns the weights of left and right for an MPEG-2 position. Odd positions attenuate the left channel and even ones
/// the right one, by `octaves` for every two positions.
pub(super) fn mpeg2_weights(position: usize, octaves: f64) -> [f64; 2] {
    let steps = position.div_ceil(2) as f64;
    let weak = libm::exp2(-octaves * steps);
    if position % 2 == 1 {
        [weak, 1.0]
    } else {
        [1.0, weak]
    }
}
