//! Finds the path of beats with the largest score by dynamic programming: a beat's score is its onset strength and that
//! of the best beat before it, less the cost of their interval.

use wavemill_options::{BeatArgs, FeatureArgs, TempoArgs};
use wavemill_signal::Lanes;

use crate::onset::OnsetPlan;
use crate::statistics::median;
use crate::tempo::TempoPlan;
use crate::tempogram::AutocorrelationPlan;

/// Part of the largest local score that the first beat exceeds.
const FIRST_BEAT_PART: f64 = 0.01;

/// Plan of onset strength, tempo and beats, with buffers for a clip.
pub(crate) struct BeatPlan {
    tightness: f64,
    trim: bool,
    onset: OnsetPlan,
    autocorrelation: AutocorrelationPlan,
    tempo: TempoPlan,
    /// Sum of the autocorrelation of all frames at each lag.
    sums: Vec<f64>,
    /// Onset strength of each frame and its neighbours, in standard deviations.
    local_scores: Vec<f64>,
    /// Score of the best path that ends at each frame.
    path_scores: Vec<f64>,
    /// The beat before each frame on this path.
    before: Vec<Option<usize>>,
    /// Frames of the beats in order.
    beats: Vec<usize>,
}

impl BeatPlan {
    pub(crate) fn new(args: &BeatArgs, feature: &FeatureArgs, lanes: Lanes) -> Self {
        let stft = &feature.stft;
        let win_length = BeatArgs::win_length(feature.sample_rate_hz, stft.hop_length);
        let tempo = TempoArgs {
            start_bpm: args.start_bpm,
            ..TempoArgs::LIBROSA
        };

        Self {
            tightness: args.tightness,
            trim: args.trim,
            onset: OnsetPlan::new(&args.onset, stft),
            autocorrelation: AutocorrelationPlan::new(win_length, stft, lanes),
            tempo: TempoPlan::new(&tempo, feature, win_length),
            sums: vec![0.0; win_length],
            local_scores: Vec::new(),
            path_scores: Vec::new(),
            before: Vec::new(),
            beats: Vec::new(),
        }
    }

    /// Returns the bytes of the buffers for a clip of `n_frames`; a tempogram needs fewer.
    pub(crate) const fn scratch_bytes(win_length: usize, n_frames: usize) -> usize {
        let per_frame = 2 * size_of::<f64>() + size_of::<Option<usize>>() + size_of::<usize>();
        AutocorrelationPlan::scratch_bytes(win_length, n_frames) + n_frames * per_frame
    }

    /// Frees the memory whose size depends on the clip.
    pub(crate) fn forget_scratch(&mut self) {
        self.autocorrelation.forget_scratch();
        self.local_scores = Vec::new();
        self.path_scores = Vec::new();
        self.before = Vec::new();
        self.beats = Vec::new();
    }

    /// Computes `[n_frames]` from all log mel bands of all frames.
    pub(crate) fn run(&mut self, bands: &[f32], n_frames: usize, out: &mut [f32]) {
        self.onset.run(bands, n_frames, out);
        if out.iter().all(|x| *x == 0.0) {
            return;
        }

        self.sums.fill(0.0);
        let sums = &mut self.sums;
        self.autocorrelation.load(out);
        self.autocorrelation.run(n_frames, |_, row| {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += f64::from(*value);
            }
        });
        let means = self.sums.iter().map(|sum| sum / n_frames as f64);
        let interval = self.tempo.lag(means);

