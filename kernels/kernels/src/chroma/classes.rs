//! Adds up the bins of a constant-Q transform that belong to the same pitch class.
//!
//! Source: `librosa.feature.chroma_cqt`, version 0.11, with its defaults of `librosa.filters.cq_to_chroma`.

use wavemill_options::{ChromaCqArgs, FeatureArgs, Op};
use wavemill_signal::{LANES, Lane, Lanes};

use super::norm::{Norm, normalize_frames};
use super::tonnetz::TonnetzPlan;

/// Part of the energy of a frame that a pitch class exceeds to reach the next step of its quantized energy.
const STEPS: [f32; 4] = [0.4, 0.2, 0.1, 0.05];
/// Increase of the quantized energy with each step.
const STEP_WEIGHT: f32 = 0.25;
/// The note A4 in Hz, and its number in MIDI.
const A4_HZ: f64 = 440.0;
const A4_MIDI: f64 = 69.0;

/// Computes pitch classes, or values of them, from the magnitudes of eight frames.
pub(crate) struct ClassesPlan {
    lanes: Lanes,
    /// Pitch class of each bin.
    classes: Vec<usize>,
    values: ClassValues,
    /// Buffer for the pitch classes.
    chroma: Vec<Lane>,
}

/// The values that are computed from the sums of the pitch classes.
enum ClassValues {
    /// Energies relative to the strongest one.
    Relative,
    /// Energies in steps, as parts of their sum.
    Quantized,
    /// Tonal centroids of the relative energies.
    Centroids(TonnetzPlan),
}

impl ClassesPlan {
    /// Plans a feature; `None` if it is not computed from pitch classes.
    pub(crate) fn new(feature: &FeatureArgs, lanes: Lanes) -> Option<Self> {
        let args = feature.chroma_cq()?;
        let values = match (args.win_len_smooth, feature.op) {
            (Some(_), _) => ClassValues::Quantized,
            (None, Op::Tonnetz) => ClassValues::Centroids(TonnetzPlan::new(args.n_chroma)),
            (None, _) => ClassValues::Relative,
        };
        Some(Self {
            lanes,
            classes: classes(args),
            values,
            chroma: vec![[0.0; LANES]; args.n_chroma],
        })
    }

    /// Computes the values of eight frames from the magnitudes of their bins.
    pub(crate) fn run(&mut self, magnitudes: &[Lane], out: &mut [Lane]) {
        let Self {
            classes,
            chroma,
            values,
            ..
        } = self;

        let mut norms = [0.0; LANES];
        self.lanes.run(
            #[inline(always)]
            || {
                add_bins(classes, magnitudes, chroma);

                let all = chroma.as_flattened_mut();
                match values {
                    ClassValues::Relative => normalize_frames(all, &mut norms, Norm::Max),
                    ClassValues::Quantized => {
                        normalize_frames(all, &mut norms, Norm::Sum);
                        all.iter_mut().for_each(|x| *x = quantized(*x));
                    }
                    ClassValues::Centroids(plan) => {
                        normalize_frames(all, &mut norms, Norm::Max);
                        // The plan writes its own values, so nothing is left to copy.
                        return plan.run(all, &mut norms, out.as_flattened_mut());
                    }
                }
                out.copy_from_slice(chroma);
            },
        );
    }
}

#[inline(always)]
fn add_bins(classes: &[usize], magnitudes: &[Lane], chroma: &mut [Lane]) {
    chroma.fill([0.0; LANES]);
    for (class, magnitudes) in classes.iter().zip(magnitudes) {
        for (sum, magnitude) in chroma[*class].iter_mut().zip(magnitudes) {
            *sum += magnitude;
        }
    }
}

#[inline(always)]
fn quantized(part: f32) -> f32 {
    let mut sum = 0.0;
    for step in STEPS {
        sum += if part > step { STEP_WEIGHT } else { 0.0 };
    }
    sum
}

/// Returns the pitch class of each bin, from C: `librosa.filters.cq_to_chroma`.
pub(super) fn classes(args: &ChromaCqArgs) -> Vec<usize> {
    let ChromaCqArgs {
        constant_q,
        n_chroma,
        ..
    } = args;
    let n_merged = constant_q.bins_per_octave / n_chroma;
    let midi = 12.0 * libm::log2(constant_q.fmin / A4_HZ) + A4_MIDI;
    let first = midi.rem_euclid(12.0) * (*n_chroma as f64 / 12.0);
    let first = first.round_ties_even() as usize;

    // A pitch class has as many bins below its frequency as above.
    let class = |bin: usize| ((bin + n_merged / 2) / n_merged + first) % n_chroma;
    (0..constant_q.n_bins).map(class).collect()
}
