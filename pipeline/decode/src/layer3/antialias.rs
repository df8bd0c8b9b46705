//! Anti-aliasing butterflies between adjacent sub-bands (ISO/IEC 11172-3 §2.4.3.4.10.1).

use std::sync::LazyLock;

use super::{LINES, SUB_BAND_LINES, SUB_BANDS};

/// Number of spectral lines on each side of a border between sub-bands that the butterflies change.
pub(super) const REACH: usize = 8;
/// The standard's `c_i` (table 3-B.9).
pub(super) const COEFFICIENTS: [f64; REACH] = [
    -0.6, -0.535, -0.33, -0.185, -0.095, -0.041, -0.0142, -0.0037,
];

/// Number of spectral lines around a border between sub-bands that the butterflies change.
const AROUND: usize = 2 * REACH;

/// For each spectral line around a border, `cs_i = 1 / √(1 + c²)` for the line itself and `ca_i = c / √(1 + c²)` for
/// the opposite line, with its sign: lines above the border add their opposite line, and lines below subtract it.
struct Factors {
    own: [f32; AROUND],
    opposite: [f32; AROUND],
}

impl Factors {
    fn get() -> &'static Self {
        static FACTORS: LazyLock<Factors> = LazyLock::new(|| {
            let own = COEFFICIENTS.map(|c| 1.0 / (1.0 + c * c).sqrt());
            let other: [f64; REACH] = std::array::from_fn(|i| COEFFICIENTS[i] * own[i]);
            let mut factors = Factors {
                own: [0.0; AROUND],
                opposite: [0.0; AROUND],
            };
            for i in 0..REACH {
                let below = REACH - 1 - i;
                let above = REACH + i;
                factors.own[below] = own[i] as f32;
                factors.own[above] = own[i] as f32;
                factors.opposite[below] = -other[i] as f32;
                factors.opposite[above] = other[i] as f32;
            }
            factors
        });
        &FACTORS
    }
}

/// Applies the butterflies at the borders between the first `n_sub_bands` sub-bands. All input lines from `n_lines` on
/// are zero; returns the same bound for the output lines.
#[inline(always)]
pub(super) fn antialias(n_sub_bands: usize, n_lines: usize, lines: &mut [f32; LINES]) -> usize {
    let factors = Factors::get();
    // Stop at the border above the last sub-band that contains a nonzero line.
    let n_borders = (n_sub_bands - 1).min(n_lines.div_ceil(SUB_BAND_LINES));
    for border in 1..=n_borders {
        let first = border * SUB_BAND_LINES - REACH;
        let lines: &mut [f32; AROUND] = lines[first..]
            .first_chunk_mut()
            .expect("a border has lines on both sides");
        let after: [f32; AROUND] = std::array::from_fn(|i| {
            lines[i] * factors.own[i] + lines[AROUND - 1 - i] * factors.opposite[i]
        });
        lines.copy_from_slice(&after);
    }
    let reached = if n_borders == 0 {
        0
    } else {
        n_borders * SUB_BAND_LINES + REACH
    };
    n_lines.max(reached).min(SUB_BANDS * SUB_BAND_LINES)
}
