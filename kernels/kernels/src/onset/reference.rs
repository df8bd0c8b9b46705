//! Reference for tests: the onset strength by its definition, in f64.

use wavemill_options::{Aggregate, Framing, OnsetArgs, StftArgs};

/// Returns the strength of every frame, `[n_frames]`, of log mel bands, `[n_mels][n_frames]`.
pub(crate) fn strength(args: &OnsetArgs, stft: &StftArgs, bands: &[Vec<f64>]) -> Vec<f64> {
    let n_frames = bands[0].len();
    let delay = match stft.framing {
        Framing::Center(_) => stft.n_fft / (2 * stft.hop_length),
        Framing::Inside | Framing::SnipEdges => 0,
    };

    let of_frame = |frame: usize| {
        let Some(before) = frame.checked_sub(args.lag + delay) else {
            return 0.0;
        };
        let mut increases: Vec<f64> = bands
            .iter()
            .map(|band| (band[before + args.lag] - band[before]).max(0.0))
            .collect();

        match args.aggregate {
            Aggregate::Mean => increases.iter().sum::<f64>() / bands.len() as f64,
            Aggregate::Median => crate::median(&mut increases),
        }
    };
    (0..n_frames).map(of_frame).collect()
}
