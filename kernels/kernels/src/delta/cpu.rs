//! Savitzky–Golay derivatives as in `librosa.feature.delta(x, width=9, order, mode="interp")`.

use super::WIDTH;
use crate::error::KernelError;

/// Weights of nine frames in a derivative, from the oldest frame to the newest.
pub(super) type Taps = [f64; WIDTH];

/// Appends orders 1 ..= `orders` after the rows of `values`: `[rows, n_frames]` → `[rows · (1 + orders), n_frames]`.
///
/// Errors: [`KernelError::TooFewFrames`] for fewer than [`WIDTH`] frames, except for 0 frames.
pub(crate) fn append(
    values: &mut Vec<f32>,
    n_frames: usize,
    orders: u8,
) -> Result<(), KernelError> {
    if orders == 0 || n_frames == 0 {
        return Ok(());
    }
    if n_frames < WIDTH {
        return Err(KernelError::TooFewFrames {
            frames: n_frames,
            needed: WIDTH,
        });
    }

    let base_len = values.len();
    values.resize(base_len * (1 + usize::from(orders)), 0.0);
    let (base, appended) = values.split_at_mut(base_len);

    for (order, out) in (1..=orders).zip(appended.chunks_exact_mut(base_len)) {
        let taps = taps(order);
        for (row, out) in base
            .chunks_exact(n_frames)
            .zip(out.chunks_exact_mut(n_frames))
        {
            derive(row, &taps, out);
        }
    }
    Ok(())
}

/// Returns the weights for order 1 (slope of the fitted line) or order 2 (second derivative of the fitted parabola).
///
/// Source: Savitzky and Golay (1964); least squares over k = -4 ..= 4.
pub(super) fn taps(order: u8) -> Taps {
    let half = (WIDTH / 2) as f64;
    let offsets: Taps = std::array::from_fn(|i| i as f64 - half);
    let squares = offsets.map(|k| k * k);
    let sum: f64 = squares.iter().sum();
    if order == 1 {
        return offsets.map(|k| k / sum);
    }

    // Squares minus their mean are the part of a parabola that no constant or line can fit.
    let centred = squares.map(|square| square - sum / WIDTH as f64);
    let spread: f64 = centred.iter().map(|x| x * x).sum();
    centred.map(|x| 2.0 * x / spread)
}

/// Computes the derivative of a row. At both ends the polynomial of the outermost window is extended; its derivative of
/// full order is constant.
fn derive(row: &[f32], taps: &Taps, out: &mut [f32]) {
    let half = WIDTH / 2;
    for (window, out) in row.windows(WIDTH).zip(&mut out[half..]) {
        let sum: f64 = window
            .iter()
            .zip(taps)
            .map(|(x, tap)| f64::from(*x) * tap)
            .sum();
        *out = sum as f32;
    }

    let first_value = out[half];
    out[..half].fill(first_value);
    let last = row.len() - 1 - half;
    let last_value = out[last];
    out[last..].fill(last_value);
}
