//! Renders a picture one row of pixels after another, each interpolated between two bands.

use wavemill_options::{CHANNELS, PictureArgs};
use wavemill_signal::Lanes;

use super::colours::{Colours, colours_of};
use crate::normalize::{Extremes, extremes};

/// Tables and buffers that convert the values of one spectrogram feature to pictures.
pub(crate) struct PicturePlan {
    lanes: Lanes,
    args: PictureArgs,
    colours: &'static Colours,
    /// For each column of pixels, its position between two frames.
    columns: Vec<Interpolation>,
}

/// The position of a pixel's centre between two values along one axis.
#[derive(Clone, Copy)]
struct Interpolation {
    /// Index of the first value: the one before the centre.
    first: usize,
    /// Index of the second value: the one after the centre, or the same value at the end of the axis.
    second: usize,
    /// Weight of the second value.
    weight: f32,
}

impl Interpolation {
    /// Returns the position of the centre of pixel `pixel` of `n_out`, on an axis of `n_in` values.
    fn new(pixel: usize, n_in: usize, n_out: usize) -> Self {
        let centre = (pixel as f64 + 0.5) * n_in as f64 / n_out as f64 - 0.5;
        let last = n_in - 1;
        // Centres of pixels before the first value or after the last one are moved to that value.
        let centre = centre.clamp(0.0, last as f64);
        let first = centre as usize;
        Self {
            first,
            second: (first + 1).min(last),
            weight: (centre - first as f64) as f32,
        }
    }

    #[inline(always)]
    fn mix(self, first: f32, second: f32) -> f32 {
        first + (second - first) * self.weight
    }
}

impl PicturePlan {
    pub(crate) fn new(args: &PictureArgs, lanes: Lanes) -> Self {
        Self {
            lanes,
            args: args.clone(),
            colours: colours_of(args.colour_map),
            columns: Vec::new(),
        }
    }

    /// Returns the size, in f32 values, of the buffers for a picture of `width` columns.
    pub(crate) const fn n_scratch_values(width: usize) -> usize {
        width * (size_of::<Interpolation>() / size_of::<f32>())
    }

    /// Computes `[bands, n_frames]` → `[3, height, width]`, or nothing for 0 frames. Allocates only if `out` or the
    /// internal buffer is smaller than ever needed before.
    pub(crate) fn run(&mut self, values: &[f32], n_frames: usize, out: &mut Vec<f32>) {
        out.clear();
        if n_frames == 0 {
            return;
        }

        let n_bands = values.len() / n_frames;
        let height = self.args.height.unwrap_or(n_bands);
        let width = self.args.width.unwrap_or(n_frames);
        // Reserve exactly the required size, because growth by doubling takes up to twice as much.
        out.reserve_exact(CHANNELS * height * width);
        out.resize(CHANNELS * height * width, 0.0);

        self.columns.clear();
        self.columns.reserve_exact(width);
        let columns = (0..width).map(|column| Interpolation::new(column, n_frames, width));
        self.columns.extend(columns);

        let Extremes { min, max } = self.lanes.run(
            #[inline(always)]
            || extremes(values),
        );
        // A constant row is not divided by its range, which is 0.
        let span = if max > min { max - min } else { 1.0 };
        let (red, rest) = out.split_at_mut(height * width);
        let (green, blue) = rest.split_at_mut(height * width);
        for row in 0..height {
            // The first row of pixels is the top one, and low bands are at the bottom.
            let band = Interpolation::new(height - 1 - row, n_bands, height);
            let below = &values[band.first * n_frames..][..n_frames];
            let above = &values[band.second * n_frames..][..n_frames];

            for (column, frame) in self.columns.iter().enumerate() {
                let below = frame.mix(below[frame.first], below[frame.second]);
                let above = frame.mix(above[frame.first], above[frame.second]);
                let share = (band.mix(below, above) - min) / span;

                let [r, g, b] = self.colours.at(share);
                let pixel = row * width + column;
                red[pixel] = r;
                green[pixel] = g;
                blue[pixel] = b;
            }
        }
    }

