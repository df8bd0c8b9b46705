//! The CPU's resampler, which uses the overlap-save method.
//!
//! Two neighbouring real blocks are stored as the real and imaginary part of one complex block. The filter has zero
//! phase, so its spectrum is real, the two blocks never mix, and no packing of half spectra is needed.

use std::f64::consts::PI;
use std::sync::Arc;

use wavemill_fft::num_complex::Complex32;
use wavemill_fft::{Fft, FftDirection};

use super::ResampleError;
use super::args::{PASS_BAND, Ratio, ResampleArgs, STOP_BAND_DB};
use super::phases::{InputRange, Phases};
use crate::level::{Lanes, Level};
use crate::samples::SampleBuffer;

/// Minimum number of samples in a block: below this, overlap and calls cost more than the shorter FFT saves.
const BLOCK_SAMPLES_MIN: usize = 4_096;

/// Longest common period of the two rates, in input samples, for which blocks are used. Common audio rates up to 192 kHz
/// have at most 1,280 (96,000 to 11,025 Hz); longer periods would make blocks and plans that cost more than a short clip.
const PERIOD_SAMPLES_MAX: usize = 2_048;

/// A resampler for one pair of sample rates. After planning, only the caller's output buffer is allocated.
pub struct Resampler {
    args: ResampleArgs,
    method: Method,
    n_in: u64,
    n_out: u64,
}

/// Method of converting the sample rate.
enum Method {
    /// Copies the samples, for equal sample rates.
    Copy,
    /// Resamples blocks of samples with an FFT.
    Blocks(Box<Blocks>),
    /// Computes each output sample separately.
    Phases(Box<Phases>),
}

impl ResampleArgs {
    /// Creates tables, FFT plans and buffers.
    ///
    /// # Errors
    /// [`ResampleError::Rate`] for rates out of range, [`ResampleError::Level`] if the machine does not support the
    /// level.
    pub fn plan(self, level: Level) -> Result<Resampler, ResampleError> {
        self.validate()?;
        let method = if self.from_hz == self.to_hz {
            Method::Copy
        } else if self.has_blocks() {
            Method::Blocks(Box::new(Blocks::new(self, level)?))
        } else {
            let lanes = Lanes::new(level).ok_or(ResampleError::Level { level })?;
            Method::Phases(Box::new(Phases::new(self, lanes)))
        };

        Ok(Resampler {
            args: self,
            method,
            n_in: 0,
            n_out: 0,
        })
    }

    /// Returns the taps of the filter at the input rate, from the centre to the right end. The filter is symmetric.
    pub fn taps(self) -> Vec<f64> {
        let filter = Filter::new(self);
        (0..=filter.half_len())
            .map(|n| filter.at(n as f64))
            .collect()
    }

    /// Reports whether the common period of the two rates is short enough for blocks.
    fn has_blocks(self) -> bool {
        self.ratio().down <= PERIOD_SAMPLES_MAX
    }

    /// Returns the largest number of samples that one push can output in addition to those determined by its own input:
    /// two blocks.
    pub fn step_len(&self) -> usize {
        if self.from_hz == self.to_hz || !self.has_blocks() {
            return 0;
        }
        2 * Layout::new(*self, &Filter::new(*self)).hop_out
    }

    /// Returns the number of input samples after which a [`Resampler`] has output at least `n_out` samples: the samples
    /// themselves, the filter's reach after them, and the rest of their blocks. Later input does not change these
    /// `n_out` samples.
    pub fn input_len(&self, n_out: u64) -> u64 {
        if self.from_hz == self.to_hz || n_out == 0 {
            return n_out;
        }
        if !self.has_blocks() {
            return InputRange::new(&Filter::new(*self)).input_len(*self, n_out);
        }

        // Blocks are converted in pairs. The first pair needs all of its samples except for the zeros before the
        // signal. Each further pair needs two more hops.
        let blocks = Layout::new(*self, &Filter::new(*self));
        let pairs = n_out.div_ceil(2 * blocks.hop_out as u64);
        let first_pair = blocks.len + blocks.hop - blocks.pad;
        first_pair as u64 + (pairs - 1) * 2 * blocks.hop as u64
    }
}

