//! What is made of a feature's values: the plans of all operations that start from them.

use wavemill_options::{Derived, FeatureArgs};

use crate::level::Lanes;
use crate::picture::PicturePlan;
use crate::statistics::StatisticsPlan;

/// Tables and buffers of one derived feature.
pub(super) enum DerivedPlan {
    /// See [`Derived::Statistics`].
    Statistics(StatisticsPlan),
    /// See [`Derived::Picture`].
    Picture(PicturePlan),
}

impl DerivedPlan {
    pub(super) fn new(derived: &Derived, lanes: Lanes) -> Self {
        match derived {
            Derived::Statistics => Self::Statistics(StatisticsPlan::new(lanes)),
            Derived::Picture(args) => Self::Picture(PicturePlan::new(args, lanes)),
        }
    }

    /// f32 values that it holds beside the source's and its own while it computes a clip of `n_samples` samples.
    pub(super) fn n_scratch_values(args: &FeatureArgs, n_samples: usize) -> usize {
        match &args.derived {
            None => 0,
            // The frames of one band, put in order.
            Some(Derived::Statistics) => args.n_frames(n_samples),
            Some(Derived::Picture(picture)) => {
                let width = picture.width.unwrap_or(args.n_frames(n_samples));
                PicturePlan::n_scratch_values(width)
            }
        }
    }

    /// Makes a tensor of the source's values, `[bands, n_frames]`; nothing of no frames.
    pub(super) fn run(&mut self, values: &[f32], n_frames: usize, out: &mut Vec<f32>) {
        match self {
            Self::Statistics(plan) => plan.run(values, n_frames, out),
            Self::Picture(plan) => plan.run(values, n_frames, out),
        }
    }

    /// Gives up the memory that grew with a clip.
    pub(super) fn forget_scratch(&mut self) {
        match self {
            Self::Statistics(plan) => plan.forget_scratch(),
            Self::Picture(plan) => plan.forget_scratch(),
        }
    }
}
