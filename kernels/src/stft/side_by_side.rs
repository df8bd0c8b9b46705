//! Samples of eight frames side by side: what the transform of eight frames reads.
//!
//! Neighbouring frames overlap. So a sample is put in place once, not once for each frame that it lies in: value m of row
//! r is the sample m · hop + r, and sample i of the eight frames is the eight values from i / hop on, in row i % hop.

use crate::lane::{LANES, Lane};
use crate::level::Lanes;

/// Bytes of a line of the cache. A row of 16 values is one, if it begins with one; then no eight of them lie in two.
const LINE_BYTES: usize = 64;

/// Rows that a gap of one row follows. The transform reads samples 32 apart: without gaps, their rows would all want the
/// same two sets of the first cache.
const ROWS_BETWEEN_GAPS: usize = 32;

/// Samples of eight frames of equal distance.
pub(super) struct SideBySide {
    /// `[hop, width]` with gaps, from `first` on.
    rows: Vec<f32>,
    /// The first value at the start of a line.
    first: usize,
    width: usize,
    /// Values of a row that have a meaning.
    n_columns: usize,
    hop: usize,
    /// Where in `rows` sample i of the first frame is.
    places: Vec<u32>,
    /// Eight columns of all rows, on their way.
    columns: Vec<Lane>,
}

impl SideBySide {
    /// For frames of `len` samples, at most `len` apart.
    pub(super) fn new(len: usize, hop: usize) -> Self {
        let n_columns = LANES + (len - 1) / hop;
        let width = n_columns.next_multiple_of(LANES);

        let n_rows = place_of_row(hop);
        let rows = vec![0.0; n_rows * width + LINE_BYTES / size_of::<f32>()];
        // The memory of a vector stays where it is. Where nothing can be said of its place, rows begin anywhere.
        let first = match rows.as_ptr().align_offset(LINE_BYTES) {
            usize::MAX => 0,
            first => first,
        };
        let places = (0..len)
            .map(|i| (first + place_of_row(i % hop) * width + i / hop) as u32)
            .collect();
        Self {
            rows,
            first,
            width,
            n_columns,
            hop,
            places,
            columns: vec![[0.0; LANES]; hop],
        }
    }

    /// Samples that [`Self::fill`] takes: up to the end of the last frame, in whole hops.
    pub(super) const fn n_samples(&self) -> usize {
        self.n_columns * self.hop
    }

    /// Takes the samples from the start of the first frame on.
    pub(super) fn fill(&mut self, samples: &[f32], lanes: Lanes) {
        for first in (0..self.width).step_by(LANES) {
            lanes.run(
                #[inline(always)]
                || self.fill_columns(samples, first),
            );
        }
    }

    #[inline(always)]
    fn fill_columns(&mut self, samples: &[f32], first: usize) {
        // What follows the last column fills the row up, and is not read.
        let hop = self.hop;
        let column = |lane: usize| {
            let at = (first + lane).min(self.n_columns - 1) * hop;
            &samples[at..at + hop]
        };

        // Of eight slices with names and one loop over all of them, the compiler makes a transposition in registers.
        let (a, b, c, d) = (column(0), column(1), column(2), column(3));
        let (e, f, g, h) = (column(4), column(5), column(6), column(7));
        for (r, out) in self.columns[..hop].iter_mut().enumerate() {
            *out = [a[r], b[r], c[r], d[r], e[r], f[r], g[r], h[r]];
        }

        let groups = self.rows[self.first..].chunks_mut((ROWS_BETWEEN_GAPS + 1) * self.width);
        for (group, columns) in groups.zip(self.columns.chunks(ROWS_BETWEEN_GAPS)) {
            for (row, eight) in group.chunks_exact_mut(self.width).zip(columns) {
                row[first..first + LANES].copy_from_slice(eight);
            }
        }
    }

    /// Sample `i` of each frame.
    #[inline(always)]
    pub(super) fn sample(&self, i: usize) -> Lane {
        let place = self.places[i] as usize;
        let mut sample = [0.0; LANES];
        sample.copy_from_slice(&self.rows[place..place + LANES]);
        sample
    }
}

/// Rows and gaps before row `r`.
const fn place_of_row(r: usize) -> usize {
    r + r / ROWS_BETWEEN_GAPS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::level::Level;

    #[test]
    fn every_frame_has_its_own_samples() {
        let lanes = Lanes::new(Level::detect()).unwrap();
        // Hops of one group of rows and of many, whose last one is full, has some rows, or has a single one.
        for (len, hop) in [
            (2048, 512),
            (2048, 2048),
            (100, 64),
            (100, 33),
            (100, 32),
            (100, 7),
            (64, 63),
            (64, 1),
            (1, 1),
        ] {
            let mut frames = SideBySide::new(len, hop);
            let samples: Vec<f32> = (0..frames.n_samples()).map(|i| i as f32).collect();
            frames.fill(&samples, lanes);
            for i in 0..len {
                let want: Lane = std::array::from_fn(|lane| (lane * hop + i) as f32);
                assert_eq!(
                    frames.sample(i),
                    want,
                    "sample {i} of frames of {len}, hop {hop}"
                );
            }
        }
    }
}
