//! Eight values side by side, as the transforms compute them: sub-bands in the IMDCT, slots of time in the synthesis.
//!
//! Each lane rounds as it would alone, on every level of instructions.
//!
//! A few operations are written over [`Wide`]. A whole transform is written for one lane, in a loop over the lanes: the
//! compiler makes one loop of eight lanes of it. Written over [`Wide`], a transform becomes mostly shuffles, because the
//! compiler then packs neighbours of one lane.

use std::ops::{Add, Mul, Sub};

use crate::lane::{LANES, Lane};

/// One value of each lane.
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

/// A complex value.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Complex {
    pub(super) re: f32,
    pub(super) im: f32,
}

impl Complex {
    /// Times another one.
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

/// Four rows become one of all values side by side. What is written must be one piece: otherwise each value is moved
/// alone.
#[inline(always)]
pub(super) fn interleave<const N: usize>([a, b, c, d]: [&[f32; N]; 4], out: &mut [[f32; 4]; N]) {
    for (at, out) in out.iter_mut().enumerate() {
        *out = [a[at], b[at], c[at], d[at]];
    }
}