impl Resampler {
    /// Returns the sample rates of input and output.
    pub const fn args(&self) -> ResampleArgs {
        self.args
    }

    /// Takes any number of input samples and appends the output samples that they determine to `out`.
    ///
    /// Output is produced in steps of a few thousand samples; the division of the input into calls does not change a
    /// bit of it.
    pub fn push(&mut self, input: &[f32], out: &mut SampleBuffer) {
        self.n_in += input.len() as u64;
        let before = out.len();
        match &mut self.method {
            Method::Copy => out.extend_from_slice(input),
            Method::Blocks(blocks) => blocks.push(input, out),
            Method::Phases(phases) => phases.push(input, out),
        }
        self.n_out += (out.len() - before) as u64;
    }

    /// Appends the remaining output, as if zeros followed the input, and resets the resampler. The total is `ceil(n *
    /// to_hz / from_hz)` samples.
    pub fn finish(&mut self, out: &mut SampleBuffer) {
        let wanted = self.args.output_len(self.n_in);
        // Append zeros until all of the output has been produced.
        while self.n_out < wanted {
            let before = out.len();
            match &mut self.method {
                // With equal rates, the output is already as long as the input.
                Method::Copy => break,
                Method::Blocks(blocks) => blocks.push_end(out),
                Method::Phases(phases) => phases.push_end(out),
            }
            self.n_out += (out.len() - before) as u64;
        }

        // Output is produced in whole steps, so there may be more than required.
        out.truncate(out.len() - (self.n_out - wanted) as usize);
        self.reset();
    }

    /// Discards all previous input, so that a new signal can begin.
    pub fn reset(&mut self) {
        self.n_in = 0;
        self.n_out = 0;
        match &mut self.method {
            Method::Copy => {}
            Method::Blocks(blocks) => blocks.reset(),
            Method::Phases(phases) => phases.reset(),
        }
    }
}

/// Two overlapping blocks that are converted together.
struct Blocks {
    /// Input of both blocks: the first begins at 0, the second at `hop`; `span` samples when full.
    pending: Vec<f32>,
    span: usize,
    /// Number of input samples between the starts of two blocks, and number of output samples computed from them.
    hop: usize,
    hop_out: usize,
    /// Number of zeros before the first sample, and of samples that the filter makes invalid at each end of a block.
    pad: usize,
    pad_out: usize,
    /// Spectrum of the filter including the scaling of both FFTs, from bin 0 to the last bin below the lower Nyquist
    /// frequency.
    filter: Vec<f32>,
    forward: Arc<dyn Fft<f32>>,
    inverse: Arc<dyn Fft<f32>>,
    spectrum: Vec<Complex32>,
    output: Vec<Complex32>,
    scratch: Vec<Complex32>,
}

/// Returns the sizes of blocks of `len` samples; the fields are those of [`Blocks`].
struct Layout {
    len: usize,
    pad: usize,
    hop: usize,
    hop_out: usize,
}

impl Layout {
    fn new(args: ResampleArgs, filter: &Filter) -> Self {
        let Ratio { down, up } = args.ratio();
        let n_taps = filter.half_len() + 1;

        // Every block must begin at a sample that exists at both rates, which is a multiple of `down`.
        let pad = n_taps.next_multiple_of(down);
        let len_min = BLOCK_SAMPLES_MIN.max(8 * n_taps).max(4 * pad);
        let len = down * len_min.div_ceil(down).next_power_of_two();

        // The filter makes `pad` samples on each side of a block invalid. The remaining samples are the hop.
        let hop = len - 2 * pad;
        Self {
            len,
            pad,
            hop,
            hop_out: hop / down * up,
        }
    }
}

