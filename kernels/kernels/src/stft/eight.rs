//! Power spectra of eight frames of 2,048 samples at once: each lane of a vector contains one frame.
//!
//! Therefore the rounding of one frame does not affect its neighbour, no values are shuffled within a vector, and all
//! levels round identically. A real transform of 2,048 = 64 · 32 points has two passes (Cooley and Tukey; with n = 32
//! n₁ + n₂ and k = k₁ + 64 k₂): 32 real transforms of 64 points over n₁, multiplication by exp(-2πi k₁ n₂ / 2048), then
//! complex transforms of 32 points over n₂. Real samples need only k₁ = 0 ..= 32: X[2048 - k] is the conjugate of X[k].
//!
//! Each step is written for one lane, in a loop over all lanes, which the compiler vectorizes. Values between two steps
//! are in memory, with one slot per lane: a longer step would not fit into registers, and the compiler would generate
//! scalar code. Only the transposition of samples into lanes is written with explicit vectors (`wide`), because the
//! compiler generates poor code for a transposition loop.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use wavemill_fft::num_complex::Complex32;
use wavemill_signal::{LANES, Lane};
use wide::f32x4;

/// Number of points of the transform.
pub(super) const N_FFT: usize = 2048;
/// Number of bins of the transform.
pub(super) const N_BINS: usize = N_FFT / 2 + 1;
/// Number of points of the real transforms, and number of distinct bins of each.
const REAL_POINTS: usize = 64;
const REAL_BINS: usize = REAL_POINTS / 2 + 1;
/// Number of points of the complex transforms.
const POINTS: usize = N_FFT / REAL_POINTS;
/// Number of points in one step of the real and the complex transforms.
const EIGHT: usize = 8;
/// Number of consecutive n₂ that are loaded together: a cache line contains as many samples of a frame.
const GROUP: usize = 16;
/// The same sample of all frames, four frames per vector. `wide` has vectors of eight only in programs that are
/// compiled for AVX as a whole.
type Sample = [f32x4; LANES / 4];
/// Number of points of a step in the first pass of the complex transforms.
const FOUR: usize = POINTS / EIGHT;

/// A complex number for each of the eight frames: one cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Wide {
    re: Lane,
    im: Lane,
}

impl Wide {
    const ZERO: Self = Self {
        re: [0.0; LANES],
        im: [0.0; LANES],
    };

    #[inline(always)]
    fn get(&self, lane: usize) -> Complex32 {
        Complex32::new(self.re[lane], self.im[lane])
    }

    #[inline(always)]
    fn set(&mut self, lane: usize, z: Complex32) {
        self.re[lane] = z.re;
        self.im[lane] = z.im;
    }
}

/// Output of the first pass: `[k₁][n₂]`. Rows are one element longer than necessary, because with a power of two they
/// would all be mapped to the same few sets of the level-1 cache.
type Between = [[Wide; POINTS + 1]; REAL_BINS];

/// Tables of the window and of twiddle factors.
struct Tables {
    window: [f32; N_FFT],
    /// Twiddle factors `exp(-2πi j k / 64)` for k = 1 to 3, `[j][k - 1]`.
    inner_real: [[Complex32; 3]; EIGHT],
    /// Twiddle factors `exp(-2πi j k / 32)` for k = 1 to 3, `[j][k - 1]`.
    inner: [[Complex32; FOUR - 1]; EIGHT],
    /// Twiddle factors `exp(-2πi n₂ k₁ / 2048)`, `[n₂][k₁]`.
    outer: [[Complex32; REAL_BINS]; POINTS],
}

impl Tables {
    fn new(window: &[f64]) -> Self {
        // A window that is shorter than the transform is followed by zeros.
        let weight = |i: usize| window.get(i).map_or(0.0, |w| *w as f32);
        Self {
            window: std::array::from_fn(weight),
            inner_real: std::array::from_fn(|j| {
                std::array::from_fn(|k| turn(j * (k + 1), REAL_POINTS))
            }),
            inner: std::array::from_fn(|j| std::array::from_fn(|k| turn(j * (k + 1), POINTS))),
            outer: std::array::from_fn(|n| std::array::from_fn(|k| turn(n * k, N_FFT))),
        }
    }
}

