//! Computes the values of one feature from blocks of a shared spectrum, and the finished tensor from the values.

use wavemill_options::{DimOrder, FeatureArgs, ShapeArgs};
use wavemill_signal::{LANES, Lane, Lanes};

use super::bands::{self, BandsPlan};
use crate::beats::BeatPlan;
use crate::chroma::{CensPlan, ChromaPlan};
use crate::contrast;
use crate::db::LogPlan;
use crate::delta;
use crate::error::KernelError;
use crate::mfcc::MfccPlan;
use crate::normalize::normalize;
use crate::onset::OnsetPlan;
use crate::tempogram::TempogramPlan;

/// Tables and buffers of one feature on the CPU.
pub(super) struct FeaturePlan {
    args: FeatureArgs,
    lanes: Lanes,
    /// Plan of the bands; `None` if the bands are the bins of the spectrum.
    bands_plan: Option<BandsPlan>,
    log: LogPlan,
    reduction: Reduction,
    /// Number of frames of the current clip, before cropping.
    n_frames: usize,
    /// Buffer for the bands of a block.
    bands: Vec<Lane>,
    /// Buffer for a whole clip: bands before the reduction, or the tensor before its axes are swapped.
    spare: Vec<f32>,
}

/// Step from the logarithm of the bands to the values.
enum Reduction {
    /// The bands are the values.
    None,
    /// The cosine transform of log mel bands.
    Cosine(MfccPlan),
    /// Increases of log mel bands.
    Onset(OnsetPlan),
    /// Autocorrelation of these increases.
    Tempogram(Box<TempogramPlan>),
    /// Beats at these increases.
    Beats(Box<BeatPlan>),
    /// Pitch classes of the bins of the spectrum.
    Chroma(ChromaPlan),
    /// Energies of pitch classes, smoothed over frames.
    Cens(CensPlan),
    /// Peaks minus valleys, each with a logarithm of its own.
    Difference,
}

impl FeaturePlan {
    pub(super) fn new(args: &FeatureArgs, lanes: Lanes) -> Self {
        let bands_plan = bands::plan(args, lanes);
        let n_bands = match &bands_plan {
            Some(_) => args.n_spectrum_bands(),
            None => 0,
        };

        let (rate_hz, stft) = (args.sample_rate_hz, &args.stft);
        let cens = CensPlan::new(args, lanes).map(Reduction::Cens);
        let reduction = match (&args.mfcc, &args.shape) {
            (Some(mfcc), _) => Reduction::Cosine(MfccPlan::new(mfcc, n_bands, lanes)),
            (None, Some(ShapeArgs::Onset(onset))) => Reduction::Onset(OnsetPlan::new(onset, stft)),
            (None, Some(ShapeArgs::Tempogram(tempogram))) => {
                Reduction::Tempogram(Box::new(TempogramPlan::new(tempogram, stft, lanes)))
            }
            (None, Some(ShapeArgs::Beats(beats))) => {
                Reduction::Beats(Box::new(BeatPlan::new(beats, args, lanes)))
            }
            (None, Some(ShapeArgs::Chroma(chroma))) => {
                Reduction::Chroma(ChromaPlan::new(chroma, rate_hz, stft.n_fft, lanes))
            }
            (None, Some(ShapeArgs::Contrast(_))) => Reduction::Difference,
            (None, _) => cens.unwrap_or(Reduction::None),
        };

        Self {
            lanes,
            bands_plan,
            log: LogPlan::new(args.log, args.power, lanes),
            reduction,
            n_frames: 0,
            bands: vec![[0.0; LANES]; n_bands],
            spare: Vec::new(),
            args: args.clone(),
        }
    }

    /// Allocates memory for the values of a clip with `n_frames` frames.
    pub(super) fn start(&mut self, n_frames: usize, out: &mut Vec<f32>) {
        self.n_frames = n_frames;

        // Deltas are later appended to the values in the same memory.
        make_room(out, self.args.n_bands() * n_frames);
        out.resize(self.args.n_base_bands() * n_frames, 0.0);

        if self.args.is_reduced() {
            let n_kept_frames = match self.reduction {
                // Whole blocks of frames are kept.
                Reduction::Chroma(_) => n_frames.next_multiple_of(LANES),
                _ => n_frames,
            };
            let n_kept = n_kept_frames * self.args.n_spectrum_bands();
            make_room(&mut self.spare, n_kept);
            self.spare.resize(n_kept, 0.0);
        }
        if let Reduction::Chroma(chroma) = &mut self.reduction {
            chroma.start(n_frames);
        }
    }