impl Blocks {
    fn new(args: ResampleArgs, level: Level) -> Result<Self, ResampleError> {
        let Ratio { down, up } = args.ratio();
        let filter = Filter::new(args);
        let Layout {
            len,
            pad,
            hop,
            hop_out,
        } = Layout::new(args, &filter);
        let len_out = len / down * up;

        let taps = args.taps();
        // Only bins below the lower Nyquist frequency are kept. All others are in the stop band.
        let n_bins = len.min(len_out).div_ceil(2);

        let FftPair { forward, inverse } = FftPair::plan(level, len, len_out)?;
        let scratch_len = forward
            .get_inplace_scratch_len()
            .max(inverse.get_inplace_scratch_len());

        let mut blocks = Self {
            pending: Vec::with_capacity(len + hop),
            span: len + hop,
            hop,
            hop_out,
            pad,
            pad_out: pad / down * up,
            filter: filter_spectrum(&taps, len, n_bins),
            forward,
            inverse,
            spectrum: vec![Complex32::default(); len],
            output: vec![Complex32::default(); len_out],
            scratch: vec![Complex32::default(); scratch_len],
        };
        blocks.reset();
        Ok(blocks)
    }

    fn reset(&mut self) {
        self.pending.clear();
        self.pending.resize(self.pad, 0.0);
    }

    fn push(&mut self, input: &[f32], out: &mut SampleBuffer) {
        let mut rest = input;
        while !rest.is_empty() {
            // Take as many samples as the current pair of blocks still needs.
            let (now, later) = rest.split_at(rest.len().min(self.missing()));
            self.pending.extend_from_slice(now);
            self.convert_if_full(out);
            rest = later;
        }
    }

    /// Appends zeros up to the end of a block.
    fn push_end(&mut self, out: &mut SampleBuffer) {
        self.pending.resize(self.span, 0.0);
        self.convert_if_full(out);
    }

    fn missing(&self) -> usize {
        self.span - self.pending.len()
    }

    fn convert_if_full(&mut self, out: &mut SampleBuffer) {
        if self.missing() > 0 {
            return;
        }

        // The first block becomes the real parts, the second one the imaginary parts.
        for ((bin, &re), &im) in self
            .spectrum
            .iter_mut()
            .zip(&self.pending)
            .zip(&self.pending[self.hop..])
        {
            *bin = Complex32 { re, im };
        }

        self.forward
            .process_with_scratch(&mut self.spectrum, &mut self.scratch);
        self.filter_bins();
        self.inverse
            .process_with_scratch(&mut self.output, &mut self.scratch);

        // A transform treats a block as periodic, so near its ends the filter has mixed in samples of the other end.
        // Only the samples between them are used.
        let valid = &self.output[self.pad_out..][..self.hop_out];
        out.extend(valid.iter().map(|sample| sample.re));
        out.extend(valid.iter().map(|sample| sample.im));

        // The next pair of blocks starts with the end of this pair.
        self.pending.copy_within(2 * self.hop.., 0);
        self.pending.truncate(self.span - 2 * self.hop);
    }

    /// Copies bins `0..n` and their mirror images from the input's to the output's spectrum, multiplied by the filter,
    /// and clears the output's other bins.
    fn filter_bins(&mut self) {
        let n = self.filter.len();
        let len = self.spectrum.len();
        let len_out = self.output.len();

        // The output's spectrum may be longer or shorter than the input's; both contain these bins.
        for ((to, from), gain) in self.output.iter_mut().zip(&self.spectrum).zip(&self.filter) {
            *to = from * gain;
        }
        self.output[n..len_out - n + 1].fill(Complex32::default());

        // The negative frequencies are at the end of a spectrum.
        let mirrored = self.output[len_out - n + 1..]
            .iter_mut()
            .zip(&self.spectrum[len - n + 1..]);
        for ((to, from), gain) in mirrored.zip(self.filter[1..].iter().rev()) {
            *to = from * gain;
        }
    }
}

/// Transforms of a block: forward at the input rate, inverse at the output rate.
struct FftPair {
    forward: Arc<dyn Fft<f32>>,
    inverse: Arc<dyn Fft<f32>>,
}