/// Returns `exp(-2πi step / n)`.
fn turn(step: usize, n: usize) -> Complex32 {
    let angle = 2.0 * PI * step as f64 / n as f64;
    Complex32::new(libm::cos(angle) as f32, -libm::sin(angle) as f32)
}

/// Buffers for intermediate values between two steps.
#[repr(align(64))]
struct Scratch {
    /// Windowed samples n₂ + 32 n₁ of the frames for a group of n₂, `[n₁][n₂]`.
    samples: [[Sample; GROUP]; REAL_POINTS],
    /// Values between the two passes of a real transform: k = 0 and k = 4, which are real, and k = 1 to 3.
    even: [Lane; EIGHT],
    odd: [Lane; EIGHT],
    real: [[Wide; EIGHT]; 3],
    bins: [Wide; REAL_BINS],
    /// Values between the two passes of a complex transform.
    complex: [[Wide; EIGHT]; FOUR],
    /// Power spectrum at two adjacent values of k₁, indexed `[k₂][k₁]`.
    powers: [[Lane; 2]; POINTS],
}

/// Computes the power spectra of eight frames at once.
pub(super) struct EightFrames {
    tables: Box<Tables>,
    scratch: Box<Scratch>,
    between: Box<Between>,
}

impl EightFrames {
    /// Creates tables and buffers. `window` has at most [`N_FFT`] values.
    pub(super) fn new(window: &[f64]) -> Self {
        Self {
            tables: Box::new(Tables::new(window)),
            scratch: Box::new(Scratch {
                samples: [[[f32x4::ZERO; LANES / 4]; GROUP]; REAL_POINTS],
                even: [[0.0; LANES]; EIGHT],
                odd: [[0.0; LANES]; EIGHT],
                real: [[Wide::ZERO; EIGHT]; 3],
                bins: [Wide::ZERO; REAL_BINS],
                complex: [[Wide::ZERO; EIGHT]; FOUR],
                powers: [[[0.0; LANES]; 2]; POINTS],
            }),
            between: Box::new([[Wide::ZERO; POINTS + 1]; REAL_BINS]),
        }
    }

    /// Computes `|X[k]|²` of the windowed frames, for k = 0 ..= 1024. The first frame begins at `samples[0]`, each
    /// following frame `hop` samples later.
    #[inline(always)]
    pub(super) fn powers(&mut self, samples: &[f32], hop: usize, out: &mut [Lane; N_BINS]) {
        let tables = &*self.tables;
        let scratch = &mut *self.scratch;
        let between = &mut *self.between;

        let frames = std::array::from_fn(|lane| &samples[lane * hop..][..N_FFT]);
        for first in (0..POINTS).step_by(GROUP) {
            load(frames, first, &tables.window, &mut scratch.samples);
            for place in 0..GROUP {
                real_64(scratch, tables, place, first + place, between);
            }
        }

        // Two neighbours at a time, so that whole cache lines are written.
        for k in (0..REAL_BINS - 1).step_by(2) {
            complex_32(&between[k], &tables.inner, scratch, 0);
            complex_32(&between[k + 1], &tables.inner, scratch, 1);
            let (lower, upper) = scratch.powers.split_at(POINTS / 2);
            for (k2, pair) in lower.iter().enumerate() {
                out[k + REAL_POINTS * k2] = pair[0];
                out[k + REAL_POINTS * k2 + 1] = pair[1];
            }
            // Bins above the middle are the conjugates of the mirrored bins.
            for (k2, pair) in upper.iter().enumerate() {
                let mirrored = N_FFT / 2 - REAL_POINTS * k2 - k;
                out[mirrored] = pair[0];
                out[mirrored - 1] = pair[1];
            }
        }

        // The last row is its own mirror image, and no other row remains to be computed with it.
        let k = REAL_BINS - 1;
        complex_32(&between[k], &tables.inner, scratch, 0);
        for (k2, pair) in scratch.powers[..POINTS / 2].iter().enumerate() {
            out[k + REAL_POINTS * k2] = pair[0];
        }
    }
}

