//! Butterflies between neighbouring sub-bands, against the aliases of their filters (ISO/IEC 11172-3 §2.4.3.4.10.1).

use std::sync::LazyLock;

use super::{LINES, SUB_BAND_LINES, SUB_BANDS};

/// Lines on each side of a border.
const REACH: usize = 8;
/// The standard's `c_i` (table 3-B.9).
pub(super) const COEFFICIENTS: [f64; REACH] = [
    -0.6, -0.535, -0.33, -0.185, -0.095, -0.041, -0.0142, -0.0037,
];

/// `cs_i = 1 / √(1 + c²)` and `ca_i = c / √(1 + c²)`.
struct Factors {
    own: [f32; REACH],
    other: [f32; REACH],
}

impl Factors {
    fn get() -> &'static Self {
        static FACTORS: LazyLock<Factors> = LazyLock::new(|| {
            let norm = COEFFICIENTS.map(|c| 1.0 / (1.0 + c * c).sqrt());
            Factors {
                own: norm.map(|norm| norm as f32),
                other: std::array::from_fn(|at| (COEFFICIENTS[at] * norm[at]) as f32),
            }
        });
        &FACTORS
    }
}

/// Between the first `n_sub_bands` sub-bands. Returns behind which line all are zero, given the same of before.
#[inline(always)]
pub(super) fn antialias(n_sub_bands: usize, n_lines: usize, lines: &mut [f32; LINES]) -> usize {
    let factors = Factors::get();
    // The last border is the one above the last sub-band with a sound.
    let n_borders = (n_sub_bands - 1).min(n_lines.div_ceil(SUB_BAND_LINES));
    for border in 1..=n_borders {
        let at = border * SUB_BAND_LINES;
        for i in 0..REACH {
            let below = lines[at - 1 - i];
            let above = lines[at + i];
            lines[at - 1 - i] = below * factors.own[i] - above * factors.other[i];
            lines[at + i] = above * factors.own[i] + below * factors.other[i];
        }
    }
    let reached = if n_borders == 0 {
        0
    } else {
        n_borders * SUB_BAND_LINES + REACH
    };
    n_lines.max(reached).min(SUB_BANDS * SUB_BAND_LINES)
}
