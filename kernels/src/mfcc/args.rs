//! Which cosine transform, and how many of its coefficients.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::error::KernelError;

/// Coefficients of the orthonormal cosine transform over bands.
///
/// Shape: `[n_mels, n_frames]` → `[n_mfcc, n_frames]`. Source: `librosa.feature.mfcc`, `scipy.fft.dct(norm="ortho")`;
/// Kaldi's `mel-computations.cc` for its lifter. Defaults come from the preset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MfccArgs {
    /// Coefficients kept, from the lowest; at most `n_mels`.
    pub n_mfcc: usize,
    /// 1, 2 or 3.
    pub dct_type: u8,
    /// Coefficient i is scaled by `1 + lifter / 2 · sin(π (i + lifter_from) / lifter)`; 0: not.
    pub lifter: f64,
    /// 1 as librosa counts, 0 as Kaldi does.
    pub lifter_from: u8,
}

/// More coefficients than this are a mistake, and their matrix grows with the bands too.
const N_MFCC_MAX: usize = 1_024;

impl MfccArgs {
    /// Errors: [`KernelError::Argument`] that names the key and what is allowed.
    pub fn validate(&self, n_mels: usize) -> Result<(), KernelError> {
        if !(1..=n_mels).contains(&self.n_mfcc) {
            return Err(KernelError::argument(
                "n_mfcc",
                self.n_mfcc,
                format!("from 1 to n_mels = {n_mels}"),
            ));
        }

        if self.n_mfcc > N_MFCC_MAX {
            return Err(KernelError::argument(
                "n_mfcc",
                self.n_mfcc,
                format!("at most {N_MFCC_MAX}"),
            ));
        }

        if !(1..=3).contains(&self.dct_type) {
            return Err(KernelError::argument(
                "dct_type",
                self.dct_type,
                "1, 2 or 3",
            ));
        }

        // The formula of type 1 divides by n_mels - 1.
        if self.dct_type == 1 && n_mels < 2 {
            return Err(KernelError::argument(
                "n_mels",
                n_mels,
                "at least 2 for dct_type = 1",
            ));
        }

        if !(0.0..=1e6).contains(&self.lifter) {
            return Err(KernelError::argument(
                "lifter",
                self.lifter,
                "from 0 (none) to 1e6",
            ));
        }
        if self.lifter_from > 1 {
            return Err(KernelError::argument(
                "lifter_from",
                self.lifter_from,
                "0 or 1",
            ));
        }
        Ok(())
    }

    /// The transform and the lifter as one matrix, `[n_mfcc][n_mels]`.
    pub(crate) fn matrix(&self, n_mels: usize) -> Vec<f64> {
        let mut matrix = Vec::with_capacity(self.n_mfcc * n_mels);
        for k in 0..self.n_mfcc {
            let lift = self.lift(k);
            for n in 0..n_mels {
                matrix.push(lift * self.cosine(k, n, n_mels));
            }
        }
        matrix
    }

    /// Entry (k, n) of the orthonormal cosine transform of length `len`.
    fn cosine(&self, k: usize, n: usize, len: usize) -> f64 {
        let x = k as f64;
        let y = n as f64;
        let size = len as f64;
        match self.dct_type {
            1 => {
                let row = half_power_if(k == 0 || k == len - 1);
                let column = half_power_if(n == 0 || n == len - 1);
                (2.0 / (size - 1.0)).sqrt() * row * column * libm::cos(PI * x * y / (size - 1.0))
            }
            3 => {
                (2.0 / size).sqrt()
                    * half_power_if(n == 0)
                    * libm::cos(PI * (2.0 * x + 1.0) * y / (2.0 * size))
            }
            _ => {
                (2.0 / size).sqrt()
                    * half_power_if(k == 0)
                    * libm::cos(PI * x * (2.0 * y + 1.0) / (2.0 * size))
            }
        }
    }

    fn lift(&self, k: usize) -> f64 {
        if self.lifter == 0.0 {
            return 1.0;
        }
        let turn = (k + usize::from(self.lifter_from)) as f64 / self.lifter;
        1.0 + self.lifter / 2.0 * libm::sin(PI * turn)
    }
}

/// What makes the transform orthonormal: entries at an edge are smaller by √2.
fn half_power_if(edge: bool) -> f64 {
    if edge { 0.5f64.sqrt() } else { 1.0 }
}
