//! Plans of the kinds of derived features: statistics, tempo and pictures.

use wavemill_options::{Derived, FeatureArgs};
use wavemill_signal::Lanes;

use crate::picture::PicturePlan;
use crate::statistics::StatisticsPlan;
use crate::tempo::TempoPlan;

/// Tables and buffers of one derived feature.
pub(super) enum DerivedPlan {
    /// Plan of [`Derived::Statistics`].
    Statistics(StatisticsPlan),
    /// Plan of [`Derived::Tempo`].
    Tempo(TempoPlan),
    /// Plan of [`Derived::Picture`].
    Picture(PicturePlan),
}

impl DerivedPlan {
    /// Creates the plan of `derived`, the operation of `args` on its source.
    pub(super) fn new(derived: &Derived, args: &FeatureArgs, lanes: Lanes) -> Self {
        match derived {
            Derived::Tempo(tempo) => Self::Tempo(TempoPlan::new(tempo, args, args.n_base_bands())),
            Derived::Statistics => Self::Statistics(StatisticsPlan::new(lanes)),
            Derived::Picture(args) => Self::Picture(PicturePlan::new(args, lanes)),
        }
    }

    /// Returns the number of f32 values in the plan's buffers for a clip of `n_samples` samples, without the values of
    /// the source feature and of the derived feature.
    pub(super) fn n_scratch_values(args: &FeatureArgs, n_samples: usize) -> usize {
        match &args.derived {
            None | Some(Derived::Tempo(_)) => 0,
            // Buffer for the sorted frames of one band.
            Some(Derived::Statistics) => args.n_frames(n_samples),
            Some(Derived::Picture(picture)) => {
                let width = picture.width.unwrap_or(args.n_frames(n_samples));
                PicturePlan::n_scratch_values(width)
            }
        }
    }

    /// Computes the derived tensor from the source feature's values, `[bands, n_frames]`; empty if there are no frames.
    pub(super) fn run(&mut self, values: &[f32], n_frames: usize, out: &mut Vec<f32>) {
        match self {
            Self::Statistics(plan) => plan.run(values, n_frames, out),
            Self::Tempo(plan) => plan.run(values, n_frames, out),
            Self::Picture(plan) => plan.run(values, n_frames, out),
        }
    }

    /// Frees the memory whose size depends on the clip.
    pub(super) fn forget_scratch(&mut self) {
        match self {
            Self::Statistics(plan) => plan.forget_scratch(),
            Self::Tempo(_) => {}
            Self::Picture(plan) => plan.forget_scratch(),
        }
    }
}
