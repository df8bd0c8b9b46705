//! Transforms eight frames of each octave, and multiplies their bins by the octave's filters.

use std::f64::consts::PI;
use std::ops::Range;
use std::sync::Arc;

use wavemill_fft::num_complex::Complex32;
use wavemill_fft::{Fft, FftDirection};
use wavemill_options::{ConstantQArgs, FeatureArgs, Framing, Octave, PadMode, StftArgs, Window};
use wavemill_signal::{LANES, Lane, Lanes, SampleBuffer};

use super::HALF;
use super::basis::{Basis, Filter};
use crate::chroma::TuningPlan;
use crate::resample::Resampler;
use crate::stft::{Signal, StftPlan, fft_plan};

/// Frames beyond the ends of a signal contain zeros.
const FRAMING: Framing = Framing::Center(PadMode::Constant);

/// Zeros that follow the samples.
const ZEROS: [f32; 1024] = [0.0; 1024];

/// Tables and buffers of one constant-Q transform.
pub(crate) struct ConstantQPlan {
    args: ConstantQArgs,
    sample_rate_hz: u32,
    hop_length: usize,
    lanes: Lanes,
    /// Estimate of the tuning, if it is not given.
    estimate: Option<Estimate>,
    /// The tuning for which the tables below are made.
    tuning: Option<f64>,
    octaves: Vec<OctavePlan>,
    ffts: Vec<FrameFft>,
    halver: Resampler,
    /// The clip at half its sample rate, at a quarter, and so on.
    halved: Vec<SampleBuffer>,
    /// Bins that an octave's filters read, for eight frames.
    spectrum: Vec<Bin>,
    powers: Vec<Lane>,
}

/// Spectra from which the tuning is estimated.
struct Estimate {
    stft: StftArgs,
    plan: StftPlan,
    tuning: TuningPlan,
    magnitudes: Vec<Lane>,
}

/// The filters of an octave, and the frames that they are applied to.
struct OctavePlan {
    octave: Octave,
    basis: Basis,
    /// Index in [`ConstantQPlan::ffts`].
    fft: usize,
}

/// A bin of eight frames.
#[derive(Clone, Copy, Default)]
struct Bin {
    re: Lane,
    im: Lane,
}

impl ConstantQPlan {
    /// Plans the transform of a feature; `None` if the feature is computed from other values.
    pub(crate) fn new(feature: &FeatureArgs, lanes: Lanes) -> Option<Self> {
        let args = feature.constant_q()?.clone();
        let rate_hz = feature.sample_rate_hz;
        let estimate = args
            .tuning
            .is_none()
            .then(|| Estimate::new(args.bins_per_octave, rate_hz, lanes));

        Some(Self {
            sample_rate_hz: rate_hz,
            hop_length: feature.stft.hop_length,
            lanes,
            estimate,
            tuning: None,
            octaves: Vec::new(),
            ffts: Vec::new(),
            halver: HALF
                .plan(lanes.level())
                .expect("the rates are in range, and the machine supports the level"),
            halved: Vec::new(),
            spectrum: Vec::new(),
            powers: vec![[0.0; LANES]; args.n_bins],
            args,
        })
    }

    /// Returns the bytes that a plan needs for a signal of `n_samples` samples: the signal at all halved rates, and
    /// peaks of spectra for an estimate of the tuning.
    pub(crate) fn scratch_bytes(
        args: &ConstantQArgs,
        sample_rate_hz: u32,
        n_samples: usize,
    ) -> usize {
        let peaks = match args.tuning {
            Some(_) => 0,
            None => {
                let stft = tuning_stft();
                TuningPlan::peak_bytes(sample_rate_hz, stft.n_fft) * stft.n_frames(n_samples)
            }
        };
        n_samples * size_of::<f32>() + peaks
    }

    /// Returns the approximate bytes of the filters and of the buffers of a plan. The estimate is never much too low.
    pub(crate) fn plan_bytes(
        args: &ConstantQArgs,
        sample_rate_hz: u32,
        hop_length: usize,
    ) -> usize {
        let octaves = args.octaves(sample_rate_hz, hop_length, args.tuning.unwrap_or(-0.5));
        let filters = octaves.iter().map(|octave| octave.n_fft * octave.hz.len());
        let longest = octaves.iter().map(|octave| octave.n_fft).max();
        // Coefficients of half the bins, and buffers of eight frames and of their bins.
        4 * filters.sum::<usize>() + 128 * longest.unwrap_or(0)
    }

    /// Frees the memory whose size depends on the clip.
    pub(crate) fn forget_scratch(&mut self) {
        self.halved.fill_with(SampleBuffer::default);
        if let Some(estimate) = &mut self.estimate {
            estimate.tuning.forget_scratch();
        }
    }

