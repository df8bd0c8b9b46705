//! The Fourier transform of real frames, by a complex one.
//!
//! An even length n takes a complex transform of n / 2 over (even, odd) sample pairs and one pass that separates them:
//! each frame by itself, so that a loud frame leaves no rounding noise in its neighbour. Odd lengths go through a
//! complex transform of n. The planner is the level's own, never the detecting one: it decides bits.

use std::f64::consts::PI;
use std::sync::Arc;

use rustfft::num_complex::Complex;
use rustfft::{Fft, FftDirection};

use super::{LANES, Lane};
use crate::level::{Lanes, Level};

/// Transforms of up to [`LANES`] frames of one length.
pub(super) struct RealFft {
    n: usize,
    lanes: Lanes,
    fft: Arc<dyn Fft<f32>>,
    /// `exp(-2πik / n)` for k = 1 .. n / 4, as far as pairs go; none for odd n.
    twiddles: Vec<Complex<f32>>,
    /// One transform's values a frame.
    buffer: Vec<Complex<f32>>,
    scratch: Vec<Complex<f32>>,
}

impl RealFft {
    pub(super) fn new(n: usize, lanes: Lanes) -> Self {
        let len = if n % 2 == 0 { n / 2 } else { n };
        let fft = plan(len, lanes.level());
        let n_pairs = if n % 2 == 0 { (len - 1) / 2 } else { 0 };
        let twiddle = |k: usize| {
            let angle = 2.0 * PI * k as f64 / n as f64;
            Complex::new(libm::cos(angle) as f32, -libm::sin(angle) as f32)
        };
        let zero = Complex::new(0.0, 0.0);
        Self {
            n,
            lanes,
            twiddles: (1..=n_pairs).map(twiddle).collect(),
            buffer: vec![zero; len * LANES],
            scratch: vec![zero; fft.get_inplace_scratch_len()],
            fft,
        }
    }

    /// Values that a window is padded to, so that `load` sees whole pairs.
    pub(super) const fn padded(&self, win_length: usize) -> usize {
        if self.n % 2 == 0 { win_length.next_multiple_of(2) } else { win_length }
    }

    /// Puts `samples · window` into `slot`, zeros behind it.
    pub(super) fn load(&mut self, slot: usize, samples: &[f32], window: &[f32]) {
        let len = self.fft.len();
        let buffer = &mut self.buffer[slot * len..][..len];
        let even = self.n % 2 == 0;
        self.lanes.run(
            #[inline(always)]
            || if even { load_pairs(buffer, samples, window) } else { load_real(buffer, samples, window) },
        );
    }

    /// Transforms the first `count` slots.
    pub(super) fn transform(&mut self, count: usize) {
        let used = &mut self.buffer[..count * self.fft.len()];
        self.fft.process_with_scratch(used, &mut self.scratch);
    }

    /// `|X[k]|²` of `slot` for k = 0 ..= n / 2.
    pub(super) fn powers(&self, slot: usize, row: &mut [f32]) {
        let len = self.fft.len();
        let bins = &self.buffer[slot * len..][..len];
        let even = self.n % 2 == 0;
        self.lanes.run(
            #[inline(always)]
            || if even { separate(bins, &self.twiddles, row) } else { squares(bins, row) },
        );
    }
}

fn plan(len: usize, level: Level) -> Arc<dyn Fft<f32>> {
    #[cfg(target_arch = "x86_64")]
    if level == Level::X86_64V3 {
        let mut planner = rustfft::FftPlannerAvx::new().expect("a plan of this level was made where AVX and FMA are");
        return planner.plan_fft(len, FftDirection::Forward);
    }
    debug_assert_eq!(level, Level::Scalar);
    rustfft::FftPlannerScalar::new().plan_fft(len, FftDirection::Forward)
}

#[inline(always)]
fn load_pairs(buffer: &mut [Complex<f32>], samples: &[f32], window: &[f32]) {
    let (head, tail) = buffer.split_at_mut(window.len() / 2);
    for ((z, x), w) in head.iter_mut().zip(samples.chunks_exact(2)).zip(window.chunks_exact(2)) {
        *z = Complex::new(x[0] * w[0], x[1] * w[1]);
    }
    tail.fill(Complex::new(0.0, 0.0));
}

#[inline(always)]
fn load_real(buffer: &mut [Complex<f32>], samples: &[f32], window: &[f32]) {
    let (head, tail) = buffer.split_at_mut(window.len());
    for ((z, x), w) in head.iter_mut().zip(samples).zip(window) {
        *z = Complex::new(x * w, 0.0);
    }
    tail.fill(Complex::new(0.0, 0.0));
}

#[inline(always)]
fn squares(bins: &[Complex<f32>], row: &mut [f32]) {
    for (power, z) in row.iter_mut().zip(bins) {
        *power = z.re * z.re + z.im * z.im;
    }
}

/// Powers of a real transform of n from `z`, the complex one of n / 2 over pairs.
///
/// With E = (Z[k] + conj Z[m-k]) / 2, O = (Z[k] - conj Z[m-k]) / 2i, W = exp(-2πik / n), m = n / 2:
/// X[k] = E + W·O and X[m-k] = conj(E - W·O).
#[inline(always)]
fn separate(z: &[Complex<f32>], twiddles: &[Complex<f32>], row: &mut [f32]) {
    let m = z.len();
    let (first, n_pairs) = (z[0], twiddles.len());
    row[0] = (first.re + first.im) * (first.re + first.im);
    row[m] = (first.re - first.im) * (first.re - first.im);
    if m % 2 == 0 {
        let middle = z[m / 2];
        row[m / 2] = middle.re * middle.re + middle.im * middle.im;
    }
    let (low, high) = row.split_at_mut(m - n_pairs);
    let (low, high) = (&mut low[1..=n_pairs], &mut high[..n_pairs]);
    let (a, b) = (&z[1..=n_pairs], &z[m - n_pairs..]);
    // Eight pairs at a time; what is left over lies in the middle: the end of `low` and the start of `high`.
    let rest = n_pairs % LANES;
    let eights = a.chunks_exact(LANES).zip(b.rchunks_exact(LANES)).zip(twiddles.chunks_exact(LANES));
    let out = low.chunks_exact_mut(LANES).zip(high.rchunks_exact_mut(LANES));
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

/// [`pair`] of eight `a` and eight mirrored `b`; the second result is mirrored as `b` is.
#[inline(always)]
fn pairs(a: &[Complex<f32>], b: &[Complex<f32>], w: &[Complex<f32>]) -> (Lane, Lane) {
    let (mut p, mut q) = ([0.0; LANES], [0.0; LANES]);
    for i in 0..LANES {
        (p[i], q[i]) = pair(a[i], b[LANES - 1 - i], w[i]);
    }
    q.reverse();
    (p, q)
}

/// Powers of X[k] and X[m-k] from a = Z[k], b = Z[m-k] and the twiddle.
#[inline(always)]
fn pair(a: Complex<f32>, b: Complex<f32>, w: Complex<f32>) -> (f32, f32) {
    // Twice E and O; their halves come back as a quarter of the powers.
    let (e_re, e_im) = (a.re + b.re, a.im - b.im);
    let (o_re, o_im) = (a.im + b.im, b.re - a.re);
    let (t_re, t_im) = (w.re * o_re - w.im * o_im, w.re * o_im + w.im * o_re);
    let (p_re, p_im, q_re, q_im) = (e_re + t_re, e_im + t_im, e_re - t_re, e_im - t_im);
    (0.25 * (p_re * p_re + p_im * p_im), 0.25 * (q_re * q_re + q_im * q_im))
}