    /// Frees the memory whose size depends on the clip.
    pub(super) fn forget_scratch(&mut self) {
        self.spare = Vec::new();
        match &mut self.reduction {
            Reduction::Chroma(chroma) => chroma.forget_scratch(),
            Reduction::Cens(cens) => cens.forget_scratch(),
            Reduction::Tempogram(tempogram) => tempogram.forget_scratch(),
            Reduction::Beats(beats) => beats.forget_scratch(),
            _ => {}
        }
    }

    /// Computes bands from `count` frames of the spectrum raised to the feature's power, starting with frame `first`.
    pub(super) fn block(&mut self, spectrum: &[Lane], first: usize, count: usize, out: &mut [f32]) {
        let rows = match &mut self.bands_plan {
            Some(plan) => {
                plan(spectrum, &mut self.bands);
                &self.bands
            }
            None => spectrum,
        };

        // The logarithm may be relative to the largest value of the clip. Therefore a reduction has to wait for all
        // bands, which are stored separately from the output until then.
        let whole = match &mut self.reduction {
            Reduction::None => out,
            Reduction::Chroma(chroma) => {
                return chroma.block(rows, first, count, &mut self.spare);
            }
            _ => &mut self.spare[..],
        };

        // A lane contains eight frames of one band; a row of the values contains all frames of one band.
        for (row, lane) in whole.chunks_exact_mut(self.n_frames).zip(rows) {
            row[first..first + count].copy_from_slice(&lane[..count]);
        }
    }

    /// Applies the steps that need the whole clip: logarithm, cosine transform, deltas, crop. Other features may be
    /// derived from the values in `out` after this call. Returns their number of frames.
    pub(super) fn finish_values(&mut self, out: &mut Vec<f32>) -> Result<usize, KernelError> {
        match &mut self.reduction {
            Reduction::None => self.log.run(out),
            Reduction::Cosine(mfcc) => {
                self.log.run(&mut self.spare);
                mfcc.run(&self.spare, self.n_frames, out);
            }
            Reduction::Onset(onset) => {
                self.log.run(&mut self.spare);
                onset.run(&self.spare, self.n_frames, out);
            }
            Reduction::Tempogram(tempogram) => {
                self.log.run(&mut self.spare);
                tempogram.run(&self.spare, self.n_frames, out);
            }
            Reduction::Beats(beats) => {
                self.log.run(&mut self.spare);
                beats.run(&self.spare, self.n_frames, out);
            }
            Reduction::Chroma(chroma) => chroma.run(&self.spare, self.n_frames, out),
            Reduction::Cens(cens) => cens.run(&self.spare, self.n_frames, out),
            Reduction::Difference => {
                let (peaks, valleys) = self.spare.split_at_mut(out.len());
                self.log.run(peaks);
                self.log.run(valleys);
                contrast::difference(&self.spare, out);
            }
        }

        // Deltas depend on neighbouring frames, so they are computed before cropping. Normalization depends only on the
        // frames that remain after cropping.
        delta::append(out, self.n_frames, self.args.delta)?;
        let kept = self
            .args
            .frames
            .map_or(self.n_frames, |frames| frames.min(self.n_frames));
        crop(out, self.n_frames, kept);
        Ok(kept)
    }

    /// Converts values to the stored tensor: normalization, order of the axes. `kept` is the number of frames.
    pub(super) fn finish_tensor(&mut self, kept: usize, out: &mut [f32]) {
        normalize(out, self.args.normalize, self.lanes);

        // Swap the axes last, so that sums over the values are added in the same order for both layouts.
        if self.args.dim_order == DimOrder::FrameBand {
            make_room(&mut self.spare, out.len());
            self.spare.clear();
            self.spare.extend_from_slice(out);
            swap_axes(&self.spare, kept, out);
        }
    }
}

/// Allocates exactly the required capacity: growth by doubling uses up to twice as much, and three times while copying.
fn make_room(values: &mut Vec<f32>, n: usize) {
    if values.capacity() < n {
        *values = Vec::new();
        values.reserve_exact(n);
    }
}

/// Keeps the first `kept` of `n_frames` frames in each row.
fn crop(values: &mut Vec<f32>, n_frames: usize, kept: usize) {
    if kept == n_frames {
        return;
    }

    let n_rows = values.len() / n_frames;
    // Rows move towards the start in order, so that none overwrites a row that has not moved yet.
    for row in 1..n_rows {
        values.copy_within(row * n_frames..row * n_frames + kept, row * kept);
    }
    values.truncate(n_rows * kept);
}

/// Transposes `[rows, columns]` to `[columns, rows]`.
fn swap_axes(values: &[f32], columns: usize, out: &mut [f32]) {
    if columns == 0 {
        return;
    }

    let n_rows = values.len() / columns;
    for (at, row) in values.chunks_exact(columns).enumerate() {
        for (column, value) in row.iter().enumerate() {
            out[column * n_rows + at] = *value;
        }
    }
}