/// Loads the windowed samples n₂ + 32 n₁ of the group that begins with n₂ = `first`, transposed so that frames are
/// lanes.
#[inline(always)]
fn load(
    frames: [&[f32]; LANES],
    first: usize,
    window: &[f32; N_FFT],
    samples: &mut [[Sample; GROUP]; REAL_POINTS],
) {
    for (n1, group) in samples.iter_mut().enumerate() {
        let at = first + POINTS * n1;
        let window = fours(&window[at..at + GROUP]);
        let frames = frames.map(|frame| fours(&frame[at..at + GROUP]));

        // Transpose four samples of each frame to four frames of each sample.
        for (i, four) in group.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let w = f32x4::from(window[i]);
            let [a, b, c, d, e, f, g, h] = frames.map(|frame| f32x4::from(frame[i]) * w);
            let lower = f32x4::transpose([a, b, c, d]);
            let upper = f32x4::transpose([e, f, g, h]);
            for (sample, of_frames) in four.iter_mut().zip(lower.into_iter().zip(upper)) {
                *sample = of_frames.into();
            }
        }
    }
}

/// Splits a slice of samples into groups of four.
#[inline(always)]
fn fours(samples: &[f32]) -> &[[f32; 4]] {
    samples.as_chunks().0
}

/// Computes the real transform of the samples at `place` in their group, multiplied by the twiddle factors of n₂ = `n`,
/// and writes it to column `n`.
///
/// It has two passes, like the whole transform: real transforms of 8 points, then complex ones, k = k₁ + 8 k₂.
#[inline(always)]
fn real_64(s: &mut Scratch, tables: &Tables, place: usize, n: usize, out: &mut Between) {
    let samples: &[[Lane; GROUP]; REAL_POINTS] = bytemuck::must_cast_ref(&s.samples);
    for j in 0..EIGHT {
        let [w1, w2, w3] = tables.inner_real[j];
        let points: [&Lane; EIGHT] = std::array::from_fn(|m| &samples[j + EIGHT * m][place]);
        for l in 0..LANES {
            let (first, [z1, z2, z3], last) = real_8(points.map(|point| point[l]));
            s.even[j][l] = first;
            s.odd[j][l] = last;
            s.real[0][j].set(l, times(z1, w1));
            s.real[1][j].set(l, times(z2, w2));
            s.real[2][j].set(l, times(z3, w3));
        }
    }

    let w = &tables.outer[n];
    for l in 0..LANES {
        let (first, [z1, z2, z3], last) = real_8(std::array::from_fn(|j| s.even[j][l]));
        s.bins[0].set(l, Complex32::new(first, 0.0));
        s.bins[8].set(l, times(z1, w[8]));
        s.bins[16].set(l, times(z2, w[16]));
        s.bins[24].set(l, times(z3, w[24]));
        s.bins[32].set(l, Complex32::new(last * w[32].re, last * w[32].im));
    }
    for l in 0..LANES {
        let [z0, z1, z2, z3] = odd_8(std::array::from_fn(|j| s.odd[j][l]));
        s.bins[4].set(l, times(z0, w[4]));
        s.bins[12].set(l, times(z1, w[12]));
        s.bins[20].set(l, times(z2, w[20]));
        s.bins[28].set(l, times(z3, w[28]));
    }
    column::<1>(&s.real[0], w, &mut s.bins);
    column::<2>(&s.real[1], w, &mut s.bins);
    column::<3>(&s.real[2], w, &mut s.bins);

    for (row, bin) in out.iter_mut().zip(&s.bins) {
        row[n] = *bin;
    }
}

/// Computes bins K + 8 k₂ of a real transform; the upper half is stored as conjugates.
#[inline(always)]
fn column<const K: usize>(
    z: &[Wide; EIGHT],
    w: &[Complex32; REAL_BINS],
    out: &mut [Wide; REAL_BINS],
) {
    for l in 0..LANES {
        let y = complex_8(std::array::from_fn(|j| z[j].get(l)));
        out[K].set(l, times(y[0], w[K]));
        out[K + 8].set(l, times(y[1], w[K + 8]));
        out[K + 16].set(l, times(y[2], w[K + 16]));
        out[K + 24].set(l, times(y[3], w[K + 24]));
        out[32 - K].set(l, times(y[4].conj(), w[32 - K]));
        out[24 - K].set(l, times(y[5].conj(), w[24 - K]));
        out[16 - K].set(l, times(y[6].conj(), w[16 - K]));
        out[8 - K].set(l, times(y[7].conj(), w[8 - K]));
    }
}