        self.score_onsets(out, interval);
        self.score_paths(interval);
        self.walk_back();
        out.fill(0.0);
        let (low, high) = self.kept();
        for &beat in &self.beats {
            if (low..high).contains(&beat) {
                out[beat] = 1.0;
            }
        }
    }

    /// Smooths an envelope, in units of its standard deviation, by a normal distribution that is narrow beside the
    /// interval.
    fn score_onsets(&mut self, envelope: &[f32], interval: usize) {
        let n = envelope.len();
        let mean = envelope.iter().map(|x| f64::from(*x)).sum::<f64>() / n as f64;
        let squares = envelope.iter().map(|x| (f64::from(*x) - mean).powi(2));
        let deviation = (squares.sum::<f64>() / (n - 1) as f64).sqrt();

        let weight = |distance: usize| {
            let x = distance as f64 * 32.0 / interval as f64;
            libm::exp(-0.5 * x * x)
        };
        let weights: Vec<f64> = (0..=interval).map(weight).collect();
        self.local_scores.clear();
        self.local_scores.extend((0..n).map(|frame| {
            let near = frame.saturating_sub(interval)..n.min(frame + interval + 1);
            let weighted = near.map(|at| weights[at.abs_diff(frame)] * f64::from(envelope[at]));
            weighted.sum::<f64>() / deviation
        }));
    }

    /// Finds the best beat before each frame, half an interval to two intervals earlier.
    fn score_paths(&mut self, interval: usize) {
        let shortest = (interval as f64 / 2.0).round_ties_even().max(1.0) as usize;
        let longest = 2 * interval;
        let cost = |distance: usize| {
            let ratio = libm::log(distance as f64) - libm::log(interval as f64);
            self.tightness * ratio * ratio
        };
        let costs: Vec<f64> = (shortest..=longest).map(cost).collect();
        let loudest = self.local_scores.iter().copied().fold(0.0, f64::max);

        let mut is_before_first = true;
        self.path_scores.clear();
        self.before.clear();
        for (frame, local_score) in self.local_scores.iter().enumerate() {
            let mut best = None;
            let nearest = (frame + 1).saturating_sub(shortest);
            for (at, cost) in (0..nearest).rev().zip(&costs) {
                let score = self.path_scores[at] - cost;
                if best.is_none_or(|(_, highest)| score > highest) {
                    best = Some((at, score));
                }
            }
            self.path_scores
                .push(local_score + best.map_or(0.0, |(_, score)| score));

            // Beats begin with the first onset.
            is_before_first &= *local_score < FIRST_BEAT_PART * loudest;
            let before = best.filter(|_| !is_before_first).map(|(at, _)| at);
            self.before.push(before);
        }
    }

    /// Walks back from the last frame whose path is good enough to end there.
    fn walk_back(&mut self) {
        let scores = &self.path_scores;
        let last = scores.len() - 1;
        let is_peak = |at: usize| {
            let rises = at > 0 && scores[at] > scores[at - 1];
            rises && (at == last || scores[at] >= scores[at + 1])
        };
        let mut of_peaks: Vec<f32> = (0..=last)
            .filter(|at| is_peak(*at))
            .map(|at| scores[at] as f32)
            .collect();
        let least = 0.5 * median(&mut of_peaks);
        let end = (0..=last)
            .rev()
            .find(|at| is_peak(*at) && scores[*at] >= least);

        self.beats.clear();
        let mut next = Some(end.unwrap_or(last));
        while let Some(beat) = next {
            self.beats.push(beat);
            next = self.before[beat];
        }
        self.beats.reverse();
    }

    /// Returns the frames that keep their beats: between the first and the last one with an onset.
    fn kept(&self) -> (usize, usize) {
        let least = if self.trim { self.least_score() } else { 0.0 };
        let is_kept = |score: &f64| *score > least;
        let low = self.local_scores.iter().position(is_kept);
        let high = self.local_scores.iter().rposition(is_kept);
        (low.unwrap_or(0), high.map_or(0, |last| last + 1))
    }

    /// Returns half of the root mean square of the smoothed local scores of the beats.
    fn least_score(&self) -> f64 {
        let score = |at: Option<usize>| {
            let beat = at.and_then(|at| self.beats.get(at));
            beat.map_or(0.0, |beat| self.local_scores[*beat])
        };
        // librosa's convolution has two values more than there are beats, unless the clip has fewer frames.
        let n_smoothed = (self.beats.len() + 2).min(self.local_scores.len());
        let squares = (0..n_smoothed).map(|at| {
            let beside = score(at.checked_sub(1)) + score(Some(at + 1));
            (score(Some(at)) + 0.5 * beside).powi(2)
        });
        0.5 * (squares.sum::<f64>() / n_smoothed as f64).sqrt()
    }
}
