//! The resamplers of one thread: a limited number, even if an archive has many rates.

use super::{ResampleArgs, ResampleError, Resampler};
use crate::level::Level;

/// Maximum number of cached plans. Archives have two or three rates; one with thousands of rates plans for each clip,
/// which takes about a millisecond, and caches plans of at most four megabytes in total.
pub const PLANS_MAX: usize = 4;
/// Source rate in Hz up to which a plan takes at most a megabyte. Filters and blocks, and so the size of a plan, are
/// proportional to the source rate.
const MEGABYTE_HZ: u32 = 96_000;

/// Conversions to one rate, each planned when its source rate is first used and cached while recently used.
pub struct Resamplers {
    to_hz: u32,
    level: Level,
    /// Cached resamplers in order of use; the most recently used one is last.
    plans: Vec<Resampler>,
}

impl Resamplers {
    /// Creates a cache of conversions to `to_hz`, without any plan.
    pub const fn new(to_hz: u32, level: Level) -> Self {
        Self {
            to_hz,
            level,
            plans: Vec::new(),
        }
    }

    /// Selects the conversion from `from_hz` and returns it, ready for a new clip.
    ///
    /// # Errors
    /// As for [`ResampleArgs::plan`].
    pub fn select(&mut self, from_hz: u32) -> Result<&mut Resampler, ResampleError> {
        let known = self
            .plans
            .iter()
            .position(|plan| plan.args().from_hz == from_hz);
        let mut plan = match known {
            Some(place) => self.plans.remove(place),
            None => ResampleArgs {
                from_hz,
                to_hz: self.to_hz,
            }
            .plan(self.level)?,
        };
        // The last clip converted by this resampler may have been left unfinished.
        plan.reset();

        // Before the plan are the less recently used ones, of which the first is the least recently used.
        while self.plans.iter().map(weight).sum::<usize>() + weight(&plan) > PLANS_MAX {
            self.plans.remove(0);
        }
        self.plans.push(plan);
        let last = self.plans.len() - 1;
        Ok(&mut self.plans[last])
    }

    /// Returns the selected conversion, with the input that it has received; `None` before
    /// the first selection.
    pub fn current(&mut self) -> Option<&mut Resampler> {
        self.plans.last_mut()
    }
}

/// Returns the size of a plan as a number of plans for lower source rates.
fn weight(plan: &Resampler) -> usize {
    plan.args().from_hz.div_ceil(MEGABYTE_HZ) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::SampleBuffer;

    #[test]
    fn plan_cache_is_small_and_recreated_plans_are_equal() {
        let mut plans = Resamplers::new(22_050, Level::Scalar);
        let input: Vec<f32> = (0..9_000).map(|i| (i % 97) as f32 / 97.0).collect();

        let mut converted = Vec::new();
        for from_hz in [44_100, 8_000, 44_101, 48_000, 44_100, 32_000, 9_001, 44_100] {
            let mut out = SampleBuffer::default();
            let plan = plans.select(from_hz).expect("a rate in range");
            plan.push(&input, &mut out);
            // Leave the conversion from 8,000 Hz unfinished: its remaining input must not affect the next clip.
            if from_hz != 8_000 {
                plan.finish(&mut out);
            }
            converted.push(out.to_vec());
        }

        assert_eq!(converted.first(), converted.last());
        let kept: Vec<u32> = plans.plans.iter().map(|plan| plan.args().from_hz).collect();
        assert_eq!(kept, [48_000, 32_000, 9_001, 44_100]);
        assert!(plans.select(7_999).is_err() && plans.plans.len() == PLANS_MAX);

        // A plan for a high rate is larger, and leaves no room for others.
        for (from_hz, n_kept) in [(192_000, 3), (384_000, 1), (44_100, 1)] {
            assert!(plans.select(from_hz).is_ok());
            assert_eq!(plans.plans.len(), n_kept, "{from_hz} Hz");
        }
    }
}
