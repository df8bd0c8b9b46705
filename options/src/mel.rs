//! Which bands, and how much of each bin lies in each of them.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::fault::{Fault, Faults};
use crate::words::named;

/// Most mel bands: a sixteenth of the longest FFT's bins.
pub const N_MELS_MAX: usize = 2_048;

/// How a band's weights are scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Norm {
    /// By two over the band's width in Hz: each band has the same area.
    Slaney,
    /// Not at all: each triangle peaks at 1.
    None,
}

impl FromStr for Norm {
    type Err = Fault;

    fn from_str(name: &str) -> Result<Self, Fault> {
        named(
            "norm",
            &[("slaney", Self::Slaney), ("none", Self::None)],
            name,
        )
    }
}

/// Over what a triangle's sides are straight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ramp {
    /// Over Hz: librosa, torchaudio, Whisper.
    Hz,
    /// Over mel: Kaldi.
    Mel,
}

/// Mel bands of a spectrum.
///
/// Shape: `[n_bins, n_frames]` → `[n_mels, n_frames]`. Units: `fmin`, `fmax` in Hz. Defaults come from the preset.
/// Source: Slaney, Auditory Toolbox (1998); O'Shaughnessy (1987) for `htk`; weights as `librosa.filters.mel`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MelArgs {
    /// Number of bands.
    pub n_mels: usize,
    /// Lower edge of the first band, Hz.
    pub fmin: f64,
    /// Upper edge of the last band, Hz.
    pub fmax: f64,
    /// True: HTK's scale, `2595 · log10(1 + f / 700)`; false: Slaney's, linear below 1 kHz.
    pub htk: bool,
    /// Scale of the weights.
    pub norm: Norm,
    /// Shape of the triangles.
    pub ramp: Ramp,
}

/// The bins under a triangle.
#[derive(Clone, Debug, PartialEq)]
pub struct Band {
    /// The first bin with a weight above 0.
    pub first_bin: usize,
    /// Weights of that bin and the following ones, all above 0; none where the band lies between two bins.
    pub weights: Vec<f64>,
}

/// Slaney's scale: 3 mel for every 200 Hz up to 1 kHz, then 27 mel for every factor 6.4.
const SLANEY_HZ_PER_MEL: f64 = 200.0 / 3.0;
const SLANEY_BREAK_HZ: f64 = 1000.0;
const SLANEY_BREAK_MEL: f64 = SLANEY_BREAK_HZ / SLANEY_HZ_PER_MEL;

impl MelArgs {
    /// The bands' weights over the bins of an `n_fft` transform, from the lowest band to the highest.
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

    /// Bands that lie between two bins, and so are always 0.
    pub fn empty_bands(&self, sample_rate_hz: u32, n_fft: usize) -> usize {
        self.bands(sample_rate_hz, n_fft)
            .iter()
            .filter(|band| band.weights.is_empty())
            .count()
    }

    /// The triangle over three edges in Hz, of bins whose places are given.
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

    /// Band edges in Hz: `n_mels + 2`, equally far apart in mel.
    fn edges_hz(&self) -> Vec<f64> {
        let low = self.mel(self.fmin);
        let high = self.mel(self.fmax);
        let step = (high - low) / (self.n_mels + 1) as f64;
        (0..self.n_mels + 2)
            .map(|i| self.hz(low + step * i as f64))
            .collect()
    }

    /// Where a frequency lies on the axis over which the triangles' sides are straight.
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

    /// Everything impossible for PCM of `sample_rate_hz`.
    pub(crate) fn check(&self, sample_rate_hz: u32, faults: &mut Faults) {
        let nyquist = f64::from(sample_rate_hz) / 2.0;
        faults.count_within(self.n_mels, 1..=N_MELS_MAX, "n_mels");

        let fmin = self.fmin;
        let problem = format!(
            "{fmin} is impossible; allowed: from 0 to below {nyquist} (half the sample rate)"
        );
        faults.unless((0.0..nyquist).contains(&fmin), "fmin", problem);

        let fmax = self.fmax;
        let problem = format!(
            "{fmax} is impossible; allowed: above fmin = {fmin}, at most {nyquist} (half the sample rate)"
        );
        faults.unless(fmax > fmin && fmax <= nyquist, "fmax", problem);
    }
}

/// A triangle of height 1, by the places of its corners.
struct Triangle {
    left: f64,
    middle: f64,
    right: f64,
}

impl Triangle {
    /// How high it is at `at`; 0 outside.
    fn height(&self, at: f64) -> f64 {
        let rising = (at - self.left) / (self.middle - self.left);
        let falling = (self.right - at) / (self.right - self.middle);
        rising.min(falling).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use crate::{FeatureArgs, Op, Overrides, Preset};

    fn empty_bands(preset: Preset, sample_rate_hz: u32, n_fft: usize, n_mels: usize) -> usize {
        let overrides = Overrides {
            n_fft: Some(n_fft),
            n_mels: Some(n_mels),
            ..Overrides::default()
        };
        let args = FeatureArgs::resolve(Op::Mel, preset, sample_rate_hz, &overrides).unwrap();
        let mel = args.mel.unwrap();
        mel.empty_bands(sample_rate_hz, n_fft)
    }

    #[test]
    fn empty_bands_are_those_without_a_weight() {
        // Rows of zeros in librosa 0.11's filters.mel(sr=22050, n_fft=256, n_mels=128).
        assert_eq!(empty_bands(Preset::Librosa, 22_050, 256, 128), 20);
        assert_eq!(empty_bands(Preset::Librosa, 22_050, 2048, 128), 0);
    }
}
