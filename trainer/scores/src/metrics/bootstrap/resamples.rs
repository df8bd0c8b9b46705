//! Draws resamples on all cores, and takes percentiles of their scores.

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use wavemill_schemas::exit::PlainError;
use wavemill_schemas::rng::{Rng, mix};

use super::{Draws, Interval, RESAMPLES};

/// Number of resamples that a thread computes at a time.
const PART: usize = 50;

/// Computes the scores of every resample, in the order of the resamples, on as many threads as there are cores.
///
/// # Errors
/// [`PlainError`] if `stop` becomes true.
pub(super) fn resample(
    draws: &Draws,
    figures: usize,
    stop: &AtomicBool,
    values: impl Fn(&[u32]) -> Vec<f64> + Sync,
) -> Result<Vec<Vec<f64>>, PlainError> {
    let units = draws.units as usize;
    let mut out = vec![vec![f64::NAN; figures]; RESAMPLES];
    // Each part goes to the first free thread. All parts have the same length, so `part * PART + i` is the number of a
    // resample.
    let parts = Mutex::new(out.chunks_mut(PART).enumerate());
    let work = || {
        let mut weights = vec![0_u32; units];
        loop {
            let next = parts.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((part, chunk)) = next else {
                return;
            };
            for (i, slot) in chunk.iter_mut().enumerate() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let number = (part * PART + i) as u64;
                // Each resample has its own random numbers, which do not depend on the thread or on earlier resamples.
                let mut rng = Rng::new(mix("bootstrap", &[draws.seed, number]));

                weights.fill(0);
                for _ in 0..units {
                    weights[rng.below(units as u64) as usize] += 1;
                }
                *slot = values(&weights);
            }
        }
    };

    let n_threads = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 1..n_threads {
            // If no further thread can be started, those that are running do all the work.
            if thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
    if stop.load(Ordering::Relaxed) {
        return Err(PlainError::failed("stopped"));
    }
    Ok(out)
}

/// Returns the score `value` with the percentiles of `resamples`, which may contain NaN; `None` if the score is
/// undefined.
pub(super) fn interval(value: f64, resamples: impl Iterator<Item = f64>) -> Option<Interval> {
    let mut sorted: Vec<f64> = resamples.filter(|x| !x.is_nan()).collect();
    sorted.sort_by(f64::total_cmp);
    if value.is_nan() || sorted.is_empty() {
        return None;
    }
    Some(Interval {
        value,
        low: quantile(&sorted, 0.025),
        high: quantile(&sorted, 0.975),
    })
}

/// Returns a quantile by linear interpolation between the two nearest values, the default of `numpy.quantile`.
pub(super) fn quantile(sorted: &[f64], q: f64) -> f64 {
    // `sorted` has indices 0 to n − 1, so both nearest values exist for every q from 0 to 1.
    let at = q * (sorted.len() - 1) as f64;
    let below = sorted[at.floor() as usize];
    let above = sorted[at.ceil() as usize];
    below + (above - below) * at.fract()
}

/// Returns one score of every resample.
pub(super) fn column(resamples: &[Vec<f64>], figure: usize) -> impl Iterator<Item = f64> {
    resamples.iter().map(move |figures| figures[figure])
}