    /// Prepares a clip: its tuning, and its samples at all rates.
    pub(crate) fn start(&mut self, signal: Signal) {
        let tuning = match &mut self.estimate {
            Some(estimate) => estimate.run(signal, self.lanes),
            None => self.args.tuning.unwrap_or(0.0),
        };
        if self.tuning != Some(tuning) {
            self.make_tables(tuning);
            self.tuning = Some(tuning);
        }

        let mut len = signal.len;
        for level in 0..self.halved.len() {
            let (done, rest) = self.halved.split_at_mut(level);
            let samples = done.last().map_or(signal.pcm, |samples| &samples[..]);
            let halved = &mut rest[0];
            halved.clear();
            self.halver.push(samples, halved);
            // Frames may be padded with zeros beyond the samples, where the filter still has an output.
            for n_zeros in chunks_of(len - samples.len()) {
                self.halver.push(&ZEROS[..n_zeros], halved);
            }
            self.halver.finish(halved);
            len = len.div_ceil(2);
        }
    }

    /// Computes the filters for a tuning.
    fn make_tables(&mut self, tuning: f64) {
        let octaves = self
            .args
            .octaves(self.sample_rate_hz, self.hop_length, tuning);
        let n_halvings = octaves.last().map_or(0, |octave| octave.n_halvings);
        self.halved
            .resize_with(n_halvings as usize, SampleBuffer::default);
        self.octaves.clear();
        for octave in octaves {
            let basis = self.basis_of(&octave);
            let fft = self.fft_of(octave.n_fft);
            self.octaves.push(OctavePlan { octave, basis, fft });
        }

        let widest = self.octaves.iter().map(|plan| plan.basis.bins.len()).max();
        self.spectrum.resize(widest.unwrap_or(0), Bin::default());
    }

    /// Returns the filters of the octave below those that are planned already.
    fn basis_of(&self, octave: &Octave) -> Basis {
        let above = self.octaves.last().filter(|above| {
            self.args.gamma == Some(0.0)
                && above.octave.n_fft == octave.n_fft
                && above.octave.hz.len() == octave.hz.len()
                && above.octave.n_halvings + 1 == octave.n_halvings
        });
        match above {
            Some(above) => above.basis.halved(),
            None => {
                let rate_hz = f64::from(self.sample_rate_hz) / f64::from(1 << octave.n_halvings);
                Basis::new(octave, rate_hz, self.lanes.level())
            }
        }
    }

    /// Returns the index of the transform of a length, which is added if necessary.
    fn fft_of(&mut self, n_fft: usize) -> usize {
        let found = self.ffts.iter().position(|fft| fft.n_fft == n_fft);
        found.unwrap_or_else(|| {
            self.ffts.push(FrameFft::new(n_fft, self.lanes));
            self.ffts.len() - 1
        })
    }

    /// Returns the powers of frames `first .. first + count` (`count` ≤ [`LANES`]) as `[n_bins]` of eight frames. Lanes
    /// after `count` contain finite but meaningless values.
    pub(crate) fn block(&mut self, signal: Signal, first: usize, count: usize) -> &[Lane] {
        for OctavePlan { octave, basis, fft } in &self.octaves {
            let halved = (octave.n_halvings as usize).checked_sub(1);
            let samples = halved.map_or(signal.pcm, |at| &self.halved[at]);
            let len = halved.map_or(signal.len, |at| self.halved[at].len());
            let signal = Signal { pcm: samples, len };
            let spectrum = &mut self.spectrum[..basis.bins.len()];
            let fft = &mut self.ffts[*fft];
            fft.run(signal, octave.hop_length, first..first + count);

            let powers = &mut self.powers[octave.first_bin..][..basis.filters.len()];
            self.lanes.run(
                #[inline(always)]
                || {
                    fft.separate(basis.bins.clone(), spectrum);
                    for (filter, power) in basis.filters.iter().zip(powers) {
                        let skipped = filter.first_bin - basis.bins.start;
                        *power = apply(filter, &spectrum[skipped..]);
                    }
                },
            );
        }
        &self.powers
    }
}

/// Divides a number of zeros into parts of at most the length of [`ZEROS`].
fn chunks_of(n: usize) -> impl Iterator<Item = usize> {
    let starts = (0..n).step_by(ZEROS.len());
    starts.map(move |start| ZEROS.len().min(n - start))
}

/// Returns the powers of a filter's output for eight frames. The first bin is the filter's first.
#[inline(always)]
fn apply(filter: &Filter, bins: &[Bin]) -> Lane {
    let mut sum = Bin::default();
    for (c, bin) in filter.coefficients.iter().zip(bins) {
        for lane in 0..LANES {
            sum.re[lane] += c.re * bin.re[lane] - c.im * bin.im[lane];
            sum.im[lane] += c.re * bin.im[lane] + c.im * bin.re[lane];
        }
    }
    std::array::from_fn(|lane| sum.re[lane] * sum.re[lane] + sum.im[lane] * sum.im[lane])
}

