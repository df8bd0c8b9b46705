//! Samples of sub-bands → sound: the polyphase synthesis filter (ISO/IEC 11172-3 §2.4.3.2.2).
//!
//! The standard's matrixing makes 64 values of 32 samples, of which 33 differ: they are a cosine transform's outputs `c`,
//! repeated with signs. Output `j` and output `32 - j` of a slot are sums over the same values, with other factors of the
//! window: over `c[16 + j]` of each second slot of 16, and `c[16 - j]` of the slots between.
//!
//! So each `c[n]` is a filter's input in time. All steps go eight slots at once: samples are turned from slots to
//! sub-bands before the transform, and outputs are turned back behind the filters.

use std::sync::LazyLock;

use super::dct32::{Secants, dct32};
use super::wide::{Wide, interleave};
use super::window::window;
use super::{FRAME_SLOTS, SUB_BANDS};
use crate::lane::{LANES, Lane};

/// Slots before the ones that are new. The window reaches over 15, and 16 are two times eight.
const HISTORY: usize = 16;
/// Slots that are computed: those of a frame, filled up.
const SLOTS: usize = FRAME_SLOTS.next_multiple_of(LANES);
/// Slots of a window, of which each second one is of one kind.
const TAPS: usize = 8;
/// The output that mirrors itself.
const MIDDLE: usize = SUB_BANDS / 2;
/// Sub-bands, or slots, that are turned at once.
const QUAD: usize = 4;

/// Values of one kind in time, history first.
type Column = [f32; HISTORY + SLOTS];

/// The filter of one channel, with what it has heard.
#[derive(Debug)]
pub(super) struct Synthesis {
    secants: &'static Secants,
    factors: &'static Factors,
    /// `c[0]` to `c[32]`, of which the last one is always zero.
    columns: Box<[Column; SUB_BANDS + 1]>,
    /// By output, then by slot. Behind the last output comes the mirror of the first one, which is none.
    sound: Box<[[f32; SLOTS]; SUB_BANDS + QUAD]>,
}

/// Factors of the window for the output `j`, and for `32 - j`.
#[derive(Clone, Copy, Debug)]
struct Tap {
    /// Of `c[16 + j]`.
    even: [f32; 2],
    /// Of `c[16 - j]`, a slot before.
    odd: [f32; 2],
}

/// By `j`, then by pair of slots, the newest first.
#[derive(Debug)]
struct Factors([[Tap; TAPS]; MIDDLE + 1]);

impl Factors {
    /// They are made when the first decoder is.
    fn get() -> &'static Self {
        static FACTORS: LazyLock<Factors> = LazyLock::new(Factors::new);
        &FACTORS
    }

    fn new() -> Self {
        Self(std::array::from_fn(|j| {
            std::array::from_fn(|tap| Self::tap(j, 64 * tap))
        }))
    }

    fn tap(j: usize, at: usize) -> Tap {
        // Output 32 is none: the mirror of the first one is left out.
        let mirror = |at: usize| if j == 0 { 0.0 } else { -window(at - j) };
        Tap {
            even: [window(at + j), mirror(at + 32)].map(|factor| factor as f32),
            odd: [-window(at + 32 + j), mirror(at + 64)].map(|factor| factor as f32),
        }
    }
}

impl Synthesis {
    pub(super) fn new() -> Self {
        Self {
            secants: Secants::get(),
            factors: Factors::get(),
            columns: Box::new([[0.0; HISTORY + SLOTS]; SUB_BANDS + 1]),
            sound: Box::new([[0.0; SLOTS]; SUB_BANDS + QUAD]),
        }
    }

    /// Forgets what was heard.
    pub(super) fn reset(&mut self) {
        for column in &mut *self.columns {
            column.fill(0.0);
        }
    }

