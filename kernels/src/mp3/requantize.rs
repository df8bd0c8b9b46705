//! Quantised values → spectral lines: `sign(q) · |q|^(4/3) · 2^(gain / 4)` (ISO/IEC 11172-3 §2.4.3.4.7).

use std::sync::LazyLock;

use super::LINES;
use super::bands::Bands;
use super::scale_factors::ScaleFactors;
use super::side_info::Granule;

/// The largest value: 15, and 13 bits on top of it.
const VALUE_MAX: usize = 15 + (1 << 13) - 1;

/// The global gain of a factor of one.
const GAIN_OF_ONE: i32 = 210;
/// Quarters of an octave between the least gain and that of one: global gain 0, short windows quieter by 7 · 8, and scale
/// factors of 31 with a preflag of 3 on top, each of 4.
const GAIN_MIN: i32 = -GAIN_OF_ONE - 7 * 8 - 4 * (31 + 3);
const GAIN_MAX: i32 = 255 - GAIN_OF_ONE;

/// What the preflag adds to the scale factors of long bands (table 3-B.6).
const PRE_EMPHASIS: [u8; 22] = [
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 3, 2, 0,
];

/// `|q|^(4/3)`.
#[derive(Debug)]
pub(super) struct PowerTable {
    powers: Vec<f32>,
    /// Of -16 to 15.
    signed: [f32; 32],
    /// `2^(gain / 4)` from [`GAIN_MIN`] on.
    gains: Vec<f32>,
}

impl PowerTable {
    /// It is made when the first decoder is.
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

    /// Of a value without a sign; 0 of those that no code has.
    #[inline(always)]
    pub(super) fn of(&self, value: u32) -> f32 {
        self.powers.get(value as usize).copied().unwrap_or(0.0)
    }

    /// Of a value from -16 to 15, plus 16.
    #[inline(always)]
    pub(super) fn of_signed(&self, value: usize) -> f32 {
        self.signed[value % 32]
    }
}

/// Factors that are written at once.
const STRIDE: usize = 8;

/// The factor of each pair of lines: bands are of even width. Behind the last one is room to write too far.
#[derive(Debug)]
pub(super) struct Gains {
    pub(super) by_pair: [f32; LINES / 2 + STRIDE],
}

impl Gains {
    pub(super) const ZERO: Self = Self {
        by_pair: [0.0; LINES / 2 + STRIDE],
    };

    /// Sets the factors of a granule, at least those of its first `n_wanted` lines and of the quadruple behind them.
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
            // Most bands are narrow: what is written too far becomes the next band's.
            for pair in (lines.start / 2..lines.end / 2).step_by(STRIDE) {
                self.by_pair[pair..pair + STRIDE].fill(factor);
            }
        }
    }
}

/// The gain of a band in quarters of an octave.
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
