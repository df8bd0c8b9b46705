//! Mel bands, and the weights of the frequency bins in each band.

use serde::{Deserialize, Serialize};

use crate::fault::Faults;
use crate::words::Named;

/// Maximum number of mel bands: a sixteenth of the bins of the longest FFT.
pub const N_MELS_MAX: usize = 2_048;

/// Normalization of a band's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Norm {
    /// Divides the weights by half of the band's width in Hz, so that all bands have the same area.
    Slaney,
    /// No normalization: the largest weight of each triangle is 1.
    None,
}

impl Named for Norm {
    const KEY: &'static str = "norm";
    const NAMES: &'static [(&'static str, Self)] =
        &[("slaney", Self::Slaney), ("none", Self::None)];
}

/// Frequency scale on which the sides of the triangles are straight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ramp {
    /// Triangles with straight sides in Hz, as in librosa, torchaudio and Whisper.
    Hz,
    /// Triangles with straight sides in mel, as in Kaldi.
    Mel,
}

/// Mel bands of a spectrum.
///
/// Shape: `[n_bins, n_frames]` → `[n_mels, n_frames]`. Units: `fmin`, `fmax` in Hz. Defaults come from the preset.
/// Source: Slaney, Auditory Toolbox (1998); O'Shaughnessy (1987) for `htk`; weights as in `librosa.filters.mel`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MelArgs {
    /// Number of mel bands.
    pub n_mels: usize,
    /// Lower edge of the first band in Hz.
    pub fmin: f64,
    /// Upper edge of the last band in Hz.
    pub fmax: f64,
    /// Whether to use HTK's scale, `2595 · log10(1 + f / 700)`, instead of Slaney's, which is linear below 1 kHz.
    pub htk: bool,
    /// Normalization of each band's weights.
    pub norm: Norm,
    /// Frequency scale on which the triangles have straight sides.
    pub ramp: Ramp,
}

/// Weights of the frequency bins in one mel band.
#[derive(Clone, Debug, PartialEq)]
pub struct Band {
    /// Index of the first bin with a weight above 0.
    pub first_bin: usize,
    /// Weights of the first bin and the following ones, all above 0; empty if the band lies between two bins.
    pub weights: Vec<f64>,
}

/// Slaney's scale: 3 mel per 200 Hz up to 1 kHz, then 27 mel per factor of 6.4.
const SLANEY_HZ_PER_MEL: f64 = 200.0 / 3.0;
const SLANEY_BREAK_HZ: f64 = 1000.0;
const SLANEY_BREAK_MEL: f64 = SLANEY_BREAK_HZ / SLANEY_HZ_PER_MEL;

impl MelArgs {
    /// Computes the weights of all bands over the bins of an `n_fft` transform, in ascending order of frequency.
    pub fn bands(&self, sample_rate_hz: u32, n_fft: usize) -> Vec<Band> {
        let mut bins = Vec::with_capacity(n_fft / 2 + 1);
        for bin in 0..=n_fft / 2 {
            let hz = bin as f64 * f64::from(sample_rate_hz) / n_fft as f64;
            bins.push(self.place(hz));
        }

        self.edges_hz()
            .windows(3)
            .map(|edges| self.band(edges, &bins))
            .collect()
    }

    /// Returns the number of bands that contain no frequency bin, so that their values are always 0.
    pub fn empty_bands(&self, sample_rate_hz: u32, n_fft: usize) -> usize {
        self.bands(sample_rate_hz, n_fft)
            .iter()
            .filter(|band| band.weights.is_empty())
            .count()
    }

    /// Computes the weights of one band from its three edges in Hz. `bins` are the positions of the bins on the scale
    /// of `ramp`.
    fn band(&self, edges_hz: &[f64], bins: &[f64]) -> Band {
        let scale = match self.norm {
            Norm::Slaney => 2.0 / (edges_hz[2] - edges_hz[0]),
            Norm::None => 1.0,
        };
        let triangle = Triangle {
            left: self.place(edges_hz[0]),
            middle: self.place(edges_hz[1]),
            right: self.place(edges_hz[2]),
        };

        let first_bin = bins
            .iter()
            .position(|at| triangle.height(*at) > 0.0)
            .unwrap_or(0);
        let weights = bins[first_bin..]
            .iter()
            .map(|at| scale * triangle.height(*at))
            .take_while(|weight| *weight > 0.0)
            .collect();
        Band { first_bin, weights }
    }

