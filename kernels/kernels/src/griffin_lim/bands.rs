//! Computes a spectrum from the values of its bands.
//!
//! librosa searches for the non-negative spectrum with the least squared error (L-BFGS-B, starting from a clipped
//! pseudo-inverse). It stops early: its tolerance depends on loud bands, and quiet ones keep errors of many decibels.
//! Here each bin is repeatedly multiplied by the mean ratio of given to current values of its bands, weighted by their
//! weights for the bin (W. Richardson 1972, L. Lucy 1974; the update for the divergence of D. Lee and H. Seung 2001).
//! No bin becomes negative, and loud and quiet bands converge equally fast. Over eight seconds of music with 128 bands,
//! the mean error in dB is a hundredth of librosa's, and the squared error is smaller, too.

use wavemill_options::Band;

use super::args::GriffinLimArgs;

/// Number of steps, after which 99 of 100 bands of music are within 0.1 dB.
const STEPS: usize = 30;

/// Largest magnitude: the square root of the largest value of a band.
const MAGNITUDE_MAX: f64 = 1e15;

/// Tables and buffers for computing one frame's spectrum from its bands.
pub(super) struct Inverse {
    power: f64,
    bands: Vec<Band>,
    /// For each bin, the inverse of the sum of its weights in all bands; 0 if no band contains the bin.
    shares: Vec<f64>,
    /// The values of the bands of one frame.
    values: Vec<f64>,
    /// The magnitudes of one frame's bins, raised to the exponent `power`.
    spectrum: Vec<f64>,
    /// The sum of weighted ratios for each bin of one frame, before division by the sum of weights.
    growth: Vec<f64>,
}

impl Inverse {
    pub(super) fn new(args: &GriffinLimArgs) -> Self {
        let n_bins = args.stft.n_bins();
        let mut bands = args.mel.bands(args.sample_rate_hz, args.stft.n_fft);
        let mut sums = vec![0.0; n_bins];
        for band in &mut bands {
            for (bin, weight) in (band.first_bin..).zip(&mut band.weights) {
                *weight *= libm::pow(args.conditioning(bin), args.power);
                sums[bin] += *weight;
            }
        }

        // A bin that is in no band has a sum of weights of 0, and no band changes it.
        let mut shares = Vec::with_capacity(n_bins);
        for sum in sums {
            shares.push(if sum > 0.0 { 1.0 / sum } else { 0.0 });
        }

        Self {
            power: args.power,
            values: vec![0.0; bands.len()],
            bands,
            shares,
            spectrum: vec![0.0; n_bins],
            growth: vec![0.0; n_bins],
        }
    }

    /// Computes the bins of one frame from the values of its bands, `[n_mels]` → `[n_bins]`. Bins in no band are 0.
    pub(super) fn run(&mut self, values: impl Iterator<Item = f64>, magnitudes: &mut [f32]) {
        for (value, given) in self.values.iter_mut().zip(values) {
            *value = given;
        }

        // Each step multiplies the bins by ratios, so a bin that starts at 0 would stay 0.
        self.spectrum.fill(1.0);
        for _ in 0..STEPS {
            self.step();
        }

        for (magnitude, bin) in magnitudes.iter_mut().zip(&self.spectrum) {
            *magnitude = root(*bin, self.power).min(MAGNITUDE_MAX) as f32;
        }
    }

    fn step(&mut self) {
        self.growth.fill(0.0);
        for (band, value) in self.bands.iter().zip(&self.values) {
            let bins = &self.spectrum[band.first_bin..][..band.weights.len()];
            let sum: f64 = bins.iter().zip(&band.weights).map(|(x, w)| x * w).sum();
            // Skip bands between two bins, which contain no bin, and silent bands, which add nothing.
            if *value == 0.0 || sum <= 0.0 {
                continue;
            }

            let ratio = value / sum;
            let growth = &mut self.growth[band.first_bin..][..band.weights.len()];
            for (growth, weight) in growth.iter_mut().zip(&band.weights) {
                *growth += weight * ratio;
            }
        }

        let bins = self.spectrum.iter_mut().zip(&self.growth);
        for ((bin, growth), share) in bins.zip(&self.shares) {
            *bin *= growth * share;
        }
    }
}

/// Returns the magnitude whose `power`-th power is `value`.
fn root(value: f64, power: f64) -> f64 {
    if power == 2.0 {
        value.sqrt()
    } else if power == 1.0 {
        value
    } else {
        libm::pow(value, 1.0 / power)
    }
}
