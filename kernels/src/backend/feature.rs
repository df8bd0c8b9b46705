//! Computes the values of one feature from blocks of a shared spectrum, and the finished tensor from the values.

use wavemill_options::{DimOrder, FeatureArgs};

use super::bands::{self, BandsPlan};
use crate::db::LogPlan;
use crate::delta;
use crate::error::KernelError;
use crate::lane::{LANES, Lane};
use crate::level::Lanes;
use crate::mfcc::MfccPlan;
use crate::normalize::normalize;

/// Tables and buffers of one feature on the CPU.
pub(super) struct FeaturePlan {
    args: FeatureArgs,
    lanes: Lanes,
    /// Plan of the bands; `None` if the bands are the bins of the spectrum.
    bands_plan: Option<BandsPlan>,
    log: LogPlan,
    mfcc: Option<MfccPlan>,
    /// Number of frames of the current clip, before cropping.
    n_frames: usize,
    /// Buffers for a block of the spectrum raised to `power`, and for the block's bands.
    raised: Vec<Lane>,
    bands: Vec<Lane>,
    /// Buffer for a whole clip: log mel bands before the cosine transform, or the tensor before its axes are swapped.
    spare: Vec<f32>,
}

impl FeaturePlan {
    pub(super) fn new(args: &FeatureArgs, lanes: Lanes) -> Self {
        let n_bins = args.stft.n_bins();
        // The spectrum already consists of powers, so an exponent of 2 needs no copy of it.
        let n_raised = if args.power == 2.0 { 0 } else { n_bins };

        let bands_plan = bands::plan(args, lanes);
        let n_bands = match &bands_plan {
            Some(_) => args.n_spectrum_bands(),
            None => 0,
        };
        let mfcc = args
            .mfcc
            .as_ref()
            .map(|mfcc| MfccPlan::new(mfcc, n_bands, lanes));
        Self {
            lanes,
            bands_plan,
            log: LogPlan::new(args.log, args.power, lanes),
            mfcc,
            n_frames: 0,
            raised: vec![[0.0; LANES]; n_raised],
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

        if self.mfcc.is_some() {
            make_room(&mut self.spare, self.bands.len() * n_frames);
            self.spare.resize(self.bands.len() * n_frames, 0.0);
        }
    }

    /// Frees the memory whose size depends on the clip.
    pub(super) fn forget_scratch(&mut self) {
        self.spare = Vec::new();
    }

    /// Computes bands from `count` frames of the power spectrum, starting with frame `first`.
    pub(super) fn block(&mut self, power: &[Lane], first: usize, count: usize, out: &mut [f32]) {
        // Other features read the same spectrum, so another exponent is applied to a copy.
        let spectrum = if self.args.power == 2.0 {
            power
        } else {
            let exponent = self.args.power;
            self.lanes.run(
                #[inline(always)]
                || raise(power, exponent, &mut self.raised),
            );
            &self.raised
        };

        let rows = match &self.bands_plan {
            Some(plan) => {
                plan(spectrum, &mut self.bands);
                &self.bands
            }
            None => spectrum,
        };

        // The logarithm may be relative to the largest value of the clip. Therefore the cosine transform has to wait
        // for all bands, which are stored separately from the output until then.
        let whole = if self.mfcc.is_some() {
            &mut self.spare[..]
        } else {
            out
        };

        // A lane contains eight frames of one band; a row of the values contains all frames of one band.
        for (row, lane) in whole.chunks_exact_mut(self.n_frames).zip(rows) {
            row[first..first + count].copy_from_slice(&lane[..count]);
        }
    }

    /// Applies the steps that need the whole clip: logarithm, cosine transform, deltas, crop. Other features may be
    /// derived from the values in `out` after this call. Returns their number of frames.
    pub(super) fn finish_values(&mut self, out: &mut Vec<f32>) -> Result<usize, KernelError> {
        match &mut self.mfcc {
            Some(mfcc) => {
                self.log.run(&mut self.spare);
                mfcc.run(&self.spare, self.n_frames, out);
            }
            None => self.log.run(out),
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

/// Converts powers to magnitudes raised to `exponent`.
#[inline(always)]
fn raise(power: &[Lane], exponent: f64, out: &mut [Lane]) {
    for (lane, out) in power.iter().zip(out) {
        *out = if exponent == 1.0 {
            lane.map(f32::sqrt)
        } else {
            lane.map(|x| libm::pow(f64::from(x), exponent / 2.0) as f32)
        };
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