    /// Computes the `n_mels + 2` band edges in Hz, which are equidistant in mel.
    fn edges_hz(&self) -> Vec<f64> {
        let low = self.mel(self.fmin);
        let high = self.mel(self.fmax);
        let step = (high - low) / (self.n_mels + 1) as f64;
        (0..self.n_mels + 2)
            .map(|i| self.hz(low + step * i as f64))
            .collect()
    }

    /// Converts a frequency to the scale of `ramp`, on which the sides of the triangles are straight.
    fn place(&self, hz: f64) -> f64 {
        match self.ramp {
            Ramp::Hz => hz,
            Ramp::Mel => self.mel(hz),
        }
    }

    fn mel(&self, hz: f64) -> f64 {
        if self.htk {
            2595.0 * libm::log10(1.0 + hz / 700.0)
        } else if hz < SLANEY_BREAK_HZ {
            hz / SLANEY_HZ_PER_MEL
        } else {
            SLANEY_BREAK_MEL + libm::log(hz / SLANEY_BREAK_HZ) * 27.0 / libm::log(6.4)
        }
    }

    fn hz(&self, mel: f64) -> f64 {
        if self.htk {
            700.0 * (libm::pow(10.0, mel / 2595.0) - 1.0)
        } else if mel < SLANEY_BREAK_MEL {
            mel * SLANEY_HZ_PER_MEL
        } else {
            SLANEY_BREAK_HZ * libm::exp((mel - SLANEY_BREAK_MEL) * libm::log(6.4) / 27.0)
        }
    }

    /// Adds a fault for each invalid argument of the mel bands for PCM of `sample_rate_hz`.
    pub(crate) fn check(&self, sample_rate_hz: u32, faults: &mut Faults) {
        let nyquist = f64::from(sample_rate_hz) / 2.0;
        faults.count_within(self.n_mels, 1..=N_MELS_MAX, "n_mels");

        let fmin = self.fmin;
        let problem =
            format!("{fmin} is invalid; allowed: from 0 to below {nyquist} (half the sample rate)");
        faults.unless((0.0..nyquist).contains(&fmin), "fmin", problem);

        let fmax = self.fmax;
        let problem = format!(
            "{fmax} is invalid; allowed: above fmin = {fmin}, at most {nyquist} (half the sample rate)"
        );
        faults.unless(fmax > fmin && fmax <= nyquist, "fmax", problem);
    }
}

/// A triangle of height 1, given by the frequencies of its three corners.
struct Triangle {
    left: f64,
    middle: f64,
    right: f64,
}

impl Triangle {
    /// Returns the triangle's height at a frequency; 0 outside of the triangle.
    fn height(&self, at: f64) -> f64 {
        let rising = (at - self.left) / (self.middle - self.left);
        let falling = (self.right - at) / (self.right - self.middle);
        rising.min(falling).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use wavemill_tests::options;

    use crate::{FeatureSpec, Preset};

    fn empty_bands(preset: Preset, sample_rate_hz: u32, n_fft: usize, n_mels: usize) -> usize {
        let spec = options!(preset, n_fft, n_mels);
        let args = spec.resolve(&[], sample_rate_hz).unwrap();
        let mel = args.mel.unwrap();
        mel.empty_bands(sample_rate_hz, n_fft)
    }

    #[test]
    fn empty_bands_are_those_without_a_weight() {
        // Number of all-zero rows in librosa 0.11's filters.mel(sr=22050, n_fft=256, n_mels=128).
        assert_eq!(empty_bands(Preset::Librosa, 22_050, 256, 128), 20);
        assert_eq!(empty_bands(Preset::Librosa, 22_050, 2048, 128), 0);
    }
}
