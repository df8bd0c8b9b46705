//! Reference for tests: the weighted score of each lag, in f64.

use wavemill_options::TempoArgs;

/// Returns the lag of the tempo in frames, from a tempogram `[win_length][n_frames]`.
pub(crate) fn lag(args: &TempoArgs, frames_per_minute: f64, tempogram: &[Vec<f64>]) -> usize {
    let score = |lag: usize| {
        let bpm = frames_per_minute / lag as f64;
        let mean = tempogram[lag].iter().sum::<f64>() / tempogram[lag].len() as f64;
        let deviations = (bpm / args.start_bpm).log2() / args.std_bpm;
        (1e6 * mean).ln_1p() - deviations.powi(2) / 2.0
    };
    let is_slow = |lag: &usize| frames_per_minute / *lag as f64 >= args.max_tempo;
    let lags = 1..tempogram.len();
    let first = lags.clone().take_while(is_slow).count() + 1;
    let first = if first == tempogram.len() { 1 } else { first };
    // The last of equal maxima would be found, so the order is reversed.
    (first..tempogram.len())
        .rev()
        .max_by(|a, b| score(*a).total_cmp(&score(*b)))
        .unwrap()
}