    /// Frees the memory whose size depends on the clips.
    pub(crate) fn forget_scratch(&mut self) {
        self.columns = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use wavemill_options::ColourMap;
    use wavemill_signal::Level;

    use super::super::reference;
    use super::*;

    /// The largest step between two adjacent colours of a map: rounding may move a value across the border between
    /// them.
    const STEP_MAX: f64 = 0.02;

    fn run(args: &PictureArgs, values: &[f32], n_frames: usize) -> Vec<Vec<f32>> {
        let levels = [Level::Scalar, Level::X86_64V3];
        let levels = levels.into_iter().filter_map(Lanes::new);

        levels
            .map(|lanes| {
                let mut plan = PicturePlan::new(args, lanes);
                // The plan must overwrite the contents of the output from an earlier clip.
                let mut out = vec![9.0; 100];
                plan.run(values, n_frames, &mut out);
                plan.run(values, n_frames, &mut out);
                out
            })
            .collect()
    }

    fn sized(colour_map: ColourMap, height: Option<usize>, width: Option<usize>) -> PictureArgs {
        PictureArgs {
            colour_map,
            height,
            width,
        }
    }

    fn noise(n: usize) -> Vec<f32> {
        let mut state = 7u32;
        let mut values = Vec::with_capacity(n);
        for _ in 0..n {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            values.push(f32::from((state >> 16) as u16) / 1000.0 - 60.0);
        }
        values
    }

    #[test]
    fn pictures_match_the_reference_in_every_size() {
        let (bands, frames) = (16, 31);
        let values = noise(bands * frames);
        let rows: Vec<Vec<f64>> = values
            .chunks_exact(frames)
            .map(|row| row.iter().map(|x| f64::from(*x)).collect())
            .collect();

        for map in [ColourMap::Magma, ColourMap::Viridis, ColourMap::Grey] {
            for (height, width) in [
                (None, None),
                (Some(16), Some(31)),
                (Some(40), Some(7)),
                (Some(1), Some(1)),
                (None, Some(64)),
            ] {
                let args = sized(map, height, width);
                let want = reference::picture(&args, &rows);

                for got in run(&args, &values, frames) {
                    assert_eq!(got.len(), want.len(), "{args:?}");

                    let mut n_steps = 0;
                    for (at, (got, want)) in got.iter().zip(&want).enumerate() {
                        let off = (f64::from(*got) - want).abs();
                        assert!(off <= STEP_MAX, "{args:?}, value {at}: {got}, {want}");
                        n_steps += usize::from(off > 1e-6);
                    }
                    assert!(n_steps * 200 <= want.len(), "{args:?}: {n_steps} steps");
                }
            }
        }
    }

    #[test]
    fn low_bands_are_at_the_bottom_and_the_range_is_the_rows_own() {
        // Two bands of two frames: -80 and -60 below, -40 and 0 above.
        let args = sized(ColourMap::Grey, None, None);
        for got in run(&args, &[-80.0, -60.0, -40.0, 0.0], 2) {
            let channel = [128.0, 255.0, 0.0, 64.0].map(|grey| grey / 255.0);
            assert_eq!(got, [channel; 3].concat());
        }
    }

    #[test]
    fn a_resized_picture_lies_between_its_values() {
        // Two values stretched to four pixels: their centres are at -0.25, 0.25, 0.75 and 1.25.
        let args = sized(ColourMap::Grey, None, Some(4));
        for got in run(&args, &[0.0, 1.0], 2) {
            let indices = [0.0, 64.0, 192.0, 255.0].map(|index| index / 255.0);
            assert_eq!(&got[..4], indices);
        }
    }

    #[test]
    fn a_constant_row_is_all_of_the_first_colour() {
        let args = sized(ColourMap::Magma, Some(3), None);
        for got in run(&args, &[-80.0; 8], 4) {
            assert_eq!(&got[..12], [0.001_462; 12]);
            assert_eq!(got.len(), 36);
        }
        assert!(run(&args, &[], 0).iter().all(Vec::is_empty));
    }
}
