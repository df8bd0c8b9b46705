//! The synthesis filter, computed only for every second sample, from the lower half of the sub-bands.
//!
//! The standard's matrixing is `V[i] = Σ S[k] cos(π / 64 · (16 + i) (2k + 1))` (ISO/IEC 11172-3 §2.4.3.2.2), and output
//! `j` is a windowed sum over `V[j]` and `V[32 + j]` of 16 slots. With `c[n] = Σ S[k] cos(π / 64 · n (2k + 1))` these
//! are `c[16 + j]` and `-c[16 - j]`, where `c[-n]` is `c[n]`, and `c[64 - n]` is `-c[n]`. So outputs of one parity need
//! `c[n]` of that parity only. With 16 sub-bands, one transform of 16 points computes them:
//!
//! - **Even phase.** `c[2m] = Σ S[k] cos(π / 32 · m (2k + 1))` is that transform. Outputs `j` and `32 - j` are sums
//!   over the same values, so 9 of the 17 filters of the whole band remain: those of `j` = 0, 2 and so on up to 16.
//! - **Odd phase.** With `θ = π / 64 · (2k + 1)`, `2 cos θ cos((2m + 1) θ)` is `cos(2m θ) + cos((2m + 2) θ)`. So
//!   `c[2m + 1]` is `d[m] + d[m + 1]`, where `d` is the transform of `S[k] / (2 cos θ)`, and `d[16]` is zero: the odd
//!   half of Lee's step from 16 to 32 points. 8 filters remain: those of `j` = 1, 3 and so on up to 15.

use crate::layer3::SUB_BANDS;
use crate::layer3::dct32::{dct16, odd_of_dct32};
use crate::layer3::synthesis::Synthesis;

/// Number of samples that are computed of each time slot.
pub(super) const HALF: usize = SUB_BANDS / 2;

impl Synthesis<HALF> {
    /// Computes every second sample of each time slot from `phase` on, for the slots of at most a frame.
    #[inline(always)]
    pub(super) fn run_half(&mut self, phase: usize, slots: &[[f32; SUB_BANDS]], out: &mut [f32]) {
        let secants = self.secants;
        if phase == 0 {
            self.run_part(
                0,
                slots,
                #[inline(always)]
                |s| dct16(s, secants),
                out,
            );
        } else {
            self.run_part(
                1,
                slots,
                #[inline(always)]
                |s| odd_of_dct32(s, secants),
                out,
            );
        }
    }
}
