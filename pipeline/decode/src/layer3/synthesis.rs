//! The polyphase synthesis filter, which converts sub-band samples to audio (ISO/IEC 11172-3 §2.4.3.2.2).
//!
//! The standard's matrixing computes 64 values from 32 samples, 33 of which are different: they are the outputs `c` of
//! a cosine transform, repeated with signs. Output `j` and output `32 - j` of a slot are sums over the same values with
//! different window factors: over `c[16 + j]` of every second one of 16 slots, and `c[16 - j]` of the slots between
//! them.
//!
//! So each `c[n]` is the input of a filter in time. All steps process eight slots at once: samples are transposed from
//! slots to sub-bands before the transform, and outputs are transposed back after the filters.
//!
//! Half of the filters compute every second output from every second `c[n]` (`mono/half.rs`).

use std::sync::LazyLock;

use wavemill_signal::{LANES, Lane, Lanes};

use super::dct32::{Secants, dct32};
use super::wide::{Wide, columns};
use super::window::window;
use super::{FRAME_SLOTS, SUB_BANDS};

/// Number of earlier time slots that are kept. The window needs 15 of them; 16 is a multiple of eight.
const HISTORY: usize = 16;
/// Number of time slots that are computed: those of a frame, rounded up to a multiple of eight.
const SLOTS: usize = FRAME_SLOTS.next_multiple_of(LANES);
/// Number of time slots that contribute values of one kind to a sample, which is every second slot of a window.
const TAPS: usize = 8;
/// Index of the output `j` for which `32 - j` is the same output.
const MIDDLE: usize = SUB_BANDS / 2;

/// One of the values `c[n]` at all time slots, earlier slots first.
type Column = [f32; HISTORY + SLOTS];

/// The synthesis filter of one channel, with values of earlier time slots. It computes `N` of the 32 samples of each
/// slot from `N` sub-bands: all of them, or every second one, which needs only every second `c[n]`.
#[derive(Debug)]
pub(super) struct Synthesis<const N: usize = SUB_BANDS> {
    lanes: Lanes,
    pub(super) secants: &'static Secants,
    factors: &'static Factors,
    /// Number of sub-bands that affect the output, at most `N`.
    n_sub_bands: usize,
    /// The lowest output that is computed.
    phase: usize,
    /// The values `c[n]` over time, from `c[phase]` up to `c[32]` in steps of `32 / N`; `c[32]` is always zero.
    columns: Box<[Column; SUB_BANDS + 1]>,
    /// Samples by output, then by time slot. An additional last row receives the unused mirror of the first output.
    sound: Box<[[f32; SLOTS]; SUB_BANDS + 1]>,
}

/// Window factors for the outputs `j` and `32 - j`. Output `j` is a sum over `V[j] = c[16 + j]` and
/// `V[32 + j] = -c[16 - j]`, and output `32 - j` over `V[32 - j] = -c[16 + j]` and `V[64 - j] = -c[16 - j]`.
#[derive(Clone, Copy, Debug)]
struct Tap {
    /// Factors of `c[16 + j]` for both outputs.
    even: [f32; 2],
    /// Factors of `c[16 - j]` for both outputs, one slot earlier.
    odd: [f32; 2],
}

/// Window factors by output `j`, then by pair of time slots, the newest first.
#[derive(Debug)]
struct Factors([[Tap; TAPS]; MIDDLE + 1]);

impl Factors {
    /// Returns the window factors, which are created together with the first decoder.
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
        // The mirror output of output 0 would be output 32, which does not exist.
        let mirror = |at: usize| if j == 0 { 0.0 } else { -window(at - j) };
        Tap {
            even: [window(at + j), mirror(at + 32)].map(|factor| factor as f32),
            odd: [-window(at + 32 + j), mirror(at + 64)].map(|factor| factor as f32),
        }
    }
}

impl Synthesis {
    /// Computes 32 samples of each time slot, for at most [`FRAME_SLOTS`] slots.
    #[inline(always)]
    pub(super) fn run(&mut self, slots: &[[f32; SUB_BANDS]], out: &mut [f32]) {
        let secants = self.secants;
        self.run_part(
            0,
            slots,
            #[inline(always)]
            |s| dct32(s, secants),
            out,
        );
    }
}

impl<const N: usize> Synthesis<N> {
    /// Distance between the outputs that are computed.
    const STEP: usize = SUB_BANDS / N;

    pub(super) fn new(lanes: Lanes, n_sub_bands: usize) -> Self {
        Self {
            lanes,
            secants: Secants::get(),
            factors: Factors::get(),
            n_sub_bands,
            phase: 0,
            columns: Box::new([[0.0; HISTORY + SLOTS]; SUB_BANDS + 1]),
            sound: Box::new([[0.0; SLOTS]; SUB_BANDS + 1]),
        }
    }

    /// Clears the values of earlier time slots.
    pub(super) fn reset(&mut self) {
        self.columns.fill([0.0; HISTORY + SLOTS]);
    }

