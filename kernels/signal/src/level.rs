//! Instruction set levels of the CPU's fast path. Only here, code is compiled twice and selected at run time.
//!
//! A level has a name and is not just detected, because a store's bytes depend on it: equal levels produce equal bits
//! on every machine. Loops work on fixed lanes without fused multiply-add, so they round identically on every level;
//! only the FFT, which has a planner per level, differs.

use std::fmt;
use std::sync::Arc;

use wavemill_fft::{Fft, FftDirection, Float};
use wide::f32x4;

use crate::lane::{LANES, Lane};

/// An instruction set level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Instructions that every machine of the target supports.
    Scalar,
    /// The instructions of the x86-64-v3 definition: AVX2, FMA, and the bit manipulation of BMI1, BMI2, LZCNT and MOVBE.
    X86_64V3,
}

impl Level {
    /// Returns the highest level that this machine supports.
    pub fn detect() -> Self {
        if Self::X86_64V3.is_available() {
            Self::X86_64V3
        } else {
            Self::Scalar
        }
    }

    /// Reports whether this machine supports the level's instructions.
    pub fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::X86_64V3 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("bmi1")
                    && is_x86_feature_detected!("bmi2")
                    && is_x86_feature_detected!("lzcnt")
                    && is_x86_feature_detected!("movbe")
                    && is_x86_feature_detected!("popcnt")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Self::X86_64V3 => false,
        }
    }

    /// Plans a Fourier transform with the instructions of this level; `None` if the machine does not support the level.
    pub fn fft_plan<T: Float>(
        self,
        len: usize,
        direction: FftDirection,
    ) -> Option<Arc<dyn Fft<T>>> {
        match self {
            Self::Scalar => Some(T::portable(len, direction)),
            Self::X86_64V3 => T::avx(len, direction),
        }
    }

    /// Returns `scalar` or `x86-64-v3`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::X86_64V3 => "x86-64-v3",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A level that this machine supports; needed to run code compiled for it.
#[derive(Clone, Copy, Debug)]
pub struct Lanes(Level);

impl Lanes {
    /// Creates a `Lanes` for the level; returns `None` if the machine does not support the level.
    pub fn new(level: Level) -> Option<Self> {
        level.is_available().then_some(Self(level))
    }

    /// Returns the instruction set level.
    pub const fn level(self) -> Level {
        self.0
    }

    /// Runs `body` compiled for the instruction set level. Functions called by `body` must be inlined
    /// (`#[inline(always)]`) to be compiled for the same level.
    #[inline]
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    pub fn run<R>(self, body: impl FnOnce() -> R) -> R {
        #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,movbe,popcnt")]
        fn v3<R>(body: impl FnOnce() -> R) -> R {
            body()
        }
        match self.0 {
            Level::Scalar => body(),
            // SAFETY: a `Lanes` of this level exists only if `new` has detected these features.
            Level::X86_64V3 => unsafe { v3(body) },
        }
    }

    /// Runs `body` unchanged; processors other than x86-64 have only one level.
    #[inline]
    #[cfg(not(target_arch = "x86_64"))]
    pub fn run<R>(self, body: impl FnOnce() -> R) -> R {
        body()
    }

    /// Transposes eight rows of eight values.
    #[inline(always)]
    #[allow(unsafe_code)]
    pub fn transpose(self, rows: [&Lane; LANES]) -> [Lane; LANES] {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Level::X86_64V3 => {
                // SAFETY: a `Lanes` of this level exists only if `new` has detected AVX2, which includes AVX.
                let halves = unsafe { [four_columns::<0>(rows), four_columns::<1>(rows)] };
                bytemuck::must_cast(halves)
            }
            _ => transpose_quads(rows),
        }
    }
}

/// Transposes four rows and columns at a time.
#[inline(always)]
fn transpose_quads(rows: [&Lane; LANES]) -> [Lane; LANES] {
    let mut columns = [[0.0; LANES]; LANES];
    for (of_rows, rows) in rows.as_chunks::<4>().0.iter().enumerate() {
        for (of_columns, columns) in columns.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let quads = rows.map(|row| f32x4::new(row.as_chunks().0[of_columns]));
            for (column, quad) in columns.iter_mut().zip(f32x4::transpose(quads)) {
                column.as_chunks_mut().0[of_rows] = quad.to_array();
            }
        }
    }
    columns
}

/// Returns the first or second four columns of eight rows. Rows `n` and `n + 4` are the halves of a register. This takes 20
/// instructions; a plain loop becomes a move for each value. A function of all columns would not always be inlined, since
/// inlining cannot be enforced for a function of a level.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
#[inline]
fn four_columns<const HALF: usize>(rows: [&Lane; LANES]) -> [Lane; 4] {
    use std::arch::x86_64::{
        __m128, _mm256_castps128_ps256, _mm256_insertf128_ps, _mm256_shuffle_ps,
        _mm256_unpackhi_ps, _mm256_unpacklo_ps,
    };

    let of_row = |row: usize| -> __m128 { bytemuck::must_cast(rows[row].as_chunks::<4>().0[HALF]) };
    let of_rows = |row: usize| {
        let low = _mm256_castps128_ps256(of_row(row));
        _mm256_insertf128_ps::<1>(low, of_row(row + 4))
    };
    let (a, b, c, d) = (of_rows(0), of_rows(1), of_rows(2), of_rows(3));

    // Interleave the values of the lower and of the upper columns, and join the pairs of values of each column.
    let (ab_low, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    let (cd_low, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
    [
        bytemuck::must_cast(_mm256_shuffle_ps::<0x44>(ab_low, cd_low)),
        bytemuck::must_cast(_mm256_shuffle_ps::<0xEE>(ab_low, cd_low)),
        bytemuck::must_cast(_mm256_shuffle_ps::<0x44>(ab_high, cd_high)),
        bytemuck::must_cast(_mm256_shuffle_ps::<0xEE>(ab_high, cd_high)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_transposes() {
        let rows: [Lane; LANES] =
            std::array::from_fn(|row| std::array::from_fn(|column| (8 * row + column) as f32));
        let want: [Lane; LANES] =
            std::array::from_fn(|column| std::array::from_fn(|row| rows[row][column]));
        for level in [Level::Scalar, Level::detect()] {
            let lanes = Lanes::new(level).unwrap();
            assert_eq!(lanes.transpose(rows.each_ref()), want, "{level}");
        }
    }
}
