//! Downsampling of tables of numbers to the resolution at which a page shows them.

/// Memory layout of a row of a feature with bands and frames, or of a channel of a picture, whose rows of pixels are
/// bands.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// Number of bands.
    pub bands: usize,
    /// Number of frames.
    pub frames: usize,
    /// Number of frames that are shown, from the first one.
    pub shown: usize,
    /// True if the values of one frame are contiguous, false if the values of one band are.
    pub is_frame_first: bool,
}

impl Grid {
    /// Maximum number of bands and columns of a spectrogram, about the resolution at which a screen shows it.
    pub const SHOWN: [usize; 2] = [128, 160];

    /// Creates the layout of contiguous bands, of which all frames are shown.
    pub const fn new(bands: usize, frames: usize) -> Self {
        Self {
            bands,
            frames,
            shown: frames,
            is_frame_first: false,
        }
    }

    /// Downsamples the shown frames to at most this number of bands and columns. Returns the number of columns, and the
    /// values band by band. Each is the mean of the values in its cell.
    pub fn smaller(self, values: &[f32], [bands, columns]: [usize; 2]) -> (usize, Vec<f32>) {
        let columns = self.shown.min(columns);
        let bands = self.bands.min(bands);

        let mut sums = vec![0.0_f32; bands * columns];
        let mut counts = vec![0_u32; bands * columns];

        for band in 0..self.bands {
            let row = band * bands / self.bands;
            for frame in 0..self.shown {
                let at = if self.is_frame_first {
                    frame * self.bands + band
                } else {
                    band * self.frames + frame
                };
                let place = row * columns + frame * columns / self.shown;
                sums[place] += values[at];
                counts[place] += 1;
            }
        }

        for (sum, n) in sums.iter_mut().zip(counts) {
            *sum /= n.max(1) as f32;
        }
        (columns, sums)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_picture_has_the_means_of_a_large_one() {
        let frames = Grid {
            bands: 256,
            frames: 320,
            shown: 320,
            is_frame_first: false,
        };
        let values: Vec<f32> = (0..256 * 320).map(|at| (at / 320) as f32).collect();
        let (columns, small) = frames.smaller(&values, Grid::SHOWN);
        assert_eq!((columns, small.len()), (160, 128 * 160));
        assert_eq!((small[0], small[159], small[160]), (0.5, 0.5, 2.5));

        let turned = Grid {
            is_frame_first: true,
            ..frames
        };
        let values: Vec<f32> = (0..256 * 320).map(|at| (at % 256) as f32).collect();
        assert_eq!(turned.smaller(&values, Grid::SHOWN).1, small);
        let begin = Grid {
            shown: 80,
            ..frames
        };
        let (columns, small) = begin.smaller(&values, Grid::SHOWN);
        assert_eq!((columns, small.len()), (80, 128 * 80));

        let tiny = Grid {
            bands: 2,
            frames: 3,
            shown: 3,
            is_frame_first: false,
        };
        let values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        assert_eq!(tiny.smaller(&values, Grid::SHOWN), (3, values.to_vec()));
    }
}
