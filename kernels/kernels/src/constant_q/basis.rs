//! The filters of an octave: windowed complex sinusoids, as bins of their Fourier transforms.

use std::f64::consts::PI;
use std::ops::Range;

use wavemill_fft::FftDirection;
use wavemill_fft::num_complex::{Complex32, Complex64};
use wavemill_options::{Octave, Window};
use wavemill_signal::Level;

use super::SPARSITY;
use crate::stft::{fft_plan, window_values};

/// Filters of an octave.
#[derive(Clone)]
pub(super) struct Basis {
    pub(super) filters: Vec<Filter>,
    /// Bins that any of the filters reads.
    pub(super) bins: Range<usize>,
}

/// The consecutive bins of a filter that are not zero.
#[derive(Clone)]
pub(super) struct Filter {
    pub(super) first_bin: usize,
    pub(super) coefficients: Vec<Complex32>,
}

impl Basis {
    /// Computes the filters of an octave for samples at `rate_hz`, the rate after its halvings.
    pub(super) fn new(octave: &Octave, rate_hz: f64, level: Level) -> Self {
        let n_fft = octave.n_fft;
        let fft = fft_plan::<f64>(n_fft, level, FftDirection::Forward)
            .expect("a plan of this level was made where AVX and FMA are");
        let mut buffer = vec![Complex64::default(); n_fft];
        let mut scratch = vec![Complex64::default(); fft.get_inplace_scratch_len()];

        let mut filters = Vec::with_capacity(octave.hz.len());
        for (hz, length) in octave.hz.iter().zip(&octave.lengths) {
            load_wavelet(&mut buffer, *length, 2.0 * PI * hz / rate_hz);
            fft.process_with_scratch(&mut buffer, &mut scratch);

            // librosa divides by the length of the transform, and the result by the root of the filter's length. Each
            // halving of the rate multiplies samples by the root of two.
            let halved = f64::from(1 << octave.n_halvings);
            let scale = length / n_fft as f64 * (halved / length).sqrt();
            filters.push(Filter::new(&buffer[..=n_fft / 2], scale));
        }
        Self::of(filters)
    }

    /// Returns the filters of the next lower octave, if its filters are as long at half the rate.
    pub(super) fn halved(&self) -> Self {
        let mut filters = self.filters.clone();
        for coefficient in filters.iter_mut().flat_map(|f| &mut f.coefficients) {
            *coefficient *= std::f32::consts::SQRT_2;
        }
        Self::of(filters)
    }

    fn of(filters: Vec<Filter>) -> Self {
        let ends = filters.iter().map(|f| f.first_bin + f.coefficients.len());
        Self {
            bins: filters.iter().map(|f| f.first_bin).min().unwrap_or(0)..ends.max().unwrap_or(0),
            filters,
        }
    }
}

/// Writes a windowed complex sinusoid into the middle of `buffer`, with a sum of magnitudes of 1: `librosa.filters.wavelet`.
fn load_wavelet(buffer: &mut [Complex64], length: f64, step: f64) {
    let before = (length / 2.0).ceil();
    let n = (before + (length / 2.0).floor()) as usize;
    let window = window_values(Window::Hann, n);
    let sum: f64 = window.iter().sum();
    // The only value of a window of one sample is 1, and of two samples one is 0, so the sum is never 0.
    let start = (buffer.len() - n) / 2;
    buffer.fill(Complex64::default());
    for (i, (z, w)) in buffer[start..].iter_mut().zip(&window).enumerate() {
        let angle = (i as f64 - before) * step;
        *z = Complex64::new(libm::cos(angle), libm::sin(angle)) * (w / sum);
    }
}

impl Filter {
    /// Creates a filter from bins, without the smallest ones, which are [`SPARSITY`] of the sum of all magnitudes:
    /// `librosa.util.sparsify_rows`.
    fn new(bins: &[Complex64], scale: f64) -> Self {
        let magnitudes: Vec<f64> = bins.iter().map(|z| z.norm()).collect();
        let mut ascending = magnitudes.clone();
        ascending.sort_unstable_by(f64::total_cmp);
        let wanted = SPARSITY * magnitudes.iter().sum::<f64>();
        let mut sum = 0.0;
        let least = ascending.iter().find(|magnitude| {
            sum += **magnitude;
            sum >= wanted
        });
        let least = least.copied().unwrap_or(0.0);

        let is_kept = |bin: &usize| magnitudes[*bin] >= least;
        let first_bin = (0..bins.len()).find(is_kept).unwrap_or(0);
        let last_bin = (0..bins.len()).rfind(is_kept).unwrap_or(0);
        let coefficient = |bin: usize| {
            let z = bins[bin] * if is_kept(&bin) { scale } else { 0.0 };
            Complex32::new(z.re as f32, z.im as f32)
        };
        Self {
            first_bin,
            coefficients: (first_bin..=last_bin).map(coefficient).collect(),
        }
    }
}
