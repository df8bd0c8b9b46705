//! Two channels that were coded together: middle and side, and intensity (ISO/IEC 11172-3 §2.4.3.4.9, ISO/IEC 13818-3
//! §2.4.3.2).

use std::sync::LazyLock;

use super::LINES;
use super::bands::{BANDS_MAX, Bands};
use super::header::Version;
use super::scale_factors::ScaleFactors;

const SQRT_HALF: f32 = std::f32::consts::FRAC_1_SQRT_2;

/// What a granule of joint stereo is decoded by.
pub(super) struct JointGranule<'a> {
    pub(super) bands: &'a Bands,
    /// Middle and side, where intensity is not.
    pub(super) mid_side: bool,
    /// The positions, where there are any.
    pub(super) intensity: Option<Positions<'a>>,
}

/// Where the bands of intensity stereo lie between left and right.
pub(super) struct Positions<'a> {
    /// Scale factors of the right channel.
    pub(super) factors: &'a ScaleFactors,
    pub(super) version: Version,
    /// `intensity_scale` of MPEG-2: the lowest bit of the right channel's `scalefac_compress`.
    pub(super) is_coarse: bool,
}

/// Makes left and right of what was coded; the first `n_lines` of both channels are not all zero.
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

/// Middle and side to left and right.
fn unmix(middle: &mut [f32], side: &mut [f32]) {
    for (middle, side) in middle.iter_mut().zip(side) {
        let left = (*middle + *side) * SQRT_HALF;
        let right = (*middle - *side) * SQRT_HALF;
        *middle = left;
        *side = right;
    }
}

/// One channel to two.
fn pan(left: &mut [f32], right: &mut [f32], weights: [f32; 2]) {
    for (left, right) in left.iter_mut().zip(right) {
        *right = *left * weights[1];
        *left *= weights[0];
    }
}

/// Which bands are of intensity: those above the last one of their window in which the right channel has a sound. The
/// long bands of a mixed block are only where no window has a sound.
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
    /// The weights of a band of intensity; `None` where its position stands for none.
    fn weights(&self, bands: &Bands, band: usize, is_intensity: &[bool]) -> Option<[f32; 2]> {
        // The highest band has the position of the one below it, in the same window.
        let is_highest = band >= bands.n_transmitted();
        let source = if is_highest {
            band - (bands.n - bands.n_transmitted())
        } else {
            band
        };

        // If that one is not of intensity, its scale factor is no position. Then the sound lies in the middle, as in the
        // reference of the vectors `l3-test45` and `l3-test46`.
        let position = match self.factors.values[source] {
            _ if !is_intensity[source] => self.middle(),
            position if position == self.factors.illegal[source] => return None,
            position => position,
        };

        let weights = Weights::get();
        let table = match (self.version, self.is_coarse) {
            // Position 7 stands for none, and so do the larger ones, which no encoder writes.
            (Version::Mpeg1, _) => return weights.mpeg1.get(usize::from(position)).copied(),
            (_, false) => &weights.fine,
            (_, true) => &weights.coarse,
        };
        Some(table[usize::from(position) % 32])
    }

    /// The position of equal weights.
    fn middle(&self) -> u8 {
        if self.version == Version::Mpeg1 { 3 } else { 0 }
    }
}

/// Left and right of each position.
struct Weights {
    mpeg1: [[f32; 2]; 7],
    /// Steps of a quarter of an octave.
    fine: [[f32; 2]; 32],
    /// Steps of half an octave.
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

/// `ratio / (1 + ratio)` and `1 / (1 + ratio)` of `ratio = tan(position · π / 12)`: written without the pole at 6.
pub(super) fn mpeg1_weights(position: usize) -> [f64; 2] {
    let angle = position as f64 * std::f64::consts::PI / 12.0;
    let (sin, cos) = libm::sincos(angle);
    if position == 6 {
        return [1.0, 0.0];
    }
    [sin / (sin + cos), cos / (sin + cos)]
}

/// Odd positions weaken the left channel, even ones the right, by `octaves` for each step of two.
pub(super) fn mpeg2_weights(position: usize, octaves: f64) -> [f64; 2] {
    let steps = position.div_ceil(2) as f64;
    let weak = libm::exp2(-octaves * steps);
    if position % 2 == 1 {
        [weak, 1.0]
    } else {
        [1.0, weak]
    }
}
