//! Estimates by how much the tuning of a clip deviates from A4 = 440 Hz, from the peaks of its spectra.
//!
//! Source: `librosa.estimate_tuning` with its defaults, version 0.11.

use std::ops::Range;

use wavemill_signal::{LANES, Lane, Lanes};

use super::{OCTAVE_HZ, PEAK_MIN, PEAKS_HZ, tuning_steps};

/// Collects the peaks of a clip's spectra.
pub(crate) struct TuningPlan {
    /// Number of pitch classes or bins in an octave.
    n_per_octave: usize,
    lanes: Lanes,
    bin_hz: f64,
    /// Bins before those that may be peaks.
    bins: Range<usize>,
    peaks: Vec<Peak>,
}

/// A peak of a frame's spectrum.
#[derive(Clone, Copy)]
struct Peak {
    /// Height of the parabola through the peak.
    height: f32,
    hz: f32,
}

impl TuningPlan {
    /// Returns the bytes that the peaks of one frame take at most.
    pub(crate) fn peak_bytes(sample_rate_hz: u32, n_fft: usize) -> usize {
        let bin_hz = f64::from(sample_rate_hz) / n_fft as f64;
        n_peaks_max(&bins_before_peaks(bin_hz, n_fft)) * size_of::<Peak>()
    }

    pub(crate) fn new(
        n_per_octave: usize,
        sample_rate_hz: u32,
        n_fft: usize,
        lanes: Lanes,
    ) -> Self {
        let bin_hz = f64::from(sample_rate_hz) / n_fft as f64;
        Self {
            n_per_octave,
            lanes,
            bin_hz,
            bins: bins_before_peaks(bin_hz, n_fft),
            peaks: Vec::new(),
        }
    }

    /// Frees the memory whose size depends on the clip.
    pub(crate) fn forget_scratch(&mut self) {
        self.peaks = Vec::new();
    }

    /// Removes the peaks of the last clip, and makes room for those of a clip of `n_frames` frames.
    pub(crate) fn start(&mut self, n_frames: usize) {
        self.peaks.clear();
        self.peaks.reserve_exact(n_peaks_max(&self.bins) * n_frames);
    }

    /// Adds the local maxima of the first `count` of eight frames, `[n_bins]`, as `librosa.piptrack` does, with parabolas
    /// through three bins.
    pub(crate) fn add(&mut self, values: &[Lane], count: usize) {
        self.lanes.run(
            #[inline(always)]
            || {
                let mut largest = [0.0f32; LANES];
                for bin in values {
                    for (largest, value) in largest.iter_mut().zip(bin) {
                        *largest = largest.max(*value);
                    }
                }

                let least = largest.map(|x| PEAK_MIN * x);
                let ends = values.windows(3).enumerate();
                for (before, bins) in ends.take(self.bins.end).skip(self.bins.start) {
                    let are_peaks = are_peaks([bins[0], bins[1], bins[2]], least);
                    if are_peaks == [false; LANES] {
                        continue;
                    }
                    for frame in (0..count).filter(|frame| are_peaks[*frame]) {
                        let three = [bins[0][frame], bins[1][frame], bins[2][frame]];
                        self.peaks.push(Peak::new(three, before + 1, self.bin_hz));
                    }
                }
            },
        );
    }

    /// Returns the deviation of the peaks in pitch classes or bins, -0.5 to 0.49; 0 without peaks.
    pub(crate) fn estimate(&mut self) -> f64 {
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
            let classes = self.n_per_octave as f32 * libm::log2f(peak.hz / OCTAVE_HZ as f32);
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

/// Returns which frames have a peak in the middle of three bins, above the least height of a peak.
#[inline(always)]
fn are_peaks([a, b, c]: [Lane; 3], least: Lane) -> [bool; LANES] {
    // Without early exits, so that the comparisons can be vectorized.
    std::array::from_fn(|i| (b[i] > least[i]) & (b[i] > a[i]) & (b[i] >= c[i]))
}

/// Returns the largest number of peaks of a frame: at most every second bin is one.
fn n_peaks_max(bins: &Range<usize>) -> usize {
    bins.len() / 2 + 1
}

/// Returns the bins before those that may be peaks.
fn bins_before_peaks(bin_hz: f64, n_fft: usize) -> Range<usize> {
    let first_from = |hz: f64| (1..n_fft).find(|bin| *bin as f64 * bin_hz >= hz);
    let [first, end] = [PEAKS_HZ.start, PEAKS_HZ.end].map(|hz| first_from(hz).unwrap_or(n_fft));
    first - 1..end - 1
}
