//! Which bands.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::KernelError;

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
    type Err = KernelError;

    fn from_str(name: &str) -> Result<Self, KernelError> {
        match name {
            "slaney" => Ok(Self::Slaney),
            "none" => Ok(Self::None),
            _ => Err(KernelError::argument("norm", name, "slaney or none")),
        }
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

/// More bands than this are a mistake.
const N_MELS_MAX: usize = 2_048;

/// Slaney's scale: 3 mel for every 200 Hz up to 1 kHz, then 27 mel for every factor 6.4.
const SLANEY_HZ_PER_MEL: f64 = 200.0 / 3.0;
const SLANEY_BREAK_HZ: f64 = 1000.0;
const SLANEY_BREAK_MEL: f64 = SLANEY_BREAK_HZ / SLANEY_HZ_PER_MEL;

impl MelArgs {
    /// Errors: [`KernelError::Argument`] that names the key and what is allowed.
    pub fn validate(&self, sample_rate_hz: u32) -> Result<(), KernelError> {
        let nyquist = f64::from(sample_rate_hz) / 2.0;
        if !(1..=N_MELS_MAX).contains(&self.n_mels) {
            return Err(KernelError::argument(
                "n_mels",
                self.n_mels,
                format!("from 1 to {N_MELS_MAX}"),
            ));
        }
        if !(0.0..nyquist).contains(&self.fmin) {
            return Err(KernelError::argument(
                "fmin",
                self.fmin,
                format!("from 0 to below {nyquist} Hz"),
            ));
        }
        if self.fmax <= self.fmin || self.fmax > nyquist || self.fmax.is_nan() {
            let allowed = format!(
                "above fmin = {} Hz and at most {nyquist} Hz (half the sample rate)",
                self.fmin
            );
            return Err(KernelError::argument("fmax", self.fmax, allowed));
        }
        Ok(())
    }

    /// Band edges in Hz: `n_mels + 2`, equally far apart in mel.
    fn edges_hz(&self) -> Vec<f64> {
        let (low, high) = (self.mel(self.fmin), self.mel(self.fmax));
        let step = (high - low) / (self.n_mels + 1) as f64;
        (0..self.n_mels + 2)
            .map(|i| self.hz(low + step * i as f64))
            .collect()
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

    /// The bands' weights over the bins of an `n_fft` transform, each `(first bin, weights)` without outer zeros.
    pub(crate) fn bands(&self, sample_rate_hz: u32, n_fft: usize) -> Vec<(usize, Vec<f64>)> {
        let edges = self.edges_hz();
        let bin_hz = |bin: usize| bin as f64 * f64::from(sample_rate_hz) / n_fft as f64;
        let place = |hz: f64| {
            if self.ramp == Ramp::Hz {
                hz
            } else {
                self.mel(hz)
            }
        };
        let bins: Vec<f64> = (0..=n_fft / 2).map(|bin| place(bin_hz(bin))).collect();
        let band = |edge: &[f64]| {
            let scale = if self.norm == Norm::Slaney {
                2.0 / (edge[2] - edge[0])
            } else {
                1.0
            };
            let [left, middle, right] = [place(edge[0]), place(edge[1]), place(edge[2])];
            let weight = |at: f64| {
                ((at - left) / (middle - left))
                    .min((right - at) / (right - middle))
                    .max(0.0)
            };
            let start = bins.iter().position(|at| weight(*at) > 0.0).unwrap_or(0);
            let under = bins[start..]
                .iter()
                .map(|at| scale * weight(*at))
                .take_while(|w| *w > 0.0);
            (start, under.collect())
        };
        edges.windows(3).map(band).collect()
    }

    /// Bands that lie between two bins and so are always 0; worth a warning.
    #[must_use]
    pub fn empty_bands(&self, sample_rate_hz: u32, n_fft: usize) -> usize {
        self.bands(sample_rate_hz, n_fft)
            .iter()
            .filter(|(_, weights)| weights.is_empty())
            .count()
    }
}