/// Computes the powers of the complex transform of `z` and stores them at index `place` of their pairs. It has two
/// passes, k = k₁ + 4 k₂.
#[inline(always)]
fn complex_32(
    z: &[Wide; POINTS + 1],
    w: &[[Complex32; FOUR - 1]; EIGHT],
    s: &mut Scratch,
    place: usize,
) {
    for j in 0..EIGHT {
        let [w1, w2, w3] = w[j];
        for l in 0..LANES {
            let y = complex_4([
                z[j].get(l),
                z[j + 8].get(l),
                z[j + 16].get(l),
                z[j + 24].get(l),
            ]);
            s.complex[0][j].set(l, y[0]);
            s.complex[1][j].set(l, times(y[1], w1));
            s.complex[2][j].set(l, times(y[2], w2));
            s.complex[3][j].set(l, times(y[3], w3));
        }
    }

    for k in 0..FOUR {
        let z = &s.complex[k];
        for l in 0..LANES {
            let y = complex_8(std::array::from_fn(|j| z[j].get(l)));
            for (k2, y) in y.into_iter().enumerate() {
                s.powers[k + FOUR * k2][place][l] = y.re * y.re + y.im * y.im;
            }
        }
    }
}

#[inline(always)]
fn times(z: Complex32, w: Complex32) -> Complex32 {
    Complex32::new(z.re * w.re - z.im * w.im, z.re * w.im + z.im * w.re)
}

/// Returns `a - ib`.
#[inline(always)]
fn minus_i(a: Complex32, b: Complex32) -> Complex32 {
    Complex32::new(a.re + b.im, a.im - b.re)
}

/// Returns `a + ib`.
#[inline(always)]
fn plus_i(a: Complex32, b: Complex32) -> Complex32 {
    Complex32::new(a.re - b.im, a.im + b.re)
}

/// Cosine of π / 4, and cosine and sine of π / 8.
const HALF_ROOT: f32 = FRAC_1_SQRT_2 as f32;
const COS_EIGHTH: f32 = 0.923_879_5;
const SIN_EIGHTH: f32 = 0.382_683_43;

#[inline(always)]
fn complex_4(z: [Complex32; 4]) -> [Complex32; 4] {
    let a = z[0] + z[2];
    let b = z[0] - z[2];
    let c = z[1] + z[3];
    let d = z[1] - z[3];
    [a + c, minus_i(b, d), a - c, plus_i(b, d)]
}

#[inline(always)]
fn complex_8(z: [Complex32; 8]) -> [Complex32; 8] {
    let e = complex_4([z[0], z[2], z[4], z[6]]);
    let o = complex_4([z[1], z[3], z[5], z[7]]);
    // Products with exp(-iπ / 4) and with its cube; the imaginary part of the latter is negated.
    let a = Complex32::new(
        (o[1].re + o[1].im) * HALF_ROOT,
        (o[1].im - o[1].re) * HALF_ROOT,
    );
    let b = Complex32::new(
        (o[3].im - o[3].re) * HALF_ROOT,
        (o[3].re + o[3].im) * HALF_ROOT,
    );
    [
        e[0] + o[0],
        e[1] + a,
        minus_i(e[2], o[2]),
        Complex32::new(e[3].re + b.re, e[3].im - b.im),
        e[0] - o[0],
        e[1] - a,
        plus_i(e[2], o[2]),
        Complex32::new(e[3].re - b.re, e[3].im + b.im),
    ]
}

/// Returns bins 0, 1 to 3, and 4 of real samples.
#[inline(always)]
fn real_8(x: [f32; 8]) -> (f32, [Complex32; 3], f32) {
    let a = x[0] + x[4];
    let b = x[2] + x[6];
    let c = x[1] + x[5];
    let d = x[3] + x[7];
    let [z1, z3] = odd_4([x[0] - x[4], x[1] - x[5], x[2] - x[6], x[3] - x[7]]);
    let z2 = Complex32::new(a - b, d - c);
    ((a + b) + (c + d), [z1, z2, z3], (a + b) - (c + d))
}

/// Returns `Σ x[j] exp(-2πi j (1 + 2k) / 8)` of real x, for k = 0 and 1; the other bins are their conjugates.
#[inline(always)]
fn odd_4(x: [f32; 4]) -> [Complex32; 2] {
    let a = (x[1] - x[3]) * HALF_ROOT;
    let b = (x[1] + x[3]) * HALF_ROOT;
    [
        Complex32::new(x[0] + a, -x[2] - b),
        Complex32::new(x[0] - a, x[2] - b),
    ]
}

