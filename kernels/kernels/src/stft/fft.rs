//! The Fourier transform of real frames, computed with a complex one.
//!
//! An even length n uses a complex transform of n / 2 over (even, odd) sample pairs and one pass that separates the two
//! spectra. Each frame is transformed alone, so that a loud frame leaves no rounding noise in its neighbour. Odd
//! lengths use a complex transform of n. Single precision is sufficient for a range of 80 dB; a wider range needs
//! double precision. The planner is that of the given level and never detects the CPU's features, because the planner
//! determines the bits.

use std::f64::consts::PI;
use std::sync::Arc;

use wavemill_fft::num_complex::Complex;
use wavemill_fft::{Fft, FftDirection, Float};
use wavemill_options::StftArgs;
use wavemill_signal::{LANES, Lane, Lanes, Level};

use super::window;
use crate::error::KernelError;

/// Computes the powers of one frame after another, in single or double precision.
pub(crate) trait Transform: Send {
    /// Returns the number of samples that `powers` needs: the window's length, rounded up to whole pairs.
    fn n_loaded(&self) -> usize;

    /// Computes `|X[k]|²` of the windowed `samples`, for k = 0 ..= n / 2.
    fn powers(&mut self, samples: &[f32], row: &mut [f32]);
}

/// Floating-point type of a transform: f32 or f64.
pub(crate) trait Real: Float {
    fn from_double(x: f64) -> Self;
    fn narrow(self) -> f32;
}

impl Real for f32 {
    #[inline(always)]
    fn from_double(x: f64) -> Self {
        x as Self
    }
    #[inline(always)]
    fn narrow(self) -> f32 {
        self
    }
}

impl Real for f64 {
    #[inline(always)]
    fn from_double(x: f64) -> Self {
        x
    }
    #[inline(always)]
    fn narrow(self) -> f32 {
        self as f32
    }
}

/// Tables and buffers for transforms of one length.
pub(crate) struct RealFft<T> {
    /// True if the transform works on pairs of samples; otherwise it is a complex transform of all samples.
    even: bool,
    lanes: Lanes,
    fft: Arc<dyn Fft<T>>,
    /// The window, padded with a zero to whole pairs.
    window: Vec<T>,
    /// Twiddle factors `exp(-2πik / n)` for k = 1 .. n / 4, as many as there are pairs of bins; empty for odd n.
    twiddles: Vec<Complex<T>>,
    buffer: Vec<Complex<T>>,
    scratch: Vec<Complex<T>>,
}

impl<T: Real> RealFft<T> {
    pub(crate) fn new(args: &StftArgs, lanes: Lanes) -> Self {
        let n = args.n_fft;
        let even = n.is_multiple_of(2);
        let len = if even { n / 2 } else { n };
        let fft = plan(len, lanes.level(), FftDirection::Forward)
            .expect("a plan of this level was made where AVX and FMA are");

        let mut window: Vec<T> = window::values(args.window, args.win_length)
            .into_iter()
            .map(T::from_double)
            .collect();
        if even {
            window.resize(window.len().next_multiple_of(2), T::zero());
        }

        // Bins 0, n / 4 and n / 2 need no twiddle factor.
        let n_pairs = if even { (len - 1) / 2 } else { 0 };
        let mut twiddles = Vec::with_capacity(n_pairs);
        for k in 1..=n_pairs {
            let angle = 2.0 * PI * k as f64 / n as f64;
            twiddles.push(Complex::new(
                T::from_double(libm::cos(angle)),
                T::from_double(-libm::sin(angle)),
            ));
        }

        let zero = Complex::new(T::zero(), T::zero());
        Self {
            even,
            lanes,
            window,
            twiddles,
            buffer: vec![zero; len],
            scratch: vec![zero; fft.get_inplace_scratch_len()],
            fft,
        }
    }
}

impl<T: Real> Transform for RealFft<T> {
    fn n_loaded(&self) -> usize {
        self.window.len()
    }

    fn powers(&mut self, samples: &[f32], row: &mut [f32]) {
        let even = self.even;
        let window = &self.window;
        let buffer = &mut self.buffer;
        self.lanes.run(
            #[inline(always)]
            || {
                if even {
                    load_pairs(buffer, samples, window)
                } else {
                    load_real(buffer, samples, window)
                }
            },
        );

        self.fft.process_with_scratch(buffer, &mut self.scratch);

        self.lanes.run(
            #[inline(always)]
            || {
                if even {
                    separate(buffer, &self.twiddles, row)
                } else {
                    squares(buffer, row)
                }
            },
        );
    }
}

/// Plans a transform for the given level, independent of the machine's capabilities.
///
/// Errors: [`KernelError::Level`].
pub(crate) fn plan<T: Float>(
    len: usize,
    level: Level,
    direction: FftDirection,
) -> Result<Arc<dyn Fft<T>>, KernelError> {
    let plan = level.fft_plan(len, direction);
    plan.ok_or(KernelError::Level { level })
}

