//! Converts quantised values to spectral lines: `sign(q) · |q|^(4/3) · 2^(gain / 4)` (ISO/IEC 11172-3 §2.4.3.4.7).

use std::ops::Range;
use std::sync::LazyLock;

use wavemill_signal::{LANES, Lane};

use super::LINES;
use super::bands::Bands;
use super::scale_factors::ScaleFactors;
use super::side_info::Granule;
use super::wide::Wide;

/// The largest quantised value: 15 plus the largest number of 13 bits.
const VALUE_MAX: usize = 15 + (1 << 13) - 1;

/// The global gain that corresponds to a factor of one.
const GAIN_OF_ONE: i32 = 210;
/// Smallest gain relative to a factor of one, in quarters of an octave: global gain 0, short windows attenuated by 7 ·
/// 8, and scale factors of 31 plus a preflag of 3, each with weight 4.
const GAIN_MIN: i32 = -GAIN_OF_ONE - 7 * 8 - 4 * (31 + 3);

/// Numbers that the preflag adds to the scale factors of long bands (table 3-B.6).
const PRE_EMPHASIS: [u8; 22] = [
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 3, 2, 0,
];

/// Number of values of a pair without escapes: -15 to 15.
const SIDE: i32 = 31;
/// Number of pairs of values from -15 to 15.
pub(super) const PAIRS: usize = (SIDE * SIDE) as usize;

/// Returns the index of a pair of values from -15 to 15 in [`PowerTable::pairs`].
pub(super) fn pair_index([x, y]: [i32; 2]) -> usize {
    ((x + SIDE / 2) * SIDE + y + SIDE / 2) as usize
}

/// A pair of values in one word, which is moved as a whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair(u64);

impl Pair {
    #[inline(always)]
    pub(super) fn new([x, y]: [f32; 2]) -> Self {
        Self(u64::from(x.to_bits()) | u64::from(y.to_bits()) << 32)
    }

    #[inline(always)]
    pub(super) fn values(self) -> [f32; 2] {
        [self.0, self.0 >> 32].map(|bits| f32::from_bits(bits as u32))
    }
}

/// Number of entries of the table of powers: a power of two, so that an index needs no check.
pub(super) const POWERS: usize = (2 * VALUE_MAX + 2).next_power_of_two();
/// Values raised to the power 4/3, indexed by twice the magnitude plus one if the value is negative. So the index is the
/// sum of twice the magnitude of a code and the bits that follow the code: escaped bits, and then the sign.
pub(super) type Powers = [f32; POWERS];

/// Number of entries of the table of gains, likewise. From [`GAIN_MIN`] on they reach the gain of 255.
const GAINS: usize = ((255 - GAIN_OF_ONE - GAIN_MIN) as usize + 1).next_power_of_two();

/// Tables of `|q|^(4/3)` and of the gain factors.
#[derive(Debug)]
pub(super) struct PowerTable {
    powers: Box<Powers>,
    /// Pairs of values from -15 to 15, raised to the power 4/3, by [`pair_index`].
    pairs: Box<[Pair; PAIRS]>,
    /// The gain factors `2^(gain / 4)` from [`GAIN_MIN`] on.
    gains: [f32; GAINS],
}

impl PowerTable {
    /// Returns the power table, which is created together with the first decoder.
    pub(super) fn get() -> &'static Self {
        static TABLE: LazyLock<PowerTable> = LazyLock::new(PowerTable::new);
        &TABLE
    }

    fn new() -> Self {
        let power = |value: usize| libm::pow(value as f64, 4.0 / 3.0) as f32;
        let mut table = Self {
            powers: Box::new([0.0; POWERS]),
            pairs: Box::new([Pair::new([0.0; 2]); PAIRS]),
            gains: std::array::from_fn(|gain| {
                libm::exp2(f64::from(GAIN_MIN + gain as i32) / 4.0) as f32
            }),
        };
        for (value, signed) in (0..=VALUE_MAX).zip(table.powers.as_chunks_mut().0) {
            let power = power(value);
            *signed = [power, -power];
        }

        let values = -SIDE / 2..=SIDE / 2;
        for pair in values
            .clone()
            .flat_map(|x| values.clone().map(move |y| [x, y]))
        {
            let powers = pair.map(|value| table.power(value));
            table.pairs[pair_index(pair)] = Pair::new(powers);
        }
        table
    }

    /// Returns a value raised to the power 4/3.
    pub(super) fn power(&self, value: i32) -> f32 {
        let sign = usize::from(value < 0);
        self.powers[(2 * value.unsigned_abs() as usize + sign) % POWERS]
    }

    #[inline(always)]
    pub(super) fn signed(&self) -> &Powers {
        &self.powers
    }

    /// Returns the pairs of values from -15 to 15 raised to the power 4/3, by [`pair_index`].
    #[inline(always)]
    pub(super) fn pairs(&self) -> &[Pair; PAIRS] {
        &self.pairs
    }
}