/// Returns `Σ x[j] exp(-2πi j (1 + 2k) / 16)` of real x, for k = 0 to 3; the other bins are their conjugates.
#[inline(always)]
fn odd_8(x: [f32; 8]) -> [Complex32; 4] {
    let [e0, e1] = odd_4([x[0], x[2], x[4], x[6]]);
    let [o0, o1] = odd_4([x[1], x[3], x[5], x[7]]);
    let a = times(o0, Complex32::new(COS_EIGHTH, -SIN_EIGHTH));
    let b = times(o1, Complex32::new(SIN_EIGHTH, -COS_EIGHTH));
    [e0 + a, e1 + b, (e1 - b).conj(), (e0 - a).conj()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stft::window;
    use wavemill_options::Window;
    use wavemill_signal::{Lanes, Level};

    /// Allowed error relative to the largest power. Each of about ten successive additions of the transform has an
    /// error of up to 6e-8 of an amplitude, and power doubles that.
    const OF_MAX: f64 = 1e-6;

    fn noise(n: usize, mut state: u32) -> Vec<f32> {
        let mut samples = Vec::with_capacity(n);
        for _ in 0..n {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            samples.push((state >> 8) as f32 / 8_388_608.0 - 1.0);
        }
        samples
    }

    /// Computes the powers of eight consecutive frames of `samples`.
    fn powers(samples: &[f32], window: &[f64], level: Level) -> Vec<Lane> {
        let lanes = Lanes::new(level).unwrap();
        let mut out = Box::new([[0.0; LANES]; N_BINS]);
        let mut fft = EightFrames::new(window);
        lanes.run(
            #[inline(always)]
            || fft.powers(samples, N_FFT, &mut out),
        );
        out.to_vec()
    }

    #[test]
    fn powers_match_the_formula() {
        for win_length in [N_FFT, 1001] {
            let window = window::values(Window::Hann, win_length);
            let samples = noise(LANES * N_FFT, 3);
            let got = powers(&samples, &window, Level::detect());

            let cosines: Vec<f64> = (0..N_FFT)
                .map(|i| libm::cos(2.0 * PI * i as f64 / N_FFT as f64))
                .collect();
            for lane in [0, 5] {
                let frame = &samples[lane * N_FFT..][..N_FFT];
                let mut want = Vec::with_capacity(N_BINS);
                for k in 0..N_BINS {
                    let (mut re, mut im) = (0.0, 0.0);
                    for (i, (x, w)) in frame.iter().zip(&window).enumerate() {
                        // A sine is a cosine shifted by three quarters of a turn.
                        re += f64::from(*x) * w * cosines[i * k % N_FFT];
                        im += f64::from(*x) * w * cosines[(i * k + N_FFT * 3 / 4) % N_FFT];
                    }
                    want.push(re * re + im * im);
                }

                let largest = want.iter().fold(0.0f64, |a, b| a.max(*b));
                for (k, want) in want.into_iter().enumerate() {
                    let error = (f64::from(got[k][lane]) - want).abs();
                    assert!(
                        error <= OF_MAX * largest,
                        "bin {k}: {} of {want}",
                        got[k][lane]
                    );
                }
            }
        }
    }

    #[test]
    fn frames_are_independent_and_levels_agree() {
        let window = window::values(Window::Hann, N_FFT);
        let mut samples = noise(LANES * N_FFT, 9);
        let beside_noise = powers(&samples, &window, Level::detect());
        assert_eq!(beside_noise, powers(&samples, &window, Level::Scalar));

        // Fill all frames with loud samples, except for a silent one and a quiet one.
        for lane in 0..LANES {
            let frame = &mut samples[lane * N_FFT..][..N_FFT];
            match lane {
                2 => frame.fill(0.0),
                5 => {}
                _ => frame.fill(32_768.0),
            }
        }
        let beside_loud = powers(&samples, &window, Level::detect());
        for (k, (noise, loud)) in beside_noise.iter().zip(&beside_loud).enumerate() {
            assert_eq!(loud[2], 0.0, "bin {k} of silence");
            assert_eq!(loud[5].to_bits(), noise[5].to_bits(), "bin {k}");
        }
    }
}
