//! Vectors of eight values, as used by the transforms: sub-bands in the IMDCT, time slots in the synthesis.
//!
//! Each of the eight values is rounded like a scalar, at every instruction set level.
//!
//! Only a few operations are written with [`Wide`]. A whole transform is written for one of the eight values (lanes),
//! in a loop over the lanes, which the compiler turns into vector code. A transform written with [`Wide`] becomes
//! mostly shuffles, because the compiler then packs adjacent values of one lane.

use std::ops::{Add, Mul, Sub};

use wavemill_kernels::{LANES, Lane};

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

/// Interleaves four rows: `out[i]` contains value `i` of each row. Each output is written as one array; otherwise the
/// compiler moves every value separately.
#[inline(always)]
pub(super) fn interleave<const N: usize>([a, b, c, d]: [&[f32; N]; 4], out: &mut [[f32; 4]; N]) {
    for (at, out) in out.iter_mut().enumerate() {
        *out = [a[at], b[at], c[at], d[at]];
    }
}
