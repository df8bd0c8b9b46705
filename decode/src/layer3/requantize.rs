//! Converts quantised values to spectral lines: `sign(q) · |q|^(4/3) · 2^(gain / 4)` (ISO/IEC 11172-3 §2.4.3.4.7).

use std::sync::LazyLock;

use super::LINES;
use super::bands::Bands;
use super::scale_factors::ScaleFactors;
use super::side_info::Granule;

/// The largest quantised value: 15 plus the largest number of 13 bits.
const VALUE_MAX: usize = 15 + (1 << 13) - 1;

/// The global gain that corresponds to a factor of one.
const GAIN_OF_ONE: i32 = 210;
/// Smallest gain relative to a factor of one, in quarters of an octave: global gain 0, short windows attenuated by 7 ·
/// 8, and scale factors of 31 plus a preflag of 3, each with weight 4.
const GAIN_MIN: i32 = -GAIN_OF_ONE - 7 * 8 - 4 * (31 + 3);
const GAIN_MAX: i32 = 255 - GAIN_OF_ONE;

/// Numbers that the preflag adds to the scale factors of long bands (table 3-B.6).
const PRE_EMPHASIS: [u8; 22] = [
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 3, 2, 0,
];

/// Tables of `|q|^(4/3)` and of the gain factors.
#[derive(Debug)]
pub(super) struct PowerTable {
    powers: Vec<f32>,
    /// Signed values from -16 to 15, raised to the power 4/3.
    signed: [f32; 32],
    /// The gain factors `2^(gain / 4)` from [`GAIN_MIN`] on.
    gains: Vec<f32>,
}

impl PowerTable {
    /// Returns the power table, which is created together with the first decoder.
    pub(super) fn get() -> &'static Self {
        static TABLE: LazyLock<PowerTable> = LazyLock::new(PowerTable::new);
        &TABLE
    }

    fn new() -> Self {
        let power = |value: usize| libm::pow(value as f64, 4.0 / 3.0) as f32;
        let signed = std::array::from_fn(|at| {
            if at < 16 {
                -power(16 - at)
            } else {
                power(at - 16)
            }
        });
        Self {
            powers: (0..=VALUE_MAX).map(power).collect(),
            signed,
            gains: (GAIN_MIN..=GAIN_MAX)
                .map(|gain| libm::exp2(f64::from(gain) / 4.0) as f32)
                .collect(),
        }
    }

    /// Returns an unsigned value raised to the power 4/3, or 0 for values that no code has.
    #[inline(always)]
    pub(super) fn power(&self, value: u32) -> f32 {
        self.powers.get(value as usize).copied().unwrap_or(0.0)
    }

    /// Returns a signed value from -16 to 15 raised to the power 4/3. `value` is the signed value plus 16.
    #[inline(always)]
    pub(super) fn signed_power(&self, value: usize) -> f32 {
        self.signed[value % 32]
    }
}

/// Number of gain factors that are written at once.
const STRIDE: usize = 8;

/// The gain factor of each pair of lines; all scale factor bands have an even width. Additional space after the last
/// pair allows writing beyond it.
#[derive(Debug)]
pub(super) struct Gains {
    pub(super) by_pair: [f32; LINES / 2 + STRIDE],
}

impl Gains {
    pub(super) const ZERO: Self = Self {
        by_pair: [0.0; LINES / 2 + STRIDE],
    };

    /// Sets the gain factors of a granule, at least for its first `n_wanted` lines and the quadruple after them.
    pub(super) fn set(
        &mut self,
        granule: &Granule,
        bands: &Bands,
        factors: &ScaleFactors,
        n_wanted: usize,
    ) {
        let table = PowerTable::get();
        for band in 0..bands.n {
            let lines = bands.lines(band);
            if lines.start >= n_wanted + 4 {
                break;
            }

            let gain = gain(granule, bands, factors, band);
            let factor = table.gains[(gain - GAIN_MIN) as usize];
            // Most bands are narrower than the stride. The next band overwrites factors written beyond a band.
            for pair in (lines.start / 2..lines.end / 2).step_by(STRIDE) {
                self.by_pair[pair..pair + STRIDE].fill(factor);
            }
        }
    }
}

/// Returns the gain of a scale factor band in quarters of an octave.
pub(super) fn gain(granule: &Granule, bands: &Bands, factors: &ScaleFactors, band: usize) -> i32 {
    let mut gain = i32::from(granule.global_gain) - GAIN_OF_ONE;
    let mut factor = factors.values[band];
    if band < bands.n_long {
        if factors.preflag {
            factor += PRE_EMPHASIS[band];
        }
    } else {
        gain -= 8 * i32::from(granule.subblock_gain[bands.window(band)]);
    }
    gain - i32::from(factor) * if granule.scalefac_scale { 4 } else { 2 }
}
