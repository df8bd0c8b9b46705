//! Window functions, periodic as `librosa.filters.get_window(name, n, fftbins=True)` has them.

use std::f64::consts::PI;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::KernelError;

/// A window by name. Source: `scipy.signal.windows`; Kaldi's `feature-window.cc` for `povey`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Window {
    /// Raised cosine; every preset's default except Kaldi's.
    Hann,
    /// Raised cosine on a pedestal of 0.08.
    Hamming,
    /// Three cosine terms.
    Blackman,
    /// Four cosine terms, minimum side lobes.
    BlackmanHarris,
    /// Four cosine terms, Nuttall's.
    Nuttall,
    /// A triangle that is zero at its start.
    Bartlett,
    /// All ones.
    Boxcar,
    /// Kaldi's own: a **symmetric** Hann window to the power 0.85.
    Povey,
}

impl Window {
    /// Every name, for error messages.
    const NAMES: &'static str =
        "hann, hamming, blackman, blackmanharris, nuttall, bartlett, boxcar (or ones) or povey";

    /// The window's `n` values, f64.
    #[must_use]
    pub fn values(self, n: usize) -> Vec<f64> {
        if n == 1 {
            return vec![1.0];
        }
        // Kaldi's own window is symmetric, and all others are periodic.
        let period = if self == Self::Povey { n - 1 } else { n } as f64;
        (0..n).map(|i| self.at(i as f64 / period)).collect()
    }

    /// The value at `turn` of a period, 0 to 1.
    fn at(self, turn: f64) -> f64 {
        match self {
            Self::Hann => cosines(turn, &[0.5, 0.5]),
            Self::Hamming => cosines(turn, &[0.54, 0.46]),
            Self::Blackman => cosines(turn, &[0.42, 0.5, 0.08]),
            Self::BlackmanHarris => cosines(turn, &[0.35875, 0.48829, 0.14128, 0.01168]),
            Self::Nuttall => cosines(turn, &[0.363_581_9, 0.489_177_5, 0.136_599_5, 0.010_641_1]),
            Self::Bartlett => 1.0 - (2.0 * turn - 1.0).abs(),
            Self::Boxcar => 1.0,
            // Near the ends, rounding may give a sum below 0, of which the power would be NaN.
            Self::Povey => libm::pow(cosines(turn, &[0.5, 0.5]).max(0.0), 0.85),
        }
    }
}

/// `a₀ - a₁ cos(2π turn) + a₂ cos(4π turn) - …` of the terms `a`.
fn cosines(turn: f64, terms: &[f64]) -> f64 {
    let signed = terms.iter().enumerate().map(|(k, a)| {
        let sign = if k % 2 == 0 { 1.0 } else { -1.0 };
        sign * a * libm::cos(2.0 * PI * k as f64 * turn)
    });
    signed.sum()
}

impl FromStr for Window {
    type Err = KernelError;

    fn from_str(name: &str) -> Result<Self, KernelError> {
        Ok(match name {
            "hann" => Self::Hann,
            "hamming" => Self::Hamming,
            "blackman" => Self::Blackman,
            "blackmanharris" => Self::BlackmanHarris,
            "nuttall" => Self::Nuttall,
            "bartlett" => Self::Bartlett,
            "boxcar" | "ones" => Self::Boxcar,
            "povey" => Self::Povey,
            _ => return Err(KernelError::argument("window", name, Self::NAMES)),
        })
    }
}