/// Returns the arguments of the spectra from which librosa estimates a tuning.
fn tuning_stft() -> StftArgs {
    StftArgs {
        n_fft: 2048,
        hop_length: 512,
        win_length: 2048,
        window: Window::Hann,
        framing: FRAMING,
        scale: 1,
        remove_dc: false,
        preemphasis: 0.0,
        n_samples: None,
        drop_last_frame: false,
    }
}

impl Estimate {
    fn new(bins_per_octave: usize, sample_rate_hz: u32, lanes: Lanes) -> Self {
        let stft = tuning_stft();
        Self {
            plan: StftPlan::new(&stft, false, lanes),
            tuning: TuningPlan::new(bins_per_octave, sample_rate_hz, stft.n_fft, lanes),
            magnitudes: vec![[0.0; LANES]; stft.n_bins()],
            stft,
        }
    }

    /// Returns the tuning of a clip in bins.
    fn run(&mut self, signal: Signal, lanes: Lanes) -> f64 {
        let n_frames = self.stft.n_frames(signal.len);
        self.tuning.start(n_frames);
        for first in (0..n_frames).step_by(LANES) {
            let count = LANES.min(n_frames - first);
            let powers = self.plan.block(signal, first, count);
            lanes.run(
                #[inline(always)]
                || {
                    for (magnitude, power) in self.magnitudes.iter_mut().zip(powers) {
                        *magnitude = power.map(f32::sqrt);
                    }
                },
            );
            self.tuning.add(&self.magnitudes, count);
        }
        self.tuning.estimate()
    }
}

/// Transforms eight real frames without a window, as complex numbers of an even and an odd sample.
struct FrameFft {
    n_fft: usize,
    fft: Arc<dyn Fft<f32>>,
    /// Halves of the twiddle factors `exp(-2πik / n)`, for k = 0 ..= n / 2.
    twiddles: Vec<Complex32>,
    /// Copy of a frame's samples that cannot be read from the signal directly.
    frame: Vec<f32>,
    /// Transforms of pairs, `[LANES, n / 2]`.
    pairs: Vec<Complex32>,
    scratch: Vec<Complex32>,
}

impl FrameFft {
    /// Plans a transform of `n_fft` samples, an even number.
    fn new(n_fft: usize, lanes: Lanes) -> Self {
        let n_pairs = n_fft / 2;
        let fft = fft_plan::<f32>(n_pairs, lanes.level(), FftDirection::Forward)
            .expect("a plan of this level was made where AVX and FMA are");

        let twiddle = |k: usize| {
            let angle = 2.0 * PI * k as f64 / n_fft as f64;
            Complex32::new(
                (0.5 * libm::cos(angle)) as f32,
                (-0.5 * libm::sin(angle)) as f32,
            )
        };

        let zero = Complex32::default();
        Self {
            n_fft,
            twiddles: (0..=n_pairs).map(twiddle).collect(),
            frame: vec![0.0; n_fft],
            pairs: vec![zero; LANES * n_pairs],
            scratch: vec![zero; fft.get_inplace_scratch_len()],
            fft,
        }
    }

    /// Transforms frames whose middles are `hop_length` samples apart, at most eight.
    fn run(&mut self, signal: Signal, hop_length: usize, frames: Range<usize>) {
        let n_pairs = self.n_fft / 2;
        let (rows, rest) = self.pairs.split_at_mut(frames.len() * n_pairs);
        rest.fill(Complex32::default());
        for (frame, row) in frames.zip(rows.chunks_exact_mut(n_pairs)) {
            let start = (frame * hop_length) as isize - (self.n_fft / 2) as isize;
            let samples = signal.read(start, FRAMING, &mut self.frame);
            for (pair, z) in samples.as_chunks::<2>().0.iter().zip(row) {
                *z = Complex32::new(pair[0], pair[1]);
            }
        }
        self.fft
            .process_with_scratch(&mut self.pairs, &mut self.scratch);
    }

    /// Computes bins of the real transforms from those of pairs, as in [`crate::stft`].
    #[inline(always)]
    fn separate(&self, bins: Range<usize>, out: &mut [Bin]) {
        let m = self.n_fft / 2;
        for (lane, z) in self.pairs.chunks_exact(m).enumerate() {
            for (k, out) in bins.clone().zip(&mut *out) {
                let (a, b) = (z[k % m], z[(m - k) % m]);
                let w = self.twiddles[k];
                let even = Complex32::new(0.5 * (a.re + b.re), 0.5 * (a.im - b.im));
                let odd = Complex32::new(a.im + b.im, b.re - a.re);
                out.re[lane] = even.re + (w.re * odd.re - w.im * odd.im);
                out.im[lane] = even.im + (w.re * odd.im + w.im * odd.re);
            }
        }
    }
}
