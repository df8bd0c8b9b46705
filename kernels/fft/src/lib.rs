//! Plans of complex Fourier transforms, computed by rustfft.
//!
//! rustfft's planners are generic over the number type, so every crate and test program that uses one compiles all of
//! its algorithms again, which was half of the build time of the kernels and their tests. This crate compiles them
//! once.
//!
//! The caller chooses the instruction set of a plan, because it affects the last bits of the results. rustfft's own
//! `FftPlanner` uses all instructions that the machine supports.

use std::sync::Arc;

use rustfft::{FftNum, FftPlannerAvx, FftPlannerScalar};

pub use rustfft::num_complex;
pub use rustfft::{Fft, FftDirection};

/// A floating-point type with Fourier transforms: `f32` or `f64`.
///
/// The implementations for `f32` and `f64` are equal: a default method would be compiled in each crate that calls it.
pub trait Float: FftNum {
    /// Creates a Fourier transform of length `len` that only uses instructions available on every machine.
    fn portable(len: usize, direction: FftDirection) -> Arc<dyn Fft<Self>>;

    /// Creates a Fourier transform of length `len` that uses AVX and FMA; `None` if the machine does not support them.
    fn avx(len: usize, direction: FftDirection) -> Option<Arc<dyn Fft<Self>>>;
}

impl Float for f32 {
    fn portable(len: usize, direction: FftDirection) -> Arc<dyn Fft<Self>> {
        FftPlannerScalar::new().plan_fft(len, direction)
    }

    fn avx(len: usize, direction: FftDirection) -> Option<Arc<dyn Fft<Self>>> {
        let mut planner = FftPlannerAvx::new().ok()?;
        Some(planner.plan_fft(len, direction))
    }
}

impl Float for f64 {
    fn portable(len: usize, direction: FftDirection) -> Arc<dyn Fft<Self>> {
        FftPlannerScalar::new().plan_fft(len, direction)
    }

    fn avx(len: usize, direction: FftDirection) -> Option<Arc<dyn Fft<Self>>> {
        let mut planner = FftPlannerAvx::new().ok()?;
        Some(planner.plan_fft(len, direction))
    }
}