    /// Makes 32 samples of each slot, of which there are at most [`FRAME_SLOTS`].
    #[inline(always)]
    pub(super) fn run(&mut self, slots: &[[f32; SUB_BANDS]], out: &mut [f32]) {
        for (at, slots) in slots.chunks(LANES).enumerate() {
            self.enter(HISTORY + at * LANES, slots);
        }
        for j in 0..=MIDDLE {
            self.filter(j, slots.len());
        }
        let out = &mut out.as_chunks_mut::<SUB_BANDS>().0[..slots.len()];
        self.leave(out);

        // The last slots are the history of what comes next.
        for column in &mut *self.columns {
            let last: [f32; HISTORY] = *column[slots.len()..]
                .first_chunk()
                .expect("no more slots than of a frame");
            column[..HISTORY].copy_from_slice(&last);
        }
    }

    /// Up to eight slots become values of each column.
    #[inline(always)]
    fn enter(&mut self, at: usize, slots: &[[f32; SUB_BANDS]]) {
        let mut samples = [[0.0; LANES]; SUB_BANDS];
        for (at, slots) in slots.chunks(QUAD).enumerate() {
            // Values in the place of slots that are not there are never heard.
            let rows = std::array::from_fn(|row| slots.get(row).unwrap_or(&slots[0]));
            let mut quads = [[0.0; QUAD]; SUB_BANDS];
            interleave(rows, &mut quads);
            for (samples, quad) in samples.iter_mut().zip(&quads) {
                samples[at * QUAD..][..QUAD].copy_from_slice(quad);
            }
        }
        transform(&samples, self.secants, &mut self.columns, at);
    }

    /// Outputs `j` and `32 - j` of all slots. A frame of one granule fits into the first part.
    #[inline(always)]
    fn filter(&mut self, j: usize, n_slots: usize) {
        self.filter_slots::<3>(j, 0);
        if n_slots > 3 * LANES {
            self.filter_slots::<2>(j, 3 * LANES);
        }
    }

    /// The same of as many times eight slots as there are registers for their sums.
    #[inline(always)]
    fn filter_slots<const N: usize>(&mut self, j: usize, first: usize) {
        let upper = &self.columns[MIDDLE + j];
        let lower = &self.columns[MIDDLE - j];
        let mut own = [Wide::ZERO; N];
        let mut mirrored = [Wide::ZERO; N];
        for (tap, factors) in self.factors.0[j].iter().enumerate() {
            let now = HISTORY + first - 2 * tap;
            for n in 0..N {
                let even = Wide(window_of(upper, now + n * LANES));
                let odd = Wide(window_of(lower, now + n * LANES - 1));
                own[n] = own[n] + (even * factors.even[0] + odd * factors.odd[0]);
                mirrored[n] = mirrored[n] + (even * factors.even[1] + odd * factors.odd[1]);
            }
        }
        for n in 0..N {
            let at = first + n * LANES;
            self.sound[j][at..at + LANES].copy_from_slice(&own[n].0);
            self.sound[SUB_BANDS - j][at..at + LANES].copy_from_slice(&mirrored[n].0);
        }
    }

    /// Outputs by slot.
    #[inline(always)]
    fn leave(&self, out: &mut [[f32; SUB_BANDS]]) {
        let mut quads = [[0.0; QUAD]; SLOTS];
        for at in (0..SUB_BANDS).step_by(QUAD) {
            interleave(std::array::from_fn(|row| &self.sound[at + row]), &mut quads);
            for (out, quad) in out.iter_mut().zip(&quads) {
                out[at..at + QUAD].copy_from_slice(quad);
            }
        }
    }
}

/// The cosine transform of eight slots. Each sample is read by itself, not by a copy of all: only so it becomes vectors.
#[inline(always)]
fn transform(
    samples: &[Lane; SUB_BANDS],
    secants: &Secants,
    columns: &mut [Column; SUB_BANDS + 1],
    at: usize,
) {
    let mut values = [[0.0; LANES]; SUB_BANDS];
    for slot in 0..LANES {
        let s = std::array::from_fn(|sub_band| samples[sub_band][slot]);
        let c = dct32(&s, secants);
        for (values, c) in values.iter_mut().zip(c) {
            values[slot] = c;
        }
    }
    for (column, values) in columns.iter_mut().zip(&values) {
        column[at..at + LANES].copy_from_slice(values);
    }
}

/// Eight slots of a column.
#[inline(always)]
fn window_of(column: &Column, at: usize) -> Lane {
    *column[at..]
        .first_chunk()
        .expect("each slot has its history")
}
