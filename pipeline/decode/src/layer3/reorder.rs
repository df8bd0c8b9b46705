//! Reorders lines of short blocks from the order of their bands to that of their frequencies (ISO/IEC 11172-3
//! §2.4.3.4.8).

use super::LINES;
use super::bands::Bands;

/// Interleaves the three windows of each short band, which are stored one after another: the lines of one frequency
/// become neighbours. All lines from `n_lines` on are zero; returns the same bound for `ordered`.
#[inline(always)]
pub(super) fn reorder(
    bands: &Bands,
    n_lines: usize,
    lines: &[f32; LINES],
    ordered: &mut [f32; LINES],
) -> usize {
    let long_end = if bands.n_long == 0 {
        0
    } else {
        bands.lines(bands.n_long - 1).end
    };
    ordered[..long_end].copy_from_slice(&lines[..long_end]);

    let mut end = long_end;
    for band in (bands.n_long..bands.n).step_by(3) {
        let [first, second, third] = [0, 1, 2].map(|window| bands.lines(band + window));
        if first.start >= n_lines {
            break;
        }
        end = third.end;
        let out = ordered[first.start..end].chunks_exact_mut(3);
        let windows = lines[first].iter().zip(&lines[second]).zip(&lines[third]);
        for (out, ((a, b), c)) in out.zip(windows) {
            out.copy_from_slice(&[*a, *b, *c]);
        }
    }
    ordered[end..].fill(0.0);
    end.max(n_lines.min(long_end))
}