impl FftPair {
    /// Plans transforms for the given level, whatever other instructions the machine supports.
    fn plan(level: Level, len: usize, len_out: usize) -> Result<Self, ResampleError> {
        let forward = level.fft_plan(len, FftDirection::Forward);
        let inverse = level.fft_plan(len_out, FftDirection::Inverse);
        Ok(Self {
            forward: forward.ok_or(ResampleError::Level { level })?,
            inverse: inverse.ok_or(ResampleError::Level { level })?,
        })
    }
}

/// The filter at the input rate: a sinc with its cutoff between pass band and stop band, with a Kaiser window.
///
/// Length and window shape after Kaiser (1974), as in Oppenheim and Schafer, Discrete-Time Signal Processing, 7.6.
pub struct Filter {
    cutoff: f64,
    half: f64,
    beta: f64,
    window_at_centre: f64,
}

impl Filter {
    /// Computes the filter of a conversion.
    pub fn new(args: ResampleArgs) -> Self {
        let from_hz = f64::from(args.from_hz);
        let stop = f64::from(args.from_hz.min(args.to_hz)) / 2.0 / from_hz;
        let width = stop * (1.0 - PASS_BAND);
        let cutoff = stop * (1.0 + PASS_BAND) / 2.0;

        // Kaiser's formulas for an attenuation and the width of the transition band.
        let beta = 0.1102 * (STOP_BAND_DB - 8.7);
        let half = (STOP_BAND_DB - 7.95) / (2.0 * 14.36 * width);
        Self {
            cutoff,
            half,
            beta,
            window_at_centre: bessel_i0(beta),
        }
    }

    /// Returns the distance from the centre to the end of the filter, in whole input samples.
    pub fn half_len(&self) -> usize {
        self.half as usize
    }

    /// Returns the distance from the centre to the end of the filter, in input samples with a fraction.
    pub(super) fn half(&self) -> f64 {
        self.half
    }

    /// Returns the filter's value at its centre.
    pub(super) fn height(&self) -> f64 {
        2.0 * self.cutoff
    }

    /// Returns the filter's value `n` input samples from its centre; 0 beyond its end.
    pub fn at(&self, n: f64) -> f64 {
        let x = n / self.half;
        if x.abs() > 1.0 {
            return 0.0;
        }

        let window = bessel_i0(self.beta * (1.0 - x * x).sqrt()) / self.window_at_centre;
        let t = n * PI;
        // At the centre, the window is 1 and the sinc has a limit.
        if n == 0.0 {
            2.0 * self.cutoff
        } else {
            window * libm::sin(2.0 * self.cutoff * t) / t
        }
    }
}

/// Modified Bessel function of the first kind, order 0, by its power series.
fn bessel_i0(x: f64) -> f64 {
    let mut sum = 1.0;
    let mut term = 1.0;
    let mut k = 1.0;
    // When a term no longer changes the sum, the later terms do not either, because they are smaller.
    while term > sum * 1e-17 {
        term *= (x / (2.0 * k)) * (x / (2.0 * k));
        sum += term;
        k += 1.0;
    }
    sum
}

/// Returns the first `n_bins` bins of the symmetric filter's DFT of length `len`, divided by `len`. The spectrum is
/// real.
///
/// An unnormalised pair of transforms multiplies by the forward length, also if the output is shorter or longer.
fn filter_spectrum(half: &[f64], len: usize, n_bins: usize) -> Vec<f32> {
    // The angle of tap n in bin k is k · n steps on a circle of `len` steps, so one table contains all cosines.
    let cosine: Vec<f64> = (0..len)
        .map(|k| libm::cos(2.0 * PI * k as f64 / len as f64))
        .collect();

    let mut bins = Vec::with_capacity(n_bins);
    for k in 0..n_bins {
        let mut phase = 0;
        let mut sum = half[0];
        for tap in &half[1..] {
            phase = (phase + k) % len;
            sum += 2.0 * tap * cosine[phase];
        }
        bins.push((sum / len as f64) as f32);
    }
    bins
}