    /// Computes the outputs `phase`, `phase + 32 / N` and so on, for at most [`FRAME_SLOTS`] slots. From the samples of
    /// a slot, `transform` computes the values `c[n]` of the same indices. If the phase differs from that of the last
    /// call, the values of earlier slots cannot be used and are cleared.
    #[inline(always)]
    pub(super) fn run_part(
        &mut self,
        phase: usize,
        slots: &[[f32; SUB_BANDS]],
        transform: impl Copy + Fn(&[f32; N]) -> [f32; N],
        out: &mut [f32],
    ) {
        if phase != self.phase {
            self.phase = phase;
            self.reset();
        }

        for (at, slots) in slots.chunks(LANES).enumerate() {
            self.enter(HISTORY + at * LANES, slots, transform);
        }
        for row in 0..=(MIDDLE - phase) / Self::STEP {
            self.filter(row * Self::STEP + phase, slots.len());
        }
        let out = &mut out.as_chunks_mut::<N>().0[..slots.len()];
        self.leave(out);

        // Keep the values of the last slots for the next call.
        for column in &mut self.columns[..=N] {
            let last: [f32; HISTORY] = *column[slots.len()..]
                .first_chunk()
                .expect("no more slots than of a frame");
            column[..HISTORY].copy_from_slice(&last);
        }
    }

    /// Transforms the sub-band samples of up to eight time slots and appends the results to the columns.
    #[inline(always)]
    fn enter(
        &mut self,
        at: usize,
        slots: &[[f32; SUB_BANDS]],
        transform: impl Copy + Fn(&[f32; N]) -> [f32; N],
    ) {
        // The values of slots that do not exist never reach the output, so they are not cleared.
        let rows = std::array::from_fn(|row| slots.get(row).unwrap_or(&slots[0]));
        let mut samples = [[0.0; LANES]; N];
        for (group, samples) in samples.as_chunks_mut().0.iter_mut().enumerate() {
            *samples = columns(self.lanes, rows, group * LANES);
        }
        samples[self.n_sub_bands..].fill([0.0; LANES]);
        transform_slots(&samples, transform, &mut self.columns, at);
    }

    /// Computes the outputs `j` and `32 - j` of all time slots. A frame of one granule needs only the first call.
    #[inline(always)]
    fn filter(&mut self, j: usize, n_slots: usize) {
        self.filter_slots::<3>(j, 0);
        if n_slots > 3 * LANES {
            self.filter_slots::<2>(j, 3 * LANES);
        }
    }

    /// Computes the outputs of `M` times eight time slots. The registers for the sums limit `M`.
    #[inline(always)]
    fn filter_slots<const M: usize>(&mut self, j: usize, first: usize) {
        let upper = &self.columns[(MIDDLE + j) / Self::STEP];
        let lower = &self.columns[(MIDDLE - j) / Self::STEP];
        let mut own = [Wide::ZERO; M];
        let mut mirrored = [Wide::ZERO; M];

        for (tap, factors) in self.factors.0[j].iter().enumerate() {
            let now = HISTORY + first - 2 * tap;
            for n in 0..M {
                let even = Wide(window_of(upper, now + n * LANES));
                let odd = Wide(window_of(lower, now + n * LANES - 1));
                own[n] = own[n] + (even * factors.even[0] + odd * factors.odd[0]);
                mirrored[n] = mirrored[n] + (even * factors.even[1] + odd * factors.odd[1]);
            }
        }

        for n in 0..M {
            let at = first + n * LANES;
            self.sound[j / Self::STEP][at..at + LANES].copy_from_slice(&own[n].0);
            self.sound[(SUB_BANDS - j) / Self::STEP][at..at + LANES]
                .copy_from_slice(&mirrored[n].0);
        }
    }

    /// Writes the output samples in the order of time slots.
    #[inline(always)]
    fn leave(&self, out: &mut [[f32; N]]) {
        for (group, rows) in self.sound[..N].as_chunks::<LANES>().0.iter().enumerate() {
            for (block, out) in out.chunks_mut(LANES).enumerate() {
                let columns = columns(self.lanes, rows.each_ref(), block * LANES);
                for (out, column) in out.iter_mut().zip(columns) {
                    out[group * LANES..][..LANES].copy_from_slice(&column);
                }
            }
        }
    }
}

/// Transforms the samples of eight slots. Samples are read one at a time, because only then the compiler vectorises
/// this.
#[inline(always)]
fn transform_slots<const N: usize>(
    samples: &[Lane; N],
    transform: impl Fn(&[f32; N]) -> [f32; N],
    columns: &mut [Column; SUB_BANDS + 1],
    at: usize,
) {
    let mut values = [[0.0; LANES]; N];
    for slot in 0..LANES {
        let s = std::array::from_fn(|sub_band| samples[sub_band][slot]);
        let c = transform(&s);
        for (values, c) in values.iter_mut().zip(c) {
            values[slot] = c;
        }
    }
    for (column, values) in columns.iter_mut().zip(&values) {
        column[at..at + LANES].copy_from_slice(values);
    }
}

/// Returns the values of eight time slots of a column.
#[inline(always)]
fn window_of(column: &Column, at: usize) -> Lane {
    *column[at..]
        .first_chunk()
        .expect("each slot has its history")
}