/// Number of gain factors that are written at once.
const FILL: usize = 16;

/// The gain factor of each line. Additional space after the last line allows writing beyond it.
#[derive(Debug)]
pub(super) struct Gains {
    table: &'static PowerTable,
    by_line: [f32; LINES + FILL],
}

impl Gains {
    pub(super) fn new() -> Self {
        Self {
            table: PowerTable::get(),
            by_line: [0.0; LINES + FILL],
        }
    }

    /// Sets the gain factors of a granule, at least for its first `n_lines` lines. A band takes 22 instructions, and seven
    /// for every [`FILL`] lines.
    #[inline(always)]
    pub(super) fn set(
        &mut self,
        granule: &Granule,
        bands: &Bands,
        factors: &ScaleFactors,
        n_lines: usize,
    ) {
        let global = i32::from(granule.global_gain) - GAIN_OF_ONE;
        let weight = if granule.scalefac_scale { 4 } else { 2 };
        let pre_emphasis = if factors.preflag {
            &PRE_EMPHASIS
        } else {
            &[0; PRE_EMPHASIS.len()]
        };

        for (band, pre_emphasis) in (0..bands.n_long).zip(pre_emphasis) {
            let lines = bands.lines(band);
            if lines.start >= n_lines {
                return;
            }
            let factor = factors.values[band] + pre_emphasis;
            self.fill(lines, global - weight * i32::from(factor));
        }

        for band in bands.n_long..bands.n {
            let lines = bands.lines(band);
            if lines.start >= n_lines {
                return;
            }
            let of_window = 8 * i32::from(granule.subblock_gain[bands.window(band)]);
            let factor = i32::from(factors.values[band]);
            self.fill(lines, global - of_window - weight * factor);
        }
    }

    /// Sets the gain factor of a band, whose gain is in quarters of an octave. Most bands are narrower than the fill: the
    /// next band overwrites the factors that are written beyond this one.
    #[inline(always)]
    fn fill(&mut self, lines: Range<usize>, gain: i32) {
        let factor = self.table.gains[(gain - GAIN_MIN) as usize % GAINS];
        let mut line = lines.start;
        while line < lines.end {
            self.by_line[line..line + FILL].fill(factor);
            line += FILL;
        }
    }

    /// Multiplies the first `n_lines` lines, rounded up, by their gain factors and by `factor`.
    #[inline(always)]
    pub(super) fn apply(&self, factor: f32, n_lines: usize, lines: &mut [f32; LINES]) {
        let lines = lines.as_chunks_mut::<LANES>().0;
        for (lines, gains) in lines.iter_mut().zip(self.lanes(n_lines)) {
            *lines = (Wide(*lines) * Wide(*gains) * factor).0;
        }
    }

    /// Multiplies the first `n_lines` lines, rounded up, of two channels by their gain factors, and sets `left` to the
    /// mean of both.
    #[inline(always)]
    pub(super) fn mean(
        [left_gains, right_gains]: &[Self; 2],
        n_lines: usize,
        left: &mut [f32; LINES],
        right: &[f32; LINES],
    ) {
        let lines = left.as_chunks_mut::<LANES>().0.iter_mut();
        let lines = lines.zip(right.as_chunks::<LANES>().0);
        let gains = left_gains.lanes(n_lines).iter();
        let gains = gains.zip(right_gains.lanes(n_lines));
        for ((left, right), (left_gains, right_gains)) in lines.zip(gains) {
            let sum = Wide(*left) * Wide(*left_gains) + Wide(*right) * Wide(*right_gains);
            *left = (sum * 0.5).0;
        }
    }

    /// Returns the gain factors of the first `n_lines` lines, rounded up.
    #[inline(always)]
    fn lanes(&self, n_lines: usize) -> &[Lane] {
        &self.by_line.as_chunks().0[..n_lines.div_ceil(LANES)]
    }
}
