//! Adds up the bins of all frames with the weights of each pitch class.

use wavemill_options::ChromaArgs;
use wavemill_signal::{LANES, Lane, Lanes};

use super::norm::{Norm, normalize_frames};
use super::{CENTER_OCTAVE, OCTAVE_HZ, OCTAVE_WIDTH, TuningPlan};

/// Tables and buffers of one feature.
pub(crate) struct ChromaPlan {
    args: ChromaArgs,
    sample_rate_hz: u32,
    n_fft: usize,
    lanes: Lanes,
    /// Weights of each bin, `[n_chroma, n_bins]`, and the tuning that they are made for.
    weights: Vec<f32>,
    tuning: Option<f64>,
    estimate: TuningPlan,
    /// Pitch classes of eight frames.
    chroma: Vec<Lane>,
}

impl ChromaPlan {
    pub(crate) fn new(args: &ChromaArgs, sample_rate_hz: u32, n_fft: usize, lanes: Lanes) -> Self {
        Self {
            args: args.clone(),
            sample_rate_hz,
            n_fft,
            lanes,
            weights: Vec::new(),
            tuning: None,
            estimate: TuningPlan::new(args.n_chroma, sample_rate_hz, n_fft, lanes),
            chroma: vec![[0.0; LANES]; args.n_chroma],
        }
    }

    /// Frees the memory whose size depends on the clip.
    pub(crate) fn forget_scratch(&mut self) {
        self.estimate.forget_scratch();
    }

    /// Begins a clip of `n_frames` frames.
    pub(crate) fn start(&mut self, n_frames: usize) {
        if self.args.tuning.is_none() {
            self.estimate.start(n_frames);
        }
    }

    /// Keeps the powers of frames `first .. first + count`, a block of eight, for [`ChromaPlan::run`].
    pub(crate) fn block(&mut self, powers: &[Lane], first: usize, count: usize, kept: &mut [f32]) {
        if self.args.tuning.is_none() {
            self.estimate.add(powers, count);
        }
        let values = powers.as_flattened();
        kept[first * powers.len()..][..values.len()].copy_from_slice(values);
    }

    /// Computes the chroma of every frame from the kept powers of all frames, `[n_chroma, n_frames]`.
    pub(crate) fn run(&mut self, kept: &[f32], n_frames: usize, out: &mut [f32]) {
        let tuning = match self.args.tuning {
            Some(tuning) => tuning,
            None => self.estimate.estimate(),
        };
        if self.tuning != Some(tuning) {
            self.weights = weights(&self.args, tuning, self.sample_rate_hz, self.n_fft);
            self.tuning = Some(tuning);
        }

        let Self {
            weights,
            chroma,
            lanes,
            ..
        } = self;
        let (powers, _) = kept.as_chunks();
        let n_bins = weights.len() / chroma.len();
        for (powers, first) in powers.chunks_exact(n_bins).zip((0..).step_by(LANES)) {
            lanes.run(
                #[inline(always)]
                || {
                    add_bins(powers, weights, chroma);
                    let mut norms = [0.0; LANES];
                    normalize_frames(chroma.as_flattened_mut(), &mut norms, Norm::Max);
                },
            );
            let count = LANES.min(n_frames - first);
            for (row, values) in out.chunks_exact_mut(n_frames).zip(&*chroma) {
                row[first..first + count].copy_from_slice(&values[..count]);
            }
        }
    }
}

/// Number of pitch classes that are added up together, so that a sum need not wait for the last addition to it.
const GROUP: usize = 4;

/// Adds up the powers of all bins, with the weights of each pitch class.
#[inline(always)]
fn add_bins(powers: &[Lane], weights: &[f32], chroma: &mut [Lane]) {
    let (groups, rest) = chroma.as_chunks_mut::<GROUP>();
    let mut rows = weights.chunks_exact(powers.len());
    for group in groups {
        let weights = std::array::from_fn(|_| rows.next().unwrap_or_default());
        *group = sums(powers, weights);
    }
    for (sum, weights) in rest.iter_mut().zip(rows) {
        [*sum] = sums(powers, [weights]);
    }
}

#[inline(always)]
fn sums<const N: usize>(powers: &[Lane], weights: [&[f32]; N]) -> [Lane; N] {
    let weights = weights.map(|row| &row[..powers.len()]);
    let mut sums = [[0.0; LANES]; N];
    for (bin, powers) in powers.iter().enumerate() {
        for (sum, weights) in sums.iter_mut().zip(&weights) {
            for lane in 0..LANES {
                sum[lane] += weights[bin] * powers[lane];
            }
        }
    }
    sums
}

/// Returns the weights of `librosa.filters.chroma`, `[n_chroma, n_bins]`.
fn weights(args: &ChromaArgs, tuning: f64, sample_rate_hz: u32, n_fft: usize) -> Vec<f32> {
    let n_chroma = args.n_chroma;
    let n = n_chroma as f64;
    let start_hz = OCTAVE_HZ * libm::exp2(tuning / n);
    let bin_hz = f64::from(sample_rate_hz) / n_fft as f64;
    let class_of = |bin: usize| match bin {
        // librosa puts the bin of 0 Hz one and a half octaves below the next.
        0 => n * libm::log2(bin_hz / start_hz) - 1.5 * n,
        _ => n * libm::log2(bin as f64 * bin_hz / start_hz),
    };

    let n_bins = n_fft / 2 + 1;
    let mut weights = vec![0.0; n_chroma * n_bins];
    let half = (n / 2.0).round_ties_even();
    // The first pitch class is C, three semitones above A.
    let first_class = 3 * (n_chroma / 12);
    for bin in 0..n_bins {
        let class = class_of(bin);
        // In librosa, the last bin has the width 1. It is only reached if the transform has two samples.
        let width = if bin + 1 < n_fft {
            (class_of(bin + 1) - class).max(1.0)
        } else {
            1.0
        };
        let bumps: Vec<f64> = (0..n_chroma)
            .map(|chroma| {
                let wanted = ((chroma + first_class) % n_chroma) as f64;
                let distance = (class - wanted + half + 10.0 * n).rem_euclid(n) - half;
                libm::exp(-2.0 * (distance / width) * (distance / width))
            })
            .collect();

        let norm = bumps.iter().map(|x| x * x).sum::<f64>().sqrt();
        let octaves = (class / n - CENTER_OCTAVE) / OCTAVE_WIDTH;
        let loudness = libm::exp(-0.5 * octaves * octaves);
        let of_bin = weights.iter_mut().skip(bin).step_by(n_bins);
        of_bin
            .zip(&bumps)
            .for_each(|(weight, x)| *weight = (x / norm * loudness) as f32);
    }
    weights
}
