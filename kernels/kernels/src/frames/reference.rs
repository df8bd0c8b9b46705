//! Reference for tests: one value per frame by its definition, in f64.

use wavemill_options::{FrameValues, StftArgs};

use super::ZERO_MAX;
use crate::stft;

/// Returns the values of each frame, `[1][n_frames]`, of PCM followed by zeros until there are `frames_min` frames.
pub(crate) fn values(
    args: &StftArgs,
    values: FrameValues,
    pcm: &[f32],
    frames_min: usize,
) -> Vec<Vec<f64>> {
    let frames = stft::reference::frames(args, pcm, frames_min);
    let of_frame = |frame: &Vec<f64>| match values {
        FrameValues::Spectrum | FrameValues::ConstantQ => {
            panic!("a spectrum has more than one value")
        }
        FrameValues::MeanSquare => frame.iter().map(|x| x * x).sum::<f64>() / frame.len() as f64,
        FrameValues::ZeroCrossings => {
            let is_negative = |x: f64| x < -f64::from(ZERO_MAX);
            let pairs = frame.windows(2);
            let crossings = pairs.filter(|pair| is_negative(pair[0]) != is_negative(pair[1]));
            crossings.count() as f64 / frame.len() as f64
        }
    };
    vec![frames.iter().map(of_frame).collect()]
}
