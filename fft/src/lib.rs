//! Plans of complex Fourier transforms, by rustfft.
//!
//! rustfft's planners are generic over the number's type, so every crate and test program that calls one compiles all of
//! its algorithms once more. That was half of the time that the kernels and their tests took to build. Here they are
//! compiled once.
//!
//! The caller says which instructions a plan uses, because they decide the last bits of what it computes. rustfft's own
//! `FftPlanner` would take whatever the machine has.

use std::sync::Arc;

use rustfft::{FftNum, FftPlannerAvx, FftPlannerScalar};

pub use rustfft::num_complex;
pub use rustfft::{Fft, FftDirection};

/// A number that can be transformed: `f32` or `f64`.
///
/// Both write out the same lines: a default method would be compiled by each crate that calls it.
pub trait Float: FftNum {
    /// A transform of `len` numbers by code that every machine can run, whatever other instructions it has.
    fn portable(len: usize, direction: FftDirection) -> Arc<dyn Fft<Self>>;

    /// The same for machines with AVX and FMA; `None` on others.
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
