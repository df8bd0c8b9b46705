//! Vectors of eight values, as used by the transforms: sub-bands in the IMDCT, time slots in the synthesis.
//!
//! Each of the eight values is rounded like a scalar, at every instruction set level.
//!
//! Only a few operations are written with [`Wide`]. A whole transform is written for one of the eight values (lanes),
//! in a loop over the lanes, which the compiler turns into vector code. A transform written with [`Wide`] becomes
//! mostly shuffles, because the compiler then packs adjacent values of one lane.

use std::ops::{Add, Mul, Sub};

use wavemill_signal::{LANES, Lane, Lanes};

/// A vector of eight values.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wide(pub(super) Lane);

impl Wide {
    pub(super) const ZERO: Self = Self([0.0; LANES]);
}

impl Add for Wide {
    type Output = Self;

    #[inline(always)]
    fn add(mut self, other: Self) -> Self {
        for lane in 0..LANES {
            self.0[lane] += other.0[lane];
        }
        self
    }
}

impl Sub for Wide {
    type Output = Self;

    #[inline(always)]
    fn sub(mut self, other: Self) -> Self {
        for lane in 0..LANES {
            self.0[lane] -= other.0[lane];
        }
        self
    }
}

impl Mul for Wide {
    type Output = Self;

    #[inline(always)]
    fn mul(mut self, other: Self) -> Self {
        for lane in 0..LANES {
            self.0[lane] *= other.0[lane];
        }
        self
    }
}

impl Mul<f32> for Wide {
    type Output = Self;

    #[inline(always)]
    fn mul(mut self, factor: f32) -> Self {
        for lane in 0..LANES {
            self.0[lane] *= factor;
        }
        self
    }
}

/// A complex number.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Complex {
    pub(super) re: f32,
    pub(super) im: f32,
}

impl Complex {
    /// Returns the product with the complex number `[re, im]`.
    #[inline(always)]
    pub(super) fn turned(self, [re, im]: [f32; 2]) -> Self {
        Self {
            re: self.re * re - self.im * im,
            im: self.re * im + self.im * re,
        }
    }
}

impl Add for Complex {
    type Output = Self;

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self {
            re: self.re + other.re,
            im: self.im + other.im,
        }
    }
}

impl Sub for Complex {
    type Output = Self;

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self {
            re: self.re - other.re,
            im: self.im - other.im,
        }
    }
}

/// Returns eight columns of eight rows, from column `first` on, each with the values of all rows.
#[inline(always)]
pub(super) fn columns<const N: usize>(
    lanes: Lanes,
    rows: [&[f32; N]; LANES],
    first: usize,
) -> [Lane; LANES] {
    lanes.transpose(rows.map(|row| row[first..].first_chunk().expect("eight columns")))
}
