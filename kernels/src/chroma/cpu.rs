//! Adds up the bins of all frames with the weights of each pitch class, and estimates the tuning before.

use wavemill_options::ChromaArgs;

use super::{CENTER_OCTAVE, OCTAVE_HZ, OCTAVE_WIDTH, PEAK_MIN, PEAKS_HZ, tuning_steps};
use crate::level::Lanes;

/// Tables and buffers of one feature.
pub(crate) struct ChromaPlan {
    args: ChromaArgs,
    sample_rate_hz: u32,
    n_fft: usize,
    lanes: Lanes,
    /// Weights of each bin, `[n_bins, n_chroma]`, and the tuning that they are made for.
    weights: Vec<f32>,
    tuning: Option<f64>,
    /// Buffer for the largest power of each frame, or of its pitch classes.
    largest: Vec<f32>,
    /// Buffer for the peaks of all frames.
    peaks: Vec<Peak>,
}

/// A peak of a frame's spectrum.
#[derive(Clone, Copy)]
struct Peak {
    /// Height of the parabola through the peak.
    height: f32,
    hz: f32,
}

impl ChromaPlan {
    /// Upper bound on the bytes of the peaks of one frame: at most every second bin is a peak.
    pub(crate) const fn peak_bytes(n_fft: usize) -> usize {
        (n_fft / 4 + 1) * size_of::<Peak>()
    }

    pub(crate) fn new(args: &ChromaArgs, sample_rate_hz: u32, n_fft: usize, lanes: Lanes) -> Self {
        Self {
            args: args.clone(),
            sample_rate_hz,
            n_fft,
            lanes,
            weights: Vec::new(),
            tuning: None,
            largest: Vec::new(),
            peaks: Vec::new(),
        }
    }

    /// Frees the memory whose size depends on the clip.
    pub(crate) fn forget_scratch(&mut self) {
        self.largest = Vec::new();
        self.peaks = Vec::new();
    }

    /// Computes the chroma of every frame from the powers of all frames.
    pub(crate) fn run(&mut self, powers: &[f32], n_frames: usize, out: &mut [f32]) {
        let tuning = match self.args.tuning {
            Some(tuning) => tuning,
            None => self.estimate_tuning(powers, n_frames),
        };
        if self.tuning != Some(tuning) {
            self.weights = weights(&self.args, tuning, self.sample_rate_hz, self.n_fft);
            self.tuning = Some(tuning);
        }

        let Self {
            weights,
            largest,
            lanes,
            args,
            ..
        } = self;
        largest.clear();
        largest.resize(n_frames, 0.0);
        out.fill(0.0);
        lanes.run(
            #[inline(always)]
            || {
                let bins = powers.chunks_exact(n_frames);
                for (powers, weights) in bins.zip(weights.chunks_exact(args.n_chroma)) {
                    add_bin(powers, weights, out);
                }
                scale(out, largest);
            },
        );
    }

    /// Returns the deviation of the peaks from equal temperament at A4 = 440 Hz, in pitch classes, -0.5 to 0.49.
    fn estimate_tuning(&mut self, powers: &[f32], n_frames: usize) -> f64 {
        self.collect_peaks(powers, n_frames);
        let n_peaks = self.peaks.len();
        if n_peaks == 0 {
            return 0.0;
        }

        // The median of an even number is the mean of the two in the middle.
        let by_height = |one: &Peak, other: &Peak| one.height.total_cmp(&other.height);
        let (lower, middle, _) = self.peaks.select_nth_unstable_by(n_peaks / 2, by_height);
        let middle = middle.height;
        let below = lower.iter().map(|peak| peak.height).fold(0.0, f32::max);
        let median = match n_peaks % 2 {
            0 => (below + middle) / 2.0,
            _ => middle,
        };

        let steps = tuning_steps();
        let last = steps.len() - 2;
        let mut counts = vec![0u32; last + 1];
        for peak in self.peaks.iter().filter(|peak| peak.height >= median) {
            let classes = self.args.n_chroma as f32 * libm::log2f(peak.hz / OCTAVE_HZ as f32);
            let deviation = classes - classes.floor();
            let deviation = if deviation >= 0.5 {
                deviation - 1.0
            } else {
                deviation
            };
            let step = steps.partition_point(|start| *start <= f64::from(deviation));
            counts[(step.max(1) - 1).min(last)] += 1;
        }

        let largest = counts.iter().max();
        let first = counts.iter().position(|count| Some(count) == largest);
        first.map_or(0.0, |step| steps[step])
    }

