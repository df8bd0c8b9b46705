//! Eight values side by side, as the transforms compute them: sub-bands in the IMDCT, slots of time in the synthesis.
//!
//! Each lane rounds as it would alone, on every level of instructions.

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

/// Complex values.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WideComplex {
    pub(super) re: Wide,
    pub(super) im: Wide,
}

impl WideComplex {
    /// Times a complex number, the same in all lanes.
    #[inline(always)]
    pub(super) fn turned(self, [re, im]: [f32; 2]) -> Self {
        Self {
            re: self.re * re - self.im * im,
            im: self.re * im + self.im * re,
        }
    }
}

impl Add for WideComplex {
    type Output = Self;

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self {
            re: self.re + other.re,
            im: self.im + other.im,
        }
    }
}

impl Sub for WideComplex {
    type Output = Self;

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self {
            re: self.re - other.re,
            im: self.im - other.im,
        }
    }
}

/// Rows of lanes become columns.
#[inline(always)]
pub(super) fn transpose(rows: [Lane; LANES]) -> [Lane; LANES] {
    let mut columns = [[0.0; LANES]; LANES];
    for row in 0..LANES {
        for column in 0..LANES {
            columns[column][row] = rows[row][column];
        }
    }
    columns
}