#[inline(always)]
fn load_pairs<T: Real>(buffer: &mut [Complex<T>], samples: &[f32], window: &[T]) {
    let (head, tail) = buffer.split_at_mut(window.len() / 2);
    for ((z, x), w) in head
        .iter_mut()
        .zip(samples.chunks_exact(2))
        .zip(window.chunks_exact(2))
    {
        *z = Complex::new(
            T::from_double(f64::from(x[0])) * w[0],
            T::from_double(f64::from(x[1])) * w[1],
        );
    }
    // A window that is shorter than the transform is followed by zeros.
    tail.fill(Complex::new(T::zero(), T::zero()));
}

#[inline(always)]
fn load_real<T: Real>(buffer: &mut [Complex<T>], samples: &[f32], window: &[T]) {
    let (head, tail) = buffer.split_at_mut(window.len());
    for ((z, x), w) in head.iter_mut().zip(samples).zip(window) {
        *z = Complex::new(T::from_double(f64::from(*x)) * *w, T::zero());
    }
    // A window that is shorter than the transform is followed by zeros.
    tail.fill(Complex::new(T::zero(), T::zero()));
}

#[inline(always)]
fn squares<T: Real>(bins: &[Complex<T>], row: &mut [f32]) {
    for (power, z) in row.iter_mut().zip(bins) {
        *power = square(z.re, z.im);
    }
}

/// Returns `re² + im²`.
#[inline(always)]
fn square<T: Real>(re: T, im: T) -> f32 {
    (re * re + im * im).narrow()
}

/// Computes the powers of a real transform of n from `z`, the complex transform of n / 2 over pairs.
///
/// With E = (Z[k] + conj Z[m-k]) / 2, O = (Z[k] - conj Z[m-k]) / 2i, W = exp(-2πik / n), m = n / 2: X[k] = E + W·O and
/// X[m-k] = conj(E - W·O).
#[inline(always)]
fn separate<T: Real>(z: &[Complex<T>], twiddles: &[Complex<T>], row: &mut [f32]) {
    let m = z.len();
    let n_pairs = twiddles.len();

    // The outermost bins and the middle one have no partner.
    let first = z[0];
    row[0] = square(first.re + first.im, T::zero());
    row[m] = square(first.re - first.im, T::zero());
    if m.is_multiple_of(2) {
        let middle = z[m / 2];
        row[m / 2] = square(middle.re, middle.im);
    }

    let (low, high) = row.split_at_mut(m - n_pairs);
    let low = &mut low[1..=n_pairs];
    let high = &mut high[..n_pairs];
    let a = &z[1..=n_pairs];
    let b = &z[m - n_pairs..];

    // Eight pairs at a time; the remaining pairs are in the middle: at the end of `low` and the start of `high`.
    let rest = n_pairs % LANES;
    let eights = a
        .chunks_exact(LANES)
        .zip(b.rchunks_exact(LANES))
        .zip(twiddles.chunks_exact(LANES));
    let out = low
        .chunks_exact_mut(LANES)
        .zip(high.rchunks_exact_mut(LANES));
    for (((a, b), w), (low, high)) in eights.zip(out) {
        let (p, q) = pairs(a, b, w);
        low.copy_from_slice(&p);
        high.copy_from_slice(&q);
    }

    for i in n_pairs - rest..n_pairs {
        let mirrored = n_pairs - 1 - i;
        (low[i], high[mirrored]) = pair(a[i], b[mirrored], twiddles[i]);
    }
}

/// Computes [`pair`] for eight values of `a` and eight of `b` in reverse order; the second result is reversed like `b`.
#[inline(always)]
fn pairs<T: Real>(a: &[Complex<T>], b: &[Complex<T>], w: &[Complex<T>]) -> (Lane, Lane) {
    let mut p = [0.0; LANES];
    let mut q = [0.0; LANES];
    for i in 0..LANES {
        (p[i], q[i]) = pair(a[i], b[LANES - 1 - i], w[i]);
    }
    q.reverse();
    (p, q)
}

/// Returns the powers of X[k] and X[m-k] from a = Z[k], b = Z[m-k] and the twiddle factor.
#[inline(always)]
fn pair<T: Real>(a: Complex<T>, b: Complex<T>, w: Complex<T>) -> (f32, f32) {
    // Twice E and O; the factor of 1/4 below corrects the powers.
    let e_re = a.re + b.re;
    let e_im = a.im - b.im;
    let o_re = a.im + b.im;
    let o_im = b.re - a.re;

    // The product W·O.
    let t_re = w.re * o_re - w.im * o_im;
    let t_im = w.re * o_im + w.im * o_re;

    let low = square(e_re + t_re, e_im + t_im);
    let high = square(e_re - t_re, e_im - t_im);
    (0.25 * low, 0.25 * high)
}