    /// Finds the local maxima of each frame, as `librosa.piptrack` does, with parabolas through three bins.
    fn collect_peaks(&mut self, powers: &[f32], n_frames: usize) {
        let Self { largest, peaks, .. } = self;
        largest.clear();
        largest.resize(n_frames, 0.0);
        for powers in powers.chunks_exact(n_frames) {
            for (largest, power) in largest.iter_mut().zip(powers) {
                *largest = largest.max(*power);
            }
        }

        peaks.clear();
        let bin_hz = f64::from(self.sample_rate_hz) / self.n_fft as f64;
        let n_bins = powers.len() / n_frames;
        let row = |bin: usize| &powers[bin * n_frames..][..n_frames];
        for bin in 1..n_bins.saturating_sub(1) {
            if !PEAKS_HZ.contains(&(bin as f64 * bin_hz)) {
                continue;
            }
            let (before, here, after) = (row(bin - 1), row(bin), row(bin + 1));
            for frame in 0..n_frames {
                let (a, b, c) = (before[frame], here[frame], after[frame]);
                if b > PEAK_MIN * largest[frame] && b > a && b >= c {
                    peaks.push(Peak::new([a, b, c], bin, bin_hz));
                }
            }
        }
    }
}

impl Peak {
    /// Creates a peak from the powers of a bin and its neighbours.
    fn new([a, b, c]: [f32; 3], bin: usize, bin_hz: f64) -> Self {
        let curvature = f64::from(c) + f64::from(a) - 2.0 * f64::from(b);
        let slope = (c - a) / 2.0;
        let shift = if f64::from(slope).abs() >= curvature.abs() {
            0.0
        } else {
            (-f64::from(slope) / curvature) as f32
        };
        Self {
            height: b + 0.5 * slope * shift,
            hz: ((bin as f64 + f64::from(shift)) * bin_hz) as f32,
        }
    }
}

/// Adds the powers of one bin to the pitch classes, `[n_chroma, n_frames]`.
#[inline(always)]
fn add_bin(powers: &[f32], weights: &[f32], out: &mut [f32]) {
    for (sums, weight) in out.chunks_exact_mut(powers.len()).zip(weights) {
        for (sum, power) in sums.iter_mut().zip(powers) {
            *sum += weight * power;
        }
    }
}

/// Divides each frame by its largest value.
#[inline(always)]
fn scale(out: &mut [f32], largest: &mut [f32]) {
    for values in out.chunks_exact(largest.len()) {
        for (largest, value) in largest.iter_mut().zip(values) {
            *largest = largest.max(*value);
        }
    }
    // As in librosa, values below the smallest normal number are not scaled.
    for largest in largest.iter_mut() {
        if *largest < f32::MIN_POSITIVE {
            *largest = 1.0;
        }
    }
    for values in out.chunks_exact_mut(largest.len()) {
        for (value, largest) in values.iter_mut().zip(&*largest) {
            *value /= largest;
        }
    }
}

/// Returns the weights of `librosa.filters.chroma`, `[n_bins, n_chroma]`.
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
    let mut weights = Vec::with_capacity(n_bins * n_chroma);
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
        weights.extend(bumps.iter().map(|x| (x / norm * loudness) as f32));
    }
    weights
}
