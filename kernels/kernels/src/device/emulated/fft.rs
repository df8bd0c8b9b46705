//! Computes the batched transforms of the emulated device with rustfft instead of cuFFT.

use std::sync::Arc;

use wavemill_fft::num_complex::Complex;
use wavemill_fft::{Fft, FftDirection, Float};

use super::memory::EmulatedBuffer;
use crate::device::{Plain, sample_numbers, spectrum_step};
use crate::error::KernelError;

/// A planned batch of transforms.
pub(crate) enum EmulatedFft {
    /// Transforms in f32.
    Narrow(Batch<f32>),
    /// Transforms in f64.
    Wide(Batch<f64>),
}

impl EmulatedFft {
    pub(super) fn new(n: usize, count: usize, wide: bool) -> Self {
        if wide {
            Self::Wide(Batch::new(n, count))
        } else {
            Self::Narrow(Batch::new(n, count))
        }
    }

    pub(super) fn run(
        &self,
        input: &EmulatedBuffer,
        output: &mut EmulatedBuffer,
    ) -> Result<(), KernelError> {
        match self {
            Self::Narrow(batch) => batch.run(input, output),
            Self::Wide(batch) => batch.run(input, output),
        }
    }
}

/// A batch of `count` transforms of `n` samples, computed as complex transforms, which is simple but slow.
pub(crate) struct Batch<T> {
    n: usize,
    count: usize,
    fft: Arc<dyn Fft<T>>,
}

impl<T: Float + Plain> Batch<T> {
    /// Plans the portable transform, so that the bits do not depend on the machine.
    fn new(n: usize, count: usize) -> Self {
        Self {
            n,
            count,
            fft: T::portable(n, FftDirection::Forward),
        }
    }

    fn run(&self, input: &EmulatedBuffer, output: &mut EmulatedBuffer) -> Result<(), KernelError> {
        let n_numbers = sample_numbers(self.n);
        let mut samples = vec![T::zero(); self.n * n_numbers * self.count];
        input.read(&mut samples)?;

        let n_bins = spectrum_step(self.n);
        let mut spectra = Vec::with_capacity(n_bins * self.count);
        let mut scratch =
            vec![Complex::new(T::zero(), T::zero()); self.fft.get_inplace_scratch_len()];

        // Frames are transformed one by one, so that their bits do not depend on their neighbours.
        for frame in samples.chunks_exact(self.n * n_numbers) {
            let each = frame.chunks_exact(n_numbers);
            let of_sample = |numbers: &[T]| {
                Complex::new(numbers[0], numbers.get(1).copied().unwrap_or(T::zero()))
            };
            let mut buffer: Vec<_> = each.map(of_sample).collect();
            self.fft.process_with_scratch(&mut buffer, &mut scratch);
            spectra.extend_from_slice(&buffer[..n_bins]);
        }
        output.write(&spectra)
    }
}
