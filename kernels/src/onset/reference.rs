//! Reference for tests: the onset strength by its definition, in f64.

use wavemill_options::{Framing, StftArgs};

/// Returns the strength of every frame, `[1][n_frames]`, of log mel bands, `[n_mels][n_frames]`.
pub(crate) fn strength(lag: usize, stft: &StftArgs, bands: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let n_frames = bands[0].len();
    let delay = match stft.framing {
        Framing::Center(_) => stft.n_fft / (2 * stft.hop_length),
        Framing::Inside | Framing::SnipEdges => 0,
    };
    let of_frame = |frame: usize| {
        let Some(before) = frame.checked_sub(lag + delay) else {
            return 0.0;
        };
        let increases = bands
            .iter()
            .map(|band| (band[before + lag] - band[before]).max(0.0));
        increases.sum::<f64>() / bands.len() as f64
    };
    vec![(0..n_frames).map(of_frame).collect()]
}
