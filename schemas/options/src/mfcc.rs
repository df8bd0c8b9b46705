//! Cosine transform of mel bands, and its number of coefficients.

use serde::{Deserialize, Serialize};

use crate::fault::Faults;

/// Maximum number of cepstral coefficients. A worker's transform matrix has this many rows of up to
/// [`N_MELS_MAX`](crate::N_MELS_MAX) values: 8 MB.
pub const N_MFCC_MAX: usize = 1_024;

const LIFTER_MAX: f64 = 1e6;

/// Cosine transform of mel bands to cepstral coefficients.
///
/// Shape: `[n_mels, n_frames]` → `[n_mfcc, n_frames]`. Source: `librosa.feature.mfcc`, `scipy.fft.dct(norm="ortho")`;
/// Kaldi's `mel-computations.cc` for its lifter. Defaults come from the preset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MfccArgs {
    /// Number of coefficients to keep, starting with the lowest; at most `n_mels`.
    pub n_mfcc: usize,
    /// Type of the transform: 1, 2 or 3.
    pub dct_type: u8,
    /// Lifter: coefficient i is multiplied by `1 + lifter / 2 · sin(π (i + lifter_from) / lifter)`; 0 disables it.
    pub lifter: f64,
    /// Number of the first coefficient in the lifter's formula: 1 in librosa, 0 in Kaldi.
    pub lifter_from: u8,
}

impl MfccArgs {
    /// Adds a fault for each invalid argument of the cosine transform of `n_mels` bands.
    pub(crate) fn check(&self, n_mels: usize, faults: &mut Faults) {
        // A cosine transform of n bands has n coefficients.
        let n_mfcc = self.n_mfcc;
        let problem = format!("{n_mfcc} is out of range; allowed: 1 to n_mels = {n_mels}");
        faults.unless((1..=n_mels).contains(&n_mfcc), "n_mfcc", problem);
        faults.count_within(n_mfcc, 0..=N_MFCC_MAX, "n_mfcc");

        faults.within(Some(f64::from(self.dct_type)), 1.0..=3.0, "dct_type");
        // The formula of a type 1 transform divides by n_mels - 1.
        let problem = format!("1 is invalid; allowed with n_mels = {n_mels}: 2 or 3");
        faults.unless(self.dct_type != 1 || n_mels >= 2, "dct_type", problem);

        faults.within(Some(self.lifter), 0.0..=LIFTER_MAX, "lifter");
        // `lifter_from` is set only by presets, not by an option.
        faults.within(Some(f64::from(self.lifter_from)), 0.0..=1.0, "lifter_from");
    }
}
