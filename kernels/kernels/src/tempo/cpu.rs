//! Adds the logarithms of mean and weight of each lag, and takes the largest sum.

use wavemill_options::{FeatureArgs, TempoArgs};

/// Weights of all lags of a tempogram.
pub(crate) struct TempoPlan {
    frames_per_minute: f64,
    /// Logarithm of the weight of each lag.
    log_weights: Vec<f64>,
}

impl TempoPlan {
    /// Creates the plan for the lags up to `win_length` frames of `feature`.
    pub(crate) fn new(args: &TempoArgs, feature: &FeatureArgs, win_length: usize) -> Self {
        let hop_length = feature.stft.hop_length as f64;
        let frames_per_minute = 60.0 * f64::from(feature.sample_rate_hz) / hop_length;
        let bpm = |lag: usize| frames_per_minute / lag as f64;

        // As in librosa, all lags have their weights if all are too fast.
        let first = (1..win_length).find(|lag| bpm(*lag) < args.max_tempo);

        let log_weight = |lag: usize| {
            let octaves = libm::log2(bpm(lag)) - libm::log2(args.start_bpm);
            let deviations = octaves / args.std_bpm;
            if lag < first.unwrap_or(1) {
                f64::NEG_INFINITY
            } else {
                -0.5 * deviations * deviations
            }
        };

        Self {
            frames_per_minute,
            log_weights: (0..win_length).map(log_weight).collect(),
        }
    }

    /// Computes the tempo of a tempogram `[win_length, n_frames]`, or nothing for 0 frames.
    pub(crate) fn run(&self, tempogram: &[f32], n_frames: usize, out: &mut Vec<f32>) {
        out.clear();
        if n_frames == 0 {
            return;
        }
        let means = tempogram.chunks_exact(n_frames).map(|row| {
            let sum: f64 = row.iter().map(|x| f64::from(*x)).sum();
            sum / n_frames as f64
        });
        out.push((self.frames_per_minute / self.lag(means) as f64) as f32);
    }

    /// Returns the lag of the tempo, at least 1, from the mean autocorrelation at each lag.
    pub(crate) fn lag(&self, means: impl Iterator<Item = f64>) -> usize {
        let mut best = (1, f64::NEG_INFINITY);
        for (lag, (mean, log_weight)) in means.zip(&self.log_weights).enumerate() {
            let score = libm::log1p(1e6 * mean) + log_weight;
            if score > best.1 {
                best = (lag, score);
            }
        }
        best.0
    }
}
