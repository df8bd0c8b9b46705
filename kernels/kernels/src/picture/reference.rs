//! Reference for tests: pictures computed from their definition in f64.

use wavemill_options::PictureArgs;

use super::colours::colours_of;

/// Returns the three channels of `height` rows of `width` pixels, one after another, for `[bands][frames]`.
pub(crate) fn picture(args: &PictureArgs, rows: &[Vec<f64>]) -> Vec<f64> {
    let values = rows.iter().flatten().copied();
    let max = values.clone().fold(f64::NEG_INFINITY, f64::max);
    let min = values.fold(f64::INFINITY, f64::min);

    let bands = rows.len();
    let frames = rows[0].len();
    let height = args.height.unwrap_or(bands);
    let width = args.width.unwrap_or(frames);

    let mut channels = Vec::new();
    for channel in 0..3 {
        for row in 0..height {
            for column in 0..width {
                // Rows of values are counted from the bottom of the picture.
                let y = centre(height - 1 - row, bands, height);
                let x = centre(column, frames, width);
                let value = between(rows, y, x);
                let share = if max > min {
                    (value - min) / (max - min)
                } else {
                    0.0
                };

                let index = ((share * 256.0).floor() as usize).min(255);
                let colour = colours_of(args.colour_map).of_index(index);
                channels.push(f64::from(colour[channel]));
            }
        }
    }
    channels
}

/// Returns the position of a pixel's centre as an index of the values.
fn centre(pixel: usize, n_in: usize, n_out: usize) -> f64 {
    ((pixel as f64 + 0.5) * n_in as f64 / n_out as f64 - 0.5).clamp(0.0, n_in as f64 - 1.0)
}

/// Returns the mean of the four values around a point, weighted by proximity.
fn between(rows: &[Vec<f64>], y: f64, x: f64) -> f64 {
    let mut sum = 0.0;
    for (band, row) in rows.iter().enumerate() {
        for (frame, value) in row.iter().enumerate() {
            let near = (1.0 - (y - band as f64).abs()).max(0.0)
                * (1.0 - (x - frame as f64).abs()).max(0.0);
            sum += near * value;
        }
    }
    sum
}
