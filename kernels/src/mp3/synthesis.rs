//! Samples of sub-bands → sound: the polyphase synthesis filter (ISO/IEC 11172-3 §2.4.3.2.2).
//!
//! The standard's matrixing makes 64 values of 32 samples, of which 33 differ: they are a cosine transform's outputs `c`,
//! repeated with signs. So a row of history keeps `c[16 + j]` and `c[16 - j]` for `j` below 16, and `c[0]`. Output `j` and
//! output `32 - j` of a slot are sums over the same values of 16 rows, with other factors of the window.

use std::sync::LazyLock;

use super::dct32::{Secants, dct32};
use super::wide::{Wide, transpose};
use super::window::window;
use super::{FRAME_SLOTS, SUB_BANDS};
use crate::lane::LANES;

/// Rows before the one that is new: the window reaches over 16.
const HISTORY: usize = 15;
/// Rows of a window, of which each second one is of one kind.
const TAPS: usize = 8;
/// Columns of a row that two outputs share.
const COLUMNS: usize = SUB_BANDS / 2;

type Row = [f32; COLUMNS];

/// The filter of one channel, with what it has heard.
#[derive(Debug)]
pub(super) struct Synthesis {
    secants: &'static Secants,
    factors: &'static Factors,
    /// `c[16 + j]` of each row.
    upper: Box<[Row; HISTORY + FRAME_SLOTS]>,
    /// `c[16 - j]`.
    lower: Box<[Row; HISTORY + FRAME_SLOTS]>,
    /// `c[0]`.
    lowest: [f32; HISTORY + FRAME_SLOTS],
}

/// Factors of the window, by tap and column.
#[derive(Debug)]
struct Factors {
    /// For output `j`, of the even rows' upper and the odd rows' lower values.
    own: [[Row; TAPS]; 2],
    /// For output `32 - j`.
    mirrored: [[Row; TAPS]; 2],
    /// For output 16, of the odd rows' lowest value.
    middle: [f32; TAPS],
}

impl Factors {
    /// They are made when the first decoder is.
    fn get() -> &'static Self {
        static FACTORS: LazyLock<Factors> = LazyLock::new(Factors::new);
        &FACTORS
    }

    fn new() -> Self {
        let table = |factor: &dyn Fn(usize, usize) -> f64| -> [Row; TAPS] {
            std::array::from_fn(|tap| std::array::from_fn(|j| factor(64 * tap, j) as f32))
        };
        // Output 32 is none: the mirror of column 0 is left out.
        let mirror = |at: usize, j: usize| if j == 0 { 0.0 } else { window(at - j) };
        Self {
            own: [
                table(&|at, j| window(at + j)),
                table(&|at, j| -window(at + 32 + j)),
            ],
            mirrored: [
                table(&|at, j| -mirror(at + 32, j)),
                table(&|at, j| -mirror(at + 64, j)),
            ],
            middle: std::array::from_fn(|tap| -window(64 * tap + 48) as f32),
        }
    }
}

impl Synthesis {
    pub(super) fn new() -> Self {
        Self {
            secants: Secants::get(),
            factors: Factors::get(),
            upper: Box::new([[0.0; COLUMNS]; HISTORY + FRAME_SLOTS]),
            lower: Box::new([[0.0; COLUMNS]; HISTORY + FRAME_SLOTS]),
            lowest: [0.0; HISTORY + FRAME_SLOTS],
        }
    }

    /// Forgets what was heard.
    pub(super) fn reset(&mut self) {
        self.upper.fill([0.0; COLUMNS]);
        self.lower.fill([0.0; COLUMNS]);
        self.lowest.fill(0.0);
    }

    /// Makes 32 samples of each slot, of which there are at most [`FRAME_SLOTS`].
    #[inline(always)]
    pub(super) fn run(&mut self, slots: &[[f32; SUB_BANDS]], out: &mut [f32]) {
        for (at, slots) in slots.chunks(LANES).enumerate() {
            self.enter(HISTORY + at * LANES, slots);
        }
        let out = &mut out.as_chunks_mut::<SUB_BANDS>().0[..slots.len()];
        for (slot, out) in out.iter_mut().enumerate() {
            self.output(slot, out);
        }

        // The last rows are the history of what comes next.
        let n = slots.len();
        self.upper.copy_within(n..n + HISTORY, 0);
        self.lower.copy_within(n..n + HISTORY, 0);
        self.lowest.copy_within(n..n + HISTORY, 0);
    }

    /// Up to eight slots become rows.
    #[inline(always)]
    fn enter(&mut self, row: usize, slots: &[[f32; SUB_BANDS]]) {
        let mut s = [Wide::ZERO; SUB_BANDS];
        for block in 0..SUB_BANDS / LANES {
            let mut rows = [[0.0; LANES]; LANES];
            for (row, slot) in rows.iter_mut().zip(slots) {
                row.copy_from_slice(&slot[block * LANES..][..LANES]);
            }
            for (s, column) in s[block * LANES..].iter_mut().zip(transpose(rows)) {
                s.0 = column;
            }
        }

        let c = dct32(&s, self.secants);

        for block in 0..COLUMNS / LANES {
            let first = block * LANES;
            let upper = transpose(std::array::from_fn(|j| c[16 + first + j].0));
            let lower = transpose(std::array::from_fn(|j| c[16 - first - j].0));
            for lane in 0..slots.len() {
                self.upper[row + lane][first..first + LANES].copy_from_slice(&upper[lane]);
                self.lower[row + lane][first..first + LANES].copy_from_slice(&lower[lane]);
            }
        }
        self.lowest[row..row + slots.len()].copy_from_slice(&c[0].0[..slots.len()]);
    }

    /// The 32 samples of a slot. Its row is number 15 of 16.
    #[inline(always)]
    fn output(&self, slot: usize, out: &mut [f32; SUB_BANDS]) {
        let upper = window_rows(&self.upper[slot..]);
        let lower = window_rows(&self.lower[slot..]);
        let lowest = window_rows(&self.lowest[slot..]);
        let [own_even, own_odd] = &self.factors.own;
        let [mirrored_even, mirrored_odd] = &self.factors.mirrored;

        let mut own = [0.0; COLUMNS];
        let mut mirrored = [0.0; COLUMNS];
        let mut middle = 0.0;
        for tap in 0..TAPS {
            let even = &upper[HISTORY - 2 * tap];
            let odd = &lower[HISTORY - 1 - 2 * tap];
            for j in 0..COLUMNS {
                own[j] += even[j] * own_even[tap][j] + odd[j] * own_odd[tap][j];
                mirrored[j] += even[j] * mirrored_even[tap][j] + odd[j] * mirrored_odd[tap][j];
            }
            middle += lowest[HISTORY - 1 - 2 * tap] * self.factors.middle[tap];
        }

        out[..COLUMNS].copy_from_slice(&own);
        out[COLUMNS] = middle;
        for j in 1..COLUMNS {
            out[SUB_BANDS - j] = mirrored[j];
        }
    }
}

/// The rows that the window reaches over.
#[inline(always)]
fn window_rows<T>(rows: &[T]) -> &[T; HISTORY + 1] {
    rows.first_chunk().expect("each slot has its history")
}
